"""Observes one object in depth images, without ROS: first view, pre-grasp plan, updated points.

    observer = ObjectObserver(contract, intrinsics, hand=...)
    estimate = observer.observe(frame)        before the grasp; None until FIRST_FRAMES frames agree
    observer.start_grasp()                    freezes the first view
    observer.update(frame, robot, held)       each depth frame of the grasp
    observer.move_with_palm(robot, held)      between frames: a held object moves with the palm
    estimate = observer.estimate(stamp_s)     points as they are now
    observer.end_grasp(empty=False)           after an empty grasp, the next plan is a different one

The contract's `camera.mode` decides what a frame updates: nothing (first_frame), all points (latest), the pose
(tracked), the pose and points that the tracked ones do not explain (tracked_updated).
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics
from dexgrasp.perception.cameras.temporal_filter import FIRST_VIEW_FRAMES, median_depth
from dexgrasp.perception.grasp_planning.planner import Reachable
from dexgrasp.perception.robot_mask import ArmBody, HandBody, join_capsules
from dexgrasp.perception.segmentation.pipeline import NoObjectError, Segmentation, SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.table_plane import NoPlaneError
from dexgrasp.perception.tracking.object_points import OUTLINE_MARGIN_M, ObjectFrame, ObjectPoints, PalmMotion
from dexgrasp.policies.deploy.contract import Contract
from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.perception.pregrasp_planner import GraspPlanner

STILL_M = 0.008
"""Frames agree if the object's centroid and the palm move less than this between them [m]."""
STILL_FRACTION = 0.3
"""Frames agree if the number of object pixels, and the pixels of other depth, change by less than this fraction."""
CHANGED_DEPTH_M = 0.012
"""A pixel whose depth differs by more than this between two frames shows a different surface [m]."""

