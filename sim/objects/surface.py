"""Closed triangle meshes as bodies: mass properties, and evenly spread samples of their surface."""

import numpy as np


def mass_properties(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume [m^3], centroid (3,) [m] and inertia (3, 3) about it at density 1 [m^5] of a closed mesh.

    Sums signed tetrahedra (origin, a, b, c): their integral of x x^T is det/120 ((sum)(sum)^T + sum of x x^T).
    """
    a, b, c = np.asarray(vertices, float)[faces].transpose(1, 0, 2)
    det = np.einsum("ni,ni->n", a, np.cross(b, c))
    volume = det.sum() / 6
    total = a + b + c
    centroid = (det[:, None] * total).sum(axis=0) / 24 / volume
    second = (total * det[:, None]).T @ total
    for corner in (a, b, c):
        second += (corner * det[:, None]).T @ corner
    second = second / 120 - volume * np.outer(centroid, centroid)
    return float(volume), centroid, np.trace(second) * np.eye(3) - second


def surface_area(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Area of a triangle mesh [m^2]."""
    return float(_face_cross(vertices, faces)[1].sum() / 2)


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` points (n, 3) and outward normals (n, 3) of a mesh, even by area, in farthest-point order."""
    points, normals = scatter(vertices, faces, count, rng)
    order = farthest_first(points)
    return points[order], normals[order]


def scatter(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` points (n, 3) and outward normals (n, 3) of a mesh, even by area, in the order of the faces.

    One sample in each of `count` strata of equal area spreads better than independent draws.
    """
    cross, doubled = _face_cross(vertices, faces)
    edges = np.cumsum(doubled)
    at = (np.arange(count) + rng.uniform(size=count)) / count * edges[-1]
    face = np.minimum(np.searchsorted(edges, at), len(faces) - 1)
    u, v = rng.uniform(size=(2, count))
    u, v = np.where(u + v > 1, [1 - u, 1 - v], [u, v])
    a, b, c = np.asarray(vertices, float)[faces[face]].transpose(1, 0, 2)
    return a + u[:, None] * (b - a) + v[:, None] * (c - a), cross[face] / doubled[face, None]


def farthest_first(points: np.ndarray) -> np.ndarray:
    """Order (n,) of points (n, 3): starts farthest from the mean, then always the point farthest from those chosen."""
    points = np.asarray(points, np.float32)
    square = np.einsum("ni,ni->n", points, points)
    apart = square[:, None] + square[None] - 2 * points @ points.T
    order = np.empty(len(points), np.int64)
    order[0] = np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1))
    nearest = apart[order[0]].copy()
    for k in range(1, len(points)):
        nearest[order[k - 1]] = -1.0  # taken
        order[k] = nearest.argmax()
        np.minimum(nearest, apart[order[k]], out=nearest)
    return order


def _face_cross(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = np.asarray(vertices, float)[faces].transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    return cross, np.linalg.norm(cross, axis=1)
