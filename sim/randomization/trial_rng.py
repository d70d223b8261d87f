"""Counter-based random numbers of trials: a hash of seed, trial, name and place.

All rows are computed at once, on any device.

A number depends on nothing else: neither on what runs beside the trial nor on what else is drawn.

    seed, trial -> key (row,) -> with a name: a stream per quantity -> with a place: 64 bits -> uniform, normal, integer
"""

import math
import zlib
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


GAMMA, MIX_A, MIX_B = (_signed(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""Constants of SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"."""


def mix(bits: Tensor) -> Tensor:
    """Return int64 of any shape, mixed by SplitMix64's finaliser.

    Integer tensors overflow as its unsigned numbers do.
    """
    bits = (bits ^ _shifted(bits, 30)) * MIX_A
    bits = (bits ^ _shifted(bits, 27)) * MIX_B
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right, filling with zeros."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


@cache
def _number_of(name: str) -> int:
    """Return the number of a stream."""
    return zlib.crc32(name.encode())


class TrialRandom:
    """One stream of numbers per row and name."""

    def __init__(self, key: Tensor) -> None:
        """`key` (row,) int64, on the device where numbers are wanted; see `of_trials`."""
        self.key = key

    @classmethod
    def of_trials(cls, seeds: Tensor, trials: Tensor) -> "TrialRandom":
        """Return the random numbers of trials; `seeds`, `trials` (row,) int64."""
        return cls(mix(mix(seeds + GAMMA) + trials))

    def uniform(
        self,
        name: str,
        low: float | Tensor = 0.0,
        high: float | Tensor = 1.0,
        size: Sequence[int] = (),
        at: Tensor | None = None,
    ) -> Tensor:
        """Return uniform numbers (row, *size) float64 in [low, high).

        `at` (row,) int64: index of the draw of this name and size.
        """
        count = math.prod(size)
        place = torch.arange(1, count + 1, device=self.key.device)
        if at is not None:
            place = place + count * at[:, None]
        stream = mix(self.key + _number_of(name))
        bits = mix(stream[:, None] + GAMMA * place)
        unit = _shifted(bits, 11).double() * 2.0**-53
        return low + (high - low) * unit.view(-1, *size)

    def normal(self, name: str, sd: float, size: Sequence[int] = ()) -> Tensor:
        """Return normal numbers (row, *size) float64 of mean 0 (Box and Muller 1958)."""
        radius, turn = self.uniform(f"{name}, radius", size=size), self.uniform(f"{name}, turn", size=size)
        return sd * (-2.0 * torch.log1p(-radius)).sqrt() * (2.0 * math.pi * turn).cos()

    def integers(self, name: str, count: int) -> Tensor:
        """Return integers (row,) int64 in [0, count)."""
        return (count * self.uniform(name)).long()

    def directions(self, name: str, size: Sequence[int] = ()) -> Tensor:
        """Return (row, *size, 3) float64 unit vectors, evenly over the sphere."""
        vectors = self.normal(name, 1.0, (*size, 3))
        return vectors / vectors.norm(dim=-1, keepdim=True)
