"""Measure durations: time between calls, time per part of a program, and percentiles of latencies."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

PERCENTILES = (50, 95, 99)
"""Percentiles by which latencies are reported."""
KEPT = 1200
"""Durations that `Timing` keeps per name: those of one minute at 20 Hz."""


def cpu_seconds() -> float:
    """Return the CPU time [s] of this process and of its finished child processes, all threads together."""
    return sum(os.times()[:4])  # user and system, own and of children


class LapTimer:
    """Record the milliseconds between successive calls, by name."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}
        self._last_s = 0.0

    def start(self) -> None:
        """Start the first lap."""
        self._last_s = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """End the lap of `stage` and start the next one."""
        now_s = time.perf_counter()
        self.ms.setdefault(stage, []).append(1e3 * (now_s - self._last_s))
        self._last_s = time.perf_counter()


class Stopwatch:
    """Sum of the seconds spent in named parts of a program.

    A nested part is not counted in the enclosing part.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        """`clock`: returns seconds; the default counts the CPU time of all threads of the process."""
        self._clock = clock
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []

    def wrap(self, owner: object, method: str, part: str) -> None:
        """Replace `owner.method` by a wrapper that times every call as `part`."""
        call: Callable = getattr(owner, method)

        def timed(*args: object, **kwargs: object) -> object:
            with self.timing(part):
                return call(*args, **kwargs)

        setattr(owner, method, timed)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Time a `with` block as `part`."""
        start = self._clock()
        self._open.append(part)
        yield
        self._open.pop()
        spent = self._clock() - start
        self.seconds[part] = self.seconds.get(part, 0.0) + spent
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) - spent


class Timing:
    """Keep the most recent durations of each name and report their percentiles."""

    def __init__(self, kept: int = KEPT) -> None:
        self._values: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=kept))

    def add(self, name: str, seconds: float) -> None:
        """Record one duration [s]; NaN and infinity are ignored."""
        if np.isfinite(seconds):
            self._values[name].append(seconds)

    def clear(self) -> None:
        """Delete all durations."""
        self._values.clear()

    def percentiles_ms(self) -> dict[str, tuple[float, ...]]:
        """Return the PERCENTILES [ms] of each name that has durations."""
        return {
            name: tuple(1e3 * value for value in latency_percentiles(values))
            for name, values in self._values.items()
            if values
        }


def latency_percentiles(values: Sequence[float]) -> tuple[float, ...]:
    """Return the PERCENTILES of `values`, linearly interpolated, in the unit of `values`."""
    return tuple(float(value) for value in np.percentile(np.asarray(values, dtype=np.float64), PERCENTILES))


def latency_summary(values: Sequence[float], percent: int) -> dict[str, float]:
    """Return median, one percentile (key "p95" for 95) and minimum of `values`, in the unit of `values`."""
    median, tail = np.percentile(np.asarray(values, dtype=np.float64), (50, percent))
    return {"median": float(median), f"p{percent}": float(tail), "min": float(min(values))}


def wall_clock(device: "torch.device") -> Callable[[], float]:
    """Return a wall clock [s] for `device`; that of a GPU waits until its queue has finished."""
    return device_clock(device) if device.type == "cuda" else time.perf_counter


def device_clock(device: "torch.device") -> Callable[[], float]:
    """Return a clock [s] for `device`: CPU time, or wall time after the GPU has finished its queue."""
    if device.type != "cuda":
        return time.process_time
    import torch

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
