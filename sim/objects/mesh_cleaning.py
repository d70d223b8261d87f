"""Conversion of one mesh file to an object: scaled, repaired, decomposed; or refused with the reason."""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.library import ObjectModel
from dexgrasp.sim.objects.mesh_files import (
    LONGEST_M,
    MAX_FACES,
    MIN_LONGEST_M,
    ClosedHoles,
    MeshFileError,
    check_density,
    close_holes,
    fitting_units,
    mass_properties,
    miscounted_share,
    read_surface,
    states_metres,
)

if TYPE_CHECKING:
    import trimesh

Surface = tuple[np.ndarray, np.ndarray]
"""Vertices (v, 3) and faces (f, 3)."""
THINNEST_M = 0.004
"""Smallest shortest side of the tightest box; beneath it a mesh is a sheet."""

ROUGHEST_M = 1e-4
"""Coarsest rounding of coordinates; the finest details that the hand feels are of a few tenths of a millimetre."""
MOST_MISCOUNTED = 0.02
"""Largest share of the volume that is counted wrongly where the surface of a body passes through itself."""
MOST_BODIES = 256
"""Most bodies of a mesh that do not touch; the decomposition of a few hundred takes minutes."""


class RefusedMeshError(ValueError):
    """A mesh that cannot be used; the text starts with the reason's name."""


def read_mesh(path: Path, merge: bool = True) -> "trimesh.Trimesh":
    """Return the file as one mesh in its own unit.

    Raise RefusedMeshError when it is unreadable, empty or not finite.

    `merge`: vertices at one place become one.
    """
    import trimesh

    try:
        vertices, faces = read_surface(path)
    except MeshFileError as error:
        raise RefusedMeshError(str(error)) from error
    return trimesh.Trimesh(vertices, faces, process=merge)


def clean_parts(mesh: "trimesh.Trimesh", scale: float, apart: bool = False) -> tuple[list[Surface], ClosedHoles]:
    """Return the closed parts of a mesh [m], faces outward, and the holes that were closed.

    Raise RefusedMeshError, with the reason, where there are none.

    `apart`: bodies without common vertices stay apart, also where they touch.
    """
    mesh = mesh.copy()
    mesh.apply_scale(scale)
    _check_thickness(mesh)
    bodies = mesh.split(only_watertight=False, repair=False) if apart else [mesh]
    closed = ClosedHoles()
    solids: list[trimesh.Trimesh] = []
    for body in bodies:
        found, holes = _solids(body)
        solids, closed = solids + found, closed.merged(holes)
    parts: list[Surface] = [
        (np.asarray(part.vertices, float), part.faces) for part in solids if abs(part.volume) > 1e-12
    ]
    if not parts:
        raise RefusedMeshError("empty: its faces enclose no volume; a closed surface is expected")
    _check_overlap(parts)
    return parts, closed


def _solids(mesh: "trimesh.Trimesh") -> "tuple[list[trimesh.Trimesh], ClosedHoles]":
    mesh, closed = _repaired(mesh)
    bodies = [mesh] if mesh.is_watertight else list(mesh.split(only_watertight=False, repair=False))
    if not bodies or not all(body.is_watertight for body in bodies):  # bodies that touch share edges of four faces
        raise RefusedMeshError(_edge_fault(np.unique(mesh.edges_sorted, axis=0, return_counts=True)[1]))
    parts = [part for body in bodies for part in body.split(only_watertight=True, repair=False)]
    if not all(part.is_winding_consistent for part in parts):
        raise RefusedMeshError(
            "not a solid: its surface has no inside and outside, as a Klein bottle; draw it anew, or leave it out"
        )
    return [part if part.volume > 0 else _inverted(part) for part in parts], closed


def _edge_fault(faces_at: np.ndarray) -> str:
    """Return why a surface is none of a solid; `faces_at` (edge,): number of faces that meet in each edge."""
    single, many = int((faces_at == 1).sum()), int((faces_at > 2).sum())
    if not many:
        return (
            f"not closed: {single} of {len(faces_at)} edges belong to one face; close the surface in the program that "
            "made it"
        )
    apart = f", {single} belong to one face" if single else ""
    return (
        f"not a solid: three or more faces meet in {many} of {len(faces_at)} edges{apart}; delete walls inside it and "
        "faces that stand out, in the program that made it"
    )


