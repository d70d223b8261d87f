"""A few hundred points that stand for many: spread out, or at random; the same seed gives the same points."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 2048
"""Farthest-point sampling looks at no more points than this, drawn at random: its cost grows with both numbers."""

Sampling = Literal["farthest", "random"]


def sample_points(points: NDArray[np.float32], count: int, how: Sampling, seed: int = 0) -> NDArray[np.int64]:
    """Indices (count,) into points (3, n), none twice as long as there are enough; fewer points are repeated in turn.

    `farthest`: each point is the one farthest from those before it, so that any prefix is well spread.
    """
    available = points.shape[1]
    if available == 0:
        raise ValueError("no point to sample from")
    rng = np.random.default_rng(seed)
    if available <= count:
        return np.resize(rng.permutation(available), count)
    if how == "random":
        return rng.choice(available, count, replace=False, shuffle=False)
    few = rng.choice(available, max(CANDIDATES, count), replace=False) if available > CANDIDATES else None
    chosen = _farthest(points if few is None else points[:, few], count, int(rng.integers(min(available, CANDIDATES))))
    return chosen if few is None else few[chosen]


def _farthest(points: NDArray[np.float32], count: int, first: int) -> NDArray[np.int64]:
    """Greedy farthest points. |p - q|² is taken apart, so that each step is one product of a matrix and a vector."""
    centred = points - points.mean(1, keepdims=True)  # near the origin the difference of squares keeps its digits
    rows = np.ascontiguousarray(centred.T)
    doubled = -2 * rows
    square = (centred**2).sum(0)
    nearest = np.full(points.shape[1], np.inf, np.float32)
    distance = np.empty_like(nearest)
    chosen = np.empty(count, np.int64)
    for step in range(count):
        chosen[step] = first
        np.dot(doubled, rows[first], out=distance)
        distance += square
        distance += square[first]
        np.minimum(nearest, distance, out=nearest)
        nearest[first] = -np.inf
        first = int(nearest.argmax())
    return chosen
