"""Perception state machine that logs each call that changes its state."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.perception.state_machine import PerceptionSetup, PerceptionStateMachine
from dexgrasp_ros.recording.decision_log import Write, checksum, plan_key, points_key

Array = NDArray[np.float64]


class LoggedPerceptionStateMachine(PerceptionStateMachine):
    """Logs calls from outside; readings are logged with the next event, because there are many."""

    def __init__(self, setup: PerceptionSetup, write: Write, settings: Any = None) -> None:
        """`write`: of a DecisionLog; `settings`: parameters of the node."""
        super().__init__(setup)
        self._write, self._inside = write, False
        self._readings: list[tuple[str, float, list[float]]] = []  # part, stamp, values, since the last event
        self._pose: Array | None = None
        write("start", settings=settings)

    def on_camera_info(self, intrinsics: Intrinsics) -> None:
        """Set the intrinsics; only changed ones are logged."""
        if intrinsics != self._intrinsics:
            self._log("camera_info", intrinsics=intrinsics)
        super().on_camera_info(intrinsics)

    def on_joint_state(self, part: str, joint_pos: Array, stamp_s: float) -> None:
        """Store joint positions."""
        if stamp_s != self._joints[part].newest_s:
            self._readings.append((part, stamp_s, joint_pos.tolist()))
        super().on_joint_state(part, joint_pos, stamp_s)

    def on_palm_pose(self, pos_w: Array, quat_w: Array, stamp_s: float) -> None:
        """Store the palm pose."""
        self._readings.append(("palm", stamp_s, [*pos_w.tolist(), *quat_w.tolist()]))
        super().on_palm_pose(pos_w, quat_w, stamp_s)

    def choose(self, target: str) -> None:
        """Collect the first view of another object."""
        super().choose(target)
        self._log("target", target=target)

    def begin(self) -> int:
        """Freeze the first view."""
        try:
            plan_id = super().begin()
        except ValueError as error:
            self._log("begin", error=str(error))
            raise
        self._log("begin", error="", plan_id=plan_id)
        return plan_id

    def on_grasp_state(self, name: str) -> None:
        """Follow the state of the grasp node."""
        try:
            super().on_grasp_state(name)
        except ValueError as error:
            self._log("grasp_state", state=name, error=str(error))
            raise
        self._log("grasp_state", state=name, error="")

    def on_depth(
        self, depth_m: NDArray[np.float32], stamp_s: float, T_world_cam: Array | None = None
    ) -> ObjectEstimate | None:
        """Use a depth image; the log has its stamp and the check sum of the pixels that are used."""
        stride = self._setup.segment.stride
        values: dict[str, Any] = {"stamp_s": stamp_s, "depth": checksum(depth_m[::stride, ::stride])}
        pose = self._setup.T_world_cam if T_world_cam is None else T_world_cam
        if self._pose is None or not np.array_equal(pose, self._pose):
            self._pose = values["pose"] = np.array(pose)
        self._inside = True
        try:
            estimate = super().on_depth(depth_m, stamp_s, T_world_cam)
        except ValueError as error:
            self._log("depth", **values, error=str(error), estimate=None)
            raise
        finally:
            self._inside = False
        self._log("depth", **values, error="", estimate=estimate_row(estimate))
        return estimate

    def move_with_palm(self) -> ObjectEstimate | None:
        """Move a held object; calls that move nothing are not logged."""
        estimate = super().move_with_palm()
        if estimate is not None and not self._inside:
            self._log("move_with_palm", estimate=estimate_row(estimate))
        return estimate

    def _log(self, call: str, **values: Any) -> None:
        readings, self._readings = self._readings, []
        self._write(call, readings=readings, **values)


def estimate_row(estimate: ObjectEstimate | None) -> dict[str, Any] | None:
    """Return what was estimated as it is logged: keys of points and plan, and the id of the plan."""
    if estimate is None:
        return None
    plan = None if estimate.plan is None else plan_key(estimate.plan)
    return {"points": points_key(estimate), "plan": plan, "plan_id": estimate.plan_id}
