"""Triangulation of planar and nearly planar polygons, convex or not."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Faces = NDArray[np.int64]
LARGEST = 1e30
"""Largest coordinate, in whatever unit."""


class MeshFileError(ValueError):
    """A mesh file that cannot be read; the text says why and what to do."""


class NotFiniteError(MeshFileError):
    """A mesh file with vertices that are NaN, infinite or too large."""


def check_finite(vertices: Array) -> None:
    """Raise NotFiniteError for vertices (v, 3) that are NaN, infinite or too large to be multiplied."""
    if (bad := int((~(np.abs(vertices) <= LARGEST)).any(axis=1).sum())) > 0:
        raise NotFiniteError(
            f"not finite: {bad} of {len(vertices)} vertices are NaN, infinite or beyond {LARGEST:g}: export it anew"
        )


def triangulate_faces(vertices: Array, faces: Sequence[Sequence[int]]) -> Faces:
    """Return triangles (t, 3) that cover the polygons `faces`, whose orientation they keep.

    `faces`: indices into `vertices` (v, 3), three or more each. Raises MeshFileError for an index out of range,
    and for vertices that are not finite.
    """
    check_finite(vertices)
    for number, face in enumerate(faces):
        if min(face) < 0 or max(face) >= len(vertices):
            raise MeshFileError(f"face {number + 1} names a vertex that is not among the {len(vertices)} vertices")
    triangles = [[face] if len(face) == 3 else _triangulate(vertices[list(face)], face) for face in faces]
    return np.array([corner for part in triangles for corner in part], np.int64).reshape(-1, 3)


def _triangulate(corners: Array, face: Sequence[int]) -> list[list[int]]:
    """Return the triangles of one polygon; a polygon without area becomes a fan."""
    fan = [[face[0], face[i], face[i + 1]] for i in range(1, len(face) - 1)]
    normal = newell_normal(corners)
    length = np.linalg.norm(normal)
    if length == 0.0:
        return fan
    flat = _project(corners, normal / length)
    if _is_convex(flat):
        return fan
    from manifold3d import triangulate

    found = np.asarray(triangulate([flat]))
    return [[face[i] for i in triangle] for triangle in found] if len(found) else fan


def strip_triangles(strip: NDArray[np.int64]) -> Faces:
    """Return the triangles (t, 3) of a triangle strip.

    Every second one is turned, so that all face one way. Triangles with a repeated corner only join parts of the strip,
    and are left out.
    """
    triangles = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
    triangles[1::2, :2] = triangles[1::2, 1::-1]
    a, b, c = triangles.T
    return triangles[(a != b) & (b != c) & (c != a)]


def newell_normal(corners: Array) -> Array:
    """Return the normal (3,) of a polygon (n, 3), of twice its area in length."""
    return np.cross(corners, np.roll(corners, -1, axis=0)).sum(axis=0)


def _project(corners: Array, normal: Array) -> Array:
    """Return the corners (n, 2) in the plane of the normal, counter-clockwise seen against it."""
    x = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    x /= np.linalg.norm(x)
    return (corners - corners.mean(axis=0)) @ np.stack([x, np.cross(normal, x)], axis=1)


def _is_convex(flat: Array) -> bool:
    """Return whether a counter-clockwise polygon (n, 2) turns left at every corner, once around."""
    edges = np.roll(flat, -1, axis=0) - flat
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    angles = np.arctan2(turns, (edges * following).sum(axis=1))
    return bool((turns >= 0).all() and angles.sum() < 3 * np.pi)
