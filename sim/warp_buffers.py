"""Memory for contacts and constraints on the device: how much a batch needs, and an error when it was too little.

Warp allocates once and leaves out what does not fit. Counters on the device remember the most that was asked for, so
that an overflow can name the number that would have done.
"""

import logging
import math
from dataclasses import dataclass

import mujoco_warp as mjw
import numpy as np
import warp as wp

from sim.warp_kernels import remember

log = logging.getLogger(__name__)

MARGIN = 1.5
"""Factor on what a warm-up has needed."""
LEAST_CONTACTS, LEAST_ROWS = 24, 80
"""No buffer is smaller, whatever a warm-up says: a hand that lies on the table has as many."""
NOT_LOST = mjw.OverflowType.ITERATIONS | mjw.OverflowType.LS_ITERATIONS
"""The solver stopped at its last iteration: less exact, nothing left out."""


@dataclass(frozen=True)
class HighWater:
    """The most that a batch has asked for so far."""

    rows: int
    """Constraint rows of one environment."""
    contacts: int
    """Contacts of all environments together."""
    pairs: int
    """Pairs of geoms of all environments together that were near enough to be looked at."""

    def sizes(self, num_envs: int, margin: float = MARGIN) -> tuple[int, int]:
        """(nconmax, njmax) for as much, with a margin."""
        per_env = max(self.contacts, self.pairs) / num_envs
        return max(LEAST_CONTACTS, math.ceil(margin * per_env)), max(LEAST_ROWS, math.ceil(margin * self.rows))


class Buffers:
    """Watches the buffers of a batch."""

    def __init__(self, model: mjw.Model, data: mjw.Data) -> None:
        model.opt.warn_overflow = 0  # no printing from kernels: `check` says it once
        self._model, self._data = model, data
        self._marks = wp.zeros(3, dtype=int)

    def remember(self) -> None:
        """Take in what the last substep asked for; nothing is read back."""
        data = self._data
        wp.launch(remember, data.nworld, [data.nefc, data.nacon, data.ncollision], [self._marks])

    def high_water(self) -> HighWater:
        """The most so far; waits for the device."""
        return HighWater(*(int(mark) for mark in self._marks.numpy()))

    def check(self) -> None:
        """Raise BufferError if anything was left out; waits for the device."""
        data, marks = self._data, self.high_water()
        nconmax, njmax = marks.sizes(data.nworld)
        if marks.rows > data.njmax:
            raise BufferError(
                f"Warp left constraints out: an environment needed {marks.rows} rows and there is room for "
                f"{data.njmax}; set warp.njmax={njmax}"
            )
        if max(marks.contacts, marks.pairs) > data.naconmax:
            raise BufferError(
                f"Warp left contacts out: {data.nworld} environments needed {marks.pairs} pairs of geoms and "
                f"{marks.contacts} contacts and there is room for {data.naconmax}; set warp.nconmax={nconmax}"
            )
        self._check_bits()

    def _check_bits(self) -> None:
        """What Warp reports without a number."""
        bits = mjw.OverflowType(int(np.bitwise_or.reduce(self._data.overflow.numpy())))
        if bits & mjw.OverflowType.CONTACT_MATCH:
            raise BufferError(
                f"Warp left contacts out of a contact sensor: more than {self._model.opt.contact_sensor_maxmatch} "
                "belong to one; set warp.matches to twice as many"
            )
        if bits & ~NOT_LOST:
            log.warning("Warp gave up on some contacts of this batch: %s", (bits & ~NOT_LOST).name)
            self._data.overflow.zero_()
