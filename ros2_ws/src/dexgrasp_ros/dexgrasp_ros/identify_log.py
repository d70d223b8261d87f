"""The course of an identification, and its log: what was sent, what was read, when each joint had its turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros.excitation import ExcitationCfg, excite
from dexgrasp_ros.identify_fit import JointLog

Array = NDArray[np.float64]
ASTRAY_RAD = 0.4
"""A joint that is not tested and is further from its target than this touches something."""


@dataclass(frozen=True)
class HandLog:
    """Of all joints that were tested; one clock."""

    hand: str
    """As in assets/hands."""
    joint_names: tuple[str, ...]
    inertia: Array
    """(joint,) [kg m2]"""
    target_time_s: Array
    """(target,)"""
    target: Array
    """(target, joint) [rad]"""
    time_s: Array
    """(reading,)"""
    position: Array
    """(reading, joint) [rad]"""
    turns: Array
    """(turn, 3): number of the joint, beginning and end [s]."""

    def save(self, path: Path) -> None:
        """Write an .npz."""
        np.savez_compressed(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises ValueError."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                values = {name: stored[name] for name in cls.__dataclass_fields__}
        except (KeyError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is not the log of an identification: {error}") from error
        names = tuple(str(name) for name in values.pop("joint_names"))
        return cls(str(values.pop("hand")), names, **values)

    def joints(self) -> list[JointLog]:
        """One log for each turn."""
        found = []
        for number, start_s, end_s in self.turns:
            joint = int(number)
            sent = (self.target_time_s >= start_s) & (self.target_time_s <= end_s)
            read = (self.time_s >= start_s) & (self.time_s <= end_s)
            found.append(
                JointLog(
                    self.joint_names[joint],
                    self.target_time_s[sent],
                    self.target[sent, joint],
                    self.time_s[read],
                    self.position[read, joint],
                    float(self.inertia[joint]),
                )
            )
        return found


class Course:
    """To the rest pose, then one joint after the other; `step` at the rate of the targets."""

    def __init__(
        self, rest: Array, lower: Array, upper: Array, chosen: Sequence[int], cfg: ExcitationCfg, speed_rad_s: float
    ) -> None:
        """`lower`, `upper` (joint,): what each may take alone [rad]; `speed_rad_s`: on the way to the rest pose."""
        self._rest, self._cfg, self._limit = rest, cfg, speed_rad_s / cfg.rate_hz
        self._waiting = [(i, excite(rest[i], lower[i], upper[i], cfg)) for i in chosen]
        self._target: Array | None = None
        self._tick = 0
        self._sent: list[tuple[float, Array]] = []
        self._read: list[tuple[float, Array]] = []
        self._turns: list[tuple[float, float, float]] = []

    @property
    def done(self) -> bool:
        """All joints have had their turn."""
        return not self._waiting

    @property
    def duration_s(self) -> float:
        """What is left, without the way to the rest pose."""
        return sum(len(targets) for _, targets in self._waiting) / self._cfg.rate_hz

    @property
    def joint(self) -> int:
        """Whose turn it is."""
        return self._waiting[0][0]

    def read(self, joints: Array, stamp_s: float) -> None:
        """Positions (joint,) [rad]."""
        if not self._read or stamp_s > self._read[-1][0]:
            self._read.append((stamp_s, joints.copy()))

    def step(self, joints: Array, now_s: float) -> Array:
        """Targets (joint,) [rad] to send, with `joints` (joint,) as measured. Raises ValueError if one is astray."""
        if self._target is None:
            self._target = joints.copy()
        gap = self._rest - self._target
        if self._waiting and (np.abs(gap) > 1e-9).any() and self._tick == 0:
            self._target = self._target + np.clip(gap, -self._limit, self._limit)
        elif self._waiting:
            self._turn(joints, now_s)
        self._sent.append((now_s, self._target.copy()))
        return self._target

    def log(self, hand: str, joint_names: Sequence[str], inertia: Array) -> HandLog:
        """Of the turns so far."""
        (sent_s, sent), (read_s, read) = (zip(*rows, strict=True) for rows in (self._sent, self._read))
        turns = np.array(self._turns).reshape(-1, 3)
        columns = np.array(sent_s), np.array(sent), np.array(read_s), np.array(read)
        return HandLog(hand, tuple(joint_names), inertia, *columns, turns)

    def _turn(self, joints: Array, now_s: float) -> None:
        assert self._target is not None
        joint, targets = self._waiting[0]
        away = np.abs(joints - self._rest)
        away[joint] = 0.0
        if self._tick and away.max() > ASTRAY_RAD:
            raise ValueError(f"joint {int(away.argmax())} is {away.max():.2f} rad from where it should rest")
        if self._tick == 0:
            self._since_s = now_s
        self._target = self._rest.copy()
        self._target[joint] = targets[self._tick]
        self._tick += 1
        if self._tick == len(targets):
            self._turns.append((joint, self._since_s, now_s))
            self._waiting.pop(0)
            self._tick = 0
