"""Recording of the frames of a live camera as a folder, from which a scan can start again."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from dexgrasp.perception.cameras.depth import DepthFrame, DepthSource
from dexgrasp.perception.cameras.open import CAMERA_FILE, DEPTH_UNIT_M
from dexgrasp.utils.files import atomic_path, write_json

EVERY_S = 0.2
"""Least time between two frames that are kept."""


def demand_empty(folder: Path) -> None:
    """Raise FileExistsError for a folder of a recording that is neither new nor empty."""
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} holds files already: scan from it (dexgrasp objects scan {folder}), or give another"
        )


class RecordedSource(DepthSource):
    """A source of frames whose frames with colour are written to a folder as they are read.

    The folder can be read at any time, also after a kill: each image is complete, colour comes before depth.
    """

    def __init__(self, source: DepthSource, folder: Path, every_s: float = EVERY_S) -> None:
        """`folder`: a new or empty one. Raises FileExistsError for another one."""
        demand_empty(folder)
        self._source, self._folder, self._every_s = source, folder, every_s
        self._count, self._last_s = 0, -np.inf

    def read(self, timeout_s: float = 1.0) -> DepthFrame:
        """Return the next frame of the source; write it where the last one is old enough."""
        frame = self._source.read(timeout_s)
        if frame.color is not None and frame.stamp_s - self._last_s >= self._every_s - 1e-6:
            self._write(frame, frame.color)
            self._last_s = frame.stamp_s
        return frame

    def close(self) -> None:
        """Release the camera."""
        self._source.close()

    def _write(self, frame: DepthFrame, color: np.ndarray) -> None:
        if self._count == 0:
            camera = {**asdict(frame.intrinsics), "depth_unit_m": DEPTH_UNIT_M, "rate_hz": 1 / self._every_s}
            write_json(self._folder / CAMERA_FILE, {**camera, "stream": frame.stream})
        units = np.clip(np.rint(frame.depth_m / DEPTH_UNIT_M), 0, np.iinfo(np.uint16).max).astype(np.uint16)
        for kind, image in (("depth", units), ("color", color)):
            with atomic_path(self._folder / kind / f"{self._count:06d}.png") as partial:
                Image.fromarray(image).save(partial, format="PNG", compress_level=1)
        self._count += 1
