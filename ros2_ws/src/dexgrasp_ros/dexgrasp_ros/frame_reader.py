"""Frames of a camera that the node reads itself, or of a recording: read in a thread, taken one at a time.

Of frames that come faster than they are taken, the newest counts.
"""

import threading
import time
from collections.abc import Callable

from perception.depth import CameraError, DepthFrame, DepthSource, FrameTimeoutError

READ_S = 1.0
"""A camera that delivers nothing for so long is told of."""


class FrameReader:
    """Reads a source until it ends or is closed."""

    def __init__(self, source: DepthSource, paced: bool, arrived: Callable[[], None]) -> None:
        """`paced`: a recording, read no faster than it was taken. The thread calls `arrived` after each frame."""
        self._source, self._paced, self._arrived = source, paced, arrived
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._frame: DepthFrame | None = None
        self.trouble = ""
        """Why no frame comes, or nothing."""
        self.ended = False
        """Whether none will come any more."""
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)
        self._thread.start()

    def take(self) -> DepthFrame | None:
        """The newest frame, once."""
        with self._lock:
            frame, self._frame = self._frame, None
        return frame

    def close(self) -> None:
        """Release the source; more than once does no harm."""
        self._stop.set()
        self._thread.join()
        self._source.close()

    def _read(self) -> None:
        start_s: float | None = None
        while not self._stop.is_set():
            try:
                frame = self._source.read(READ_S)
            except FrameTimeoutError as error:
                self.trouble = str(error)
                continue
            except CameraError as error:
                self.trouble, self.ended = str(error), True
                break
            if self._paced:
                start_s = time.monotonic() - frame.stamp_s if start_s is None else start_s
                self._stop.wait(max(0.0, start_s + frame.stamp_s - time.monotonic()))
            with self._lock:
                self._frame, self.trouble = frame, ""
            self._arrived()
        self._arrived()
