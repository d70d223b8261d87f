"""Watches the object on the table, without ROS: a steady first view, a plan, then what the policy is used to.

    watcher = ObjectWatcher(contract, intrinsics, hand=...)
    sight = watcher.look(frame)            while nothing moves; None until enough frames agree
    watcher.begin()                        the first view is frozen, a grasp begins
    sight = watcher.follow(frame, robot)   each frame behind the hand; held objects go along with the palm
    sight = watcher.carry(robot, stamp_s)  between frames
    watcher.end(empty=False)               the grasp is over; after an empty one another kind of grasp is planned

The contract's `camera.mode` decides what a frame changes: nothing (first_frame), all points (latest), their pose
(tracked), their pose and points that the tracked ones do not explain (tracked_updated).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_ros.perception_plan import GraspPlanner
from perception.best_pregrasp import Reachable
from perception.carrying import PalmMotion
from perception.depth import DepthFrame, Intrinsics
from perception.object_view import CLEAR_M, Frame, Mode, ObjectView
from perception.plane import NoPlaneError
from perception.robot_body import ArmBody, HandBody, join
from perception.segment import NoObjectError, Segmentation, SegmentCfg, Segmenter
from perception.steady import FIRST_FRAMES, steady_depth
from policies.contract import Contract
from policies.runtime import Plan

MOVED_M, MOVED_SHARE = 0.008, 0.3
"""Between frames of a steady view the object's middle and the palm move less than this, its pixels change by less."""
OTHER_M = 0.012
"""A pixel whose depth changes by more shows something else; where that is true of many, another object lies there."""

VIEW_MODES: dict[str, Mode] = {
    "first_frame": "frozen",
    "latest": "refreshed",
    "tracked": "tracked",
    "tracked_updated": "corrected",
}
"""The contract's `camera.mode` -> mode of ObjectView."""

Array = NDArray[np.float64]


class NotSteadyError(ValueError):
    """There is no first view to begin with."""


@dataclass(frozen=True)
class Robot:
    """Where the robot was at one moment."""

    joint_pos: Array
    """(joint,) of the hand, in the contract's order [rad]."""
    palm_pos_w: Array
    """(3,) [m]."""
    palm_quat_w: Array
    """(4,) wxyz."""
    arm_pos: Array | None = None
    """(arm joint,) [rad]; None where no arm is known."""


def on_arm(arm: ArmBody, hand: HandBody, joint_pos: Array, arm_pos: Array) -> Robot:
    """The robot whose hand (joint,) [rad] is carried by an arm (arm joint,) [rad]."""
    palm = hand.palm(*arm.hand_base(torch.from_numpy(arm_pos)))
    return Robot(joint_pos, palm[0].numpy(), palm[1].numpy(), arm_pos)


@dataclass(frozen=True)
class Sight:
    """What is known of the object."""

    points_w: NDArray[np.float32]
    """(point, 3) world frame [m]."""
    visible_fraction: float
    """Pixels in the newest frame, as a share of those in the first view."""
    view_fresh: bool
    """Whether that frame was of use."""
    stamp_s: float
    """When the newest frame was taken [s]."""
    plan: Plan | None = None
    """The pre-grasp, while nothing has begun."""


