"""Repeats the logged calls of perception and grasp node, and compares every result bit for bit.

A log counts from the first `start` of perception and from each activation of the grasp node. Each message of the bag
that a node consumed or sent must be the one that the log names.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp import configs
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.deploy.policy import Policy, PregraspPlan
from dexgrasp.policies.deploy.safety_gate import SafetyCfg
from dexgrasp.policies.deploy.shipped import find_bundle
from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import load
from dexgrasp_ros.grasping.state_machine import GraspStateMachine
from dexgrasp_ros.grasping.types import GraspCfg, Output
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.perception.config import PerceptionCfg, make_inputs
from dexgrasp_ros.perception.state_machine import PerceptionStateMachine
from dexgrasp_ros.recording.decision_log import checksum, inputs_of, output_row, plan_key, points_key, pose_of
from dexgrasp_ros.recording.logged_perception import estimate_row
from dexgrasp_ros.replay.bag import Bag
from dexgrasp_ros.replay.config import ReplayCfg
from dexgrasp_ros.replay.goals import LoggedGoals, ended_text
from dexgrasp_ros.replay.report import ReplayReport

Array = NDArray[np.float64]
KEPT_IMAGES = 200
"""Depth images that wait for the event which uses them."""


class DifferenceError(ValueError):
    """Raised where a result differs from the log: what follows in it cannot be repeated."""


@dataclass(frozen=True)
class Event:
    """One logged call."""

    number: int
    call: str
    time_s: float
    """Time since the start of the bag [s]."""
    values: dict[str, Any]


def read_log(bag: Bag, topic: str, report: ReplayReport) -> list[Event]:
    """Return the events of a log in the order of their numbers; a gap in the numbers is a difference."""
    events: dict[tuple[int, int], Event] = {}
    run, before, before_s = 0, -1, 0.0  # a node that was started again numbers from 0
    for recorded in bag.messages({topic}):
        try:
            values = json.loads(recorded.message.data)
            number, call = int(values.pop("n")), str(values.pop("call"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            report.add_difference(topic, recorded.time_s - bag.start_s, f"an event cannot be read: {error}")
            continue
        run += number == 0 and before > 0
        if before >= 0 and number != before + 1 and number != 0:
            missing = f"events {before + 1} to {number - 1} are missing in the bag"
            report.add_difference(topic, before_s, missing)
        before, before_s = number, recorded.time_s - bag.start_s
        events[run, number] = Event(number=number, call=call, time_s=before_s, values=values)
    return list(events.values())


class _Stage:
    """Repeats one log, from one of its events of kind `begins` on."""

    begins = ""

    def __init__(self, topic: str, events: list[Event], report: ReplayReport) -> None:
        self.topic, self._events, self._report = topic, events, report
        self._next, self._follows = 0, False
        self._number = -1

    @property
    def complete(self) -> bool:
        """Whether the log holds an event from which on it can be repeated."""
        return any(event.call == self.begins for event in self._events)

    def repeat(self, event: Event) -> None:
        """Repeat one event and compare it."""
        gap, self._number = event.number != self._number + 1, event.number
        self._follows = event.call == self.begins or (self._follows and not gap)
        if not self._follows:
            return
        self._report.counts[self.topic] = self._report.counts.get(self.topic, 0) + 1
        try:
            getattr(self, f"_on_{event.call}")(event.values)
        except DifferenceError as error:
            self._report.add_difference(self.topic, event.time_s, f"event {event.number}, {event.call}: {error}")
            self._follows = False

    @staticmethod
    def _demand(recorded: Any, replayed: Any, what: str) -> None:
        if json.loads(json.dumps(replayed)) != recorded:
            raise DifferenceError(f"{what}: recorded {_short(recorded)}, replayed {_short(replayed)}")


class GraspDecisions(_Stage):
    """Repeats the log of the grasp node."""

    begins = "activate"

    def __init__(self, bag: Bag, cfg: ReplayCfg, events: list[Event], report: ReplayReport) -> None:
        super().__init__(cfg.topics.grasp_log, events, report)
        self._policy = Policy.load(find_bundle(cfg.policy))
        driver = load("arms", cfg.arm) if cfg.arm else None
        self._driver = driver
        self._arm: ArmKinematics | None = None
        self._goal: Array | None = None
        self._command: Any = None
        self._machine: GraspStateMachine | None = None
        self._goals = LoggedGoals()
        self._clouds = {points_key(one): one for one in _clouds(bag, cfg.topics.points)}
        self._plans = {plan_key(one): one for one in _plans(bag, cfg.topics.plan)}

    def repeat_all(self) -> None:
        """Repeat all events."""
        for event in self._events:
            self.repeat(event)
        self._report.notes += self._goals.texts

    def _inputs(self, row: dict[str, Any]) -> Any:
        estimate: ObjectEstimate | None = None
        plan: PregraspPlan | None = None
        if row["points"] is not None and (estimate := self._clouds.get(tuple(row["points"]))) is None:
            raise DifferenceError(
                f"the points with stamp {row['points'][0] * 1e-6:.6f} s are not in the bag, or were changed"
            )
        if row["plan"] is not None and (plan := self._plans.get(row["plan"])) is None:
            raise DifferenceError(f"the plan with stamp {row['plan_s']:.6f} s is not in the bag, or was changed")
        return inputs_of(row, estimate, plan)

    def _on_activate(self, values: dict[str, Any]) -> None:
        settings = values["settings"]
        if self._driver is not None and self._driver.arm is not None and settings["palm_pose_source"] == "arm":
            base = None if self._driver.base is None else (self._driver.base.pos_w, self._driver.base.yaw_rad)
            contract = self._policy.contract
            self._arm = ArmKinematics(
                self._driver.arm, contract.hand, 1.0 / self._policy.rate_hz, base, settings["arm_speed"]
            )
        home = pose_of(values["home"]) if values["home_given"] else None
        self._machine = machine = GraspStateMachine(
            self._policy,
            configs.from_dict(GraspCfg, settings["grasp"], "grasp settings of the log"),
            configs.from_dict(SafetyCfg, settings["safety"], "safety settings of the log"),
            home,
            settings["shadow"],
            planned_approach=settings["approach"] == "moveit",
        )
        machine.slow_down(values["speed_scale"])
        self._demand(values["reason"], machine.activate(self._inputs(values["inputs"])), "answer")

    def _on_deactivate(self, _: dict[str, Any]) -> None:
        self._state.deactivate()

    def _on_tick(self, values: dict[str, Any]) -> None:
        output = self._state.tick(self._inputs(values["inputs"]))
        self._goals.tick(output, values["inputs"]["now_s"])
        self._command = output.safe
        row = output_row(output)
        for name, recorded in values["output"].items():
            self._demand(recorded, row[name], name)

    def _on_request(self, values: dict[str, Any]) -> None:
        answer = self._state.request(values["name"], self._inputs(values["inputs"]))
        self._demand(values["reason"], answer, f"answer to {values['name']}")

    def _on_place(self, values: dict[str, Any]) -> None:
        answer = self._state.place(pose_of(values["palm"]), self._inputs(values["inputs"]))
        self._demand(values["reason"], answer, "answer")

    def _on_limit_attempts(self, values: dict[str, Any]) -> None:
        self._state.limit_attempts(values["attempts"])

    def _on_slow_down(self, values: dict[str, Any]) -> None:
        self._state.slow_down(values["speed_scale"])

    def _on_fail(self, values: dict[str, Any]) -> None:
        self._state.fail(values["reason"])

    def _on_pause(self, values: dict[str, Any]) -> None:
        self._state.pause(values["reason"])

    def _on_arm_start(self, values: dict[str, Any]) -> None:
        self._goal = None if values["goal"] is None else np.array(values["goal"])

    def _on_arm(self, values: dict[str, Any]) -> None:
        if self._goal is None or self._arm is None:
            return
        palm = pose_of([*self._command.palm_pos_w, *self._command.palm_quat_w])
        self._goal = self._arm.step_towards(self._goal, palm)
        self._demand(values["goal"], self._goal.tolist(), "command of the arm")

    def _on_hold(self, _: dict[str, Any]) -> None:
        self._goal = None
        self._goals.tick(Output("idle", "", None))

    def _on_goal(self, values: dict[str, Any]) -> None:
        self._goals.ask(values)

    def _on_goal_begun(self, values: dict[str, Any]) -> None:
        self._goals.begin(values["id"])

    def _on_goal_cancelled(self, values: dict[str, Any]) -> None:
        self._goals.cancel(values["id"])

    def _on_goal_ended(self, values: dict[str, Any]) -> None:
        number = values.pop("id")
        found, text = self._goals.end(number, self._state.state, self._state.fault)
        if found is not None:  # a refused goal has no ticks; its request is an event of its own
            self._demand(values, found, f"result of {text}")
        self._report.notes.append(ended_text(number, text, values))

    @property
    def _state(self) -> GraspStateMachine:
        assert self._machine is not None
        return self._machine


class PerceptionDecisions(_Stage):
    """Repeats the log of the perception node, with the depth images of the bag."""

    begins = "start"

    def __init__(
        self, bag: Bag, cfg: ReplayCfg, base: PerceptionCfg, events: list[Event], report: ReplayReport
    ) -> None:
        super().__init__(cfg.topics.perception_log, events, report)
        self._bag, self._base, self._topic = bag, base, cfg.topics.depth
        self._images: dict[float, Any] = {}
        self._machine: PerceptionStateMachine | None = None
        self._pose: Array | None = None
        self._plan_ids: dict[int, int] = {}
        self._stride, self._unit_m = 1, 0.0

    def repeat_all(self) -> None:
        """Repeat all events, each depth image as soon as it is read."""
        events = iter(self._events)
        waiting = next(events, None)
        for recorded in self._bag.messages({self._topic}):
            self._images[message_conversions.seconds(recorded.message.header.stamp)] = recorded.message
            while waiting is not None and (waiting.call != "depth" or waiting.values["stamp_s"] in self._images):
                self.repeat(waiting)
                waiting = next(events, None)
            if waiting is not None and len(self._images) > KEPT_IMAGES:
                self.repeat(waiting)  # its image is not in the bag
                waiting = next(events, None)
        while waiting is not None:
            self.repeat(waiting)
            waiting = next(events, None)

    def _on_start(self, values: dict[str, Any]) -> None:
        settings = values["settings"]
        segment = configs.from_dict(SegmentationCfg, settings["segment"], "segmentation settings of the log")
        self._stride, self._unit_m = segment.stride, settings["depth_unit_m"]
        own = {name: settings[name] for name in ("check_reachability", "readings_timeout_s")}
        inputs = make_inputs(replace(self._base, segment=segment, **own))
        self._machine, self._pose = PerceptionStateMachine(inputs.setup), None

    def _on_camera_info(self, values: dict[str, Any]) -> None:
        self._read(values)
        self._state.on_camera_info(configs.from_dict(Intrinsics, values["intrinsics"], "intrinsics of the log"))

    def _on_grasp_state(self, values: dict[str, Any]) -> None:
        self._read(values)
        error = _error_of(lambda: self._state.on_grasp_state(values["state"]))[1]
        self._demand(values["error"], error, "error")

    def _on_target(self, values: dict[str, Any]) -> None:
        self._read(values)
        self._state.choose(values["target"])

    def _on_begin(self, values: dict[str, Any]) -> None:
        self._read(values)
        plan_id, error = _error_of(self._state.begin)
        self._demand(values["error"], error, "error")
        if not error:
            self._demand_id(values["plan_id"], plan_id)

    def _on_move_with_palm(self, values: dict[str, Any]) -> None:
        self._read(values)
        self._demand_estimate(values["estimate"], self._state.move_with_palm())

    def _on_depth(self, values: dict[str, Any]) -> None:
        self._read(values)
        stamp_s, image = values["stamp_s"], self._images.pop(values["stamp_s"], None)
        for old in [one for one in self._images if one < stamp_s - 1.0]:
            del self._images[old]
        if image is None:
            raise DifferenceError(f"the depth image with stamp {stamp_s:.6f} s is not in the bag")
        if "pose" in values:
            self._pose = np.array(values["pose"])
        depth_m = message_conversions.depth_from_image(image, self._unit_m)
        if checksum(depth_m[:: self._stride, :: self._stride]) != values["depth"]:
            raise DifferenceError(
                f"the depth image with stamp {stamp_s:.6f} s was changed, or depth_stride of the recorder is not 1 or "
                f"{self._stride}"
            )
        estimate, error = _error_of(lambda: self._state.on_depth(depth_m, stamp_s, self._pose))
        self._demand(values["error"], error, "error")
        self._demand_estimate(values["estimate"], estimate)

    def _read(self, values: dict[str, Any]) -> None:
        """Store the readings that arrived before an event."""
        for part, stamp_s, row in values["readings"]:
            if part == "palm":
                self._state.on_palm_pose(np.array(row[:3]), np.array(row[3:]), stamp_s)
            else:
                self._state.on_joint_state(part, np.array(row), stamp_s)

    def _demand_estimate(self, recorded: dict[str, Any] | None, estimate: ObjectEstimate | None) -> None:
        replayed = estimate_row(estimate)
        if recorded is None or replayed is None:
            self._demand(recorded, replayed, "estimate")
            return
        self._demand(recorded["points"], replayed["points"], "points")
        self._demand(recorded["plan"], replayed["plan"], "plan")
        if recorded["plan_id"] is not None:
            self._demand_id(recorded["plan_id"], replayed["plan_id"])

    def _demand_id(self, recorded: int, replayed: Any) -> None:
        """Demand that plans with one id in the log have one id in the replay."""
        if self._plan_ids.setdefault(recorded, replayed) != replayed:
            raise DifferenceError("the plan of an earlier view was recorded, the replay has made a new one")

    @property
    def _state(self) -> PerceptionStateMachine:
        assert self._machine is not None
        return self._machine


def _error_of(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return the result of a call and the text of its error."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


def _clouds(bag: Bag, topic: str) -> Iterator[ObjectEstimate]:
    for recorded in bag.messages({topic}):
        estimate, _ = _error_of(lambda message=recorded.message: message_conversions.estimate_from_message(message))
        if estimate is not None:
            yield estimate


def _plans(bag: Bag, topic: str) -> Iterator[PregraspPlan]:
    for recorded in bag.messages({topic}):
        found, _ = _error_of(lambda message=recorded.message: message_conversions.plan_from_message(message)[0])
        if found is not None:
            yield found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