Array = NDArray[np.float64]
PLAN_IDS = itertools.count(time.time_ns() // 10**6)
"""Numbers of plans: a restarted process does not repeat those of its predecessor."""


class NotSteadyError(ValueError):
    """Raised where a grasp starts before a first view is complete."""


@dataclass(frozen=True)
class RobotState:
    """Joint positions and palm pose of the robot at one time."""

    joint_pos: Array
    """(joint,) of the hand, in the order of the contract [rad]."""
    palm_pos_w: Array
    """(3,) world frame [m]."""
    palm_quat_w: Array
    """(4,) wxyz."""
    arm_pos: Array | None = None
    """(arm joint,) [rad]; None where the arm is not known."""


def robot_state(arm: ArmBody, hand: HandBody, joint_pos: Array, arm_pos: Array) -> RobotState:
    """Return the state of a hand (joint,) [rad] on an arm (arm joint,) [rad], by kinematics."""
    palm_pos_w, palm_quat_w = hand.palm(*arm.hand_base(torch.from_numpy(arm_pos)))
    return RobotState(
        joint_pos=joint_pos, palm_pos_w=palm_pos_w.numpy(), palm_quat_w=palm_quat_w.numpy(), arm_pos=arm_pos
    )


class ObjectObserver:
    """Estimates the points of one object from one depth camera, for the policy of one bundle."""

    def __init__(
        self,
        contract: Contract,
        intrinsics: Intrinsics,
        segment: SegmentationCfg | None = None,
        hand: HandBody | None = None,
        arm: ArmBody | None = None,
        reachable: Reachable | None = None,
        seed: int = 0,
    ) -> None:
        """`hand`: required where the view mode uses frames after the first view.

        `reachable`: filter of palm poses. `seed`: of the random choices of the segmentation,
        constant over frames. Raises ValueError without a required hand.
        """
        camera = contract.camera
        self.intrinsics, self._hand, self._arm, self._reachable = intrinsics, hand, arm, reachable
        self._seed = seed
        self._live, self._moves_with_palm = camera.is_live, camera.move_with_palm
        if self._live and hand is None:
            raise ValueError(f"camera.mode={camera.mode} needs the capsule model of the hand: pass `hand`")
        self._points = ObjectPoints(camera.mode, camera.min_points, 1, camera.points)
        self._occlusion = hand.occlusion(OUTLINE_MARGIN_M) if hand is not None and self._points.tracks else None
        self._planner = GraspPlanner(contract)
        self._segmenter = Segmenter(
            replace(segment or SegmentationCfg(), points=camera.points),
            intrinsics,
            promise=lambda points_w, camera_w: self._planner.promise(points_w, camera_w, self._reachable),
        )
        self._palm, self._palm_known = PalmMotion(1), False
        self._camera_w = torch.zeros(1, 3)
        self._still_frames: list[_StillFrame] = []
        self._first_view: tuple[Segmentation, PregraspPlan] | None = None
        self.plan_id = 0
        """Number of the newest plan."""
        self.in_grasp = False
        """Whether the first view is frozen and a grasp under way."""
        self.counts: dict[str, int] = {}
        """Number of points of the newest frame after each stage of the segmentation."""

    @property
    def frames_agreeing(self) -> int:
        """Number of frames that agree so far; a first view takes FIRST_FRAMES."""
        return FIRST_VIEW_FRAMES if self._first_view is not None else len(self._still_frames)

    def observe(self, frame: DepthFrame, robot: RobotState | None = None) -> ObjectEstimate | None:
        """Return the first view and its plan, or None until enough frames agree; ends a grasp.

        The first view is kept while object and robot stand still. `robot`: its points are removed from the image.
        Raises NoObjectError and NoPlaneError, after which the first view starts anew.
        """
        if self.in_grasp:
            self.reset()
        try:
            self._collect(frame, robot)
        except (NoObjectError, NoPlaneError):
            self.reset()
            raise
        if self._first_view is None:
            return None
        segmentation, plan = self._first_view
        return ObjectEstimate(segmentation.points_w, stamp_s=frame.stamp_s, plan=plan, plan_id=self.plan_id)

    def start_grasp(self) -> None:
        """Freeze the first view and track the object from it. Raises NotSteadyError without a first view."""
        if self._first_view is None:
            raise NotSteadyError(
                f"a grasp needs a complete first view: {self.frames_agreeing} of {FIRST_VIEW_FRAMES} frames"
            )
        self._points.reset(torch.tensor([0]), torch.from_numpy(self._first_view[0].points_w)[None])
        self._palm_known, self.in_grasp = False, True

    def end_grasp(self, empty: bool) -> None:
        """Discard the first view of the grasp; if the hand was `empty`, plan a different grasp next time."""
        if not empty:
            self._planner.clear_failures()
        elif self.in_grasp:
            self._planner.mark_failed()
        if self.in_grasp:
            self.reset()

    def reset(self) -> None:
        """Discard all frames and the first view."""
        self._still_frames.clear()
        self._first_view, self.in_grasp = None, False

    def update(self, frame: DepthFrame, robot: RobotState, held: bool) -> None:
        """Update the points from a frame of the grasp; `robot` at the time of the frame.

        `held`: the object moves with the palm.
        """
        self.move_with_palm(robot, held)
        if self._live:
            self._points.update(torch.tensor([0]), self._object_frame(frame, robot))

    def move_with_palm(self, robot: RobotState, held: bool) -> None:
        """Record the palm pose and, if the object is `held`, move its points by the motion of the palm."""
        palm_pos_w, palm_quat_w, _ = _batch(robot)
        shift, turn = self._palm.update(palm_pos_w, palm_quat_w)
        if held and self._moves_with_palm and self._palm_known:
            self._points.move_with_palm(torch.tensor([0]), shift, turn)
        self._palm_known = True

    def estimate(self, stamp_s: float) -> ObjectEstimate:
        """Return the points of the grasp as they are now; `stamp_s` is that of the newest depth frame."""
        return ObjectEstimate(
            points_w=self._points.points_w[0].numpy().copy(),
            visible_fraction=float(self._points.visible_fraction[0]),
            view_fresh=bool(self._points.fresh[0]),
            stamp_s=stamp_s,
        )

    def _collect(self, frame: DepthFrame, robot: RobotState | None) -> None:
        """Add a frame to the first view, or start it anew where the frame does not agree."""
        # what was the best object in the first frame stays the target of the view
        chosen_w = self._still_frames[0].points_w if self._still_frames and self._segmenter.is_best else None
        segmentation = self._segment(frame, robot, chosen_w)
        stride = self._segmenter.cfg.stride
        still = _StillFrame(
            depth_m=frame.depth_m[::stride, ::stride].copy(),
            mask=segmentation.mask,
            points_w=segmentation.points_w,
            centroid_w=segmentation.cloud_w.mean(axis=0),
            robot=robot,
        )
        if self._still_frames and self._still_frames[0].differs(still):
            self.reset()
        if self._first_view is not None:
            return
        self._still_frames.append(still)
        if len(self._still_frames) == FIRST_VIEW_FRAMES:
            depth_m = np.zeros_like(frame.depth_m)
            depth_m[::stride, ::stride] = median_depth(np.stack([one.depth_m for one in self._still_frames]))
            segmentation = self._segment(replace(frame, depth_m=depth_m), robot, chosen_w)
            plan = self._planner.plan(segmentation.points_w, _camera_position(frame), self._reachable)
            self._first_view, self.plan_id = (segmentation, plan), next(PLAN_IDS)
            del self._still_frames[1:]

    def _segment(
        self, frame: DepthFrame, robot: RobotState | None, earlier_w: NDArray[np.float32] | None = None
    ) -> Segmentation:
        """Return the target in a frame; `earlier_w` (n, 3): its points in an earlier one, by which it is followed."""
        self._camera_w = torch.from_numpy(_camera_position(frame))[None]
        self.counts = {}
        try:
            capsules = None if robot is None else self._capsules(robot)
            segmentation = self._segmenter(frame, capsules, seed=self._seed, earlier_w=earlier_w)
        except NoObjectError as error:
            self.counts = error.counts
            raise
        self.counts = segmentation.counts
        return segmentation

    def _capsules(self, robot: RobotState) -> Any:
        """Return the capsules of hand and arm at a robot state, or None without a model of either."""
        parts = []
        if self._hand is not None:
            parts.append(self._hand.capsules(*(value[0] for value in _batch(robot))))
        if self._arm is not None and robot.arm_pos is not None:
            parts.append(self._arm.capsules(torch.from_numpy(robot.arm_pos)))
        return join_capsules(parts) if parts else None

    def _object_frame(self, frame: DepthFrame, robot: RobotState) -> ObjectFrame:
        """Return the object's points in this frame, with a count of 0 where the object is not found."""
        assert self._first_view is not None
        points_w, pixels = self._points.points_w, 0
        try:
            segmentation = self._segment(frame, robot, points_w[0].numpy())
            points_w, pixels = torch.from_numpy(segmentation.points_w)[None], len(segmentation.cloud_w)
        except (NoObjectError, NoPlaneError):
            pass
        occlusion = None if self._occlusion is None else self._occlusion.for_camera(self._camera_w, *_batch(robot))
        count = torch.tensor([min(pixels, points_w.shape[1])])
        visible_fraction = torch.tensor([min(1.0, pixels / len(self._first_view[0].cloud_w))])
        return ObjectFrame(points_w=points_w, count=count, visible_fraction=visible_fraction, occlusion=occlusion)


@dataclass(frozen=True)
class _StillFrame:
    """Properties of a frame by which it is compared with another one of a still scene."""

    depth_m: NDArray[np.float32]
    """(row, column) [m], with the stride of the segmentation."""
    mask: NDArray[np.bool_]
    """(row, column) pixels of the object."""
    points_w: NDArray[np.float32]
    """(point, 3) sampled points of the object [m]."""
    centroid_w: NDArray[np.float32]
    """(3,) of the object [m]."""
    robot: RobotState | None

    def differs(self, other: "_StillFrame") -> bool:
        """Return whether the object or the robot moved between the two frames."""
        moved = float(np.linalg.norm(other.centroid_w - self.centroid_w)) > STILL_M
        pixels = int(self.mask.sum())
        resized = abs(int(other.mask.sum()) - pixels) > STILL_FRACTION * pixels
        before_m, now_m = self.depth_m[self.mask], other.depth_m[self.mask]
        changed = (np.abs(now_m - before_m) > CHANGED_DEPTH_M) & (before_m > 0) & (now_m > 0)
        replaced = int(changed.sum()) > STILL_FRACTION * pixels
        if self.robot is not None and other.robot is not None:
            moved |= float(np.linalg.norm(other.robot.palm_pos_w - self.robot.palm_pos_w)) > STILL_M
        return moved or resized or replaced


def _batch(robot: RobotState) -> Sequence[torch.Tensor]:
    """Return palm position (1, 3), palm orientation (1, 4) and joints (1, joint) as tensors."""
    return [torch.from_numpy(value)[None] for value in (robot.palm_pos_w, robot.palm_quat_w, robot.joint_pos)]


def _camera_position(frame: DepthFrame) -> Array:
    """Return the camera position (3,), world frame [m]. Raises ValueError without a camera pose."""
    if frame.T_world_cam is None:
        raise ValueError("the frame has no camera pose: run `dexgrasp calibrate camera` and pass the file it writes")
    return frame.T_world_cam[:3, 3].copy()
