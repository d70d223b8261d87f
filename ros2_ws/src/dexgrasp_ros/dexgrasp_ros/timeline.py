"""Readings by their stamps: where the robot was when a frame was taken."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.rotations import Pose, quat_from_rotvec, quat_multiply

Array = NDArray[np.float64]
KEPT_S = 1.0
"""Readings are kept for so long."""


class Timeline:
    """Rows of numbers over time, read between their stamps, and up to `timeout_s` outside of them."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._rows: deque[tuple[float, Array]] = deque()

    @property
    def newest_s(self) -> float:
        """Stamp of the newest row."""
        return self._rows[-1][0] if self._rows else -np.inf

    def add(self, stamp_s: float, row: Array) -> None:
        """A reading; where its clock went back, those before are forgotten."""
        if stamp_s < self.newest_s:
            self._rows.clear()
        self._rows.append((stamp_s, row))
        while stamp_s - self._rows[0][0] > KEPT_S:
            self._rows.popleft()

    def around(self, stamp_s: float) -> tuple[Array, Array, float] | None:
        """The rows before and after a time and how far it is from one to the other, 0..1; None where none is near."""
        if not self._rows or not self._rows[0][0] - self._timeout_s <= stamp_s <= self.newest_s + self._timeout_s:
            return None
        later_s, later = self._rows[-1]
        if stamp_s >= later_s:
            return later, later, 0.0
        for before_s, before in reversed(self._rows):
            if before_s <= stamp_s:
                return before, later, (stamp_s - before_s) / (later_s - before_s)
            later_s, later = before_s, before
        return later, later, 0.0

    def at(self, stamp_s: float) -> Array | None:
        """The row at a time, on the straight line between its neighbours."""
        found = self.around(stamp_s)
        return None if found is None else found[0] + found[2] * (found[1] - found[0])


class PoseTimeline:
    """Poses over time."""

    def __init__(self, timeout_s: float) -> None:
        self._rows = Timeline(timeout_s)

    @property
    def newest_s(self) -> float:
        """Stamp of the newest pose."""
        return self._rows.newest_s

    def add(self, stamp_s: float, pos_m: Array, quat: Array) -> None:
        """A pose (3,), (4,) wxyz."""
        self._rows.add(stamp_s, np.concatenate([pos_m, quat]))

    def at(self, stamp_s: float) -> Pose | None:
        """The pose at a time, moved and turned evenly between its neighbours."""
        found = self._rows.around(stamp_s)
        if found is None:
            return None
        before, after = (Pose.of(row[:3], row[3:]) for row in found[:2])
        part = found[2]
        turn = quat_multiply(quat_from_rotvec(before.turn_to(after) * part), before.quat)
        return Pose(before.pos_m + part * (after.pos_m - before.pos_m), turn)
