"""Buffers of stamped readings, interpolated at the stamp of a depth frame."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.rotations import Pose, quat_from_rotvec, quat_multiply

Array = NDArray[np.float64]
KEPT_S = 1.0
"""Readings older than this against the newest are discarded [s]."""


class StampedBuffer:
    """Stores rows by stamp and interpolates between them.

    Up to `timeout_s` outside the stored range it returns the nearest row.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._rows: deque[tuple[float, Array]] = deque()

    @property
    def newest_s(self) -> float:
        """Stamp of the newest row [s]; -inf before the first."""
        return self._rows[-1][0] if self._rows else -np.inf

    def add(self, stamp_s: float, row: Array) -> None:
        """Store a row; a stamp older than the newest discards all earlier rows."""
        if stamp_s < self.newest_s:
            self._rows.clear()
        self._rows.append((stamp_s, row))
        while stamp_s - self._rows[0][0] > KEPT_S:
            self._rows.popleft()

    def neighbours(self, stamp_s: float) -> tuple[Array, Array, float] | None:
        """Return the rows before and after a stamp and its fraction between them, 0..1; None out of range."""
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
        """Return the row at a stamp, interpolated linearly; None out of range."""
        found = self.neighbours(stamp_s)
        return None if found is None else found[0] + found[2] * (found[1] - found[0])


class StampedPoseBuffer:
    """Stores poses by stamp and interpolates between them."""

    def __init__(self, timeout_s: float) -> None:
        self._rows = StampedBuffer(timeout_s)

    @property
    def newest_s(self) -> float:
        """Stamp of the newest pose [s]; -inf before the first."""
        return self._rows.newest_s

    def add(self, stamp_s: float, pos_m: Array, quat: Array) -> None:
        """Store a pose: position (3,) [m], quaternion (4,) wxyz."""
        self._rows.add(stamp_s, np.concatenate([pos_m, quat]))

    def at(self, stamp_s: float) -> Pose | None:
        """Return the pose at a stamp, interpolated at constant velocity; None out of range."""
        found = self._rows.neighbours(stamp_s)
        if found is None:
            return None
        before, after = (Pose.of(row[:3], row[3:]) for row in found[:2])
        fraction = found[2]
        turn = quat_multiply(quat_from_rotvec(before.turn_to(after) * fraction), before.quat)
        return Pose(before.pos_m + fraction * (after.pos_m - before.pos_m), turn)
