"""Safety gate between a policy and the motors: every output stays within the limits; numpy only.

    gate = SafetyGate(contract.hand, contract.control.rate_hz, SafetyCfg())
    gate.reset(joint_pos, palm_pos_w, palm_quat_w, now_s)
    safe = gate(desired, measured, now_s)        once per control period

Commands that are too fast or too far are limited, per call and per time: in less than a control period the targets
move by less, and they stand still while the clock does, or is not a number. A value that is not finite, a wrong length
or an input that is too old is a fault: the gate then brakes, returns the targets to the newest trusted reading, and
holds them until `reset`. A reading is trusted if it is valid, plausible, of allowed age, and within what the robot can
have moved since the last trusted one. Readings far outside joint ranges and workspace, and a palm that does not follow
its target, are faults as well. After `reset` no input makes it raise.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.deploy.contract import HandContract
from dexgrasp.policies.deploy.rate_limiter import RateLimiter, RotationRateLimiter
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.number_arrays import finite_vector, number
from dexgrasp.utils.rotations import Pose

Array = NDArray[np.float64]
MIN_PERIOD_FRACTION = 1e-6
"""A call earlier than this fraction of a control period after the last one moves nothing: steps would be rounding."""
INVALID = "not finite, or of the wrong length, masked, or no numbers"
"""What is wrong with a value that is not used."""


@dataclass(frozen=True)
@bounded
class SafetyCfg:
    """Limits of the commands to a hand and to the arm that carries it."""

    joint_margin_rad: Annotated[float, Bounds(0.0, 1.0)] = 0.02
    """Distance that joint targets keep from the joint limits."""
    joint_speed: Annotated[float, Bounds(1e-3, 1.0)] = 0.5
    """Speed of joint targets, as a share of the servos' speed limits."""
    joint_acceleration_rad_s2: Annotated[float, Bounds(0.01, 1e4)] = 100.0
    """Acceleration of joint targets."""
    joint_step_rad: Annotated[float, Bounds(1e-3, 3.2)] = 0.5
    """Largest motion of a joint target in one control period, at any rate."""
    effort: Annotated[float, Bounds(1e-3, 1.0)] = 1.0
    """Share of the servos' effort that may be used; it limits the lead of targets over the joints."""
    palm_speed_m_s: Annotated[float, Bounds(1e-3, 5.0)] = 0.5
    """Speed of the palm target."""
    palm_acceleration_m_s2: Annotated[float, Bounds(0.01, 100.0)] = 5.0
    """Acceleration of the palm target."""
    palm_speed_rad_s: Annotated[float, Bounds(1e-3, 20.0)] = 2.0
    """Angular speed of the palm target."""
    palm_acceleration_rad_s2: Annotated[float, Bounds(0.01, 1e3)] = 20.0
    """Angular acceleration of the palm target."""
    box_lower_m: Annotated[tuple[float, float, float], Bounds(-10, 10)] = (-0.5, -0.5, 0.0)
    """Least x, y, z of the palm centre, world frame."""
    box_upper_m: Annotated[tuple[float, float, float], Bounds(-10, 10)] = (0.5, 0.5, 0.8)
    """Greatest x, y, z of the palm centre, world frame."""
    table_clearance_m: Annotated[float, Bounds(0.0, 1.0)] = 0.06
    """Least height of the palm centre over the table, z = 0."""
    joint_outside_rad: Annotated[float, Bounds(1e-3, 6.3)] = 0.5
    """Measured joints further outside their range than this are a fault: the reading is wrong."""
    palm_outside_m: Annotated[float, Bounds(1e-3, 10.0)] = 1.0
    """A measured palm further outside its box than this, along an axis, is a fault: the reading is wrong."""
    palm_lag_m: Annotated[float, Bounds(1e-3, 10.0)] = 0.15
    """Distance of the measured palm from its target that is a fault after `palm_lag_s`: the arm does not follow."""
    palm_lag_rad: Annotated[float, Bounds(1e-3, 3.2)] = 0.7
    """Angle of the measured palm to its target that is a fault after `palm_lag_s`."""
    palm_lag_s: Annotated[float, Bounds(1e-3, 60.0)] = 0.5
    """Time for which the palm may be further from its target than `palm_lag_m` or `palm_lag_rad`."""
    joints_timeout_s: Annotated[float, Bounds(1e-3, 60.0)] = 0.1
    """Joint and palm readings older than this are a fault."""
    points_timeout_s: Annotated[float, Bounds(1e-3, 60.0)] = 0.3
    """Points of the object older than this are a fault, while they are monitored."""
    command_timeout_periods: Annotated[float, Bounds(0.5, 100.0)] = 2.0
    """A command older than so many control periods is a fault."""

    def __post_init__(self) -> None:
        if not np.all(np.less(self.lower_m, self.box_upper_m)):
            raise ValueError(f"safety: the palm's box is empty: {self.lower_m} to {self.box_upper_m}")

    @property
    def lower_m(self) -> tuple[float, float, float]:
        """Least x, y, z of the palm centre, with the table."""
        x, y, z = self.box_lower_m
        return x, y, max(z, self.table_clearance_m)


