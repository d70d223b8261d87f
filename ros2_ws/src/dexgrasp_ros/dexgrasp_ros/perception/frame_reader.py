"""Reads depth frames of a camera or a recording in a thread; the node gets the newest one.

Frames that arrive faster than the node fetches them are dropped.
"""

import threading
import time
from collections.abc import Callable

from dexgrasp.perception.cameras.depth import CameraError, DepthFrame, DepthSource, FrameTimeoutError

READ_S = 1.0
"""A camera that delivers no frame within this time is an error [s]."""


class FrameReader:
    """Reads a source in a thread until the source ends or `close` is called."""

    def __init__(self, source: DepthSource, paced: bool, arrived: Callable[[], None]) -> None:
        """`paced`: play a recording in real time. The thread calls `arrived` after each frame and at the end."""
        self._source, self._paced, self._arrived = source, paced, arrived
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._frame: DepthFrame | None = None
        self.error = ""
        """Why no frame arrives; empty while frames arrive."""
        self.ended = False
        """Whether the source delivers no further frames."""
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)
        self._thread.start()

    def pop(self) -> DepthFrame | None:
        """Return the newest frame and remove it; None where no new frame has arrived."""
        with self._lock:
            frame, self._frame = self._frame, None
        return frame

    def close(self) -> None:
        """Stop the thread and release the source; may be called again."""
        self._stop.set()
        self._thread.join()
        self._source.close()

    def _read(self) -> None:
        start_s: float | None = None
        while not self._stop.is_set():
            try:
                frame = self._source.read(READ_S)
            except FrameTimeoutError as error:
                self.error = str(error)
                continue
            except CameraError as error:
                self.error, self.ended = str(error), True
                break
            if self._paced:
                start_s = time.monotonic() - frame.stamp_s if start_s is None else start_s
                self._stop.wait(max(0.0, start_s + frame.stamp_s - time.monotonic()))
            with self._lock:
                self._frame, self.error = frame, ""
            self._arrived()
        self._arrived()
