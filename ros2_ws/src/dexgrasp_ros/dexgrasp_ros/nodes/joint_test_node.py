"""Joint test node (wave test): moves each joint of a hand and compares command and measurement.

    ros2 run dexgrasp_ros joint_test_node --ros-args -p hand:=allegro_v4 -p bundle:=DIR -p robot:=real

Keep the hand empty and clear of people. The exit code is 1 if a joint fails. A test in which all joints pass, on a real
robot with each motion confirmed by an observer, is recorded; without the record no policy runs on a real robot.
"""

import json
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import JointState

from dexgrasp.policies.deploy.bundle import BundleError, read_contract, refuse_unknown_hand
from dexgrasp.policies.deploy.safety_gate import SafetyCfg, SafetyGate
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.readers import read_json
from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.config import load
from dexgrasp_ros.drivers.joint_states import JointStates
from dexgrasp_ros.drivers.publishers import JointDriver, subscribe_joint_states
from dexgrasp_ros.grasping.emergency_stop import EmergencyStopTopic
from dexgrasp_ros.grasping.input_checks import outside_joint_range
from dexgrasp_ros.joint_gate import PALM, pass_gate
from dexgrasp_ros.joint_test.record import record_path, write_record
from dexgrasp_ros.joint_test.sequence import JointTest, JointTestCfg, Verdict, as_dicts, table
from dexgrasp_ros.node_process import ACKNOWLEDGED_S, run_until_finished
from dexgrasp_ros.parameters import declare

Array = NDArray[np.float64]
OUTSIDE_RAD = 0.15
"""Maximum excess of a measured joint over its range: beyond it, the driver description is wrong [rad]."""


@dataclass(frozen=True)
@bounded
class JointTestNodeCfg:
    """Parameters of the joint test node."""

    bundle: str
    """Folder of the exported policy; its contract names the joints."""
    public_key: str = ""
    """Public Ed25519 key (PEM file) whose owner must have signed the bundle; empty: signatures are not checked."""
    hand_file: str = ""
    """hand.yaml whose limits the bundle must keep to; a real robot needs it for a hand that is not in assets/hands."""
    hand: str = "sim_allegro"
    """Driver of the hand: a name in config/hands or the path of a .yaml."""
    robot: Literal["sim", "real"] = "sim"
    """Kind of robot; on a real one an observer must confirm each motion."""
    joints: tuple[str, ...] = ()
    """Joints to move; empty: all."""
    wave_test: Path | None = None
    """File of the record of a passed test; empty: the default place of grasp_node."""
    results: Path | None = None
    """JSON file for the table of results; empty: none."""
    reference: Path | None = None
    """JSON file with the results of an earlier test, printed for comparison; empty: none."""
    timeout_s: Annotated[float, Bounds(0.01, 3600)] = 30.0
    """Time limit for joint states and a driver to appear [s]."""
    estop_topic: str = "/estop"
    """Topic of the emergency stop, Bool; one true ends the test."""
    wave: JointTestCfg = field(default_factory=JointTestCfg)
    """Motion of the joints."""
    safety: SafetyCfg = field(default_factory=SafetyCfg)
    """Limits of the safety gate, applied to every command."""