@dataclass(frozen=True)
class DesiredCommand:
    """Joint and palm targets commanded by a policy."""

    joint_target: Any
    """(motor,) [rad]."""
    palm_pos_w: Any
    """(3,) [m]."""
    palm_quat_w: Any
    """(4,) wxyz."""
    stamp_s: float
    """Time of its computation [s]."""


@dataclass(frozen=True)
class MeasuredState:
    """Measured joint positions and palm pose, with time stamps."""

    joint_pos: Any
    """(joint,) [rad]."""
    palm_pos_w: Any
    """(3,) [m]."""
    palm_quat_w: Any
    """(4,) wxyz."""
    stamp_s: float
    """Time at which joints and palm were read [s]."""
    points_stamp_s: float | None = None
    """Time of the object's newest points [s]; None: not monitored, for policies with one frame only. Once given, they
    are monitored until `reset` or `end_points`."""


@dataclass(frozen=True)
class SafeCommand:
    """Joint and palm targets within the limits, and effort limits of the servos."""

    joint_target: Array
    """(motor,) [rad]; all joints are then within their ranges."""
    palm_pos_w: Array
    """(3,) [m]."""
    palm_quat_w: Array
    """(4,) wxyz."""
    effort_limit_nm: Array
    """(motor,) limits of the servos' effort [N m]."""
    fault: str
    """Reason of the hold; empty while the gate follows commands."""


