"""Compares the messages of a bag with what the logs say was read and sent."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dexgrasp.policies.deploy.contract import Contract
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions as m
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import JOINT_TYPES, AdapterCfg, command_topic, load
from dexgrasp_ros.drivers.joint_mapping import JointStateError
from dexgrasp_ros.recording.decision_log import plan_key, points_key, pose_of
from dexgrasp_ros.replay.bag import Bag
from dexgrasp_ros.replay.config import ReplayCfg
from dexgrasp_ros.replay.decisions import Event
from dexgrasp_ros.replay.report import ReplayReport

EDGE_S = 0.2
"""Messages so near to the begin and end of a log need not be in it [s]."""
ROUNDING = 1e-9
"""Difference of poses of which one went through a message [m], [rad]."""
Key = Callable[[Any], Any]


class LoggedMessages:
    """Demands that each message of a bag is one that a log names."""

    def __init__(self, bag: Bag, cfg: ReplayCfg, contract: Contract, report: ReplayReport) -> None:
        self._bag, self._cfg, self._report = bag, cfg, report
        hand, self._drivers = contract.hand, {"hand": load("hands", cfg.hand)}
        self._motors = len(hand.motors.names)
        self._adapters = {"hand": JointAdapter(self._drivers["hand"], hand.joint_names, hand.coupled)}
        arm = load("arms", cfg.arm) if cfg.arm else None
        if arm is not None and arm.arm is not None and arm.state is not None:
            self._drivers["arm"] = arm
            joints = ArmKinematics(arm.arm, hand, 1.0 / contract.control.rate_hz).joint_names
            self._adapters["arm"] = JointAdapter(arm, joints)

    def compare_perception(self, events: list[Event]) -> None:
        """Compare points, plans, intrinsics and readings with the log of perception."""
        topics, estimates = self._cfg.topics, [event.values.get("estimate") for event in events]
        found = [estimate for estimate in estimates if estimate]
        self._demand(topics.points, events, {tuple(one["points"]) for one in found}, _cloud_key)
        plans = {one["plan"] for one in found if one["plan"] is not None}
        self._demand(topics.plan, events, plans, lambda message: plan_key(m.plan_from_message(message)[0]))
        readings = [row for event in events for row in event.values.get("readings", ())]
        self._compare_readings({(part, stamp_s): values for part, stamp_s, values in readings if part != "palm"})

    def compare_grasp(self, events: list[Event]) -> None:
        """Compare commands, palm poses and readings of the hand with the log of the grasp node."""
        ticks = [event for event in events if event.call == "tick"]
        rows = [event.values["inputs"] for event in ticks]
        commands = [event.values["output"]["command"] for event in ticks]
        holds = [event.values for event in events if event.call == "hold"]
        hand = [row[: self._motors] for row in commands if row] + [row["fingers"] for row in holds]
        arm = [event.values["goal"] for event in events if event.call in ("arm", "arm_start")]
        self._compare_commands("hand", hand, events)
        self._compare_commands("arm", [*arm, *(row["arm"] for row in holds)], events)
        if not self._cfg.preview:
            self._compare_readings({("hand", row["joints_s"]): row["joints"] for row in rows if row["joints"]})
        palms = {row["palm_s"]: row["palm"] for row in rows if row["palm"]}
        for recorded in [] if self._cfg.preview else self._bag.messages({self._cfg.topics.palm}):
            found = Pose.of(*m.pose_from_message(recorded.message))
            logged = palms.get(m.seconds(recorded.message.header.stamp))
            if logged is not None and not _is_at(found, pose_of(logged)):
                self._differ(self._cfg.topics.palm, recorded.time_s)
        pressed = any(row["estop"] for row in rows) or any(event.call == "fail" for event in events)
        for recorded in self._bag.messages({self._cfg.topics.estop}):
            if recorded.message.data and not pressed and self._within(recorded.time_s, events):
                self._differ(self._cfg.topics.estop, recorded.time_s)

    def _compare_commands(self, part: str, rows: Iterable[list[float] | None], events: list[Event]) -> None:
        if part not in self._drivers:
            return
        driver = self._drivers[part]
        command = driver.command
        if command.type not in JOINT_TYPES or command.rate_hz:
            return
        allowed = {tuple(self._adapters[part].command(row)) for row in rows if row is not None}
        topic = command_topic(driver, self._cfg.preview)
        self._demand(topic, events, allowed, lambda message: _command_key(message, driver))

    def _compare_readings(self, logged: dict[tuple[str, float], list[float]]) -> None:
        for part, driver in self._drivers.items():
            state = driver.state
            if state is None or state.stamp == "arrival":
                continue
            rows = {stamp_s: np.array(values) for (one, stamp_s), values in logged.items() if one == part}
            for recorded in self._bag.messages({state.topic}):
                values = rows.get(m.seconds(recorded.message.header.stamp))
                if values is None:
                    continue
                try:
                    self._compare_reading(part, values, recorded, state.topic)
                except (ValueError, JointStateError):
                    self._differ(state.topic, recorded.time_s)

    def _compare_reading(self, part: str, values: Any, recorded: Any, topic: str) -> None:
        read = self._adapters[part].read(m.joints_from_message(recorded.message))
        if read is not None and not np.array_equal(read, values):
            self._differ(topic, recorded.time_s)

    def _demand(self, topic: str, events: list[Event], allowed: set[Any], key: Key) -> None:
        """Demand that the key of each message is allowed."""
        count = 0
        for recorded in self._bag.messages({topic}):
            if not self._within(recorded.time_s, events):
                continue
            count += 1
            try:
                known = key(recorded.message) in allowed
            except ValueError:
                known = False
            if not known:
                self._differ(topic, recorded.time_s)
        if count:
            self._report.counts[topic] = count

    def _within(self, time_s: float, events: list[Event]) -> bool:
        at_s = time_s - self._bag.start_s
        late = 0.0 if events[0].number == 0 else EDGE_S
        return events[0].time_s + late <= at_s <= events[-1].time_s - EDGE_S

    def _differ(self, topic: str, time_s: float) -> None:
        text = "the message is not one that the log of decisions names: it was changed, or another node sent it"
        self._report.add_difference(topic, time_s - self._bag.start_s, text)


def _is_at(pose: Pose, other: Pose) -> bool:
    """Return whether two poses differ by rounding only."""
    return pose.distance_m(other) <= ROUNDING and pose.angle_rad(other) <= ROUNDING


def _cloud_key(message: Any) -> tuple[int, int]:
    return points_key(m.estimate_from_message(message))


def _command_key(message: Any, driver: AdapterCfg) -> tuple[float, ...]:
    """Return the values of a command message in the driver's order."""
    command = driver.command
    if command.type == "float64_array":
        return tuple(m.array_from_message(message, len(message.data)))
    if command.type == "joint_trajectory":
        named, _ = m.trajectory_point(message)
        return tuple(named[name] for name in command.joints or named)
    return tuple(map(float, message.position))
