"""From geometry to an ObjectModel, and the numbers that the manifest keeps of it."""

import hashlib

import numpy as np
from scipy.spatial import ConvexHull

from dexgrasp.sim.objects import hulls, resting_poses, surface
from dexgrasp.sim.objects.library import SURFACE_POINTS, ObjectModel
from dexgrasp.sim.objects.manifest import ObjectEntry

GRID_M = 2.0**-17
"""Coordinates are rounded to this grid (7.6 micrometres): files compress to half the size."""
HAND_OPENING_M = 0.10
"""Width that an Allegro or LEAP hand can close around."""


def assemble(
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
    """The model of a closed mesh (vertices (v, 3), faces (f, 3)) and the point sets of its convex pieces, any origin.

    Moves the origin to the centre of mass at uniform density, samples the surface, finds the resting poses.
    """
    vertices, faces = mesh
    volume, centre, second = surface.mass_properties(vertices, faces)
    if not volume > 0:
        raise ValueError(f"{name}: the mesh encloses no volume ({volume:.3g} m^3); its faces may point inward")
    vertices = _on_grid(vertices - centre)
    packed = hulls.support_hulls([points - centre for points in pieces])
    points, normals = surface.sample_surface(vertices, faces, SURFACE_POINTS, rng)
    inertia = second * mass / volume
    height, quat, prob = resting_poses.resting_poses(packed, mass, inertia)
    return ObjectModel(
        name, family, split, seed, vertices, faces.astype(np.int32), packed, _on_grid(points),
        np.round(normals, 3).astype(np.float32), float(mass), inertia, height, quat, prob, float(friction),
    )  # fmt: skip


def describe(model: ObjectModel, file: str, data: bytes, source: str = "") -> ObjectEntry:
    """The manifest row of a model whose file holds `data`."""
    volume = surface.mass_properties(model.vertices, model.faces)[0]
    hull = float(ConvexHull(model.vertices.astype(float)).volume)
    thickness = 2 * volume / surface.surface_area(model.vertices, model.faces)
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
        piece_volume_ratio=_short(sum(hulls.hull_volume(piece) for piece in model.pieces) / volume),
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
