"""BufferMonitor for contacts and constraints on the device: usage counters, and an error on overflow.

Warp allocates once and drops what does not fit. Counters on the device hold the maximum that was requested, so that an
error can name a sufficient size.
"""

import logging
import math
from dataclasses import dataclass

import mujoco_warp as mjw
import numpy as np
import warp as wp

from dexgrasp.sim.engine.warp_kernels import remember

log = logging.getLogger(__name__)

MARGIN = 1.5
"""Factor on the need of a warm-up."""
LEAST_CONTACTS, LEAST_ROWS = 24, 80
"""Least buffer sizes: a hand that lies on the table needs as many."""
NOT_LOST = mjw.OverflowType.ITERATIONS | mjw.OverflowType.LS_ITERATIONS
"""Overflow bits of a solver that reached its last iteration: less exact, but nothing dropped."""


@dataclass(frozen=True)
class BufferUsage:
    """Hold the largest buffer use of a batch so far."""

    rows: int
    """Constraint rows of one environment."""
    contacts: int
    """Contacts of all environments together."""
    pairs: int
    """Pairs of geoms of all environments together that passed the broad phase."""

    def sizes(self, num_envs: int, margin: float = MARGIN) -> tuple[int, int]:
        """Return (nconmax, njmax) for that use, with a margin."""
        per_env = max(self.contacts, self.pairs) / num_envs
        return max(LEAST_CONTACTS, math.ceil(margin * per_env)), max(LEAST_ROWS, math.ceil(margin * self.rows))


class BufferMonitor:
    """Monitors the buffers of a batch."""

    def __init__(self, model: mjw.Model, data: mjw.Data) -> None:
        model.opt.warn_overflow = 0  # no printing from kernels: `check` says it once
        self._model, self._data = model, data
        self._marks = wp.zeros(3, dtype=int)

    def remember(self) -> None:
        """Update the counters after a substep; nothing is read back."""
        data = self._data
        wp.launch(remember, data.nworld, [data.nefc, data.nacon, data.ncollision], [self._marks])

    def high_water(self) -> BufferUsage:
        """Return the largest use so far; synchronises with the device."""
        return BufferUsage(*(int(mark) for mark in self._marks.numpy()))

    def check(self) -> None:
        """Raise BufferError if anything was dropped; synchronises with the device."""
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
        """Check the overflow bits, which Warp reports without a number."""
        bits = mjw.OverflowType(int(np.bitwise_or.reduce(self._data.overflow.numpy())))
        if bits & mjw.OverflowType.CONTACT_MATCH:
            raise BufferError(
                f"Warp left contacts out of a contact sensor: more than {self._model.opt.contact_sensor_maxmatch} "
                "belong to one; set warp.max_contacts_per_sensor to twice as many"
            )
        if bits & ~NOT_LOST:
            log.warning("Warp gave up on some contacts of this batch: %s", (bits & ~NOT_LOST).name)
            self._data.overflow.zero_()