def _check_overlap(parts: list[Surface]) -> None:
    """Raise RefusedMeshError where surfaces pass through themselves so far that the volume is another one."""
    volumes = np.array([mass_properties(*part)[0] for part in parts])
    share = float(np.array([miscounted_share(*part) for part in parts]) @ volumes / volumes.sum())
    if share > MOST_MISCOUNTED:
        raise RefusedMeshError(
            f"passes through itself: {100 * share:.0f} % of the volume would be counted twice or as missing, at most "
            f"{100 * MOST_MISCOUNTED:g} %; unite what overlaps (boolean union) in the program that made it"
        )


def model_from_mesh(path: Path, name: str, scale: float, settings: ImportSettings) -> tuple[ObjectModel, ClosedHoles]:
    """Return the object of one mesh file, and the holes of the mesh that were closed.

    Raise RefusedMeshError where the mesh is unusable.
    """
    from dexgrasp.sim.objects.decomposition import are_convex, decompose, merge_convex_parts
    from dexgrasp.sim.objects.model_builder import assemble

    apart = settings.decomposition == "parts"
    mesh = _near_origin(read_mesh(path, merge=not apart), scale)
    is_stated = states_metres(path) and settings.factor is None and settings.size is None
    _check_longest(float(mesh.extents.max()), scale, is_stated)
    parts, closed = clean_parts(mesh, scale, apart)
    vertices, faces = _united(parts)
    _check_bodies(len(parts), vertices, faces)
    volume = mass_properties(vertices, faces)[0]
    mass = _mass(volume, settings)
    try:
        if apart and are_convex(parts):
            pieces = merge_convex_parts([points for points, _ in parts], settings.pieces)
        else:
            pieces = decompose(vertices, faces, settings.pieces, "auto" if apart else settings.decomposition)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        model = assemble(
            name=name,
            family="mesh",
            split="imported",
            seed=0,
            mesh=(vertices, faces),
            pieces=pieces,
            mass=mass,
            friction=settings.friction,
            rng=rng,
        )
        model.check()
        return model, closed
    except (ValueError, RuntimeError) as error:
        raise RefusedMeshError(f"unusable: {error}") from error


def _mass(volume: float, settings: ImportSettings) -> float:
    """Return the mass [kg] of a volume [m^3]. Raise RefusedMeshError where the range leaves none that is possible."""
    mass = float(np.clip(settings.density * volume, settings.mass_min, settings.mass_max))
    try:
        check_density(mass, volume)
    except ValueError as error:
        option = "mass_min" if mass > settings.density * volume else "mass_max"
        raise RefusedMeshError(
            f"unusable: {error}; give another {option}=, or leave it out with exclude=..."
        ) from error
    return mass


def _check_longest(longest: float, scale: float, is_stated: bool) -> None:
    """Raise RefusedMeshError for a size that is not for a hand; `longest`: longest side in the file's unit."""
    size = longest * scale
    if MIN_LONGEST_M <= size <= LONGEST_M:
        return
    problem = f"too large: longest side {size:.3f} m, at most {LONGEST_M} m"
    if size < MIN_LONGEST_M:
        problem = f"too small: longest side {size:.6f} m, at least {MIN_LONGEST_M} m"
    fitting = fitting_units(longest)
    if not is_stated:
        way = f"if it is in another unit, give {fitting}" if fitting else "give scale=... or size=..."
        raise RefusedMeshError(f"{problem}; {way}, with include=... and an out= of its own, or convert the file")
    way = (
        f"if this one is in another unit, give {fitting} or size=..."
        if fitting
        else "scale it in the file, or give size=..."
    )
    raise RefusedMeshError(f"{problem}; glTF states metres: {way}, with include=... for such files alone")


