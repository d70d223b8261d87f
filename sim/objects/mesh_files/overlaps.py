"""Volume that a closed surface which passes through itself counts wrongly."""

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces

RAYS = 48
"""Parallel rays along each side of the grid that meets a surface."""
START = (0.5 + 0.01 * np.sqrt(2), 0.5 - 0.01 * np.sqrt(3))
"""Place of the first ray in its cell: no edge of a drawn part lies there."""
MOST_PAIRS = 2_000_000
"""Most pairs of face and ray that are looked at in one step."""


def miscounted_share(vertices: Array, faces: Faces) -> float:
    """Return the miscounted volume of a closed surface as a share of the volume that it encloses.

    `vertices` (v, 3); `faces` (f, 3), outward. The integral over its faces counts each point as often as the surface
    winds around it: twice where two parts of it overlap, -1 times where it is inside out. Measured on a grid of rays
    along z; exactly 0 for a surface that does not pass through itself.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    corners = ((vertices[:, :2] - low[:2]) / np.maximum(high - low, 1e-12)[:2] * RAYS - START)[faces]  # (f, 3, 2)
    first = np.ceil(corners.min(axis=1)).astype(int)
    counts = np.maximum(np.floor(corners.max(axis=1)).astype(int) - first + 1, 0)
    sizes = counts.prod(axis=1)
    met = []
    for part in np.split(np.arange(len(faces)), np.flatnonzero(np.diff(np.cumsum(sizes) // MOST_PAIRS)) + 1):
        face = np.repeat(part, sizes[part])
        within = np.arange(len(face)) - np.repeat(np.cumsum(sizes[part]) - sizes[part], sizes[part])
        place = first[face] + np.stack([within // counts[face, 1], within % counts[face, 1]], axis=1)
        met.append(_crossings(place, corners[face], vertices[faces[face], 2]))
    ray, height, turn = (np.concatenate(column) for column in zip(*met, strict=True))
    is_whole = np.bincount(ray, turn)[ray] == 0  # others meet an edge in one of its two faces only
    order = np.flatnonzero(is_whole)[np.lexsort((height[is_whole], ray[is_whole]))]
    winding = np.cumsum(turn[order])
    length = np.where(np.diff(ray[order], append=-1) == 0, np.diff(height[order], append=0.0), 0.0)
    enclosed = length[winding != 0].sum()
    return float((length * np.abs(winding - 1))[winding != 0].sum() / enclosed) if enclosed > 0 else 0.0


def _crossings(place: Array, corners: Array, heights: Array) -> tuple[Array, Array, Array]:
    """Return number of the ray, height and turn (1: into the body) where rays `place` (n, 2) meet their faces.

    `corners` (n, 3, 2), `heights` (n, 3): the faces in the cells of the grid, and along the rays.
    """
    off = corners - place[:, None]
    cross = off[:, :, 0] * np.roll(off[:, :, 1], -1, axis=1) - off[:, :, 1] * np.roll(off[:, :, 0], -1, axis=1)
    doubled = cross.sum(axis=1)
    is_met = (doubled != 0) & ((cross > 0).all(axis=1) | (cross < 0).all(axis=1))
    weights = np.roll(cross[is_met], -1, axis=1) / doubled[is_met, None]
    ray = place[is_met] @ np.array([RAYS + 1, 1])
    return ray, (weights * heights[is_met]).sum(axis=1), -np.sign(doubled[is_met]).astype(int)
