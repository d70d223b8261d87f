"""How long things take: the last so many values of each kind, and their percentiles."""

from collections import defaultdict, deque

import numpy as np

KEPT = 1200
"""Values per kind: a minute at 20 Hz."""
PERCENTILES = (50, 95, 99)


class Timing:
    """Durations by name."""

    def __init__(self, kept: int = KEPT) -> None:
        self._values: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=kept))

    def add(self, name: str, seconds: float) -> None:
        """One more; what is not finite is left out."""
        if np.isfinite(seconds):
            self._values[name].append(seconds)

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()

    def percentiles_ms(self) -> dict[str, tuple[float, ...]]:
        """Of each name that has values: one number [ms] for each of PERCENTILES."""
        return {
            name: tuple(1e3 * float(value) for value in np.percentile(values, PERCENTILES))
            for name, values in self._values.items()
            if values
        }
