"""Meshes that come as convex parts: fewer of them, where there are more than a scene has room for."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.spatial import ConvexHull

from dexgrasp.sim.objects.hulls import hull_volume
from dexgrasp.sim.objects.surface import mass_properties

CONVEX_RATIO = 1.001
"""A part counts as convex where its hull's volume is less than this times its own."""
NEAR_M = 0.001
"""Parts whose boxes are further apart are not merged, unless no others are left."""


def are_convex(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether all closed parts, vertices (v, 3) and faces (f, 3), are convex."""
    return all(hull_volume(points) <= CONVEX_RATIO * mass_properties(points, faces)[0] for points, faces in parts)


def merged(parts: Sequence[np.ndarray], limit: int) -> list[np.ndarray]:
    """At most `limit` point sets (n, 3) from convex parts: the two whose common hull adds least become one, and again.

    Neighbours first, with parts of a thin wall as the case in mind: what is merged along it adds little.
    """
    hulls = {i: np.asarray(points, float) for i, points in enumerate(parts)}
    near_m, added = NEAR_M / 10, {}
    while len(hulls) > limit:
        while not added:
            near_m *= 10
            near = [(i, j) for i, j in combinations(hulls, 2) if _near(hulls[i], hulls[j], near_m)]
            added = {(i, j): _added(hulls[i], hulls[j]) for i, j in near}
        pair = min(added, key=added.__getitem__)
        points = np.concatenate([hulls.pop(i) for i in pair])
        points = points[ConvexHull(points).vertices]
        added = {key: volume for key, volume in added.items() if not set(key) & set(pair)}
        new = max([*hulls, *pair]) + 1
        added |= {(i, new): _added(other, points) for i, other in hulls.items() if _near(other, points, near_m)}
        hulls[new] = points
    return list(hulls.values())


def _near(a: np.ndarray, b: np.ndarray, gap_m: float) -> bool:
    """Whether the boxes around two point sets are at most `gap_m` apart along each axis."""
    return bool((a.min(axis=0) <= b.max(axis=0) + gap_m).all() and (b.min(axis=0) <= a.max(axis=0) + gap_m).all())


def _added(a: np.ndarray, b: np.ndarray) -> float:
    """Volume that the common hull of two point sets has beyond theirs [m^3]."""
    return hull_volume(np.concatenate([a, b])) - hull_volume(a) - hull_volume(b)
