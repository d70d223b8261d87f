"""Time limit of a block of code that only a call from another thread can end."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_S = 0.1
"""Period at which running blocks are compared with their limits [s]; a new thread per block would cost its time."""

_running: dict[object, tuple[float, Callable[[], None]]] = {}  # end of the time [s] and what to call then
_watcher: threading.Thread | None = None


@contextmanager
def time_limit(limit_s: float, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` from another thread, and again until the block ends, once it has taken longer than `limit_s`."""
    global _watcher
    if _watcher is None or not _watcher.is_alive():  # the first time, and in a forked process
        _watcher = threading.Thread(target=_watch, name="time limit", daemon=True)
        _watcher.start()
    key = object()
    _running[key] = time.monotonic() + limit_s, stop
    try:
        yield
    finally:
        del _running[key]


def _watch() -> None:
    while True:
        time.sleep(POLL_S)
        now_s = time.monotonic()
        for end_s, stop in list(_running.values()):
            if now_s > end_s:
                stop()