def _check_thickness(mesh: "trimesh.Trimesh") -> None:
    sides = np.sort(mesh.extents)
    tightest = sides[0] if sides[0] < THINNEST_M else float(np.min(mesh.bounding_box_oriented.primitive.extents))
    if tightest >= THINNEST_M * (1 - 1e-6):  # of a side that was scaled to it
        return
    if tightest < 1e-4 * sides[2]:
        raise RefusedMeshError("too thin: it is flat, a surface without thickness; give it one, or leave it out")
    raise RefusedMeshError(
        f"too thin: shortest side {tightest * 1000:.3g} mm, at least {THINNEST_M * 1000:g} mm, which fingers can hold; "
        "make it thicker, or leave it out"
    )


def _check_bodies(parts: int, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Raise RefusedMeshError for a mesh of too many bodies. `parts`: bodies before those that touch are united."""
    if parts <= MOST_BODIES:
        return
    from dexgrasp.sim.objects.decomposition import as_manifold

    solid = as_manifold(vertices, faces)
    bodies = parts if solid is None else len(solid.decompose())
    if bodies > MOST_BODIES:
        raise RefusedMeshError(
            f"too many bodies: {bodies} that do not touch, at most {MOST_BODIES}; one rigid thing is expected: unite "
            "them, or leave the file out"
        )


def _near_origin(mesh: "trimesh.Trimesh", scale: float) -> "trimesh.Trimesh":
    """Return a mesh that lies far from its origin moved to it: integrals about a far point lose all their digits.

    Raise RefusedMeshError where the coordinates are numbers of single precision, too far away for a shape. `scale`:
    factor to metres.
    """
    middle = mesh.bounds.mean(axis=0)
    if np.abs(middle).max() <= mesh.extents.max():  # near enough; not moved, the result stays the same bit by bit
        return mesh
    single = mesh.vertices.astype(np.float32)
    step_m = float(np.spacing(np.abs(single).max())) * scale
    if step_m > ROUGHEST_M and (single == mesh.vertices).all():
        raise RefusedMeshError(
            f"too far from its origin: at {np.abs(middle).max() * scale:.4g} m its coordinates, of single precision, "
            f"are rounded to {1000 * step_m:.2g} mm; move it to the origin in the program that made it"
        )
    mesh.apply_translation(-middle)
    return mesh


def _repaired(mesh: "trimesh.Trimesh") -> "tuple[trimesh.Trimesh, ClosedHoles]":
    """Merge doubled vertices, drop doubled and flat faces, close small holes, turn faces outward.

    Raise RefusedMeshError for holes that are openings of the body.

    A closed mesh that this would open, because a flat face joins others, keeps its faces.
    """
    import trimesh

    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    merged = mesh.copy()
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    closed = ClosedHoles()
    if merged.is_watertight and not mesh.is_watertight:
        mesh = merged
    elif not mesh.is_watertight:
        trimesh.repair.fix_winding(mesh)
        try:
            patches, closed = close_holes(np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64))
        except MeshFileError as error:
            raise RefusedMeshError(str(error)) from error
        mesh = trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, patches]), process=False)
    trimesh.repair.fix_normals(mesh, multibody=True)
    return mesh, closed


def _inverted(mesh: "trimesh.Trimesh") -> "trimesh.Trimesh":
    mesh.invert()
    return mesh


def _united(parts: list[Surface]) -> Surface:
    """Return one surface around all parts, simplified when very fine.

    The parts are returned unchanged when they are no manifolds.

    A cavity inside a solid is filled: neither hand nor table reaches it.
    """
    from manifold3d import Manifold, OpType

    from dexgrasp.sim.objects.decomposition import as_manifold

    solids = [solid for part in parts if (solid := as_manifold(*part)) is not None]
    if len(solids) < len(parts):
        return _concatenated(parts)
    if len(solids) == 1 and len(parts[0][1]) <= MAX_FACES:
        return parts[0]
    solid = Manifold.batch_boolean(solids, OpType.Add)
    tolerance_m = 5e-5
    while solid.num_tri() > MAX_FACES and tolerance_m < 1e-3:
        solid, tolerance_m = solid.simplify(tolerance_m), 2 * tolerance_m
    mesh = solid.to_mesh64()
    return np.asarray(mesh.vert_properties)[:, :3], np.asarray(mesh.tri_verts, np.int32)


def _concatenated(parts: list[Surface]) -> Surface:
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in parts[:-1]])
    faces = [faces + start for (_, faces), start in zip(parts, starts, strict=True)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)
