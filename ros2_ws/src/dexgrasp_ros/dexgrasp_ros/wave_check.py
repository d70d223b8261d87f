"""The wave test without ROS: one joint after the other moves a little and back; what was measured is judged.

A wrong order, sign, zero or unit in what is sent shows in what is measured. One that is wrong in both directions alike
does not: therefore every motion is also told in words, and somebody must have seen it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perception.geometry import Kinematics, quat_conjugate, quat_rotate

Array = NDArray[np.float64]
ENOUGH, TOO_MUCH, STILL = 0.4, 1.6, 0.4
"""Shares of the commanded motion: the joint moves at least and at most so much, every other one less."""
STAY_RAD = 0.1
"""A joint that moves more when it is told to stay is described wrongly."""
DIRECTIONS = (
    ("towards the object", "away from the object"),
    ("to the left of the palm, fingers up", "to the right of the palm, fingers up"),
    ("towards where the fingers point", "towards the wrist"),
)
"""Along x, y and z of the palm, forwards and backwards."""


@dataclass(frozen=True)
class WaveCfg:
    """How the joints are moved."""

    amount_rad: float = 0.15
    """How far each joint moves, towards the middle of its range."""
    speed_rad_s: float = 0.5
    """How fast."""
    settle_s: float = 0.5
    """Rest before each measurement."""

    def __post_init__(self) -> None:
        if not 0.02 <= self.amount_rad <= 0.5:
            raise ValueError(f"amount_rad lies within 0.02 and 0.5, got {self.amount_rad}")
        if not (0 < self.speed_rad_s <= 2 and 0.1 <= self.settle_s <= 10):
            raise ValueError("speed_rad_s lies within 0 and 2, settle_s within 0.1 and 10")


@dataclass(frozen=True)
class Verdict:
    """What became of one joint."""

    joint: str
    commanded_rad: float
    measured_rad: float
    other: str
    """The joint that moved most among the others."""
    other_rad: float
    motion: str
    """What was to be seen."""
    fault: str
    """Why it did not pass; empty if it did."""


def judge(names: Sequence[str], index: int, commanded_rad: float, moved: Array, motion: str) -> Verdict:
    """Of joint `index`, told to move by `commanded_rad`, from the measured motions (joint,) [rad]."""
    share = moved / commanded_rad
    others = [k for k in range(len(names)) if k != index]
    most = max(others, key=lambda k: abs(share[k]))
    fault = ""
    if abs(share[index]) < ENOUGH and abs(share[most]) >= ENOUGH:
        way = "" if share[most] > 0 else ", and backwards"
        fault = f"wrong order: {names[most]} moved instead{way}"
    elif share[index] <= -ENOUGH:
        fault = "wrong sign: it moved backwards"
    elif share[index] < ENOUGH:
        fault = "it did not move" if abs(share[index]) < 0.1 else "it moved too little: blocked, or a wrong unit"
    elif share[index] > TOO_MUCH:
        fault = "it moved too far: a wrong unit"
    elif abs(share[most]) >= STILL:
        fault = f"{names[most]} moved along"
    measured, other = float(moved[index]), float(moved[most])
    return Verdict(names[index], commanded_rad, measured, names[most], other, motion, fault)


@dataclass
class Wave:
    """The sequence; `step` once per control period."""

    names: Sequence[str]
    lower: Array
    upper: Array
    """(joint,) what may be commanded [rad]."""
    chosen: Sequence[str]
    """Joints to move, in turn."""
    cfg: WaveCfg
    period_s: float
    kinematics: Mapping[str, Any]
    """Forward kinematics of the contract's hand, as plain values."""
    palm_quat_b: Sequence[float]
    verdicts: list[Verdict] = field(default_factory=list)
    """Of the joints that have had their turn."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.chosen if name not in self.names]:
            raise ValueError(f"unknown joints {unknown}; the hand has {list(self.names)}")
        self._hand = Kinematics.from_dict(self.kinematics, torch.float64)
        self._waiting = list(self.chosen)
        self._rest: Array | None = None
        self._stayed = False
        self._target = self._goal = self._home = np.zeros(len(self.names))
        self._rested_s, self._out, self._motion = 0.0, False, ""

    @property
    def done(self) -> bool:
        """All joints have had their turn and are back."""
        return not self._waiting and not self._out and self._rested_s >= self.cfg.settle_s

    @property
    def passed(self) -> bool:
        """Every joint of the hand has moved as it should."""
        return {v.joint for v in self.verdicts if not v.fault} == set(self.names)

    def begin(self, joints: Array) -> None:
        """From where the fingers are measured (joint,) [rad]."""
        self._target = self._goal = self._home = np.clip(joints, self.lower, self.upper)
        self._rest, self._rested_s, self._out, self._stayed = joints.copy(), 0.0, False, False

    def step(self, joints: Array) -> tuple[Array, Verdict | None]:
        """Targets (joint,) [rad] of the next control period, and what became of a joint that has just moved.

        First all are told to stay; if one does not, that is the end.
        """
        limit = self.cfg.speed_rad_s * self.period_s
        self._target = self._target + np.clip(self._goal - self._target, -limit, limit)
        verdict = None
        there = np.abs(self._target - self._goal).max() < 1e-9
        self._rested_s = self._rested_s + self.period_s if there else 0.0
        if self._waiting and self._rested_s >= self.cfg.settle_s:
            self._rested_s = 0.0
            verdict = self._turn(joints) if self._stayed else self._stay(joints)
        return self._target, verdict

    def motion(self, index: int, joints: Array, amount_rad: float) -> str:
        """What a motion of a joint looks like, in words: which fingertip moves where."""
        pair = np.stack([joints, joints])
        pair[1, index] += amount_rad
        root = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(2, 4)
        found = self._hand.keypoints(*root, torch.from_numpy(pair))
        palm = torch.tensor(self.palm_quat_b, dtype=torch.float64)
        moved = quat_rotate(quat_conjugate(palm).expand(found.shape[1], 4), found[1] - found[0]).numpy()
        tip = int(np.linalg.norm(moved, axis=1).argmax())
        axis = int(np.abs(moved[tip]).argmax())
        where = DIRECTIONS[axis][int(moved[tip, axis] < 0)]
        return f"{self.kinematics['keypoint_names'][tip]} {1e3 * np.linalg.norm(moved[tip]):.0f} mm {where}"

    def _stay(self, joints: Array) -> Verdict | None:
        """The joint that moved most although it was told to stay, if any did."""
        assert self._rest is not None
        self._stayed, moved = True, joints - self._rest
        worst, other = (int(k) for k in np.argsort(-np.abs(moved))[:2])
        if abs(moved[worst]) <= STAY_RAD:
            return None
        fault = "it moved when it was told to stay: a wrong zero, sign, unit or order"
        names, rad = self.names, [float(value) for value in moved]
        verdict = Verdict(names[worst], 0.0, rad[worst], names[other], rad[other], "nothing", fault)
        self.verdicts.append(verdict)
        self._waiting = []
        return verdict

    def _turn(self, joints: Array) -> Verdict | None:
        """Out, or back with a verdict."""
        index = list(self.names).index(self._waiting[0])
        middle = (self.lower[index] + self.upper[index]) / 2
        if not self._out:
            amount = self.cfg.amount_rad if self._target[index] <= middle else -self.cfg.amount_rad
            self._rest, self._motion = joints.copy(), self.motion(index, joints, amount)
            self._goal = self._target.copy()
            self._goal[index] = np.clip(self._target[index] + amount, self.lower[index], self.upper[index])
            self._home, self._out = self._target.copy(), True
            return None
        assert self._rest is not None
        commanded = float(self._goal[index] - self._home[index])
        verdict = judge(self.names, index, commanded, joints - self._rest, self._motion)
        self._goal, self._out = self._home, False
        self._waiting.pop(0)
        self.verdicts.append(verdict)
        return verdict


def table(verdicts: Sequence[Verdict], reference: Mapping[str, float] | None = None) -> str:
    """One row per joint; `reference`: measured motions [rad] of an earlier test, for instance of the simulated hand."""
    titles = ["joint", "told rad", "moved rad", "most of others", "what was to be seen", "verdict"]
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
    """For JSON."""
    return [asdict(verdict) for verdict in verdicts]
