"""Random draws of a family's parameters, with the proportions that keep the splits apart.

Every family draws its characteristic proportions with `ParameterSampler.proportion`.  The unit interval behind it is
striped, and each split owns its stripes: a validation mug is no rescaled training mug, though both cover the whole
range.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

STRIPES = 20
"""Stripes of the unit interval of each proportion."""
_VALIDATION, _TEST, _PERIOD = 3, 7, 10
T = TypeVar("T")


def stripe_owner(unit: float) -> str:
    """Return the split that owns a value of the unit interval.

    Of ten stripes, eight train, one validates, one tests.
    """
    place = int(unit * STRIPES) % _PERIOD
    return {_VALIDATION: "validation", _TEST: "test"}.get(place, "train")


class ParameterSampler:
    """Parameters of one object: a random stream, and the split whose stripes its proportions must lie in."""

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        self.rng = rng
        self.split = split
        self.proportions: list[float] = []
        """Unit values of all proportions drawn so far."""
        self._owned = [k for k in range(STRIPES) if stripe_owner((k + 0.5) / STRIPES) == split]
        if not self._owned:
            raise ValueError(f"no proportions belong to split '{split}'; splits: train, validation, test")

    def proportion(self, low: float, high: float) -> float:
        """Return a ratio between low and high from the stripes of this split."""
        unit = (self.choice(self._owned) + self.rng.uniform()) / STRIPES
        self.proportions.append(unit)
        return low + (high - low) * unit

    def uniform(self, low: float, high: float) -> float:
        """Return a free parameter between low and high."""
        return float(self.rng.uniform(low, high))

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.uniform() < probability)

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]
