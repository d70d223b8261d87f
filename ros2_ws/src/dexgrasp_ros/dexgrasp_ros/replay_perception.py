"""Perception once more: which frames it used is known from the clouds that answered them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import messages
from dexgrasp_ros.camera_messages import cloud_from_message, depth_from_image, intrinsics_from_info
from dexgrasp_ros.perception import Sight
from dexgrasp_ros.perception_cfg import PerceptionCfg, make_robot
from dexgrasp_ros.replay_bag import Bag, Event
from dexgrasp_ros.replay_cfg import ReplayToleranceCfg, ReplayTopicsCfg
from dexgrasp_ros.replay_report import Report
from dexgrasp_ros.watching import Watch
from perception.steady import FIRST_FRAMES
from policies.runtime import Plan


class PerceptionReplay:
    """Feeds frames and readings, compares clouds and plans by the stamps of their frames."""

    def __init__(
        self, bag: Bag, topics: ReplayTopicsCfg, cfg: PerceptionCfg, tolerance: ReplayToleranceCfg, report: Report
    ) -> None:
        robot = make_robot(cfg)
        self._watch, self._joints, self._names = Watch(robot.scene), robot.joints, topics
        self._tolerance, self._report, self._start_s = tolerance, report, bag.start_s
        self._taken: dict[str, Callable[[Any, float], None]] = {
            topics.depth: self._depth,
            topics.camera_info: lambda message, _: self._watch.camera(intrinsics_from_info(message)),
            topics.state: lambda message, _: self._watch.grasp_state(message.data),
            topics.points: self._points,
            topics.plan: self._plan,
        }
        if robot.scene.arm is None:
            self._taken[topics.palm] = self._palm
        for topic in self._joints.topics:
            self._taken[topic] = lambda message, time_s, topic=topic: self._joint_state(topic, message, time_s)
        self.topics = set(self._taken)
        """What it reads."""
        self._used = used_frames(bag, topics)
        self._sights: dict[int, Sight] = {}
        self._clouds: dict[int, tuple[float, Any]] = {}
        self._plans: dict[int, tuple[float, Plan]] = {}
        self._refused: dict[int, str] = {}

    def take(self, event: Event) -> None:
        """The next message of the bag; what the node would refuse changes nothing here either."""
        try:
            self._taken[event.topic](event.message, event.time_s)
        except ValueError as error:
            if event.topic == self._names.depth:
                self._refused[_stamp(event.message)] = str(error)

    def end(self) -> None:
        """Compare."""
        for key, (time_s, message) in self._clouds.items():
            if (sight := self._sight(key, time_s, self._names.points)) is not None:
                self._compare_points(time_s, cloud_from_message(message), sight)
        for key, (time_s, plan) in self._plans.items():
            sight = self._sight(key, time_s, self._names.plan)
            if sight is not None and sight.plan is None:
                self._report.differs(self._names.plan, time_s, "a plan was recorded, the replay makes none here")
            elif sight is not None and sight.plan is not None:
                self._compare_plans(time_s, plan, sight.plan)

    def _depth(self, message: Any, _: float) -> None:
        key = _stamp(message)
        if key in (self._used[0] if self._watch.looking else self._used[1]):
            sight = self._watch.depth(depth_from_image(message), messages.seconds(message.header.stamp))
            if sight is not None:
                self._sights[key] = sight

    def _joint_state(self, topic: str, message: Any, time_s: float) -> None:
        stamp_s = messages.seconds(message.header.stamp)
        self._joints.take(topic, messages.joints_from_message(message), stamp_s, time_s)
        for part in ("hand", "arm"):
            joint_pos, at_s = self._joints.newest(part)
            if joint_pos is not None:
                self._watch.joints(part, joint_pos, at_s)

    def _palm(self, message: Any, _: float) -> None:
        self._watch.palm(*messages.pose_from_message(message), messages.seconds(message.header.stamp))

    def _points(self, message: Any, time_s: float) -> None:
        """The first cloud of each frame; those that follow were carried by readings that came later."""
        self._clouds.setdefault(_stamp(message), (time_s - self._start_s, message))

    def _plan(self, message: Any, time_s: float) -> None:
        plan, stamp_s = messages.plan_from_message(message)
        self._plans.setdefault(round(stamp_s * 1e6), (time_s - self._start_s, plan))

    def _sight(self, key: int, time_s: float, topic: str) -> Sight | None:
        """What the replay made of the frame, or a difference where it made nothing."""
        if key not in self._sights:
            reason = self._refused.get(key, "the frame is not in the bag, or no first view was ready")
            self._report.differs(topic, time_s, f"recorded for a frame of which the replay makes nothing: {reason}")
        return self._sights.get(key)

    def _compare_points(self, time_s: float, cloud: Any, sight: Sight) -> None:
        gaps = {
            "points [m]": spread(cloud.points_w, sight.points_w),
            "visible_fraction": abs(cloud.visible_fraction - sight.visible_fraction),
            "view_fresh": float(cloud.view_fresh != sight.view_fresh),
        }
        limits = {"points [m]": self._tolerance.points_m, "visible_fraction": self._tolerance.fraction, "view_fresh": 0}
        self._report.compared(self._names.points, time_s, gaps, limits)

    def _compare_plans(self, time_s: float, recorded: Plan, replayed: Plan) -> None:
        one, other = (Pose.of(plan.palm_pos_w, plan.palm_quat_w) for plan in (recorded, replayed))
        gaps = {
            "palm [m]": one.distance_m(other),
            "palm [rad]": one.angle_rad(other),
            "depth [m]": _gap(recorded.depth_m, replayed.depth_m),
            "floor [m]": _gap(recorded.floor_m, replayed.floor_m),
            "closing": _gap(recorded.closing, replayed.closing),
            "joints [rad]": _gap(recorded.joint_pos, replayed.joint_pos),
        }
        metres, radians = self._tolerance.plan_m, self._tolerance.plan_rad
        limits = {kind: metres if kind.endswith("[m]") else radians for kind in gaps}
        self._report.compared(self._names.plan, time_s, gaps, limits)


def used_frames(bag: Bag, topics: ReplayTopicsCfg) -> tuple[set[int], set[int]]:
    """Frames that may have made first views, and those that were answered with a cloud, by stamp [us]."""
    frames = [_stamp(event.message) for event in bag.events({topics.depth})]
    answered = {_stamp(event.message) for event in bag.events({topics.points})}
    gathered = set(answered)
    for number, stamp in enumerate(frames):
        if stamp in answered:
            gathered |= set(frames[max(0, number - FIRST_FRAMES + 1) : number])
    return gathered, answered


def spread(points: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Largest distance of a point (point, 3) of either cloud from the nearest of the other [m]."""
    gaps = np.linalg.norm(points[:, None] - others, axis=2)
    return float(max(gaps.min(axis=0).max(), gaps.min(axis=1).max()))


def _gap(a: ArrayLike, b: ArrayLike) -> float:
    return float(np.abs(np.subtract(a, b)).max())


def _stamp(message: Any) -> int:
    """Of a message's header, in microseconds: what a float of seconds still tells apart."""
    stamp = message.header.stamp
    return round((stamp.sec * 10**9 + stamp.nanosec) / 1000)