class JointTestNode(Node):
    """Moves the joints one after the other; then the process ends."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("wave", context=context, **options)
        self.cfg = cfg = declare(self, JointTestNodeCfg)
        contract = read_contract(cfg.bundle, cfg.public_key, hand_file=cfg.hand_file or None)
        if cfg.robot == "real" and not cfg.hand_file:
            refuse_unknown_hand(contract, cfg.bundle)
        hand, rate_hz = contract.hand, contract.control.rate_hz
        self._names, self._motors = hand.joint_names, hand.motors
        self._range = np.array(hand.joint_lower_rad), np.array(hand.joint_upper_rad)
        self._adapter_cfg = load("hands", cfg.hand, self.get_namespace())
        if self._adapter_cfg.hand != hand.name:
            raise BundleError(
                f"{cfg.hand} is a driver of the hand {self._adapter_cfg.hand}, the bundle is for {hand.name}"
            )
        self._reference = _read_reference(cfg.reference)
        adapter = JointAdapter(self._adapter_cfg, self._names, hand.coupled, cfg.hand)
        self._states, self._input_error = JointStates({"hand": adapter}, others=True), ""
        self._driver = JointDriver(self, adapter, 1.0 / rate_hz, preview=False)
        self._gate = SafetyGate(hand, rate_hz, cfg.safety)
        self.test = JointTest(
            names=self._motors.names,
            lower=self._gate.joints.lower,
            upper=self._gate.joints.upper,
            chosen=cfg.joints or self._motors.names,
            cfg=cfg.wave,
            period_s=1.0 / rate_hz,
            kinematics=vars(hand.kinematics),
            palm_quat_b=hand.palm_quat_b,
            motors=self._motors,
        )
        """Sequence of the test and its results."""
        self._moving, self._waited_s, self._prompt = False, 0.0, OperatorPrompt()
        self.failure = "ended before all joints were tested"
        """Why the test failed; empty when it has passed."""
        self.finished = False
        """Whether the test has ended and nothing more is sent."""
        self._inputs = subscribe_joint_states(self, self._states.topics, self._on_joint_state)
        self._estop = EmergencyStopTopic(self, cfg.estop_topic, self._finish, required=False, timeout_s=0.0)
        self.create_timer(1.0 / rate_hz, self._tick)

    def close(self) -> None:
        """Hold the measured position; may be called again."""
        joints, _ = self._states.newest("hand")
        if self._moving and joints is not None:
            self._moving = False
            self._driver.hold(np.clip(self._motors.positions(joints), self._gate.joints.lower, self._gate.joints.upper))
            self._driver.writer.acknowledged(ACKNOWLEDGED_S)

    def destroy_node(self) -> None:
        """Destroy the driver, which may have a thread, and the node."""
        self._driver.destroy()
        super().destroy_node()

    def _on_joint_state(self, topic: str, message: JointState) -> None:
        try:
            values = message_conversions.joints_from_message(message)
            self._states.update(topic, values, message_conversions.seconds(message.header.stamp), self._now_s())
            self._input_error = ""
        except ValueError as error:
            self._input_error = str(error)
            self.get_logger().error(f"joint states refused: {error}", throttle_duration_sec=1.0)

    def _tick(self) -> None:
        self._estop.drain()
        if self.finished:
            return
        joints, stamp_s = self._states.newest("hand")
        if not self._moving:
            self._start_when_ready(joints, stamp_s)
        elif joints is not None and not self._prompt.pending:
            self._move(joints, stamp_s)
        elif self._prompt.answer is not None:
            self._check_confirmation(self._prompt.pop_answer())

    def _start_when_ready(self, joints: Array | None, stamp_s: float) -> None:
        now_s = self._now_s()
        self._waited_s += self._gate.period_s
        if joints is None or now_s - stamp_s > self.cfg.safety.joints_timeout_s or self._input_error:
            if self._waited_s > self.cfg.timeout_s:
                self._finish(f"no joint states on {', '.join(self._states.topics)}. {self._input_error}")
        elif reason := self._driver.writer.not_ready():
            if self._waited_s > self.cfg.timeout_s:
                self._finish(reason)
        elif reason := outside_joint_range(joints, self._names, *self._range, OUTSIDE_RAD):
            self._finish(reason)
        else:
            self._gate.reset(joints, *PALM, now_s)
            self.test.start(self._motors.positions(joints))
            self._moving = True

    def _move(self, joints: Array, stamp_s: float) -> None:
        target, verdict = self.test.step(self._motors.positions(joints))
        safe = pass_gate(self._gate, target, joints, stamp_s, self._now_s())
        self._driver.send(safe.joint_target)
        if fault := safe.fault or self._failure():
            self._finish(f"{fault}. {self._input_error}".rstrip(". "))
        elif verdict is not None:
            self._report_joint(verdict)
        elif self.test.done:
            self._record_results()

    def _failure(self) -> str:
        """Return why a command was not executed or a state not read, or an empty text."""
        return self._driver.writer.failure() or next(filter(None, (item.failure for item in self._inputs)), "")

    def _report_joint(self, verdict: Verdict) -> None:
        print(f"{verdict.joint}: {verdict.motion}: {verdict.fault or 'ok'}", flush=True)
        if self.cfg.robot == "real" and not verdict.fault:
            self._prompt.ask(f"Was this the motion of the hand: {verdict.motion}? [y/n] ")

    def _check_confirmation(self, answer: str) -> None:
        if answer.strip().lower() not in ("y", "yes"):
            self._finish(f"{self.test.verdicts[-1].joint}: the motion was not confirmed")

    def _record_results(self) -> None:
        faults = [verdict for verdict in self.test.verdicts if verdict.fault]
        self._finish(f"{len(faults)} of {len(self.test.verdicts)} joints failed" if faults else "")
        if self.test.passed:
            path = self.cfg.wave_test or record_path(self.cfg.hand)
            write_record(path, self._adapter_cfg, self._motors.names)
            print(f"recorded in {path}", flush=True)
        elif not faults:
            print("not recorded: not all joints were moved", flush=True)

    def _finish(self, failure: str) -> None:
        self.failure, self.finished = failure, True
        print("\n" + table(self.test.verdicts, self._reference), flush=True)
        if self.cfg.results is not None:
            self.cfg.results.write_text(json.dumps(as_dicts(self.test.verdicts), indent=2) + "\n", encoding="utf-8")
        print(f"\n{'FAILED: ' + failure if failure else 'passed'}", flush=True)
        self.close()

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


class OperatorPrompt:
    """Asks a question on the terminal and reads the answer in a thread, so that the node keeps running."""

    def __init__(self) -> None:
        self.pending = False
        """Whether a question has been asked and its answer not been fetched."""
        self.answer: str | None = None
        """Answer of the pending question; None until it is given."""

    def ask(self, question: str) -> None:
        """Print the question and start to read the answer."""
        self.pending = True
        threading.Thread(target=self._read, args=(question,), daemon=True).start()

    def pop_answer(self) -> str:
        """Return the answer and close the question."""
        answer, self.pending, self.answer = self.answer or "", False, None
        return answer

    def _read(self, question: str) -> None:
        print(question, end="", flush=True)
        self.answer = sys.stdin.readline() or "no terminal"


def _read_reference(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    try:
        rows = read_json(path)
        return {row["joint"]: float(row["measured_rad"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no results of a joint test: {error}") from error


def main() -> int:
    """Run the joint test; return 0 if all joints passed."""
    return run_until_finished(JointTestNode)


if __name__ == "__main__":
    raise SystemExit(main())
