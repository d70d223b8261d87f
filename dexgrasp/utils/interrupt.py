"""Ctrl-C during long work: the first one asks to stop where nothing is lost, the second one stops at once."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

log = logging.getLogger("dexgrasp")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody has asked to stop; listens while it is entered, in the main thread alone."""

    def __init__(self, when: str) -> None:
        """`when`: where the work will stop, in words."""
        self.asked = False
        self._when, self._previous = when, dict[signal.Signals, Any]()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {name: signal.signal(name, self._hear) for name in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)

    def _hear(self, _: int, __: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.info("stopping %s; once more: at once", self._when)
