"""System identification: moves each joint of a hand, fits what drives it to the log, writes hand parameters.

    python -m dexgrasp_ros.identify --ros-args -p hand:=allegro_v4 -p robot:=real -p out:=identified
    python -m dexgrasp_ros.identify --ros-args -p log:=identified/log.npz            fit a log again, move nothing

Nothing may be in the hand or near its fingers: targets jump. OUT/log.npz is the log, OUT/identified.yaml the parameters
and the ranges for domain randomisation, OUT/identified.png measured against fitted positions.
"""

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
from dexgrasp_ros.excitation import ExcitationCfg
from dexgrasp_ros.identify_fit import JointFit, fit_joint
from dexgrasp_ros.identify_hand import HandModel, load_hand
from dexgrasp_ros.identify_log import Course, HandLog
from dexgrasp_ros.identify_report import draw, table, warnings, write_parameters
from dexgrasp_ros.joint_states import JointStates
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.process import acknowledged, run_to_end
from dexgrasp_ros.readiness import outside
from dexgrasp_ros.wave_stamp import check_stamp, stamp_path

Array = NDArray[np.float64]
OUTSIDE_RAD = 0.15
"""A joint measured this far outside its range is described wrongly."""


@dataclass(frozen=True)
class IdentifyCfg:
    """What the identification is told when it starts."""

    hand: str = "sim_allegro"
    """Description of the hand's driver: a name in config/hands, or the path of a .yaml."""
    model: str = ""
    """Hand of assets/hands, or a folder with hand.yaml; empty = what the driver's description names."""
    robot: Literal["sim", "real"] = "sim"
    """On a real robot nothing moves before the wave test of its hand."""
    wave_test: Path | None = None
    """Record of the wave test; nothing: where the wave test writes it."""
    joints: tuple[str, ...] = ()
    """Joints to test; nothing: all of them."""
    log: str = ""
    """A log.npz to fit instead of moving the hand."""
    out: str = "identified"
    """Folder of the results."""
    approach_rad_s: float = 0.5
    """Speed of the joints on their way to the rest pose."""
    control_hz: float = 20.0
    """Rate of the policy, in whose periods randomisation counts delays."""
    timeout_s: float = 30.0
    """Give up when nothing is ready for so long."""
    stale_s: float = 0.2
    """Hold and end when joint states are older."""
    excitation: ExcitationCfg = field(default_factory=ExcitationCfg)
    """How the joints are moved."""


