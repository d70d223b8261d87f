"""Replays perception on recorded frames; recorded marks and clouds tell which frames were used."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.perception.cameras.temporal_filter import FIRST_VIEW_FRAMES
from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.message_conversions import estimate_from_message, plan_id_of
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.perception.config import PerceptionCfg, make_inputs
from dexgrasp_ros.perception.depth_topic import DepthTopic
from dexgrasp_ros.perception.state_machine import PerceptionStateMachine
from dexgrasp_ros.replay.bag import Bag, RecordedMessage
from dexgrasp_ros.replay.config import ReplayToleranceCfg, ReplayTopicsCfg
from dexgrasp_ros.replay.report import ReplayReport


class PerceptionReplay:
    """Runs perception on recorded frames and readings, and compares clouds and plans by frame stamp."""

    def __init__(
        self, bag: Bag, topics: ReplayTopicsCfg, cfg: PerceptionCfg, tolerance: ReplayToleranceCfg, report: ReplayReport
    ) -> None:
        inputs = make_inputs(cfg)
        self._machine, self._joints, self._names = PerceptionStateMachine(inputs.setup), inputs.joints, topics
        self._depth_topic = DepthTopic(cfg, topics.depth)
        self._tolerance, self._report, self._start_s = tolerance, report, bag.start_s
        self._callbacks: dict[str, Callable[[Any, float], None]] = {
            topics.depth: self._on_depth,
            topics.camera_info: lambda message, _: self._machine.on_camera_info(self._depth_topic.intrinsics(message)),
            topics.state: lambda message, _: self._machine.on_grasp_state(message.data),
            topics.points: self._on_points,
            topics.plan: self._on_plan,
        }
        if inputs.setup.arm is None:
            self._callbacks[topics.palm] = self._on_palm_pose
        for topic in self._joints.topics:
            self._callbacks[topic] = lambda message, time_s, topic=topic: self._on_joint_state(topic, message, time_s)
        self.topics = set(self._callbacks)
        """Topics that the replay reads."""
        self._first_view_frames, self._answered_frames = used_frames(bag, topics)
        self._estimates: dict[int, ObjectEstimate] = {}
        self._clouds: dict[int, tuple[float, Any]] = {}
        self._plans: dict[int, tuple[float, PregraspPlan]] = {}
        self._refused: dict[int, str] = {}
        self._views: dict[int | None, tuple[int, float]] = {}
        """Stamp of the frame [us] and time [s] of the first plan with each id."""

    def process(self, recorded: RecordedMessage) -> None:
        """Process the next message of the bag; a message that the node would refuse is skipped."""
        try:
            self._callbacks[recorded.topic](recorded.message, recorded.time_s)
        except ValueError as error:
            if recorded.topic == self._names.depth:
                self._refused[_stamp_us(recorded.message)] = str(error)

    def finish(self) -> None:
        """Compare the recorded clouds and plans with those of the replay."""
        begun_s = self._first_whole_view_s()
        for recorded in (self._clouds, self._plans):
            for key in [key for key, (time_s, _) in recorded.items() if time_s < begun_s]:
                del recorded[key]
        for key, (time_s, message) in self._clouds.items():
            if (estimate := self._estimate(key, time_s, self._names.points)) is not None:
                self._compare_points(time_s, estimate_from_message(message), estimate)
        for key, (time_s, plan) in self._plans.items():
            estimate = self._estimate(key, time_s, self._names.plan)
            if estimate is None:
                continue
            if estimate.plan is None:
                self._report.add_difference(self._names.plan, time_s, "a plan was recorded, the replay makes none here")
            else:
                self._compare_plans(time_s, plan, estimate.plan)

    def _on_depth(self, message: Any, _: float) -> None:
        key = _stamp_us(message)
        if key in (self._first_view_frames if self._machine.collecting_first_view else self._answered_frames):
            depth_m, T_world_cam = self._depth_topic.depth(message)
            estimate = self._machine.on_depth(depth_m, message_conversions.seconds(message.header.stamp), T_world_cam)
            if estimate is not None:
                self._estimates[key] = estimate

    def _on_joint_state(self, topic: str, message: Any, time_s: float) -> None:
        stamp_s = message_conversions.seconds(message.header.stamp)
        self._joints.update(topic, message_conversions.joints_from_message(message), stamp_s, time_s)
        for part in ("hand", "arm"):
            joint_pos, at_s = self._joints.newest(part)
            if joint_pos is not None:
                self._machine.on_joint_state(part, joint_pos, at_s)

    def _on_palm_pose(self, message: Any, _: float) -> None:
        self._machine.on_palm_pose(
            *message_conversions.pose_from_message(message), message_conversions.seconds(message.header.stamp)
        )

    def _on_points(self, message: Any, time_s: float) -> None:
        """Store the first cloud of each frame; later ones were moved with the palm."""
        self._clouds.setdefault(_stamp_us(message), (time_s - self._start_s, message))

    def _on_plan(self, message: Any, time_s: float) -> None:
        plan, stamp_s = message_conversions.plan_from_message(message)
        key, time_s = round(stamp_s * 1e6), time_s - self._start_s
        self._plans.setdefault(key, (time_s, plan))
        self._views.setdefault(plan_id_of(message), (key, time_s))

    def _first_whole_view_s(self) -> float:
        """Return the time [s] of the first view that is compared; 0 for all of them.

        Frames of the first one, or readings with them, may be older than the bag: the replay then has no result where
        the first plan was recorded, and the second view is the first that can come out again.
        """
        (key, _), *others = self._views.values() or [(0, 0.0)]
        if not others or key in self._estimates or key in self._refused:
            return 0.0
        _, begun_s = others[0]
        self._report.notes.append(f"the first view began before the bag: compared from {begun_s:.3f} s on")
        return begun_s

    def _estimate(self, key: int, time_s: float, topic: str) -> ObjectEstimate | None:
        """Return the estimate of the replay for a frame; add a difference where there is none."""
        if key not in self._estimates:
            reason = self._refused.get(key, "the frame is not in the bag, or no first view was complete")
            text = f"recorded for a frame without result in the replay: {reason}"
            self._report.add_difference(topic, time_s, text)
        return self._estimates.get(key)

    def _compare_points(self, time_s: float, recorded: ObjectEstimate, replayed: ObjectEstimate) -> None:
        gaps = {
            "points [m]": hausdorff_m(recorded.points_w, replayed.points_w),
            "visible_fraction": abs(recorded.visible_fraction - replayed.visible_fraction),
            "view_fresh": float(recorded.view_fresh != replayed.view_fresh),
        }
        limits = {"points [m]": self._tolerance.points_m, "visible_fraction": self._tolerance.fraction, "view_fresh": 0}
        self._report.add_comparison(self._names.points, time_s, gaps, limits)

    def _compare_plans(self, time_s: float, recorded: PregraspPlan, replayed: PregraspPlan) -> None:
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
        self._report.add_comparison(self._names.plan, time_s, gaps, limits)


def used_frames(bag: Bag, topics: ReplayTopicsCfg) -> tuple[set[int], set[int]]:
    """Return the stamps [us] of frames that may belong to first views, and of those that have a cloud.

    A busy node skips frames. Its marks tell which ones it used; without marks those before a cloud are taken.
    """
    answered = {_stamp_us(recorded.message) for recorded in bag.messages({topics.points})}
    marked = {round(float(recorded.message.data[0]) * 1e6) for recorded in bag.messages({topics.marks})}
    if marked:
        return answered | marked, answered
    frames = [_stamp_us(recorded.message) for recorded in bag.messages({topics.depth})]
    gathered = set(answered)
    for number, stamp in enumerate(frames):
        if stamp in answered:
            gathered |= set(frames[max(0, number - FIRST_VIEW_FRAMES + 1) : number])
    return gathered, answered


def hausdorff_m(points: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Return the Hausdorff distance between two clouds (point, 3) [m]."""
    gaps = np.linalg.norm(points[:, None] - others, axis=2)
    return float(max(gaps.min(axis=0).max(), gaps.min(axis=1).max()))


def _gap(a: ArrayLike, b: ArrayLike) -> float:
    return float(np.abs(np.subtract(a, b)).max())


def _stamp_us(message: Any) -> int:
    """Return the stamp of a message in microseconds, the resolution of float seconds."""
    stamp = message.header.stamp
    return round((stamp.sec * 10**9 + stamp.nanosec) / 1000)
