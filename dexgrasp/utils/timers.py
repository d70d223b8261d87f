"""Clocks for stages and parts of a program, and a batch of simulations whose controls are kept for a replay."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class Laps:
    """Milliseconds between calls, by name."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}
        self._last_s = 0.0

    def start(self) -> None:
        """The clock runs from here."""
        self._last_s = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now_s = time.perf_counter()
        self.ms.setdefault(stage, []).append(1e3 * (now_s - self._last_s))
        self._last_s = time.perf_counter()


def device_clock(device: torch.device) -> Callable[[], float]:
    """Seconds of work on `device`: CPU time, or what passes until a GPU has done all that it was given."""
    if device.type != "cuda":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


class Stopwatch:
    """Seconds spent in named parts, nested parts counted once; of the CPU, all threads of the process."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []

    def wrap(self, owner: object, method: str, part: str) -> None:
        """Time every call of `owner.method` as `part`."""
        call: Callable = getattr(owner, method)

        def timed(*args: object, **kwargs: object) -> object:
            with self.timing(part):
                return call(*args, **kwargs)

        setattr(owner, method, timed)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Time a block as `part`; what it holds of other parts is theirs."""
        start = self._clock()
        self._open.append(part)
        yield
        self._open.pop()
        spent = self._clock() - start
        self.seconds[part] = self.seconds.get(part, 0.0) + spent
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) - spent


class RecordedBatch:
    """Stands in for the engine's batch: forwards everything, times the steps, keeps their controls and pushes."""

    def __init__(self, batch: Any, watch: Stopwatch) -> None:
        self._batch, self._watch = batch, watch
        self.controls: list[tuple[np.ndarray, np.ndarray, int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._batch, name)

    def step(self, nstep: int) -> None:
        """`Batch.step` of all rows."""
        self.controls.append((self._batch.ctrl.copy(), self._batch.xfrc_applied.copy(), nstep))
        with self._watch.timing("physics"):
            self._batch.step(nstep=nstep)
