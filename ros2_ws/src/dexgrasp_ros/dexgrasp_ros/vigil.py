"""What the perception node says of itself on /diagnostics: rate, age, counts per stage, and why nothing is seen."""

import time
from collections import deque
from itertools import pairwise

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from dexgrasp.utils.timers import PERCENTILES, Timing
from dexgrasp_ros.messages import ERROR, OK, STALE, WARN, diagnostic
from dexgrasp_ros.watching import Watch

SILENT_S = 1.0
"""A camera that was heard longer ago is gone."""
OLD_S = 0.3
"""Frames this old serve nobody: the safety gate refuses them."""
EARLY_S = -0.05
"""Frames from the future mean that clocks differ."""


class Vigil:
    """Counts frames and troubles; wall time."""

    def __init__(self, source: str) -> None:
        """`source` of the frames, for the texts."""
        self._source, self._timing = source, Timing(300)
        self._arrivals: deque[float] = deque(maxlen=60)
        self._frames, self._refused, self._age_s = 0, 0, np.nan
        self._troubles: dict[str, str] = {}

    def frame(self, age_s: float) -> None:
        """A frame came, so old by the node's clock [s]."""
        self._arrivals.append(time.monotonic())
        self._frames += 1
        self._age_s = age_s
        self._timing.add("age", age_s)

    def worked(self, duration_s: float) -> None:
        """A frame was dealt with."""
        self._timing.add("work", duration_s)

    def good(self, topic: str) -> None:
        """A message of this topic was of use."""
        self._troubles.pop(topic, None)

    def bad(self, topic: str, trouble: str) -> bool:
        """A message of this topic was not; whether that is news."""
        self._refused += topic == self._source
        before = self._troubles.get(topic)
        self._troubles[topic] = trouble
        return before is None

    def statuses(self, watch: Watch, publishers: int) -> list[DiagnosticStatus]:
        """Camera, readings and object; `publishers` of the depth topic."""
        return [self._camera(publishers), self._readings(watch), self._object(watch)]

    def _camera(self, publishers: int) -> DiagnosticStatus:
        silent_s = time.monotonic() - self._arrivals[-1] if self._arrivals else np.inf
        level, text = OK, "frames arrive"
        if silent_s > SILENT_S:
            since = "yet" if not self._arrivals else f"for {silent_s:.1f} s"
            level, text = STALE, f"no frame {since}: {self._source}, {publishers} publishers"
        elif not EARLY_S < self._age_s < OLD_S:
            level, text = WARN, f"frames are {self._age_s:.3f} s old: do camera and computer share a clock?"
        values = {"source": self._source, "frames": self._frames, "refused": self._refused, "rate_hz": self._rate_hz()}
        for name, row in self._timing.percentiles_ms().items():
            values |= {f"{name}_p{p}_ms": value for p, value in zip(PERCENTILES, row, strict=True)}
        return diagnostic("perception: camera", level, text, values)

    def _readings(self, watch: Watch) -> DiagnosticStatus:
        others = {topic: text for topic, text in self._troubles.items() if topic != self._source}
        if others:
            return diagnostic("perception: readings", ERROR, "; ".join(f"{t}: {x}" for t, x in others.items()))
        if not watch.robot_known:
            return diagnostic("perception: readings", WARN, "no readings: the robot is not left out of the image")
        return diagnostic("perception: readings", OK, "the robot is left out of the image")

    def _object(self, watch: Watch) -> DiagnosticStatus:
        trouble = self._troubles.get(self._source, "")
        level, text = OK, "seen"
        if trouble:
            level, text = ERROR, trouble
        elif watch.looking and watch.waiting:
            level, text = WARN, f"no first view yet: {watch.waiting}"
        return diagnostic("perception: object", level, text, {"state": watch.state} | watch.counts)

    def _rate_hz(self) -> float:
        gaps = [late - early for early, late in pairwise(self._arrivals)]
        return 1.0 / float(np.median(gaps)) if gaps else 0.0
