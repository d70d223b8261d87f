"""Diagnostics of the perception node: frame rate and age, points per stage, and why no object is seen."""

import time
from collections import deque
from itertools import pairwise

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from dexgrasp.utils.timers import PERCENTILES, Timing
from dexgrasp_ros.message_conversions import ERROR, OK, STALE, WARN, diagnostic
from dexgrasp_ros.perception.state_machine import PerceptionStateMachine

SILENT_S = 1.0
"""Without a frame for longer than this, the camera is reported as STALE [s]."""
MAX_AGE_S = 0.3
"""Older frames are a warning: the safety gate of the grasp node refuses them [s]."""
MIN_AGE_S = -0.05
"""Frames further in the future are a warning: clocks are not synchronised [s]."""


class PerceptionDiagnostics:
    """Counts frames and errors by topic, in wall time."""

    def __init__(self, source: str) -> None:
        """`source`: topic or camera that the frames come from."""
        self._source, self._timing = source, Timing(300)
        self._arrivals: deque[float] = deque(maxlen=60)
        self._frames, self._refused, self._age_s = 0, 0, np.nan
        self._errors: dict[str, str] = {}

    def frame_arrived(self, age_s: float) -> None:
        """Count a frame; `age_s`: node clock minus its stamp [s]."""
        self._arrivals.append(time.monotonic())
        self._frames += 1
        self._age_s = age_s
        self._timing.add("age", age_s)

    def frame_processed(self, duration_s: float) -> None:
        """Record how long a frame took to process [s]."""
        self._timing.add("work", duration_s)

    def topic_ok(self, topic: str) -> None:
        """Clear the error of a topic: a message of it was used."""
        self._errors.pop(topic, None)

    def topic_failed(self, topic: str, error: str) -> bool:
        """Set the error of a topic: a message of it was refused. Return whether the topic had no error before."""
        self._refused += topic == self._source
        is_new = topic not in self._errors
        self._errors[topic] = error
        return is_new

    def statuses(self, machine: PerceptionStateMachine, publishers: int, no_clock: str = "") -> list[DiagnosticStatus]:
        """Return the status of camera, readings and object.

        `publishers`: number of them on the depth topic; `no_clock`: why ages of frames mean nothing, or empty.
        """
        return [self._camera(publishers, no_clock), self._readings(machine), self._object(machine)]

    def _camera(self, publishers: int, no_clock: str) -> DiagnosticStatus:
        silent_s = time.monotonic() - self._arrivals[-1] if self._arrivals else np.inf
        level, text = OK, "frames arrive"
        if silent_s > SILENT_S:
            since = "yet" if not self._arrivals else f"for {silent_s:.1f} s"
            level, text = STALE, f"no frame {since}: {self._source}, {publishers} publishers"
        elif no_clock:
            level, text = WARN, no_clock
        elif not MIN_AGE_S < self._age_s < MAX_AGE_S:
            level, text = (
                WARN,
                f"frames are {self._age_s:.3f} s old: are the clocks of camera and computer synchronised?",
            )
        values = {"source": self._source, "frames": self._frames, "refused": self._refused, "rate_hz": self._rate_hz()}
        for name, row in self._timing.percentiles_ms().items():
            values |= {f"{name}_p{p}_ms": value for p, value in zip(PERCENTILES, row, strict=True)}
        return diagnostic("perception: camera", level, text, values)

    def _readings(self, machine: PerceptionStateMachine) -> DiagnosticStatus:
        errors = {topic: text for topic, text in self._errors.items() if topic != self._source}
        if errors:
            text = "; ".join(f"{topic}: {error}" for topic, error in errors.items())
            return diagnostic("perception: readings", ERROR, text)
        if not machine.robot_known:
            return diagnostic("perception: readings", WARN, "no readings: the robot is not removed from the image")
        return diagnostic("perception: readings", OK, "the robot is removed from the image")

    def _object(self, machine: PerceptionStateMachine) -> DiagnosticStatus:
        error = self._errors.get(self._source, "")
        level, text = OK, "seen"
        if error:
            level, text = ERROR, error
        elif machine.collecting_first_view and machine.waiting_for:
            level, text = WARN, f"no first view yet: {machine.waiting_for}"
        return diagnostic("perception: object", level, text, {"state": machine.state} | machine.counts)

    def _rate_hz(self) -> float:
        gaps = [late - early for early, late in pairwise(self._arrivals)]
        return 1.0 / float(np.median(gaps)) if gaps else 0.0