class IdentifyNode(Node):
    """Moves the joints in turn, then fits and writes; ends the process when it is done."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("identify", context=context, **options)
        self.cfg = cfg = declare(self, IdentifyCfg)
        self.failure, self.finished = "", False
        self._driver: JointDriver | None = None
        if cfg.log:
            self._starter = self.create_timer(0.0, self._refit)
            return
        adapter_cfg = load("hands", cfg.hand)
        self._model = model = load_hand(cfg.model or str(adapter_cfg.hand), cfg.excitation)
        names = model.joint_names
        if cfg.robot == "real" and (reason := check_stamp(cfg.wave_test or stamp_path(cfg.hand), adapter_cfg, names)):
            raise ValueError(reason)
        if unknown := [name for name in cfg.joints if name not in names]:
            raise ValueError(f"unknown joints {unknown}; the hand has {list(names)}")
        chosen = [list(names).index(name) for name in cfg.joints or names]
        free = model.free_lower, model.free_upper
        self.course = Course(model.rest, *free, chosen, cfg.excitation, cfg.approach_rad_s)
        adapter = JointAdapter(adapter_cfg, names)
        self._states = JointStates({"hand": adapter}, others=True)
        self._driver = JointDriver(self, adapter, 1.0 / cfg.excitation.rate_hz, preview=False)
        listen_joints(self, self._states.topics, self._take)
        self._trouble, self._began, self._waited_s = "", False, 0.0
        self._timer = self.create_timer(1.0 / cfg.excitation.rate_hz, self._beat)

    def close(self) -> None:
        """Hold where the hand is, if it was moved; twice does no harm."""
        if self._driver is None or not getattr(self, "_began", False):
            return
        self._began = False
        joints = self._states.newest("hand")[0]
        if joints is not None:
            self._driver.hold(np.clip(joints, self._model.lower, self._model.upper))
            acknowledged([self._driver.publisher])

    def _take(self, topic: str, message: JointState) -> None:
        stamp_s = messages.seconds(message.header.stamp)
        try:
            self._states.take(topic, messages.joints_from_message(message), stamp_s, self._now_s())
            joints, stamp_s = self._states.newest("hand")
            if joints is not None:
                self.course.read(joints, stamp_s)
            self._trouble = ""
        except ValueError as error:
            self._trouble = f"joint states refused: {error}"

    def _beat(self) -> None:
        joints, stamp_s = self._states.newest("hand")
        age_s = self._now_s() - stamp_s
        if not self._began:
            self._wait(joints, age_s)
        elif joints is None or age_s > self.cfg.stale_s:
            self._end(f"joint states are {age_s:.2f} s old. {self._trouble}")
        else:
            self._move(joints)

    def _wait(self, joints: Array | None, age_s: float) -> None:
        assert self._driver is not None
        self._waited_s += 1.0 / self.cfg.excitation.rate_hz
        missing = ""
        if joints is None or age_s > self.cfg.stale_s:
            missing = f"no joint states on {', '.join(self._states.topics)}. {self._trouble}"
        elif not self._driver.publisher.get_subscription_count():
            missing = f"nobody listens to {self._driver.publisher.topic_name}"
        if missing:
            if self._waited_s > self.cfg.timeout_s:
                self._end(missing)
            return
        assert joints is not None
        model = self._model
        if reason := outside(joints, model.joint_names, model.lower, model.upper, OUTSIDE_RAD):
            self._end(reason)
            return
        self._began = True
        print(f"{self.course.duration_s:.0f} s of steps and chirps; keep clear of the fingers", flush=True)

    def _move(self, joints: Array) -> None:
        assert self._driver is not None
        try:
            self._driver.send(self.course.step(joints, self._now_s()))
        except ValueError as error:
            self._end(str(error))
            return
        if self.course.done:
            self._timer.cancel()
            self.close()
            log = self.course.log(self._model.name, self._model.joint_names, self._model.inertia)
            self._fit(log, self._model)
            self._end("")

    def _refit(self) -> None:
        self._starter.cancel()
        try:
            log = HandLog.load(self.cfg.log)
            self._fit(log, load_hand(self.cfg.model or log.hand, self.cfg.excitation))
            self._end("")
        except (ValueError, OSError) as error:
            self._end(str(error))

    def _fit(self, log: HandLog, model: HandModel) -> list[JointFit]:
        out = Path(self.cfg.out)
        out.mkdir(parents=True, exist_ok=True)
        log.save(out / "log.npz")
        fits, logs = [], log.joints()
        for one in logs:
            print(f"fitting {one.name}", flush=True)
            fits.append(fit_joint(one, model.guess[list(model.joint_names).index(one.name)]))
        write_parameters(out / "identified.yaml", log.hand, fits, self.cfg.control_hz)
        draw(out / "identified.png", logs, fits)
        print("\n".join([table(fits), *warnings(fits)]), flush=True)
        print(f"written: {out / 'identified.yaml'}, identified.png, log.npz", flush=True)
        return fits

    def _end(self, failure: str) -> None:
        if self._driver is not None:
            self._timer.cancel()
        self.failure, self.finished = failure, True
        if failure:
            print(f"FAILED: {failure}", flush=True)
        self.close()

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


def main() -> int:
    """Runs the identification; 0 if parameters were written."""
    return run_to_end(IdentifyNode)


if __name__ == "__main__":
    raise SystemExit(main())
