"""The grasp machine once more: each recorded palm is a tick of it, what was recorded until the next is its answer."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros import messages
from dexgrasp_ros.adapter_cfg import JOINT_TYPES, AdapterCfg, load
from dexgrasp_ros.adapters import JointAdapter
from dexgrasp_ros.arm import Arm
from dexgrasp_ros.camera_messages import cloud_from_message
from dexgrasp_ros.grasp_types import Inputs, Output, View
from dexgrasp_ros.grasping import GraspMachine
from dexgrasp_ros.joint_states import JointStates
from dexgrasp_ros.poses import Pose
from dexgrasp_ros.replay import ReplayCfg
from dexgrasp_ros.replay_bag import Bag, Event
from dexgrasp_ros.replay_report import Report
from policies.runtime import Policy
from policies.shipped import find_bundle

Array = NDArray[np.float64]
CLOCK = "/clock"
ASKED = {"pregrasp": "grasp", "release": "release", "home": "home"}
"""What an operator asked for, where the state became this."""


@dataclass
class Tick:
    """One control period as recorded."""

    time_s: float
    inputs: Inputs
    commands: dict[str, Array] = field(default_factory=dict)
    """"hand" and "arm" (joint,) [rad]."""
    told_s: dict[str, float] = field(default_factory=dict)
    """When these came."""
    state: str = ""
    """The new state, if it changed."""


class GraspReplay:
    """From the first command on, feeds the machine what was recorded and compares states and commands."""

    def __init__(self, bag: Bag, cfg: ReplayCfg, report: Report) -> None:
        policy = Policy.load(find_bundle(cfg.policy))
        hand = policy.contract["hand"]
        drivers = {"hand": load("hands", cfg.hand)} | ({"arm": load("arms", cfg.arm)} if cfg.arm else {})
        self._arm = _arm(drivers.get("arm"), hand, 1.0 / policy.rate_hz)
        names = {"hand": hand["joint_names"], "arm": () if self._arm is None else self._arm.joint_names}
        self._adapters = {part: JointAdapter(drivers[part], names[part]) for part in drivers if names[part]}
        self._joints = JointStates(self._adapters, others=self._arm is None)
        self._cfg, self._report, self._start_s = cfg, report, bag.start_s
        home = None if self._arm is None else self._arm.palm(self._arm.home)
        self.machine = GraspMachine(policy, cfg.grasp, cfg.safety, home, cfg.shadow)
        self._now_s = -np.inf
        self._has_clock = CLOCK in bag.topics
        self._known = Inputs(now_s=0.0)
        self._tick: Tick | None = None
        self._state, self._output, self._goal = "idle", Output("idle", "", None), None
        self._taken = self._topics(cfg, drivers)
        self.topics = set(self._taken)
        """What it reads."""

    def take(self, event: Event) -> None:
        """The next message of the bag; what the node would refuse changes nothing here either."""
        if not self._has_clock:
            self._now_s = event.time_s
        with suppress(ValueError):
            self._taken[event.topic](event.message, event.time_s)

    def end(self) -> None:
        """The last tick."""
        if self._tick is not None:
            self._replay(self._tick)

    def _topics(self, cfg: ReplayCfg, drivers: dict[str, AdapterCfg]) -> dict[str, Callable[[Any, float], None]]:
        topics = cfg.topics
        taken: dict[str, Callable[[Any, float], None]] = {
            CLOCK: lambda message, _: self._clock(messages.seconds(message.clock)),
            topics.points: self._points,
            topics.plan: self._plan,
            topics.palm: self._palm,
            topics.state: self._told,
            topics.estop: lambda message, _: self._know(estop=bool(message.data)),
        }
        for topic in self._joints.topics:
            taken[topic] = lambda message, time_s, topic=topic: self._joint_state(topic, message, time_s)
        for part in self._adapters:
            command = drivers[part].command
            if command.type not in JOINT_TYPES or command.rate_hz:
                self._report.notes.append(f"{command.topic}: not compared, the driver is told between ticks or poses")
                continue
            topic = f"/preview/{command.topic.lstrip('/')}" if cfg.preview else command.topic
            taken[topic] = lambda message, time_s, part=part: self._command(part, message, time_s)
        return taken

    def _clock(self, now_s: float) -> None:
        self._now_s = now_s

    def _know(self, **values: Any) -> None:
        self._known = replace(self._known, **values)

    def _points(self, message: Any, _: float) -> None:
        cloud = cloud_from_message(message)
        self._know(view=View(cloud.points_w, cloud.visible_fraction, cloud.view_fresh, cloud.stamp_s))

    def _plan(self, message: Any, _: float) -> None:
        plan, stamp_s = messages.plan_from_message(message)
        self._know(plan=plan, plan_stamp_s=stamp_s)

    def _joint_state(self, topic: str, message: Any, time_s: float) -> None:
        stamp_s = messages.seconds(message.header.stamp)
        self._joints.take(topic, messages.joints_from_message(message), stamp_s, time_s)

    def _palm(self, message: Any, time_s: float) -> None:
        """A tick begins; the one before is complete."""
        if self._tick is not None:
            self._replay(self._tick)
        joints, stamp_s = self._joints.newest("hand")
        pos, quat = messages.pose_from_message(message)
        palm_s = messages.seconds(message.header.stamp)
        self._know(joint_pos=joints, joints_stamp_s=stamp_s, palm_pos_w=pos, palm_quat_w=quat, palm_stamp_s=palm_s)
        self._tick = Tick(time_s - self._start_s, replace(self._known, now_s=max(self._now_s, palm_s)))

    def _told(self, message: Any, _: float) -> None:
        if self._tick is not None:
            self._tick.state = message.data

    def _command(self, part: str, message: Any, time_s: float) -> None:
        if self._tick is not None:
            self._tick.commands[part] = _targets(self._adapters[part], message)
            self._tick.told_s[part] = time_s - self._start_s

    def _replay(self, tick: Tick) -> None:
        self._state = tick.state or self._state
        if "hand" not in tick.commands and not self.machine.begun:
            return
        inputs = tick.inputs
        if self._cfg.preview and not self._cfg.shadow and (safe := self._output.safe) is not None:
            inputs = replace(
                inputs, joint_pos=safe.joint_target, palm_pos_w=safe.palm_pos_w, palm_quat_w=safe.palm_quat_w
            )
        if not self._ready(tick, inputs):
            return
        self._output = self.machine.tick(inputs)
        if self._state == "fault" and self.machine.state != "fault":
            self.machine.request("stop", inputs)  # the service that an operator calls is not in the bag
            return
        self._compare(tick, self._output)

    def _ready(self, tick: Tick, inputs: Inputs) -> bool:
        """Begins where the recorded node began, asks what its operator asked."""
        machine = self.machine
        if not machine.begun and (self._state not in ("idle", *ASKED) or self._begin(tick, inputs)):
            return False
        if machine.state == "fault" and self._state != "fault" and not machine.request("reset_fault", inputs):
            self._goal = tick.commands.get("arm")
        by_itself = (machine.state, tick.state) == ("retreat", "pregrasp")
        asked = "" if by_itself else ASKED.get(tick.state)
        if asked and machine.state != self._state and (refused := machine.request(asked, inputs)):
            self._report.differs(self._cfg.topics.state, tick.time_s, f"{asked} was granted, now: {refused}")
        return True

    def _begin(self, tick: Tick, inputs: Inputs) -> str:
        """Begins where the first commands were, if they are near to the readings; why not, or nothing."""
        reason = self.machine.begin(inputs)
        if not reason:
            self.machine.gate.joints.begin(tick.commands["hand"])
            self._goal = tick.commands.get("arm")
        return reason

    def _compare(self, tick: Tick, output: Output) -> None:
        limit = {"joints [rad]": self._cfg.tolerance.joints_rad}
        self._report.counts[self._cfg.topics.state] = self._report.counts.get(self._cfg.topics.state, 0) + 1
        if output.state != self._state:
            text = f"recorded '{self._state}', replayed '{output.state}' {output.fault}".rstrip()
            self._report.differs(self._cfg.topics.state, tick.time_s, text)
            self.machine.end()  # from here on all differs; a new beginning is the next idle state
            return
        assert output.safe is not None
        if "hand" in tick.commands:
            gap = float(np.abs(output.safe.joint_target - tick.commands["hand"]).max())
            self._report.compared(self._topic("hand"), tick.told_s["hand"], {"joints [rad]": gap}, limit)
        if "arm" in tick.commands and self._arm is not None:
            if self._goal is not None:
                wanted = self._arm.towards(self._goal, Pose(output.safe.palm_pos_w, output.safe.palm_quat_w))
                gap = float(np.abs(wanted - tick.commands["arm"]).max())
                self._report.compared(self._topic("arm"), tick.told_s["arm"], {"joints [rad]": gap}, limit)
            self._goal = tick.commands["arm"]

    def _topic(self, part: str) -> str:
        return self._adapters[part].cfg.command.topic


def _arm(driver: AdapterCfg | None, hand: Any, period_s: float) -> Arm | None:
    if driver is None or driver.arm is None or driver.state is None:
        return None
    base = None if driver.base is None else (driver.base.pos_w, driver.base.yaw_rad)
    return Arm(driver.arm, hand, period_s, base)


def _targets(adapter: JointAdapter, message: Any) -> Array:
    """(joint,) [rad] that a command asks for, in the contract's order."""
    command = adapter.cfg.command
    if command.type == "float64_array":
        values = messages.array_from_message(message, len(command.joints))
    elif command.type == "joint_trajectory":
        named, _ = messages.trajectory_point(message)
        values = np.array([named[name] for name in command.joints])
    else:
        values = np.array(message.position, float)
    return adapter.command_map.from_driver(values)
