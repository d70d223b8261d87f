"""Mesh files made fit for physics: read, scaled to metres, repaired, or refused with a reason."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from manifold3d import Manifold, OpType

from dexgrasp.sim.objects.decomposition import as_manifold, decompose
from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.library import ObjectModel
from dexgrasp.sim.objects.merging import are_convex, merged
from dexgrasp.sim.objects.model_builder import assemble
from dexgrasp.sim.objects.surface import mass_properties

Surface = tuple[np.ndarray, np.ndarray]
"""Vertices (v, 3) and faces (f, 3)."""
UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
TYPICAL_M = 0.12
"""Longest side of a typical thing for the hand; the unit that brings a folder nearest to it is taken."""
MOST_FACES = 20000
"""Finer meshes are simplified: nothing that the hand feels is lost."""


class RefusedMeshError(ValueError):
    """A mesh that cannot be used; the text starts with the reason's name."""


@dataclass(frozen=True)
class Limits:
    """Sizes that are accepted [m]."""

    longest_m: float = 0.35
    """Longest side; beyond it nothing fits a hand on a table."""
    thinnest_m: float = 0.004
    """Shortest side of the tightest box; beneath it a mesh is a sheet."""


def read_mesh(path: Path, merge: bool = True) -> trimesh.Trimesh:
    """The file as one mesh in its own unit; RefusedMeshError when it is unreadable, empty or not finite.

    `merge`: vertices at one place become one.
    """
    try:
        loaded = trimesh.load_scene(path, process=False, skip_materials=True).to_mesh()
    except Exception as error:  # each format's reader raises its own kinds, none of them documented
        raise RefusedMeshError(f"unreadable: {type(error).__name__}: {error}") from error
    if len(loaded.faces) == 0 or len(loaded.vertices) < 4:
        raise RefusedMeshError(f"empty: {len(loaded.vertices)} vertices, {len(loaded.faces)} faces")
    if not np.isfinite(loaded.vertices).all():
        bad = int((~np.isfinite(loaded.vertices)).any(axis=1).sum())
        raise RefusedMeshError(f"not finite: {bad} of {len(loaded.vertices)} vertices are NaN or infinite")
    return trimesh.Trimesh(np.asarray(loaded.vertices, float), np.asarray(loaded.faces), process=merge)


def guess_folder_unit(files: list[Path]) -> tuple[float, str]:
    """Factor to metres, and the unit's name, for the meshes of one folder; unusable files have no say."""
    longest = []
    for path in files:
        try:
            longest.append(float(read_mesh(path).extents.max()))
        except RefusedMeshError:
            continue  # it is refused with its reason when its turn comes
    unit = guess_unit(longest) if longest and max(longest) > 0 else "m"
    return UNITS_M[unit], unit


def guess_unit(longest: list[float]) -> str:
    """The unit ("m", "cm", "mm") that brings the median longest side of a folder's meshes nearest to a hand's size."""
    middle = float(np.median(longest))
    return min(UNITS_M, key=lambda unit: abs(np.log(middle * UNITS_M[unit] / TYPICAL_M)))


def clean_parts(mesh: trimesh.Trimesh, scale: float, limits: Limits, apart: bool = False) -> list[Surface]:
    """The closed parts of a mesh [m], faces outward; or RefusedMeshError says why there are none.

    `apart`: bodies without common vertices stay apart, also where they touch.
    """
    mesh = mesh.copy()
    mesh.apply_scale(scale)
    _check_size(mesh, limits)
    bodies = mesh.split(only_watertight=False) if apart else [mesh]
    solids = [solid for body in bodies for solid in _solids(body)]
    parts: list[Surface] = [(part.vertices, part.faces) for part in solids if abs(part.volume) > 1e-12]
    if not parts:
        raise RefusedMeshError("empty: the surface encloses no volume")
    return parts


def _solids(mesh: trimesh.Trimesh) -> list[trimesh.Trimesh]:
    _repair(mesh)
    if not mesh.is_watertight:
        edges = np.unique(mesh.edges_sorted, axis=0, return_counts=True)[1]
        open_edges = int((edges != 2).sum())
        raise RefusedMeshError(f"not closed: {open_edges} of {len(edges)} edges do not join two faces")
    return [part if part.volume > 0 else _turned(part) for part in mesh.split(only_watertight=True)]


def model_from_mesh(path: Path, name: str, scale: float, settings: ImportSettings) -> ObjectModel:
    """The object of one mesh file; RefusedMeshError when there is none to be had from it."""
    apart = settings.decomposition == "parts"
    parts = clean_parts(read_mesh(path, merge=not apart), scale, Limits(), apart)
    vertices, faces = _united(parts)
    volume = mass_properties(vertices, faces)[0]
    mass = float(np.clip(settings.density * volume, settings.mass_min, settings.mass_max))
    try:
        if apart and are_convex(parts):
            pieces = merged([points for points, _ in parts], settings.pieces)
        else:
            pieces = decompose(vertices, faces, settings.pieces, "auto" if apart else settings.decomposition)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return assemble(name, "mesh", "imported", 0, (vertices, faces), pieces, mass, settings.friction, rng)
    except (ValueError, RuntimeError) as error:
        raise RefusedMeshError(f"unusable: {error}") from error


def _check_size(mesh: trimesh.Trimesh, limits: Limits) -> None:
    sides = np.sort(mesh.extents)
    if sides[2] > limits.longest_m:
        raise RefusedMeshError(
            f"too large: longest side {sides[2]:.3f} m, at most {limits.longest_m} m; is the unit right? (scale=...)"
        )
    if sides[2] < 0.01:
        raise RefusedMeshError(f"too thin: longest side {sides[2] * 1000:.2f} mm; is the unit right? (scale=...)")
    tightest = sides[0] if sides[0] < limits.thinnest_m else float(np.min(mesh.bounding_box_oriented.primitive.extents))
    if tightest < limits.thinnest_m:
        raise RefusedMeshError(
            f"too thin: shortest side {tightest * 1000:.2f} mm, at least {limits.thinnest_m * 1000:g} mm"
        )


def _repair(mesh: trimesh.Trimesh) -> None:
    """Merges doubled vertices, drops doubled and flat faces, closes small holes, turns faces outward."""
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    if not mesh.is_watertight:
        trimesh.repair.fill_holes(mesh)
    trimesh.repair.fix_normals(mesh, multibody=True)


def _turned(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    mesh.invert()
    return mesh


def _united(parts: list[Surface]) -> Surface:
    """One surface around all parts, simplified when very fine; the parts as they are when they are no manifolds.

    A cavity inside a solid is filled: neither hand nor table reaches it.
    """
    solids = [solid for part in parts if (solid := as_manifold(*part)) is not None]
    if len(solids) < len(parts):
        return _stacked(parts)
    if len(solids) == 1 and len(parts[0][1]) <= MOST_FACES:
        return parts[0]
    solid = Manifold.batch_boolean(solids, OpType.Add)
    tolerance_m = 5e-5
    while solid.num_tri() > MOST_FACES and tolerance_m < 1e-3:
        solid, tolerance_m = solid.simplify(tolerance_m), 2 * tolerance_m
    mesh = solid.to_mesh64()
    return np.asarray(mesh.vert_properties)[:, :3], np.asarray(mesh.tri_verts, np.int32)


def _stacked(parts: list[Surface]) -> Surface:
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in parts[:-1]])
    faces = [faces + start for (_, faces), start in zip(parts, starts, strict=True)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)
