"""Sequence of an identification and its log: targets, readings, and the time span of each joint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros.identification.excitation import ExcitationCfg, excite
from dexgrasp_ros.identification.fit import JointLog

Array = NDArray[np.float64]
MAX_DEVIATION_RAD = 0.4
"""Largest deviation of a joint at rest from its target; beyond it, the finger touches something [rad]."""


@dataclass(frozen=True)
class HandLog:
    """Log of all tested joints, on one clock."""

    hand: str
    """Name of the hand in assets/hands."""
    joint_names: tuple[str, ...]
    inertia: Array
    """(motor,) [kg m2]"""
    target_time_s: Array
    """(target,)"""
    target: Array
    """(target, motor) [rad]"""
    time_s: Array
    """(reading,)"""
    position: Array
    """(reading, motor) [rad]"""
    turns: Array
    """(test, 3): index of the motor, start and end [s]."""

    def save(self, path: Path) -> None:
        """Write the log as .npz."""
        np.savez_compressed(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a log written by `save`. Raises ValueError for any other file."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                values = {name: stored[name] for name in cls.__dataclass_fields__}
        except (KeyError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is not the log of an identification: {error}") from error
        names = tuple(str(name) for name in values.pop("joint_names"))
        return cls(hand=str(values.pop("hand")), joint_names=names, **values)

    def joints(self) -> list[JointLog]:
        """Return one log per tested joint."""
        found = []
        for number, start_s, end_s in self.turns:
            joint = int(number)
            sent = (self.target_time_s >= start_s) & (self.target_time_s <= end_s)
            read = (self.time_s >= start_s) & (self.time_s <= end_s)
            found.append(
                JointLog(
                    name=self.joint_names[joint],
                    target_time_s=self.target_time_s[sent],
                    target=self.target[sent, joint],
                    time_s=self.time_s[read],
                    position=self.position[read, joint],
                    inertia=float(self.inertia[joint]),
                )
            )
        return found


class IdentificationSequence:
    """Moves to the rest pose, then excites one joint after the other.

    Call `step` at the rate of the targets.
    """

    def __init__(
        self, rest: Array, lower: Array, upper: Array, chosen: Sequence[int], cfg: ExcitationCfg, speed_rad_s: float
    ) -> None:
        """`lower`, `upper` (joint,): free ranges [rad]; `speed_rad_s`: of the motion to the rest pose."""
        self._rest, self._cfg, self._limit = rest, cfg, speed_rad_s / cfg.rate_hz
        self._waiting = [(i, excite(rest[i], lower[i], upper[i], cfg)) for i in chosen]
        self._target: Array | None = None
        self._tick = 0
        self._sent: list[tuple[float, Array]] = []
        self._read: list[tuple[float, Array]] = []
        self._turns: list[tuple[float, float, float]] = []

    @property
    def done(self) -> bool:
        """Whether all joints have been excited."""
        return not self._waiting

    @property
    def duration_s(self) -> float:
        """Remaining time, without the motion to the rest pose [s]."""
        return sum(len(targets) for _, targets in self._waiting) / self._cfg.rate_hz

    @property
    def joint(self) -> int:
        """Index of the joint being excited."""
        return self._waiting[0][0]

    def add_reading(self, joints: Array, stamp_s: float) -> None:
        """Add measured positions (joint,) [rad] to the log."""
        if not self._read or stamp_s > self._read[-1][0]:
            self._read.append((stamp_s, joints.copy()))

    def step(self, joints: Array, now_s: float) -> Array:
        """Return the targets (joint,) [rad] for measured `joints` (joint,) [rad].

        Raises ValueError if a joint at rest deviates.
        """
        if self._target is None:
            self._target = joints.copy()
        gap = self._rest - self._target
        if self._waiting and (np.abs(gap) > 1e-9).any() and self._tick == 0:
            self._target = self._target + np.clip(gap, -self._limit, self._limit)
        elif self._waiting:
            self._excite(joints, now_s)
        self._sent.append((now_s, self._target.copy()))
        return self._target

    def record_sent(self, target: Array) -> None:
        """Log the targets (joint,) [rad] that were sent in place of those of the last step."""
        self._sent[-1] = self._sent[-1][0], target.copy()

    def log(self, hand: str, joint_names: Sequence[str], inertia: Array) -> HandLog:
        """Return the log of the joints excited so far."""
        (sent_s, sent), (read_s, read) = (zip(*rows, strict=True) for rows in (self._sent, self._read))
        return HandLog(
            hand=hand,
            joint_names=tuple(joint_names),
            inertia=inertia,
            target_time_s=np.array(sent_s),
            target=np.array(sent),
            time_s=np.array(read_s),
            position=np.array(read),
            turns=np.array(self._turns).reshape(-1, 3),
        )

    def _excite(self, joints: Array, now_s: float) -> None:
        assert self._target is not None
        joint, targets = self._waiting[0]
        deviation = np.abs(joints - self._rest)
        deviation[joint] = 0.0
        if self._tick and deviation.max() > MAX_DEVIATION_RAD:
            raise ValueError(f"joint {int(deviation.argmax())} is {deviation.max():.2f} rad from its rest position")
        if self._tick == 0:
            self._joint_start_s = now_s
        self._target = self._rest.copy()
        self._target[joint] = targets[self._tick]
        self._tick += 1
        if self._tick == len(targets):
            self._turns.append((joint, self._joint_start_s, now_s))
            self._waiting.pop(0)
            self._tick = 0
