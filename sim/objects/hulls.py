"""Convex pieces in the one shape that all compiled models share: 64 points that all lie on the piece's hull."""

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from dexgrasp.sim.objects.library import PIECE_POINTS

BALL_M = 0.6e-3
"""Radius of the ball that rounds each piece: it keeps all support points distinct and on the hull."""
MOST_GROWTH = 1.06
"""Most by which a round piece is scaled up."""
LEAST_SCALE = 0.25
"""A piece thinner than the ball's diameter keeps this share of its own thickness."""


def sphere_directions(count: int) -> np.ndarray:
    """(count, 3) unit vectors of the Fibonacci lattice, evenly spread over the sphere."""
    i = np.arange(count) + 0.5
    polar = np.arccos(1 - 2 * i / count)
    azimuth = np.pi * (1 + 5**0.5) * i
    return np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)


_DIRECTIONS = sphere_directions(PIECE_POINTS)
_BETWEEN = sphere_directions(150)


def support_hull(points: np.ndarray, ball_m: float = BALL_M) -> np.ndarray:
    """(64, 3) float32: support points, along 64 directions, of the hull of `points` (n, 3) rounded by a small ball.

    The hull is first shrunk by the ball's diameter along its principal axes, so that walls keep their thickness, and
    the result is scaled to the mean width of the hull: few points would cut round things short all over.
    Every returned point is the only maximum along its own direction, hence on the hull of all of them.
    """
    centre = points.mean(axis=0)
    local = points - centre
    _, axes = np.linalg.eigh(local.T @ local)
    along = local @ axes
    middle = (along.max(axis=0) + along.min(axis=0)) / 2
    extent = np.ptp(along, axis=0)
    scale = np.maximum(1 - 2 * ball_m / np.maximum(extent, 1e-9), LEAST_SCALE)
    shrunk = centre + ((along - middle) * scale + middle) @ axes.T
    packed = shrunk[np.argmax(shrunk @ _DIRECTIONS.T, axis=0)] + ball_m * _DIRECTIONS
    width = (local @ _BETWEEN.T).max(axis=0)
    growth = np.mean(width / ((packed - centre) @ _BETWEEN.T).max(axis=0))
    return (centre + np.clip(growth, 1, MOST_GROWTH) * (packed - centre)).astype(np.float32)


def support_hulls(pieces: list[np.ndarray]) -> np.ndarray:
    """(p, 64, 3) float32: `support_hull` of each point set."""
    return np.stack([support_hull(np.asarray(points, float)) for points in pieces])


def hull_volume(points: np.ndarray) -> float:
    """Volume of the convex hull of points (n, 3) [m^3]; 0 when they are flat."""
    try:
        return float(ConvexHull(np.asarray(points, float)).volume)
    except QhullError:
        return 0.0
