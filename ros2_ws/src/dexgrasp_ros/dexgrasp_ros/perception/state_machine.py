"""State machine of the perception node, without ROS: decides what each depth frame is used for.

idle, home, retreat   frames are collected until the first view is complete; it is published with its plan
pregrasp              the first view is frozen; frames are not used
grasp                 frames update the points
lift, hold            frames update the points, and the points move with the palm
release               as pregrasp
fault                 as pregrasp if a grasp has started, else as idle

Each grasp ends with idle, home or retreat; after retreat (an empty grasp) a different grasp is planned.
"""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics
from dexgrasp.perception.cameras.temporal_filter import FIRST_VIEW_FRAMES
from dexgrasp.perception.grasp_planning.planner import Reachable
from dexgrasp.perception.robot_mask import ArmBody, HandBody
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.deploy.contract import Contract
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.perception.object_observer import ObjectObserver, RobotState, robot_state
from dexgrasp_ros.stamped_buffer import StampedBuffer, StampedPoseBuffer

FIRST_VIEW_STATES = ("idle", "home", "retreat")
"""Grasp states in which a first view is collected."""
GRASP_STATES = ("pregrasp", "grasp", "lift", "hold", "release")
"""Grasp states in which the first view is frozen."""
UPDATE_STATES, HELD_STATES = ("grasp", "lift", "hold"), ("lift", "hold")
"""Grasp states in which frames update the points, and in which the points move with the palm."""

FROZEN_S = 1.0
"""Time after `begin` in which the grasp must start, by the stamps of the frames; then the view is given up [s]."""
Array = NDArray[np.float64]


class FrameError(ValueError):
    """Raised for a depth frame that must not be used; the text says why."""


STAMPS = 30
"""Newest depth images whose stamps are kept."""


@dataclass(frozen=True)
class PerceptionSetup:
    """Camera, robot model and settings, constant while the node runs."""

    contract: Contract
    """Contract of the bundle."""
    T_world_cam: Array
    """(4, 4) camera to world."""
    hand: HandBody
    """Capsule model of the hand."""
    arm: ArmBody | None = None
    """Capsule model of the arm; None: the arm is not removed from the image and the palm pose comes on a topic."""
    segment: SegmentationCfg = field(default_factory=SegmentationCfg)
    """Settings of the segmentation."""
    reachable: Reachable | None = None
    """Filter of palm poses that the arm can reach."""
    timeout_s: float = 0.1
    """Largest difference between the stamps of a frame and of the robot readings used with it [s]."""


