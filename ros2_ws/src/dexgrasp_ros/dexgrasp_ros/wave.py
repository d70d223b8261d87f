"""The wave test: every joint moves a little and back, and what is measured must be what was told.

    python -m dexgrasp_ros.wave --ros-args -p hand:=allegro_v4 -p bundle:=DIR -p robot:=real

Keep clear of the fingers; nothing may be in the hand. Exit code 1 if a joint does not pass. When all have passed, and
on a real robot when somebody has confirmed each motion, that is recorded: without the record no policy runs there.
"""

import json
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import JointState

from dexgrasp_ros import messages
from dexgrasp_ros.adapter_cfg import load
from dexgrasp_ros.adapters import JointAdapter
from dexgrasp_ros.drivers import JointDriver, listen_joints
from dexgrasp_ros.joint_states import JointStates
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.process import acknowledged, run_to_end
from dexgrasp_ros.readiness import outside
from dexgrasp_ros.wave_check import Verdict, Wave, WaveCfg, as_dicts, table
from dexgrasp_ros.wave_stamp import stamp_path, write_stamp
from policies.bundle import BundleError, read_contract
from policies.safety import SafetyCfg, SafetyGate, Sensed, Wanted

Array = NDArray[np.float64]
PALM: tuple[Any, Any] = (np.array([0.0, 0.0, 0.4]), np.array([1.0, 0.0, 0.0, 0.0]))
"""The gate wants a palm; it stays."""
OUTSIDE_RAD = 0.15


@dataclass(frozen=True)
class WaveNodeCfg:
    """What the wave test is told when it starts."""

    bundle: str
    """Folder of the exported policy, whose contract names the joints."""
    hand: str = "sim_allegro"
    """Description of the hand's driver: a name in config/hands, or the path of a .yaml."""
    robot: Literal["sim", "real"] = "sim"
    """On a real robot each motion must be confirmed by whoever watches the hand."""
    joints: tuple[str, ...] = ()
    """Joints to move; nothing: all of them."""
    wave_test: Path | None = None
    """Where to record that all joints have passed; nothing: where the grasp node looks."""
    results: Path | None = None
    """Where to write the table as JSON."""
    reference: Path | None = None
    """Results of an earlier test, for instance of the simulated hand, to print beside."""
    timeout_s: float = 30.0
    """Give up when no joint states come for so long."""
    wave: WaveCfg = field(default_factory=WaveCfg)
    """How the joints are moved."""
    safety: SafetyCfg = field(default_factory=SafetyCfg)
    """Limits of every command."""


