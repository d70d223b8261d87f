"""Logs each call that changes the state of perception or grasp node, with inputs and result.

    ~/decisions   std_msgs/String    one JSON object per call: n (number of the event), call, its values

Numbers are written exactly. Large inputs (points, depth images) are named by stamp and check sum of the values that are
used; they are in the bag under their own topics. From the log a replay repeats every call in order, bit for bit.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp.policies.deploy.safety_gate import SafeCommand
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.approach.planned_path import PlannedPath
from dexgrasp_ros.grasping.types import Inputs, Output
from dexgrasp_ros.object_estimate import ObjectEstimate

Write = Callable[..., None]
"""Writes one event: name of the call, then its values by keyword."""


class DecisionLog:
    """Numbers the events of a node and passes them on as text."""

    def __init__(self, publish: Callable[[str], None]) -> None:
        """`publish`: sends a text."""
        self._publish, self._number = publish, 0

    def write(self, call: str, **values: Any) -> None:
        """Write one event; arrays become lists."""
        self._publish(json.dumps({"n": self._number, "call": call, **values}, default=plain))
        self._number += 1


def plain(value: Any) -> Any:
    """Return a value as JSON has it: arrays and poses as lists, dataclasses as objects."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Pose):
        return [*value.pos_m.tolist(), *value.quat.tolist()]
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    return str(value)


def checksum(*values: ArrayLike) -> int:
    """Return the CRC-32 of arrays, of their values and types."""
    found = 0
    for value in values:
        array = np.ascontiguousarray(value)
        found = zlib.crc32(array.tobytes(), zlib.crc32(array.dtype.str.encode(), found))
    return found


def points_key(estimate: ObjectEstimate) -> tuple[int, int]:
    """Return stamp [us] and check sum of points."""
    extra = np.array([estimate.visible_fraction, estimate.view_fresh], dtype=np.float32)
    return round(estimate.stamp_s * 1e6), checksum(np.asarray(estimate.points_w, dtype=np.float32), extra)


def plan_key(plan: PregraspPlan) -> int:
    """Return the check sum of a plan."""
    return checksum(*(np.asarray(getattr(plan, item.name), dtype=np.float64).ravel() for item in fields(plan)))


def inputs_row(inputs: Inputs) -> dict[str, Any]:
    """Return the inputs of a tick or request as they are logged."""
    palm = None if inputs.palm_pos_w is None else [*map(float, inputs.palm_pos_w), *map(float, inputs.palm_quat_w)]
    return {
        "now_s": inputs.now_s,
        "joints": None if inputs.joint_pos is None else np.asarray(inputs.joint_pos).tolist(),
        "joints_s": inputs.joints_stamp_s,
        "palm": palm,
        "palm_s": inputs.palm_stamp_s,
        "points": None if inputs.estimate is None else points_key(inputs.estimate),
        "plan": None if inputs.plan is None else plan_key(inputs.plan),
        "plan_s": inputs.plan_stamp_s,
        "plan_refused": inputs.plan_refused,
        "path": None if inputs.path is None else inputs.path.poses,
        "path_refused": inputs.path_refused,
        "estop": inputs.estop,
        "errors": inputs.input_errors,
    }


def inputs_of(row: Mapping[str, Any], estimate: ObjectEstimate | None, plan: PregraspPlan | None) -> Inputs:
    """Return the inputs of a logged row; points and plan are those that it names."""
    palm, path = row["palm"], row["path"]
    return Inputs(
        now_s=row["now_s"],
        joint_pos=None if row["joints"] is None else np.array(row["joints"]),
        joints_stamp_s=row["joints_s"],
        palm_pos_w=None if palm is None else np.array(palm[:3]),
        palm_quat_w=None if palm is None else np.array(palm[3:]),
        palm_stamp_s=row["palm_s"],
        estimate=estimate,
        plan=plan,
        plan_stamp_s=row["plan_s"],
        plan_refused=row["plan_refused"],
        path=None if path is None else PlannedPath(tuple(pose_of(one) for one in path)),
        path_refused=row["path_refused"],
        estop=row["estop"],
        input_errors=row["errors"],
    )


def pose_of(values: ArrayLike) -> Pose:
    """Return the pose of 7 logged numbers, unchanged."""
    row = np.array(values, dtype=np.float64)
    return Pose(row[:3], row[3:])


def output_row(output: Output) -> dict[str, Any]:
    """Return what a tick decided, as it is logged; times that were taken are left out."""
    return {
        "state": output.state,
        "fault": output.fault,
        "warning": output.warning,
        "empty": bool(output.hand_is_empty),
        "command": None if output.safe is None else command_row(output.safe),
    }


def command_row(safe: SafeCommand) -> list[float]:
    """Return a command as it is logged.

    Targets (motor,) [rad], palm position (3,) [m], palm quaternion (4,) wxyz.
    """
    return np.concatenate([safe.joint_target, safe.palm_pos_w, safe.palm_quat_w]).tolist()