class PerceptionStateMachine:
    """Decides per grasp state what a depth frame is used for.

    Each event returns the estimate to publish, or None.
    """

    def __init__(self, setup: PerceptionSetup) -> None:
        self._setup = setup
        self._joints = {name: StampedBuffer(setup.timeout_s) for name in ("hand", "arm")}
        self._palm = StampedPoseBuffer(setup.timeout_s)
        self._intrinsics: Intrinsics | None = None
        self._observer: ObjectObserver | None = None
        self._frame_stamp_s = -np.inf
        self._grasp_error = ""  # why nothing is published until the grasp ends
        self._begun_s: float | None = None  # stamp of the frame at which a grasp was announced that has not started
        self.state = "idle"
        """State of the grasp node; idle without one."""
        self.newest_frame: DepthFrame | None = None
        """Newest depth image, also where nothing was found in it."""
        self.stamps_s = deque[float](maxlen=STAMPS)
        """Stamps of the newest depth images [s]."""

    @property
    def segment(self) -> SegmentationCfg:
        """Settings of the segmentation, with the present target."""
        return self._setup.segment

    @property
    def counts(self) -> dict[str, int]:
        """Number of points of the newest frame after each stage of the segmentation."""
        return {} if self._observer is None else self._observer.counts

    @property
    def waiting_for(self) -> str:
        """Missing requirement of the first view; empty when it is complete."""
        if self._observer is None:
            return "no camera_info received" if self._intrinsics is None else "no frame received"
        frames = self._observer.frames_agreeing
        return (
            "" if frames == FIRST_VIEW_FRAMES else f"{frames} of {FIRST_VIEW_FRAMES} frames agree: is anything moving?"
        )

    @property
    def collecting_first_view(self) -> bool:
        """Whether frames are used for a first view: no grasp is under way, nor interrupted by a fault."""
        in_grasp = self._observer is not None and self._observer.in_grasp
        if self._begun_s is not None and in_grasp:
            return False
        return self.state in FIRST_VIEW_STATES or not (self.state in GRASP_STATES or in_grasp or self._grasp_error)

    @property
    def robot_known(self) -> bool:
        """Whether robot readings are available for the newest frame, to remove the robot from it."""
        return self._robot_at(self._frame_stamp_s) is not None

    def on_camera_info(self, intrinsics: Intrinsics) -> None:
        """Set the intrinsics of the following frames."""
        self._intrinsics = intrinsics

    def on_joint_state(self, part: str, joint_pos: Array, stamp_s: float) -> None:
        """Store positions (joint,) [rad] of "hand" or "arm"; a repeated stamp is ignored."""
        if stamp_s != self._joints[part].newest_s:
            self._joints[part].add(stamp_s, joint_pos)

    def on_palm_pose(self, pos_w: Array, quat_w: Array, stamp_s: float) -> None:
        """Store the palm pose (3,) [m], (4,) wxyz; not used where the setup has an arm."""
        self._palm.add(stamp_s, pos_w, quat_w)

    def target_refused(self, target: str) -> str:
        """Return why an object may not be wanted now (texts: segmentation/target.py), or an empty text."""
        if not self.collecting_first_view:
            return f"the target changes between grasps, not in {self.state}"
        try:
            segment = replace(self._setup.segment, target=target)
            if self._intrinsics is not None:
                _observer(replace(self._setup, segment=segment), self._intrinsics)
        except ValueError as error:
            return str(error)
        return ""

    def choose(self, target: str) -> None:
        """Collect the first view of another object; grasps that failed are forgotten.

        Raises FrameError where it is refused: see `target_refused`.
        """
        if reason := self.target_refused(target):
            raise FrameError(reason)
        self._setup = replace(self._setup, segment=replace(self._setup.segment, target=target))
        self._observer = self._begun_s = None

    def begin(self) -> int:
        """Freeze the first view for a grasp that starts next, and return the id of its plan.

        Raises FrameError where no first view is held; the view is given up if no grasp starts within FROZEN_S.
        """
        if self.state not in FIRST_VIEW_STATES:
            raise FrameError(f"no grasp begins in {self.state}")
        if self._observer is None or self.waiting_for:
            raise FrameError(f"no first view: {self.waiting_for}")
        if self._begun_s is None:
            self._observer.start_grasp()
        self._begun_s = self._frame_stamp_s
        return self._observer.plan_id

    def on_grasp_state(self, name: str) -> None:
        """Follow the state of the grasp node. Raises FrameError where a grasp starts without a first view."""
        self.state, self._begun_s = name, None
        if name in FIRST_VIEW_STATES:
            self._grasp_error = ""
            if self._observer is not None:
                self._observer.end_grasp(empty=name == "retreat")
        elif name == "pregrasp" and not (self._observer is not None and self._observer.in_grasp):
            self._start_grasp()

    def on_depth(
        self, depth_m: NDArray[np.float32], stamp_s: float, T_world_cam: Array | None = None
    ) -> ObjectEstimate | None:
        """Use a depth image (row, column) [m]; `T_world_cam` (4, 4) overrides the camera pose of the setup.

        Raises FrameError, and while a first view is collected NoObjectError and NoPlaneError.
        """
        observer = self._observer_for(stamp_s)
        try:
            pose = self._setup.T_world_cam if T_world_cam is None else T_world_cam
            frame = DepthFrame(depth_m=depth_m, intrinsics=observer.intrinsics, stamp_s=stamp_s, T_world_cam=pose)
        except ValueError as error:
            raise FrameError(f"{error}: do image and camera_info belong together?") from error
        self.newest_frame = frame
        self.stamps_s.append(stamp_s)
        robot = self._robot_at(stamp_s)
        if self._begun_s is not None and stamp_s - self._begun_s > FROZEN_S:
            self._begun_s = None
            observer.reset()  # no grasp began: plans that have failed before stay marked
        if self.collecting_first_view:
            return observer.observe(frame, robot)
        if self._grasp_error or not observer.in_grasp:
            raise FrameError(
                self._grasp_error or f"in {self.state} without a first view: return the grasp node to idle"
            )
        if self.state in UPDATE_STATES:
            if robot is None:
                raise FrameError(self._missing_readings(stamp_s))
            observer.update(frame, robot, self.state in HELD_STATES)
        return self.move_with_palm() or observer.estimate(stamp_s)

    def move_with_palm(self) -> ObjectEstimate | None:
        """Move a held object to the newest palm pose; None where nothing is held."""
        if self.state not in HELD_STATES or self._observer is None or not self._observer.in_grasp or self._grasp_error:
            return None
        robot = self._robot_at(self._newest_robot_s())
        if robot is None:
            return None
        self._observer.move_with_palm(robot, held=True)
        return self._observer.estimate(self._frame_stamp_s)

    def _start_grasp(self) -> None:
        self._grasp_error = ""
        try:
            if self._observer is None:
                raise ValueError("no frame received")
            self._observer.start_grasp()
        except ValueError as error:
            self._grasp_error = f"a grasp started without a first view: {error}"
            raise FrameError(self._grasp_error) from error

    def _observer_for(self, stamp_s: float) -> ObjectObserver:
        """Return the observer for a frame of that stamp; a changed camera gets a new one."""
        if self._intrinsics is None:
            raise FrameError("no camera_info received: check parameter camera_info_topic")
        elapsed_s, self._frame_stamp_s = stamp_s - self._frame_stamp_s, stamp_s
        if elapsed_s < 0:
            self._reset_after_clock_jump(-elapsed_s)
        if elapsed_s == 0:
            raise FrameError("two frames have the same stamp: the camera driver repeats a frame")
        if self._observer is None or self._observer.intrinsics != self._intrinsics:
            if self._observer is not None and not self.collecting_first_view:
                self._grasp_error = "the camera changed during a grasp"
                raise FrameError(f"{self._grasp_error}: return the grasp node to idle")
            self._observer = _observer(self._setup, self._intrinsics)
        return self._observer

    def _reset_after_clock_jump(self, jump_s: float) -> None:
        """Discard what was seen with stamps of another clock, and refuse the frame."""
        reason = f"the clock jumped back by {jump_s:.3f} s"
        if not self.collecting_first_view:
            self._grasp_error = reason
        elif self._observer is not None:
            self._observer.reset()
        raise FrameError(f"{reason}: earlier frames are discarded")

    def _robot_at(self, stamp_s: float) -> RobotState | None:
        """Return the robot state at a stamp, or None where no readings are near it."""
        hand, arm = (self._joints[part].at(stamp_s) for part in ("hand", "arm"))
        if hand is None:
            return None
        if self._setup.arm is None:
            pose = self._palm.at(stamp_s)
            return None if pose is None else RobotState(hand, pose.pos_m, pose.quat)
        if arm is None:
            return None
        return robot_state(self._setup.arm, self._setup.hand, hand, arm)

    def _newest_robot_s(self) -> float:
        """Return the newest stamp up to which hand and palm are both known [s]."""
        palm_s = self._palm.newest_s if self._setup.arm is None else self._joints["arm"].newest_s
        return min(self._joints["hand"].newest_s, palm_s)

    def _missing_readings(self, stamp_s: float) -> str:
        """Name the robot reading that is furthest from a stamp."""
        ages = {"joint states of the hand": stamp_s - self._joints["hand"].newest_s}
        if self._setup.arm is None:
            ages["palm pose"] = stamp_s - self._palm.newest_s
        else:
            ages["joint states of the arm"] = stamp_s - self._joints["arm"].newest_s
        name, age_s = max(ages.items(), key=lambda item: abs(item[1]))
        return f"no {name} for this frame (newest {age_s:.2f} s before it): hand and object cannot be separated"


def _observer(setup: PerceptionSetup, intrinsics: Intrinsics) -> ObjectObserver:
    """Return the observer of a camera. Raises ValueError for a target outside its image."""
    return ObjectObserver(
        contract=setup.contract,
        intrinsics=intrinsics,
        segment=setup.segment,
        hand=setup.hand,
        arm=setup.arm,
        reachable=setup.reachable,
    )