class WaveNode(Node):
    """Moves the joints in turn and ends the process when it is done."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("wave", context=context, **options)
        self.cfg = cfg = declare(self, WaveNodeCfg)
        contract = read_contract(cfg.bundle)
        hand, rate_hz = contract.hand, contract.control.rate_hz
        self._names = hand.joint_names
        self._range = np.array(hand.joint_lower_rad), np.array(hand.joint_upper_rad)
        self._adapter_cfg = load("hands", cfg.hand)
        if self._adapter_cfg.hand != hand.name:
            raise BundleError(f"{cfg.hand} describes the hand {self._adapter_cfg.hand}, the bundle is for {hand.name}")
        self._reference = _read_reference(cfg.reference)
        adapter = JointAdapter(self._adapter_cfg, self._names)
        self._states, self._trouble = JointStates({"hand": adapter}, others=True), ""
        self._driver = JointDriver(self, adapter, 1.0 / rate_hz, preview=False)
        self._gate = SafetyGate(hand, rate_hz, cfg.safety)
        self.wave = Wave(
            names=self._names,
            lower=self._gate.joints.lower,
            upper=self._gate.joints.upper,
            chosen=cfg.joints or self._names,
            cfg=cfg.wave,
            period_s=1.0 / rate_hz,
            kinematics=vars(hand.kinematics),
            palm_quat_b=hand.palm_quat_b,
        )
        """The sequence and what it found."""
        self._began, self._waited_s, self._answer = False, 0.0, Answer()
        self.failure = "ended before all joints had their turn"
        """Why the test has not passed; empty when it has."""
        self.finished = False
        """Nothing more is sent."""
        listen_joints(self, self._states.topics, self._take)
        self.create_timer(1.0 / rate_hz, self._beat)

    def close(self) -> None:
        """Holds where the hand is measured; twice does no harm."""
        joints, _ = self._states.newest("hand")
        if self._began and joints is not None:
            self._began = False
            self._driver.hold(np.clip(joints, self._gate.joints.lower, self._gate.joints.upper))
            acknowledged([self._driver.publisher])

    def _take(self, topic: str, message: JointState) -> None:
        try:
            values = messages.joints_from_message(message)
            self._states.take(topic, values, messages.seconds(message.header.stamp), self._now_s())
            self._trouble = ""
        except ValueError as error:
            self._trouble = str(error)
            self.get_logger().error(f"joint states refused: {error}", throttle_duration_sec=1.0)

    def _beat(self) -> None:
        if self.finished:
            return
        joints, stamp_s = self._states.newest("hand")
        if not self._began:
            self._begin(joints, stamp_s)
        elif joints is not None and not self._answer.awaited:
            self._move(joints, stamp_s)
        elif self._answer.given is not None:
            self._confirmed(self._answer.take())

    def _begin(self, joints: Array | None, stamp_s: float) -> None:
        now_s = self._now_s()
        self._waited_s += self._gate.period_s
        if joints is None or now_s - stamp_s > self.cfg.safety.joints_timeout_s or self._trouble:
            if self._waited_s > self.cfg.timeout_s:
                self._end(f"no joint states on {', '.join(self._states.topics)}. {self._trouble}")
        elif not self._driver.publisher.get_subscription_count():
            if self._waited_s > self.cfg.timeout_s:
                self._end(f"nobody listens to {self._driver.publisher.topic_name}")
        elif reason := outside(joints, self._names, *self._range, OUTSIDE_RAD):
            self._end(reason)
        else:
            self._gate.begin(joints, *PALM, now_s)
            self.wave.begin(joints)
            self._began = True

    def _move(self, joints: Array, stamp_s: float) -> None:
        target, verdict = self.wave.step(joints)
        now_s = self._now_s()
        safe = self._gate(Wanted(target, *PALM, now_s), Sensed(joints, *PALM, stamp_s), now_s)
        self._driver.send(safe.joint_target)
        if safe.fault:
            self._end(f"{safe.fault}. {self._trouble}".rstrip(". "))
        elif verdict is not None:
            self._say(verdict)
        elif self.wave.done:
            self._finish()

    def _say(self, verdict: Verdict) -> None:
        print(f"{verdict.joint}: {verdict.motion}: {verdict.fault or 'ok'}", flush=True)
        if self.cfg.robot == "real" and not verdict.fault:
            self._answer.ask(f"Did the hand do just this: {verdict.motion}? [y/n] ")

    def _confirmed(self, answer: str) -> None:
        if answer.strip().lower() not in ("y", "yes"):
            self._end(f"{self.wave.verdicts[-1].joint}: the motion was not confirmed")

    def _finish(self) -> None:
        faults = [verdict for verdict in self.wave.verdicts if verdict.fault]
        self._end(f"{len(faults)} of {len(self.wave.verdicts)} joints did not pass" if faults else "")
        if self.wave.passed:
            path = self.cfg.wave_test or stamp_path(self.cfg.hand)
            write_stamp(path, self._adapter_cfg, self._names)
            print(f"recorded in {path}", flush=True)
        elif not faults:
            print("not recorded: not all joints were moved", flush=True)

    def _end(self, failure: str) -> None:
        self.failure, self.finished = failure, True
        print("\n" + table(self.wave.verdicts, self._reference), flush=True)
        if self.cfg.results is not None:
            self.cfg.results.write_text(json.dumps(as_dicts(self.wave.verdicts), indent=2) + "\n", encoding="utf-8")
        print(f"\n{'FAILED: ' + failure if failure else 'passed'}", flush=True)
        self.close()

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


class Answer:
    """A question on the terminal that does not keep the node from its work."""

    def __init__(self) -> None:
        self.awaited, self.given = False, None
        """Whether a question is open, and the answer once it came."""

    def ask(self, question: str) -> None:
        """Asks; the answer comes later."""
        self.awaited = True
        threading.Thread(target=self._read, args=(question,), daemon=True).start()

    def take(self) -> str:
        """The answer, which is then no longer open."""
        given, self.awaited, self.given = self.given or "", False, None
        return given

    def _read(self, question: str) -> None:
        print(question, end="", flush=True)
        self.given = sys.stdin.readline() or "no terminal"


def _read_reference(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {row["joint"]: float(row["measured_rad"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results of a wave test: {error}") from error


def main() -> int:
    """Runs the test; 0 if all joints passed."""
    return run_to_end(WaveNode)


if __name__ == "__main__":
    raise SystemExit(main())
