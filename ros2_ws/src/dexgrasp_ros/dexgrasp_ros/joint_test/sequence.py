"""Joint test without ROS: moves one joint after the other and evaluates the measured motions.

A wrong order, sign, zero or unit of the commands shows in the measurements. An error that is equal in commands and
states does not: therefore each motion is also described in words, to be confirmed by an observer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.kinematics import Kinematics
from dexgrasp.perception.motors import Motors
from dexgrasp.perception.transforms import quat_conjugate, quat_rotate
from dexgrasp.utils.bounds import Bounds, bounded

Array = NDArray[np.float64]
MIN_MOTION, MAX_MOTION = 0.4, 1.6
"""Smallest and largest accepted motion of the commanded joint, as fractions of the commanded motion."""
MAX_OTHER_MOTION = 0.4
"""Motion of another joint that is a fault, as a fraction of the commanded motion."""
MAX_REST_MOTION_RAD = 0.1
"""Largest accepted motion of a joint that is commanded to hold its position [rad]."""
DIRECTIONS = (
    ("towards the object", "away from the object"),
    ("to the left of the palm, fingers up", "to the right of the palm, fingers up"),
    ("towards where the fingers point", "towards the wrist"),
)
"""Names of the positive and negative directions of x, y and z of the palm frame."""


@dataclass(frozen=True)
@bounded
class JointTestCfg:
    """Motion of the joints."""

    amount_rad: Annotated[float, Bounds(0.02, 0.5)] = 0.15
    """Motion of each joint, towards the centre of its range [rad]."""
    speed_rad_s: Annotated[float, Bounds(0.001, 2)] = 0.5
    """Speed of the motion [rad/s]."""
    settle_s: Annotated[float, Bounds(0.1, 10)] = 0.5
    """Pause before each measurement [s]."""


@dataclass(frozen=True)
class Verdict:
    """Result of one joint."""

    joint: str
    commanded_rad: float
    measured_rad: float
    other: str
    """Name of the other joint that moved most."""
    other_rad: float
    motion: str
    """Visible motion, in words."""
    fault: str
    """Why the joint failed; empty if it passed."""


def assess_motion(names: Sequence[str], index: int, commanded_rad: float, moved: Array, motion: str) -> Verdict:
    """Evaluate the commanded motion of joint `index` from the measured motions (joint,) [rad]."""
    share = moved / commanded_rad
    others = [k for k in range(len(names)) if k != index]
    most = max(others, key=lambda k: abs(share[k]))
    fault = ""
    if abs(share[index]) < MIN_MOTION and abs(share[most]) >= MIN_MOTION:
        direction = "" if share[most] > 0 else ", and backwards"
        fault = f"wrong order: {names[most]} moved instead{direction}"
    elif share[index] <= -MIN_MOTION:
        fault = "wrong sign: it moved backwards"
    elif share[index] < MIN_MOTION:
        fault = "it did not move" if abs(share[index]) < 0.1 else "it moved too little: blocked, or a wrong unit"
    elif share[index] > MAX_MOTION:
        fault = "it moved too far: a wrong unit"
    elif abs(share[most]) >= MAX_OTHER_MOTION:
        fault = f"{names[most]} moved as well"
    return Verdict(
        joint=names[index],
        commanded_rad=commanded_rad,
        measured_rad=float(moved[index]),
        other=names[most],
        other_rad=float(moved[most]),
        motion=motion,
        fault=fault,
    )


@dataclass
class JointTest:
    """Sequence of the joint test; call `step` once per control period. Joints are those of motors."""

    names: Sequence[str]
    lower: Array
    upper: Array
    """(joint,) limits of the commands [rad]."""
    chosen: Sequence[str]
    """Names of the joints to move, in order."""
    cfg: JointTestCfg
    period_s: float
    kinematics: Mapping[str, Any]
    """Kinematics of the hand, from the contract."""
    palm_quat_b: Sequence[float]
    motors: Motors | None = None
    """Motors of the hand, whose joints have `names`; None: every joint has one."""
    verdicts: list[Verdict] = field(default_factory=list)
    """Results of the joints tested so far."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.chosen if name not in self.names]:
            raise ValueError(f"unknown joints {unknown}; joints of the hand: {list(self.names)}")
        self._hand = Kinematics.from_dict(self.kinematics, torch.float64)
        self._waiting = list(self.chosen)
        self._rest: Array | None = None
        self._rest_checked = False
        zero = np.zeros(len(self.names))
        self._target, self._goal, self._home = zero, zero, zero
        self._rested_s, self._deflected, self._motion = 0.0, False, ""

    @property
    def done(self) -> bool:
        """Whether all joints have been tested and are back."""
        return not self._waiting and not self._deflected and self._rested_s >= self.cfg.settle_s

    @property
    def passed(self) -> bool:
        """Whether every joint of the hand has been tested and passed."""
        return {v.joint for v in self.verdicts if not v.fault} == set(self.names)

    def start(self, joints: Array) -> None:
        """Start the test from measured positions (joint,) [rad]."""
        home = np.clip(joints, self.lower, self.upper)
        self._target, self._goal, self._home = home, home, home
        self._rest, self._rested_s = joints.copy(), 0.0
        self._deflected, self._rest_checked = False, False

    def step(self, joints: Array) -> tuple[Array, Verdict | None]:
        """Return the targets (joint,) [rad] of the next control period, and the result of a joint just tested.

        First all joints are commanded to hold their position; if one moves, the test ends.
        """
        limit = self.cfg.speed_rad_s * self.period_s
        self._target = self._target + np.clip(self._goal - self._target, -limit, limit)
        verdict = None
        arrived = np.abs(self._target - self._goal).max() < 1e-9
        self._rested_s = self._rested_s + self.period_s if arrived else 0.0
        if self._waiting and self._rested_s >= self.cfg.settle_s:
            self._rested_s = 0.0
            verdict = self._move_joint(joints) if self._rest_checked else self._check_rest(joints)
        return self._target, verdict

    def motion(self, index: int, joints: Array, amount_rad: float) -> str:
        """Describe the visible motion of a joint: which fingertip moves how far in which direction."""
        pair = np.stack([joints, joints])
        pair[1, index] += amount_rad
        pair = pair if self.motors is None else self.motors.joint_positions(pair)
        root = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(2, 4)
        found = self._hand.keypoints(*root, torch.from_numpy(pair))
        palm = torch.tensor(self.palm_quat_b, dtype=torch.float64)
        moved = quat_rotate(quat_conjugate(palm).expand(found.shape[1], 4), found[1] - found[0]).numpy()
        tip = int(np.linalg.norm(moved, axis=1).argmax())
        axis = int(np.abs(moved[tip]).argmax())
        where = DIRECTIONS[axis][int(moved[tip, axis] < 0)]
        return f"{self.kinematics['keypoint_names'][tip]} {1e3 * np.linalg.norm(moved[tip]):.0f} mm {where}"

    def _check_rest(self, joints: Array) -> Verdict | None:
        """Return the failure of the joint that moved most while all were commanded to hold, or None."""
        assert self._rest is not None
        self._rest_checked, moved = True, joints - self._rest
        worst, other = (int(k) for k in np.argsort(-np.abs(moved))[:2])
        if abs(moved[worst]) <= MAX_REST_MOTION_RAD:
            return None
        verdict = Verdict(
            joint=self.names[worst],
            commanded_rad=0.0,
            measured_rad=float(moved[worst]),
            other=self.names[other],
            other_rad=float(moved[other]),
            motion="nothing",
            fault="it moved when commanded to hold: a wrong zero, sign, unit or order",
        )
        self.verdicts.append(verdict)
        self._waiting = []
        return verdict

    def _move_joint(self, joints: Array) -> Verdict | None:
        """Deflect the next joint, or return it and its result."""
        index = list(self.names).index(self._waiting[0])
        middle = (self.lower[index] + self.upper[index]) / 2
        if not self._deflected:
            amount = self.cfg.amount_rad if self._target[index] <= middle else -self.cfg.amount_rad
            self._rest, self._motion = joints.copy(), self.motion(index, joints, amount)
            self._goal = self._target.copy()
            self._goal[index] = np.clip(self._target[index] + amount, self.lower[index], self.upper[index])
            self._home, self._deflected = self._target.copy(), True
            return None
        assert self._rest is not None
        commanded = float(self._goal[index] - self._home[index])
        verdict = assess_motion(self.names, index, commanded, joints - self._rest, self._motion)
        self._goal, self._deflected = self._home, False
        self._waiting.pop(0)
        self.verdicts.append(verdict)
        return verdict


def table(verdicts: Sequence[Verdict], reference: Mapping[str, float] | None = None) -> str:
    """Return the results as text, one row per joint; `reference`: earlier measured motions [rad]."""
    titles = ["joint", "commanded rad", "moved rad", "largest other", "visible motion", "result"]
    rows = [
        [
            v.joint,
            f"{v.commanded_rad:+.3f}",
            f"{v.measured_rad:+.3f}",
            f"{v.other} {v.other_rad:+.3f}",
            v.motion,
            v.fault or "ok",
        ]
        for v in verdicts
    ]
    if reference is not None:
        titles.insert(3, "reference")
        for row, v in zip(rows, verdicts, strict=True):
            row.insert(3, f"{reference[v.joint]:+.3f}" if v.joint in reference else "-")
    widths = [max(len(row[k]) for row in [titles, *rows]) for k in range(len(titles))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [titles, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def as_dicts(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the results as plain values for JSON."""
    return [asdict(verdict) for verdict in verdicts]