class ObjectWatcher:
    """One object, one camera, one bundle."""

    def __init__(
        self,
        contract: Contract,
        intrinsics: Intrinsics,
        segment: SegmentCfg | None = None,
        hand: HandBody | None = None,
        arm: ArmBody | None = None,
        reachable: Reachable | None = None,
        seed: int = 0,
    ) -> None:
        """`hand`: needed where the mode looks at further frames. `reachable`: palm poses that the arm can take.

        `seed` decides the chance in the pipeline, the same for each frame.
        """
        camera = contract.camera
        self.intrinsics, self._hand, self._arm, self._reachable = intrinsics, hand, arm, reachable
        self._seed = seed
        self._live, self._carried = camera.is_live, camera.move_with_palm
        if self._live and hand is None:
            raise ValueError(f"camera.mode={camera.mode} needs the hand, which hides the object: pass `hand`")
        self._segmenter = Segmenter(replace(segment or SegmentCfg(), points=camera.points), intrinsics)
        self._view = ObjectView(VIEW_MODES[camera.mode], camera.min_points, 1, camera.points)
        self._shadow = hand.shadow(CLEAR_M) if hand is not None and self._view.tracks else None
        self._grasps = GraspPlanner(contract)
        self._palm, self._palm_known, self._camera_w = PalmMotion(1), False, torch.zeros(1, 3)
        self._gathered: list[_Still] = []
        self._first: tuple[Segmentation, Plan] | None = None
        self.following = False
        """Whether a grasp has begun."""
        self.counts: dict[str, int] = {}
        """Points of the newest frame left after each stage."""

    @property
    def gathered(self) -> int:
        """Frames that agree so far, of the FIRST_FRAMES of a steady view."""
        return FIRST_FRAMES if self._first is not None else len(self._gathered)

    def look(self, frame: DepthFrame, robot: Robot | None = None) -> Sight | None:
        """The first view, None until enough frames agree; it stays while object and robot do not move.

        `robot`: left out of the image where it is known. Ends a grasp. Raises NoObjectError, NoPlaneError.
        """
        if self.following:
            self.forget()
        try:
            self._gather(frame, robot)
        except (NoObjectError, NoPlaneError):
            self.forget()
            raise
        if self._first is None:
            return None
        found, plan = self._first
        return Sight(found.points_w, 1.0, True, frame.stamp_s, plan)

    def begin(self) -> None:
        """Freeze the first view and follow the object from now on. Raises NotSteadyError where there is none."""
        if self._first is None:
            raise NotSteadyError(f"a grasp begins with a steady first view: {self.gathered} of {FIRST_FRAMES} frames")
        self._view.begin(torch.tensor([0]), torch.from_numpy(self._first[0].points_w)[None])
        self._palm_known, self.following = False, True

    def end(self, empty: bool) -> None:
        """No grasp is under way any more. `empty`: the hand took hold of nothing; what is planned next is another."""
        if not empty:
            self._grasps.begin_anew()
        elif self.following:
            self._grasps.failed()
        if self.following:
            self.forget()

    def forget(self) -> None:
        """Nothing has been seen."""
        self._gathered.clear()
        self._first, self.following = None, False

    def keep(self, stamp_s: float) -> Sight:
        """All that is known stays; a frame of that time was not looked at."""
        return self._sight(stamp_s)

    def follow(self, frame: DepthFrame, robot: Robot | None, held: bool) -> Sight:
        """A frame behind the hand; `robot` at the time of the frame. `held`: the object goes along with the palm."""
        if robot is not None:
            self._carry(robot, held)
        if self._live:
            if robot is None:
                raise ValueError("joint and palm readings are needed to tell the hand from the object")
            self._view.update(torch.tensor([0]), self._shown(frame, robot))
        return self._sight(frame.stamp_s)

    def carry(self, robot: Robot, held: bool, stamp_s: float) -> Sight:
        """The palm is there now; `stamp_s` is that of the newest frame."""
        self._carry(robot, held)
        return self._sight(stamp_s)

    def _gather(self, frame: DepthFrame, robot: Robot | None) -> None:
        found = self._segment(frame, robot)
        step = self._segmenter.cfg.stride
        still = _Still(frame.depth_m[::step, ::step].copy(), found.mask, found.cloud_w.mean(axis=0), robot)
        if self._gathered and self._gathered[0].differs(still):
            self.forget()
        if self._first is not None:
            return
        self._gathered.append(still)
        if len(self._gathered) == FIRST_FRAMES:
            depth_m = np.zeros_like(frame.depth_m)
            depth_m[::step, ::step] = steady_depth(np.stack([one.depth_m for one in self._gathered]))
            found = self._segment(replace(frame, depth_m=depth_m), robot)
            self._first = found, self._grasps.plan(found.points_w, _place(frame), self._reachable)
            del self._gathered[1:]

    def _segment(self, frame: DepthFrame, robot: Robot | None) -> Segmentation:
        self._camera_w = torch.from_numpy(_place(frame))[None]
        self.counts = {}
        try:
            found = self._segmenter(frame, None if robot is None else self._capsules(robot), seed=self._seed)
        except NoObjectError as error:
            self.counts = error.counts
            raise
        self.counts = found.counts
        return found

    def _capsules(self, robot: Robot) -> Any:
        parts = []
        if self._hand is not None:
            parts.append(self._hand.capsules(*_tensors(robot)))
        if self._arm is not None and robot.arm_pos is not None:
            parts.append(self._arm.capsules(torch.from_numpy(robot.arm_pos)))
        return join(parts) if parts else None

    def _shown(self, frame: DepthFrame, robot: Robot) -> Frame:
        """The object in this frame; no points where it is not found."""
        assert self._first is not None
        points_w, pixels = self._view.points_w, 0
        try:
            found = self._segment(frame, robot)
            points_w, pixels = torch.from_numpy(found.points_w)[None], len(found.cloud_w)
        except (NoObjectError, NoPlaneError):
            pass
        sight = None
        if self._shadow is not None:
            sight = self._shadow.sight(self._camera_w, *(value[None] for value in _tensors(robot)))
        count = torch.tensor([min(pixels, points_w.shape[1])])
        share = torch.tensor([min(1.0, pixels / len(self._first[0].cloud_w))])
        return Frame(points_w, count, share, sight)

    def _carry(self, robot: Robot, held: bool) -> None:
        shift, turn = self._palm.read(*(value[None] for value in _tensors(robot)[:2]))
        if held and self._carried and self._palm_known:
            self._view.carry(torch.tensor([0]), shift, turn)
        self._palm_known = True

    def _sight(self, stamp_s: float) -> Sight:
        points_w = self._view.points_w[0].numpy().copy()
        return Sight(points_w, float(self._view.fraction[0]), bool(self._view.fresh[0]), stamp_s)


