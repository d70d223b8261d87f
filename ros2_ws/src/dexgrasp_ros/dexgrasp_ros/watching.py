"""What the perception node does with its messages, without ROS: readings and frames go in, what to publish comes out.

idle, home,     frames are looked at until a steady first view is there; it is published with its plan
retreat
pregrasp        the first view is frozen; frames only tell that the camera lives
grasp           frames are followed
lift, hold      frames are followed, and what is known goes along with the palm
release, fault  as before a fault that came at rest; else as pregrasp

A grasp ends with a state of rest; after a retreat another kind of grasp is planned than those that were tried.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros.perception import ObjectWatcher, Robot, Sight, on_arm
from dexgrasp_ros.timeline import PoseTimeline, Timeline
from perception.best_pregrasp import Reachable
from perception.depth import DepthFrame, Intrinsics
from perception.robot_body import ArmBody, HandBody
from perception.segment import SegmentCfg
from perception.steady import FIRST_FRAMES
from policies.contract import Contract

RESTING, UNDER_WAY = ("idle", "home", "retreat"), ("pregrasp", "grasp", "lift", "hold", "release")
FOLLOWING, HELD = ("grasp", "lift", "hold"), ("lift", "hold")
"""States of the grasp node; see above."""

Array = NDArray[np.float64]


class FrameError(ValueError):
    """A frame that must not be used; the text says why."""


@dataclass(frozen=True)
class Scene:
    """What does not change while the node runs."""

    contract: Contract
    """Of the bundle."""
    T_world_cam: Array
    """(4, 4) camera to world."""
    hand: HandBody
    arm: ArmBody | None = None
    """None: the palm comes as a pose, and no arm is left out of the image."""
    segment: SegmentCfg = field(default_factory=SegmentCfg)
    reachable: Reachable | None = None
    """Palm poses that the arm can take."""
    timeout_s: float = 0.1
    """Readings may be so much older or newer than a frame [s]."""


class Watch:
    """One camera on one robot. Methods that return a Sight return what is to be published, or None."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._joints = {name: Timeline(scene.timeout_s) for name in ("hand", "arm")}
        self._palm = PoseTimeline(scene.timeout_s)
        self._intrinsics: Intrinsics | None = None
        self._watcher: ObjectWatcher | None = None
        self._stamp_s = -np.inf
        self._lost = ""  # why nothing may be published until the robot rests
        self.state = "idle"
        """Of the grasp node; without one, idle."""

    @property
    def counts(self) -> dict[str, int]:
        """Points of the newest frame left after each stage."""
        return {} if self._watcher is None else self._watcher.counts

    @property
    def waiting(self) -> str:
        """What a first view waits for, or nothing."""
        if self._watcher is None:
            return "no camera_info yet" if self._intrinsics is None else "no frame yet"
        gathered = self._watcher.gathered
        return "" if gathered == FIRST_FRAMES else f"{gathered} of {FIRST_FRAMES} frames agree: is anything moving?"

    @property
    def looking(self) -> bool:
        """Whether frames make a first view: no grasp is under way, nor did one end in a fault."""
        begun = self._watcher is not None and self._watcher.following
        return self.state in RESTING or not (self.state in UNDER_WAY or begun or self._lost)

    @property
    def robot_known(self) -> bool:
        """Whether the robot could be left out of the newest frame."""
        return self._robot(self._stamp_s) is not None

    def camera(self, intrinsics: Intrinsics) -> None:
        """The camera of the frames that follow."""
        self._intrinsics = intrinsics

    def joints(self, part: str, joint_pos: Array, stamp_s: float) -> None:
        """Positions (joint,) [rad] of "hand" or "arm"; what was told before is passed over."""
        if stamp_s != self._joints[part].newest_s:
            self._joints[part].add(stamp_s, joint_pos)

    def palm(self, pos_w: Array, quat_w: Array, stamp_s: float) -> None:
        """The palm's pose (3,) [m], (4,) wxyz; ignored where an arm tells it."""
        self._palm.add(stamp_s, pos_w, quat_w)

    def grasp_state(self, name: str) -> None:
        """The grasp node is in another state. Raises FrameError where a grasp begins without a first view."""
        self.state = name
        if name in RESTING:
            self._lost = ""
            if self._watcher is not None:
                self._watcher.end(empty=name == "retreat")
        elif name == "pregrasp" and not (self._watcher is not None and self._watcher.following):
            self._begin()

    def depth(self, depth_m: NDArray[np.float32], stamp_s: float, T_world_cam: Array | None = None) -> Sight | None:
        """A frame (rows, columns) [m]. Raises FrameError, or while at rest NoObjectError and NoPlaneError.

        `T_world_cam` (4, 4): where the source knows better than the scene.
        """
        watcher = self._ready(stamp_s)
        place = self._scene.T_world_cam if T_world_cam is None else T_world_cam
        try:
            frame = DepthFrame(depth_m, watcher.intrinsics, stamp_s, place)
        except ValueError as error:
            raise FrameError(f"{error}: do image and camera_info belong together?") from error
        robot = self._robot(stamp_s)
        if self.looking:
            return watcher.look(frame, robot)
        if self._lost or not watcher.following:
            raise FrameError(self._lost or f"in {self.state} without a first view: let the robot go back to idle")
        if self.state not in FOLLOWING:
            return watcher.keep(stamp_s)
        if robot is None:
            raise FrameError(self._missing(stamp_s))
        watcher.follow(frame, robot, self.state in HELD)
        return self.carry() or watcher.keep(stamp_s)

    def carry(self) -> Sight | None:
        """What is known, moved to where the palm is now; None where nothing is held."""
        if self.state not in HELD or self._watcher is None or not self._watcher.following or self._lost:
            return None
        robot = self._robot(self._newest_s())
        return None if robot is None else self._watcher.carry(robot, True, self._stamp_s)

    def _begin(self) -> None:
        self._lost = ""
        try:
            if self._watcher is None:
                raise ValueError("no frame has been seen")
            self._watcher.begin()
        except ValueError as error:
            self._lost = f"a grasp began without a first view: {error}"
            raise FrameError(self._lost) from error

    def _ready(self, stamp_s: float) -> ObjectWatcher:
        """The watcher for a frame of that time."""
        if self._intrinsics is None:
            raise FrameError("no camera_info yet: is its topic the right one?")
        back, self._stamp_s = stamp_s - self._stamp_s, stamp_s
        if back < 0:
            self._restart(f"the clock jumped back by {-back:.3f} s")
        if back == 0:
            raise FrameError("a frame has the stamp of the one before: the camera repeats itself")
        if self._watcher is None or self._watcher.intrinsics != self._intrinsics:
            if self._watcher is not None and not self.looking:
                self._lost = "the camera changed during a grasp"
                raise FrameError(f"{self._lost}: let the robot go back to idle")
            scene = self._scene
            self._watcher = ObjectWatcher(
                scene.contract, self._intrinsics, scene.segment, scene.hand, scene.arm, scene.reachable
            )
        return self._watcher

    def _restart(self, reason: str) -> None:
        """Forget what was read by another clock."""
        if not self.looking:
            self._lost = reason
        elif self._watcher is not None:
            self._watcher.forget()
        raise FrameError(f"{reason}: nothing seen before counts")

    def _robot(self, stamp_s: float) -> Robot | None:
        """Where the robot was at that time; None where that is not known."""
        hand, arm = (self._joints[part].at(stamp_s) for part in ("hand", "arm"))
        if hand is None:
            return None
        if self._scene.arm is None:
            pose = self._palm.at(stamp_s)
            return None if pose is None else Robot(hand, pose.pos_m, pose.quat)
        if arm is None:
            return None
        return on_arm(self._scene.arm, self._scene.hand, hand, arm)

    def _newest_s(self) -> float:
        """The newest time at which the whole robot is known."""
        palm_s = self._palm.newest_s if self._scene.arm is None else self._joints["arm"].newest_s
        return min(self._joints["hand"].newest_s, palm_s)

    def _missing(self, stamp_s: float) -> str:
        old = {part: stamp_s - line.newest_s for part, line in self._joints.items()}
        ages = {"joint states of the hand": old["hand"]}
        ages |= (
            {"pose of the palm": stamp_s - self._palm.newest_s}
            if self._scene.arm is None
            else {"joint states of the arm": old["arm"]}
        )
        what, age_s = max(ages.items(), key=lambda item: abs(item[1]))
        return f"no {what} for this frame (newest {age_s:.2f} s before it): hand and object cannot be told apart"
