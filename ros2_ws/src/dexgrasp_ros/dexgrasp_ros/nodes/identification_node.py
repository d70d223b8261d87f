"""System identification node: excites each joint of a hand and fits servo parameters to the log.

    ros2 run dexgrasp_ros identification_node --ros-args -p hand:=allegro_v4 -p robot:=real -p out:=runs/identified
    ros2 run dexgrasp_ros identification_node --ros-args -p log:=runs/identified/log.npz     fit an existing log

Keep the hand empty and clear of objects and people: targets jump. Files: OUT/log.npz (log), OUT/identified.yaml
(parameters and ranges for domain randomisation), OUT/identified.png (measured and fitted positions).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import JointState

from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.config import load
from dexgrasp_ros.drivers.joint_states import JointStates
from dexgrasp_ros.drivers.publishers import JointDriver, subscribe_joint_states
from dexgrasp_ros.grasping.emergency_stop import EmergencyStopTopic
from dexgrasp_ros.grasping.input_checks import outside_joint_range
from dexgrasp_ros.identification.excitation import ExcitationCfg
from dexgrasp_ros.identification.fit import JointFit, fit_joint
from dexgrasp_ros.identification.gate import make_gate
from dexgrasp_ros.identification.hand_model import HandModel, load_hand
from dexgrasp_ros.identification.log import HandLog, IdentificationSequence
from dexgrasp_ros.identification.report import plot_fits, table, warnings, write_parameters
from dexgrasp_ros.joint_gate import PALM, pass_gate
from dexgrasp_ros.joint_test.record import check_record, record_path
from dexgrasp_ros.node_process import ACKNOWLEDGED_S, run_until_finished
from dexgrasp_ros.parameters import declare

Array = NDArray[np.float64]
OUTSIDE_RAD = 0.15
"""Maximum excess of a measured joint over its range: beyond it, the driver description is wrong [rad]."""


@dataclass(frozen=True)
@bounded
class IdentificationCfg:
    """Parameters of the identification node."""

    hand: str = "sim_allegro"
    """Driver of the hand: a name in config/hands or the path of a .yaml."""
    model: str = ""
    """Hand model: a name in assets/hands or a folder with hand.yaml; empty: the hand that the driver names."""
    robot: Literal["sim", "real"] = "sim"
    """Kind of robot; on a real one the hand needs a recorded joint test."""
    wave_test: Path | None = None
    """Record of the joint test; empty: the default place of joint_test_node."""
    joints: tuple[str, ...] = ()
    """Joints to test; empty: all."""
    log: str = ""
    """File log.npz to fit instead of moving the hand."""
    out: str = "runs/identified"
    """Folder of the results."""
    approach_rad_s: Annotated[float, Bounds(0.001, 20)] = 0.5
    """Speed of the joints in the motion to the rest pose [rad/s]."""
    control_hz: Annotated[float, Bounds(1, 1000)] = 20.0
    """Rate of the policy, whose period is the unit of delays in randomisation [Hz]."""
    timeout_s: Annotated[float, Bounds(0.01, 3600)] = 30.0
    """Time limit for joint states and a driver to appear [s]."""
    stale_s: Annotated[float, Bounds(0.001, 60)] = 0.2
    """Maximum age of joint states during the motion; beyond it the test ends with a failure [s]."""
    estop_topic: str = "/estop"
    """Topic of the emergency stop, Bool; one true ends the motion."""
    excitation: ExcitationCfg = field(default_factory=ExcitationCfg)
    """Excitation of the joints."""


class IdentificationNode(Node):
    """Excites the joints one after the other, fits the log and writes the results; then the process ends."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("identify", context=context, **options)
        self.cfg = cfg = declare(self, IdentificationCfg)
        self.failure, self.finished = "", False
        self._driver: JointDriver | None = None
        if cfg.log:
            self._refit_timer = self.create_timer(0.0, self._refit)
            return
        adapter_cfg = load("hands", cfg.hand, self.get_namespace())
        self._model = model = load_hand(cfg.model or str(adapter_cfg.hand), cfg.excitation)
        names = model.motors.names
        if cfg.robot == "real" and (reason := check_record(cfg.wave_test or record_path(cfg.hand), adapter_cfg, names)):
            raise ValueError(reason)
        if unknown := [name for name in cfg.joints if name not in names]:
            raise ValueError(f"unknown joints {unknown}; joints of the hand: {list(names)}")
        chosen = [list(names).index(name) for name in cfg.joints or names]
        self.sequence = IdentificationSequence(
            rest=model.rest,
            lower=model.free_lower,
            upper=model.free_upper,
            chosen=chosen,
            cfg=cfg.excitation,
            speed_rad_s=cfg.approach_rad_s,
        )
        adapter = JointAdapter(adapter_cfg, model.motors.joint_names, model.motors.coupled, cfg.hand)
        self._gate = make_gate(cfg.model or str(adapter_cfg.hand), cfg.excitation, cfg.stale_s)
        self._states = JointStates({"hand": adapter}, others=True)
        self._driver = JointDriver(self, adapter, 1.0 / cfg.excitation.rate_hz, preview=False)
        self._inputs = subscribe_joint_states(self, self._states.topics, self._on_joint_state)
        self._input_error, self._moving, self._waited_s = "", False, 0.0
        self._estop = EmergencyStopTopic(self, cfg.estop_topic, self._finish, required=False, timeout_s=0.0)
        self._timer = self.create_timer(1.0 / cfg.excitation.rate_hz, self._tick)

    def close(self) -> None:
        """Hold the measured position if the hand was moved; may be called again."""
        if self._driver is None or not getattr(self, "_moving", False):
            return
        self._moving = False
        joints = self._states.newest("hand")[0]
        if joints is not None:
            joints = self._model.motors.positions(joints)
            self._driver.hold(np.clip(joints, self._model.lower, self._model.upper))
            self._driver.writer.acknowledged(ACKNOWLEDGED_S)

    def destroy_node(self) -> None:
        """Destroy the driver, which may have a thread, and the node."""
        if self._driver is not None:
            self._driver.destroy()
        super().destroy_node()

    def _on_joint_state(self, topic: str, message: JointState) -> None:
        stamp_s = message_conversions.seconds(message.header.stamp)
        try:
            self._states.update(topic, message_conversions.joints_from_message(message), stamp_s, self._now_s())
            joints, stamp_s = self._states.newest("hand")
            if joints is not None:
                self.sequence.add_reading(self._model.motors.positions(joints), stamp_s)
            self._input_error = ""
        except ValueError as error:
            self._input_error = f"joint states refused: {error}"

    def _tick(self) -> None:
        self._estop.drain()
        if self.finished:
            return
        joints, stamp_s = self._states.newest("hand")
        age_s = self._now_s() - stamp_s
        if not self._moving:
            self._start_when_ready(joints, age_s)
        elif joints is None or age_s > self.cfg.stale_s:
            self._finish(f"joint states are {age_s:.2f} s old. {self._input_error}")
        else:
            self._move(joints, stamp_s)

    def _start_when_ready(self, joints: Array | None, age_s: float) -> None:
        assert self._driver is not None
        self._waited_s += 1.0 / self.cfg.excitation.rate_hz
        missing = ""
        if joints is None or age_s > self.cfg.stale_s:
            missing = f"no joint states on {', '.join(self._states.topics)}. {self._input_error}"
        else:
            missing = self._driver.writer.not_ready()
        if missing:
            if self._waited_s > self.cfg.timeout_s:
                self._finish(missing)
            return
        assert joints is not None
        model, driven = self._model, self._model.motors.positions(joints)
        if reason := outside_joint_range(driven, model.motors.names, model.lower, model.upper, OUTSIDE_RAD):
            self._finish(reason)
            return
        self._gate.reset(joints, *PALM, self._now_s())
        self._moving = True
        print(f"{self.sequence.duration_s:.0f} s of steps and chirps; keep clear of the fingers", flush=True)

    def _move(self, joints: Array, stamp_s: float) -> None:
        assert self._driver is not None
        now_s = self._now_s()
        try:
            target = self.sequence.step(self._model.motors.positions(joints), now_s)
        except ValueError as error:
            self._finish(str(error))
            return
        safe = pass_gate(self._gate, target, joints, stamp_s, now_s)
        self.sequence.record_sent(safe.joint_target)
        self._driver.send(safe.joint_target)
        failures = [safe.fault, self._driver.writer.failure(), *(item.failure for item in self._inputs)]
        if fault := next(filter(None, failures), ""):
            self._finish(f"{fault}. {self._input_error}".rstrip(". "))
            return
        if self.sequence.done:
            self._timer.cancel()
            self.close()
            log = self.sequence.log(self._model.name, self._model.motors.names, self._model.inertia)
            self._fit(log, self._model)
            self._finish("")

    def _refit(self) -> None:
        self._refit_timer.cancel()
        try:
            log = HandLog.load(self.cfg.log)
            self._fit(log, load_hand(self.cfg.model or log.hand, self.cfg.excitation))
            self._finish("")
        except (ValueError, OSError) as error:
            self._finish(str(error))

    def _fit(self, log: HandLog, model: HandModel) -> list[JointFit]:
        out = Path(self.cfg.out)
        out.mkdir(parents=True, exist_ok=True)
        log.save(out / "log.npz")
        fits, logs = [], log.joints()
        for one in logs:
            print(f"fitting {one.name}", flush=True)
            fits.append(fit_joint(one, model.guess[model.motors.names.index(one.name)]))
        write_parameters(out / "identified.yaml", log.hand, fits, self.cfg.control_hz)
        plot_fits(out / "identified.png", logs, fits)
        print("\n".join([table(fits), *warnings(fits)]), flush=True)
        print(f"written: {out / 'identified.yaml'}, identified.png, log.npz", flush=True)
        return fits

    def _finish(self, failure: str) -> None:
        if self._driver is not None:
            self._timer.cancel()
        self.failure, self.finished = failure, True
        if failure:
            print(f"FAILED: {failure}", flush=True)
        self.close()

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


def main() -> int:
    """Run the identification; return 0 if parameters were written."""
    return run_until_finished(IdentificationNode)


if __name__ == "__main__":
    raise SystemExit(main())