class SafetyGate:
    """Last stage of every command; limits apply per control period, and to shorter times in proportion."""

    def __init__(
        self, hand: HandContract, rate_hz: float, cfg: SafetyCfg | None = None, *, palm_follows: bool = True
    ) -> None:
        """`hand`: of the bundle's contract; `palm_follows`: False where palm targets are not sent (shadow mode)."""
        if not 1.0 <= number(rate_hz) <= 1000.0:
            shown = rate_hz if isinstance(rate_hz, (int, float)) else type(rate_hz).__name__
            raise ValueError(f"the safety gate runs at 1..1000 Hz, got rate_hz={shown}")
        self.cfg = cfg = cfg or SafetyCfg()
        self.period_s = dt = 1.0 / rate_hz
        lower, upper = (np.array(limit, dtype=np.float64) for limit in (hand.joint_lower_rad, hand.joint_upper_rad))
        self._plausible_rad = lower - cfg.joint_outside_rad, upper + cfg.joint_outside_rad
        self._motors = hand.motors
        lower, upper = self._motors.limits(lower, upper)
        lower, upper = lower + cfg.joint_margin_rad, upper - cfg.joint_margin_rad
        if not (lower < upper).all():
            raise ValueError(f"safety.joint_margin_rad={cfg.joint_margin_rad} leaves a joint no room")
        speed = np.array(hand.speed_limit_rad_s, dtype=np.float64) * cfg.joint_speed
        step = np.minimum(speed * dt, cfg.joint_step_rad)
        self.joints = RateLimiter(lower, upper, step, cfg.joint_acceleration_rad_s2 * dt**2)
        """Limiter of the motors' targets."""
        axis = 3**-0.5  # limit per axis at which the norm keeps to the limit
        self.palm = RateLimiter(
            cfg.lower_m, cfg.box_upper_m, axis * cfg.palm_speed_m_s * dt, axis * cfg.palm_acceleration_m_s2 * dt**2
        )
        """Limiter of the palm's position."""
        self.turn = RotationRateLimiter(cfg.palm_speed_rad_s * dt, cfg.palm_acceleration_rad_s2 * dt**2)
        """Limiter of the palm's orientation."""
        self.effort_limit_nm = np.array(hand.effort_limit_nm, dtype=np.float64) * cfg.effort
        """(motor,) effort limits [N m]."""
        self.lead_rad = self.effort_limit_nm / np.array(hand.kp_nm_rad, dtype=np.float64)
        """(motor,) largest lead of a target over its joint [rad]; a larger lead only adds effort."""
        self.fault = ""
        """Reason of the hold; empty while the gate follows commands."""
        self._names, self._palm_follows = hand.joint_names, palm_follows
        self._speed_rad_s = np.array(hand.speed_limit_rad_s, dtype=np.float64)
        self._latest_s = -np.inf  # latest time of any call
        self._clock_went_back = False  # at a reset since the last call: the time to the next call is not known
        self._points_stamp_s: Any = None  # newest one given since the reset
        self._lag_since_s: float | None = None  # since when the palm is too far from its target
        self._hold: tuple[Array, Array, Array] | None = None  # newest trusted reading
        self._hold_s = -np.inf  # its time stamp

    def reset(self, joint_pos: Any, palm_pos_w: Any, palm_quat_w: Any, now_s: float) -> None:
        """Start at rest at the measured state of the robot; clears a fault.

        From outside its limits the first commands return into them, no faster than all others. A `now_s` before the
        last call starts a new clock: the first call after it moves nothing. Raises ValueError for
        values that are not finite, no numbers, of the wrong size, or implausibly far outside the limits.
        """
        joints, pos, quat = finite_vector(joint_pos, len(self._names)), finite_vector(palm_pos_w, 3), _quat(palm_quat_w)
        named = {"joint_pos": joints, "palm_pos_w": pos, "palm_quat_w": quat}
        if wrong := [name for name, value in named.items() if value is None]:
            raise ValueError(f"the safety gate cannot be reset: {wrong} are {INVALID}")
        assert joints is not None and pos is not None and quat is not None
        if not np.isfinite(number(now_s)):
            shown = now_s if isinstance(now_s, (int, float)) else type(now_s).__name__  # an object's text may raise
            raise ValueError(f"the safety gate cannot be reset: now_s must be finite, got {shown}")
        if reason := self._implausible(joints, pos):
            raise ValueError(f"the safety gate cannot be reset: {reason}")
        motors = self._motors.positions(joints)
        self._hold, self._hold_s, self._lag_since_s = (motors, pos, quat), float(now_s), None
        self.joints.reset(motors)
        self.palm.reset(pos)
        self.turn.reset(quat)
        self._clock_went_back = self._clock_went_back or float(now_s) < self._latest_s
        self.fault, self._latest_s, self._points_stamp_s = "", float(now_s), None

    def __call__(self, desired: DesiredCommand, measured: MeasuredState, now_s: float) -> SafeCommand:
        """Return the command that may be sent now; to be called once per control period.

        `now_s`: time on the clock of the stamps [s].
        """
        if self._hold is None:
            raise RuntimeError("the safety gate has no measured state: call reset(...) before the first command")
        now_s = number(now_s)
        joints, motors = len(self._names), len(self._motors.names)
        reading = self._valid_pose(_field(measured, "joint_pos"), measured, joints)
        state = None if reading is None else (self._motors.positions(reading[0]), *reading[1:])
        goal = self._valid_pose(_field(desired, "joint_target"), desired, motors)
        if not self.fault:
            stamp_s = number(_field(measured, "stamp_s"))
            implausible = "" if reading is None else self._implausible(reading[0], reading[1])
            old_reading = self._wrong_age("readings", now_s - stamp_s, self.cfg.joints_timeout_s)
            self.fault = (
                self._wrong_input(now_s, measured_valid=state is not None, desired_valid=goal is not None)
                or implausible
                or old_reading
                or self._too_old(desired, measured, now_s)
            )
            if state is not None and not implausible and not old_reading:
                if self._is_within_reach(state, stamp_s):
                    self._hold, self._hold_s = state, stamp_s
                self.fault = self.fault or self._palm_lags(state, now_s)
        if self.fault or goal is None or state is None:
            goal = self._hold
        else:
            ahead = np.clip(goal[0], state[0] - self.lead_rad, state[0] + self.lead_rad)
            goal = ahead, goal[1], goal[2]
        self._move(goal, now_s)
        return SafeCommand(
            joint_target=self.joints.value.copy(),
            palm_pos_w=self.palm.value.copy(),
            palm_quat_w=self.turn.quat.copy(),
            effort_limit_nm=self.effort_limit_nm.copy(),
            fault=self.fault,
        )

    def _move(self, goal: tuple[Array, Array, Array], now_s: float) -> None:
        """Move the targets towards the goal by what the time since the last call allows, a period at most."""
        if self._clock_went_back and now_s >= self._latest_s:
            self._clock_went_back, self._latest_s = False, now_s
            return
        fraction = min((now_s - self._latest_s) / self.period_s, 1.0)
        if not (np.isfinite(now_s) and fraction >= MIN_PERIOD_FRACTION):
            return
        self._latest_s = now_s
        for limiter, target in zip((self.joints, self.palm, self.turn), goal, strict=True):
            limiter.step_towards(target, fraction)

    def stop(self, reason: str) -> None:
        """Hold from the next call on, for instance after an emergency stop."""
        try:
            text = str(reason).strip()
        except Exception:  # an object may raise anything where it is converted
            text = ""
        self.fault = self.fault or text or "stopped, no reason was given"

    def end_points(self) -> None:
        """Monitor the object's points no longer, until a reading has a stamp of points again."""
        self._points_stamp_s = None

    def _wrong_input(self, now_s: float, *, measured_valid: bool, desired_valid: bool) -> str:
        """Return which input is no number at all, or an empty string."""
        if not np.isfinite(now_s) or now_s < self._latest_s:
            return f"clock: {now_s} s after {self._latest_s} s"
        if not measured_valid:
            return f"readings: {INVALID}"
        return "" if desired_valid else f"command: {INVALID}"

    def _implausible(self, joints: Array, palm_pos_w: Array) -> str:
        """Return the measured joint or palm position that the robot cannot have, or an empty string."""
        outside_rad = np.maximum(self._plausible_rad[0] - joints, joints - self._plausible_rad[1])
        if (outside_rad > 0).any():
            worst = int(outside_rad.argmax())
            place = f"joint {self._names[worst]} at {joints[worst]:.4g} rad"
            return f"readings: {place} is more than {self.cfg.joint_outside_rad:g} rad outside its range"
        outside_m = np.abs(np.clip(palm_pos_w, self.cfg.lower_m, self.cfg.box_upper_m) - palm_pos_w)
        if (outside_m > self.cfg.palm_outside_m).any():
            place = ", ".join(f"{value:.4g}" for value in palm_pos_w)
            return f"readings: the palm at ({place}) m is more than {self.cfg.palm_outside_m:g} m outside its box"
        return ""

    def _is_within_reach(self, state: tuple[Array, Array, Array], stamp_s: float) -> bool:
        """Return whether the robot can have moved from the last trusted reading to this one, no older, in its time."""
        assert self._hold is not None
        cfg, time_s = self.cfg, stamp_s - self._hold_s
        before, now = Pose.of(self._hold[1], self._hold[2]), Pose.of(state[1], state[2])
        return bool(
            time_s >= 0
            and (np.abs(state[0] - self._hold[0]) <= self._speed_rad_s * time_s + self.lead_rad).all()
            and before.distance_m(now) <= cfg.palm_speed_m_s * time_s + cfg.palm_lag_m
            and before.angle_rad(now) <= cfg.palm_speed_rad_s * time_s + cfg.palm_lag_rad
        )

    def _too_old(self, desired: Any, measured: Any, now_s: float) -> str:
        """Return whether command or points are older than allowed, or an empty string."""
        limit_s = self.cfg.command_timeout_periods * self.period_s
        if reason := self._wrong_age("command", now_s - number(_field(desired, "stamp_s")), limit_s):
            return reason
        stamp_s = _field(measured, "points_stamp_s")
        self._points_stamp_s = self._points_stamp_s if stamp_s is None else stamp_s
        if self._points_stamp_s is None:
            return ""
        return self._wrong_age("points", now_s - number(self._points_stamp_s), self.cfg.points_timeout_s)

    def _wrong_age(self, name: str, age_s: float, limit_s: float) -> str:
        """Return that an age is above its limit, in the future or no number, or an empty string."""
        if -self.period_s <= age_s <= limit_s:
            return ""
        age = f"{age_s:.3f}" if not abs(age_s) > 1e9 else f"{age_s:.3g}"
        return f"{name}: {age} s old, at most {limit_s:.3f} s are allowed"

    def _palm_lags(self, state: tuple[Array, Array, Array], now_s: float) -> str:
        """Return how far the measured palm has been from its target for too long, or an empty string."""
        cfg = self.cfg
        target, palm = Pose(self.palm.value, self.turn.quat), Pose.of(state[1], state[2])
        lag_m, lag_rad = target.distance_m(palm), target.angle_rad(palm)
        if not self._palm_follows or (lag_m <= cfg.palm_lag_m and lag_rad <= cfg.palm_lag_rad):
            self._lag_since_s = None
            return ""
        self._lag_since_s = now_s if self._lag_since_s is None else self._lag_since_s
        since_s = now_s - self._lag_since_s
        if since_s <= cfg.palm_lag_s:
            return ""
        return (
            f"tracking: for {since_s:.2f} s the palm is further from its target than {cfg.palm_lag_m:g} m or "
            f"{cfg.palm_lag_rad:g} rad: now {lag_m:.3f} m and {lag_rad:.2f} rad"
        )

    def _valid_pose(self, fingers: Any, palm: Any, count: int) -> tuple[Array, Array, Array] | None:
        """Return fingers (count,), and palm position (3,) and quaternion (4,) of `palm`; None if one is invalid."""
        parts = (
            finite_vector(fingers, count),
            finite_vector(_field(palm, "palm_pos_w"), 3),
            _quat(_field(palm, "palm_quat_w")),
        )
        return None if any(part is None for part in parts) else parts  # pyright: ignore[reportReturnType]


def _quat(value: Any) -> Array | None:
    """Return a quaternion (4,) of about unit length, or None."""
    quat = finite_vector(value, 4)
    return quat if quat is not None and 0.9 < np.linalg.norm(quat) < 1.1 else None


def _field(owner: Any, name: str) -> Any:
    """Return an attribute, None where there is none; a NaN where it cannot be read."""
    try:
        return getattr(owner, name, None)
    except Exception:  # a property may raise anything
        return float("nan")
