"""Construction of an ObjectModel from a closed mesh and convex pieces, and of its manifest row.

Computes mass properties, samples the surface, and converts each convex piece to 64 points on its hull, the layout that
all compiled models have.
"""

import hashlib

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from dexgrasp.sim.objects import resting_poses
from dexgrasp.sim.objects.library import HAND_OPENING_M, PIECE_POINTS, SURFACE_POINTS, ObjectEntry, ObjectModel
from dexgrasp.sim.objects.mesh_files import mass_properties, sphere_directions

ROUNDING_M = 0.6e-3
"""Radius of the ball that rounds each piece: it keeps all support points distinct and on the hull."""

MAX_GROWTH = 1.06
"""Most by which a round piece is scaled up."""

MIN_SCALE = 0.25
"""A piece thinner than the ball's diameter keeps this share of its own thickness."""
GRID_M = 2.0**-17
"""Coordinates are rounded to this grid (7.6 micrometres): files compress to half the size."""


_DIRECTIONS = sphere_directions(PIECE_POINTS)

_BETWEEN = sphere_directions(150)


def support_hull(points: np.ndarray, ball_m: float = ROUNDING_M) -> np.ndarray:
    """Return the 64 support points (64, 3) float32 of the rounded hull of `points` (n, 3).

    One point along each of 64 directions; the hull is rounded by a small ball.

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
    scale = np.maximum(1 - 2 * ball_m / np.maximum(extent, 1e-9), MIN_SCALE)
    shrunk = centre + ((along - middle) * scale + middle) @ axes.T
    packed = shrunk[np.argmax(shrunk @ _DIRECTIONS.T, axis=0)] + ball_m * _DIRECTIONS
    width = (local @ _BETWEEN.T).max(axis=0)
    growth = np.mean(width / ((packed - centre) @ _BETWEEN.T).max(axis=0))
    return (centre + np.clip(growth, 1, MAX_GROWTH) * (packed - centre)).astype(np.float32)


def support_hulls(pieces: list[np.ndarray]) -> np.ndarray:
    """Return (p, 64, 3) float32: `support_hull` of each point set."""
    return np.stack([support_hull(np.asarray(points, float)) for points in pieces])


def hull_volume(points: np.ndarray) -> float:
    """Return the volume of the convex hull of points (n, 3) [m^3]; 0 when they are flat."""
    try:
        return float(ConvexHull(np.asarray(points, float)).volume)
    except QhullError:
        return 0.0


def surface_area(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Return the area of a triangle mesh [m^2]."""
    return float(_face_cross(vertices, faces)[1].sum() / 2)


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` points (n, 3) and normals (n, 3) of a mesh in farthest-point order, even by area.

    Normals point outward.
    """
    points, normals = scatter(vertices, faces, count, rng)
    order = farthest_first(points)
    return points[order], normals[order]


def scatter(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` points (n, 3) and outward normals (n, 3) of a mesh, even by area.

    Points are in the order of the faces.

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
    """Return the farthest-point order (n,) of points (n, 3).

    Starts farthest from the mean; each next point is the farthest from those chosen.
    """
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


def assemble(
    *,
    name: str,
    family: str,
    split: str,
    seed: int,
    mesh: tuple[np.ndarray, np.ndarray],
    pieces: list[np.ndarray],
    mass: float,
    friction: float,
    rng: np.random.Generator,
) -> ObjectModel:
    """Return the model of a closed mesh and the point sets of its convex pieces, any origin.

    `mesh`: vertices (v, 3), faces (f, 3).

    Moves the origin to the centre of mass at uniform density, samples the surface, finds the resting poses.
    """
    vertices, faces = mesh
    volume, centre, second = mass_properties(vertices, faces)
    if not volume > 0:
        raise ValueError(f"{name}: the mesh encloses no volume ({volume:.3g} m^3); its faces may point inward")
    vertices = _on_grid(vertices - centre)
    packed = support_hulls([points - centre for points in pieces])
    points, normals = sample_surface(vertices, faces, SURFACE_POINTS, rng)
    inertia = second * mass / volume
    height, quat, prob = resting_poses.resting_poses(packed, mass, inertia)
    return ObjectModel(
        name=name,
        family=family,
        split=split,
        seed=seed,
        vertices=vertices,
        faces=faces.astype(np.int32),
        pieces=packed,
        points=_on_grid(points),
        normals=np.round(normals, 3).astype(np.float32),
        mass=float(mass),
        inertia=inertia,
        rest_height=height,
        rest_quat=quat,
        rest_prob=prob,
        friction=float(friction),
    )


def make_entry(model: ObjectModel, file: str, data: bytes, source: str = "") -> ObjectEntry:
    """Return the manifest row of a model whose file holds `data`."""
    volume = mass_properties(model.vertices, model.faces)[0]
    hull = float(ConvexHull(model.vertices.astype(float)).volume)
    thickness = 2 * volume / surface_area(model.vertices, model.faces)
    extents = np.sort(model.extents.astype(float))
    thinness = _ramp(extents[0], 0.05, 0.015) * 0.5 + _ramp(thickness, 0.012, 0.002) * 0.5
    size = extents[1] / HAND_OPENING_M
    concavity = 1 - min(volume / hull, 1.0)
    awkward = abs(size - 0.55) / 0.6
    difficulty = sum([thinness, min(awkward, 1.0), concavity, _ramp(model.mass, 0.1, 0.5)]) / 4
    return ObjectEntry(
        name=model.name,
        family=model.family,
        split=model.split,
        seed=model.seed,
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        extents=(_short(model.extents[0]), _short(model.extents[1]), _short(model.extents[2])),
        mass=_short(model.mass),
        friction=_short(model.friction),
        pieces=len(model.pieces),
        poses=len(model.rest_prob),
        volume=_short(volume),
        hull_volume=_short(hull),
        piece_volume_ratio=_short(sum(hull_volume(piece) for piece in model.pieces) / volume),
        thickness=_short(thickness),
        thinness=_short(thinness),
        size=_short(size),
        concavity=_short(concavity),
        difficulty=_short(difficulty),
        proportion=model.proportion,
        source=source,
    )


def _on_grid(values: np.ndarray) -> np.ndarray:
    return (np.round(values / GRID_M) * GRID_M).astype(np.float32)


def _ramp(value: float, zero_at: float, one_at: float) -> float:
    return float(np.clip((value - zero_at) / (one_at - zero_at), 0, 1))


def _short(value: float) -> float:
    return float(f"{float(value):.5g}")
