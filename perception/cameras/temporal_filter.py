"""Temporal median of the depth images of a static scene: less noise, fewer holes."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", np.float32, np.float64)
FIRST_VIEW_FRAMES = 12
"""Number of frames in a first view, 0.4 s of a D435."""


def median_depth(frames_m: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return the median depth (row, column) [m] of frames (frame, row, column) of a static scene.

    Each pixel's median is over the frames in which it has depth.

    A pixel is a hole if fewer than half of the frames have depth there.
    """
    seen = frames_m > 0
    count = seen.sum(axis=0)[None]
    ordered = np.sort(np.where(seen, frames_m, frames_m.dtype.type(np.inf)), axis=0)  # holes last
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(frames_m) - 1), axis=0)[0]
    depth_m = np.zeros_like(low)
    np.add(low, high, out=depth_m, where=2 * count[0] >= len(frames_m))
    depth_m *= 0.5
    return depth_m
