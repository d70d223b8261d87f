"""Graceful interruption of long work by Ctrl-C.

The first Ctrl-C requests a stop at the next safe point, the second one stops at once.
"""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

log = logging.getLogger("dexgrasp")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Catch SIGINT and SIGTERM inside a `with` block; only the main thread can catch signals."""

    def __init__(self, when: str) -> None:
        """`when`: the point at which the work will stop, for the log message ("after this iteration")."""
        self.asked = False
        """Whether a signal has arrived."""
        self._when, self._previous = when, dict[signal.Signals, Any]()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {name: signal.signal(name, self._on_signal) for name in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.info("stopping %s; press Ctrl-C once more to stop at once", self._when)
