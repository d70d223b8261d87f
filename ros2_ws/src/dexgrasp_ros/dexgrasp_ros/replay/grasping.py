"""Replays the grasp state machine: each recorded palm pose is a tick, the next commands its output."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.policies.deploy.shipped import find_bundle
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import TOPIC_TYPES, AdapterCfg, command_topic, load
from dexgrasp_ros.drivers.joint_states import JointStates
from dexgrasp_ros.grasping.state_machine import GraspStateMachine
from dexgrasp_ros.grasping.types import Inputs, Output
from dexgrasp_ros.message_conversions import estimate_from_message
from dexgrasp_ros.replay.bag import Bag, RecordedMessage
from dexgrasp_ros.replay.config import ReplayCfg
from dexgrasp_ros.replay.report import ReplayReport

Array = NDArray[np.float64]
CLOCK = "/clock"
REQUEST_OF_STATE = {"pregrasp": "grasp", "release": "release", "home": "home"}
"""Request of the operator that leads to a state."""


@dataclass
class RecordedTick:
    """One recorded control period."""

    time_s: float
    """Time since the start of the bag [s]."""
    inputs: Inputs
    commands: dict[str, Array] = field(default_factory=dict)
    """Commands of "hand" (motor,) and "arm" (joint,) [rad]."""
    command_time_s: dict[str, float] = field(default_factory=dict)
    """Times of the commands since the start of the bag [s]."""
    state: str = ""
    """State of the grasp node, if it changed in this tick."""


class GraspReplay:
    """Runs the grasp state machine on recorded inputs; compares states and commands."""

    def __init__(self, bag: Bag, cfg: ReplayCfg, report: ReplayReport) -> None:
        policy = Policy.load(find_bundle(cfg.policy))
        hand = policy.contract.hand
        drivers = {"hand": load("hands", cfg.hand)} | ({"arm": load("arms", cfg.arm)} if cfg.arm else {})
        self._arm = _arm(drivers.get("arm"), hand, 1.0 / policy.rate_hz)
        names = {"hand": hand.joint_names, "arm": () if self._arm is None else self._arm.joint_names}
        coupled, self._motors = {"hand": hand.coupled, "arm": {}}, hand.motors
        self._adapters = {
            part: JointAdapter(drivers[part], names[part], coupled[part]) for part in drivers if names[part]
        }
        self._joints = JointStates(self._adapters, others=self._arm is None)
        self._cfg, self._report, self._start_s = cfg, report, bag.start_s
        home = None if self._arm is None else self._arm.palm(self._arm.home)
        self.machine = GraspStateMachine(policy, cfg.grasp, cfg.safety, home, cfg.shadow)
        self._now_s = -np.inf
        self._has_clock = CLOCK in bag.topics
        self._inputs = Inputs(now_s=0.0)
        self._tick: RecordedTick | None = None
        self._state, self._output, self._goal = "idle", Output("idle", "", None), None
        self._callbacks = self._make_callbacks(cfg, drivers)
        self.topics = set(self._callbacks)
        """Topics that the replay reads."""

    def process(self, recorded: RecordedMessage) -> None:
        """Process the next message of the bag; a message that the node would refuse is skipped."""
        if not self._has_clock:
            self._now_s = recorded.time_s
        with suppress(ValueError):
            self._callbacks[recorded.topic](recorded.message, recorded.time_s)

    def finish(self) -> None:
        """Replay the last tick."""
        if self._tick is not None:
            self._replay(self._tick)

    def _make_callbacks(
        self, cfg: ReplayCfg, drivers: dict[str, AdapterCfg]
    ) -> dict[str, Callable[[Any, float], None]]:
        """Return the callback of each topic, called with message and time of recording [s]."""
        topics = cfg.topics
        callbacks: dict[str, Callable[[Any, float], None]] = {
            CLOCK: lambda message, _: self._set_time(message_conversions.seconds(message.clock)),
            topics.points: self._on_points,
            topics.plan: self._on_plan,
            topics.palm: self._on_palm,
            topics.state: self._on_state,
            topics.estop: lambda message, _: self._set_inputs(estop=bool(message.data)),
        }
        for topic in self._joints.topics:
            callbacks[topic] = lambda message, time_s, topic=topic: self._on_joint_state(topic, message, time_s)
        for part in self._adapters:
            command = drivers[part].command
            if command.type not in TOPIC_TYPES or command.rate_hz:
                self._report.notes.append(
                    f"{command.topic}: not compared, the driver gets poses, interpolated commands, goals or what a "
                    "plugin makes"
                )
                continue
            topic = command_topic(drivers[part], cfg.preview)
            callbacks[topic] = lambda message, time_s, part=part: self._on_command(part, message, time_s)
        return callbacks

    def _set_time(self, now_s: float) -> None:
        self._now_s = now_s

    def _set_inputs(self, **values: Any) -> None:
        self._inputs = replace(self._inputs, **values)

    def _on_points(self, message: Any, _: float) -> None:
        self._set_inputs(estimate=estimate_from_message(message))

    def _on_plan(self, message: Any, _: float) -> None:
        plan, stamp_s = message_conversions.plan_from_message(message)
        self._set_inputs(plan=plan, plan_stamp_s=stamp_s)

    def _on_joint_state(self, topic: str, message: Any, time_s: float) -> None:
        stamp_s = message_conversions.seconds(message.header.stamp)
        self._joints.update(topic, message_conversions.joints_from_message(message), stamp_s, time_s)

    def _on_palm(self, message: Any, time_s: float) -> None:
        """Replay the previous tick, which is complete, and start the next one."""
        if self._tick is not None:
            self._replay(self._tick)
        joints, stamp_s = self._joints.newest("hand")
        pos, quat = message_conversions.pose_from_message(message)
        palm_s = message_conversions.seconds(message.header.stamp)
        self._set_inputs(
            joint_pos=joints, joints_stamp_s=stamp_s, palm_pos_w=pos, palm_quat_w=quat, palm_stamp_s=palm_s
        )
        self._tick = RecordedTick(time_s - self._start_s, replace(self._inputs, now_s=max(self._now_s, palm_s)))

    def _on_state(self, message: Any, _: float) -> None:
        if self._tick is not None:
            self._tick.state = message.data

    def _on_command(self, part: str, message: Any, time_s: float) -> None:
        if self._tick is not None:
            self._tick.commands[part] = _targets(self._adapters[part], message)
            self._tick.command_time_s[part] = time_s - self._start_s

    def _replay(self, tick: RecordedTick) -> None:
        self._state = tick.state or self._state
        if "hand" not in tick.commands and not self.machine.active:
            return
        inputs = tick.inputs
        if self._cfg.preview and not self._cfg.shadow and (safe := self._output.safe) is not None:
            inputs = inputs.with_robot_at(safe, self._motors)
        if self.machine.state == "retreat" and tick.state != "pregrasp":  # the answers of services are not in the bag
            inputs = replace(inputs, plan_refused="not confirmed yet in the recording")
        if not self._ready(tick, inputs):
            return
        self._output = self.machine.tick(inputs)
        if self._state == "fault" and self.machine.state != "fault":
            self.machine.request("stop", inputs)  # service calls are not in the bag
            return
        self._compare(tick, self._output)

    def _ready(self, tick: RecordedTick, inputs: Inputs) -> bool:
        """Activate the machine and repeat the operator's requests as recorded; return whether it is active."""
        machine = self.machine
        if not machine.active and (self._state not in ("idle", *REQUEST_OF_STATE) or self._activate(tick, inputs)):
            return False
        if machine.state == "fault" and self._state != "fault" and not machine.request("reset_fault", inputs):
            self._goal = tick.commands.get("arm")
        is_regrasp = (machine.state, tick.state) == ("retreat", "pregrasp")
        asked = "" if is_regrasp else REQUEST_OF_STATE.get(tick.state)
        if asked and machine.state != self._state and (refused := machine.request(asked, inputs)):
            text = f"recorded: {asked} accepted; replayed: {refused}"
            self._report.add_difference(self._cfg.topics.state, tick.time_s, text)
        return True

    def _activate(self, tick: RecordedTick, inputs: Inputs) -> str:
        """Activate the machine at the first recorded commands; return why that is refused, or an empty text."""
        reason = self.machine.activate(inputs)
        if not reason:
            self.machine.gate.joints.reset(tick.commands["hand"])
            self._goal = tick.commands.get("arm")
        return reason

    def _compare(self, tick: RecordedTick, output: Output) -> None:
        limit = {"joints [rad]": self._cfg.tolerance.joints_rad}
        self._report.counts[self._cfg.topics.state] = self._report.counts.get(self._cfg.topics.state, 0) + 1
        if output.state != self._state:
            text = f"recorded '{self._state}', replayed '{output.state}' {output.fault}".rstrip()
            self._report.add_difference(self._cfg.topics.state, tick.time_s, text)
            self.machine.deactivate()  # later results differ as well; activated again in the next idle state
            return
        assert output.safe is not None
        if "hand" in tick.commands:
            gap = float(np.abs(output.safe.joint_target - tick.commands["hand"]).max())
            self._report.add_comparison(self._topic("hand"), tick.command_time_s["hand"], {"joints [rad]": gap}, limit)
        if "arm" in tick.commands and self._arm is not None:
            if self._goal is not None:
                palm = Pose(output.safe.palm_pos_w, output.safe.palm_quat_w)
                gap = float(np.abs(self._arm.step_towards(self._goal, palm) - tick.commands["arm"]).max())
                self._report.add_comparison(
                    self._topic("arm"), tick.command_time_s["arm"], {"joints [rad]": gap}, limit
                )
            self._goal = tick.commands["arm"]

    def _topic(self, part: str) -> str:
        return self._adapters[part].cfg.command.topic


def _arm(driver: AdapterCfg | None, hand: Any, period_s: float) -> ArmKinematics | None:
    if driver is None or driver.arm is None or driver.state is None:
        return None
    base = None if driver.base is None else (driver.base.pos_w, driver.base.yaw_rad)
    return ArmKinematics(driver.arm, hand, period_s, base)


def _targets(adapter: JointAdapter, message: Any) -> Array:
    """Return the targets (motor,) [rad] of a command message, in the order of the contract."""
    command = adapter.cfg.command
    if command.type == "float64_array":
        values = message_conversions.array_from_message(message, len(command.joints))
    elif command.type == "joint_trajectory":
        named, _ = message_conversions.trajectory_point(message)
        values = np.array([named[name] for name in command.joints])
    else:
        values = np.array(message.position, float)
    return adapter.targets(values)