@dataclass(frozen=True)
class _Still:
    """What tells whether a frame shows the same as another."""

    depth_m: NDArray[np.float32]
    """Thinned as the pipeline thins it."""
    mask: NDArray[np.bool_]
    """The object's pixels."""
    middle_w: NDArray[np.float32]
    robot: Robot | None

    def differs(self, other: "_Still") -> bool:
        """Whether object or robot moved from one to the other."""
        moved = float(np.linalg.norm(other.middle_w - self.middle_w)) > MOVED_M
        pixels = int(self.mask.sum())
        grown = abs(int(other.mask.sum()) - pixels) > MOVED_SHARE * pixels
        before_m, now_m = self.depth_m[self.mask], other.depth_m[self.mask]
        changed = (np.abs(now_m - before_m) > OTHER_M) & (before_m > 0) & (now_m > 0)
        grown |= int(changed.sum()) > MOVED_SHARE * pixels
        if self.robot is not None and other.robot is not None:
            moved |= float(np.linalg.norm(other.robot.palm_pos_w - self.robot.palm_pos_w)) > MOVED_M
        return moved or grown


def _tensors(robot: Robot) -> Sequence[torch.Tensor]:
    """Palm position, palm orientation, joints."""
    return [torch.from_numpy(value) for value in (robot.palm_pos_w, robot.palm_quat_w, robot.joint_pos)]


def _place(frame: DepthFrame) -> Array:
    """Where the camera stands (3,), world frame [m]."""
    if frame.T_world_cam is None:
        raise ValueError("the frame has no camera pose: run `dexgrasp calibrate camera` and pass the file it writes")
    return frame.T_world_cam[:3, 3].copy()
