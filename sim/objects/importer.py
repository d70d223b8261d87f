"""Import of folders of meshes as object libraries; a mesh that fails does not affect the others.

Meshes are read, scaled to metres and repaired, or refused with a reason. Results are cached by content:
OUT/imported/KEY.json holds the manifest row or the reason of a refusal; KEY hashes the file, its name and the settings.
A repeated import reads the cache only, and an interrupted one continues. Heavy libraries are imported only where there
is work, so that a repeated import is fast.
"""

import hashlib
import json
import logging
import re
import zlib
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.library import ObjectEntry, ObjectLibrary, ObjectModel, entry_from_dict, write_library
from dexgrasp.sim.objects.mesh_files import SUFFIXES, MeshFileError, read_surface
from dexgrasp.utils import files, process_pool
from dexgrasp.utils.progress import track

if TYPE_CHECKING:
    import trimesh

log = logging.getLogger("dexgrasp")

VERSION = 2
"""Raised when an import gives other objects than before, so that old caches are not used."""

SAMPLED_FOR_UNIT = 25
Surface = tuple[np.ndarray, np.ndarray]
"""Vertices (v, 3) and faces (f, 3)."""
UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
TYPICAL_M = 0.12
"""Longest side of a typical thing for the hand; the unit that brings a folder nearest to it is taken."""
DOUBTFUL_FACTOR = 4.0
"""A folder whose median size is further than this factor from TYPICAL_M, in every unit, needs scale=..."""
MAX_FACES = 20000
"""Finer meshes are simplified: nothing that the hand feels is lost."""


@dataclass(frozen=True)
class ImportReport:
    """Result of a mesh import."""

    library: ObjectLibrary
    scale: float
    """Factor to metres that was used."""
    unit: str
    """"m", "cm" or "mm" as guessed, or "given"."""
    reused: int
    """Meshes known from an earlier import."""
    refused: dict[str, str]
    """Mesh file, relative to the folder -> reason."""

    def summary(self) -> str:
        """Return a few lines for a person: counts, unit, volume ratio, each refusal."""
        ratios = [e.piece_volume_ratio for e in self.library.entries]
        said = f"unit {self.unit} (scale={self.scale:g})" if self.unit == "given" else f"unit guessed: {self.unit}"
        longest = float(np.median([max(entry.extents) for entry in self.library.entries]))
        lines = [
            f"{len(self.library)} objects in {self.library.path} ({self.reused} known before), {said}, "
            f"median longest side {longest:.3f} m",
            f"volume of the pieces / mesh: median {sorted(ratios)[len(ratios) // 2]:.2f}, worst {max(ratios):.2f}",
            f"{len(self.refused)} meshes refused" + (":" if self.refused else ""),
        ]
        return "\n".join(lines + [f"  {file}: {reason}" for file, reason in self.refused.items()])


@dataclass(frozen=True)
class _Job:
    path: Path
    source: str
    name: str
    key: str
    scale: float
    settings: ImportSettings
    out: Path


def import_meshes(
    folder: str | Path,
    out: str | Path,
    settings: ImportSettings | None = None,
    workers: int | None = None,
    progress: bool = True,
    most: int | None = None,
) -> ImportReport:
    """Import every OBJ, STL, PLY and GLB under `folder`, or the first `most` of them, into library `out`.

    What was imported before is kept.
    """
    settings = settings or ImportSettings()
    folder, out = Path(folder), Path(out)
    meshes = _mesh_files(folder)[:most]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in meshes}
    with files.folder_lock(out):
        files.remove_partials(out)
        scale, unit = _scale(meshes, digests, settings, out)
        jobs = _jobs(folder, meshes, digests, scale, settings, out)
        fresh = [job for job in jobs if not _is_done(job)]
        _run(fresh, workers or process_pool.available_cores(), progress)
        return _finish(jobs, len(jobs) - len(fresh), scale, unit, out)


def import_to_cache(folder: Path) -> ObjectLibrary:
    """Return the library of a folder of meshes, kept under the user's cache folder."""
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    report = import_meshes(folder, files.cache_folder() / f"{folder.resolve().name}-{place}")
    if report.refused:
        log.warning(report.summary())
    return report.library


def _mesh_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of meshes at {folder}")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no meshes; expected files ending in {', '.join(SUFFIXES)}, nested or not"
        )
    return found


def _scale(meshes: list[Path], digests: dict[Path, str], settings: ImportSettings, out: Path) -> tuple[float, str]:
    """Return the factor to metres and its name; a guess is kept by the contents of the folder."""
    if settings.scale is not None:
        return settings.scale, "given"
    key = hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()[:16]
    record = out / "imported" / f"unit-{key}.json"
    if not record.is_file():
        step = max(1, len(meshes) // SAMPLED_FOR_UNIT)
        files.write_bytes(record, json.dumps(guess_folder_unit(meshes[::step])).encode())
    scale, unit = json.loads(record.read_text())
    return scale, unit


def _jobs(
    folder: Path, meshes: list[Path], digests: dict[Path, str], scale: float, settings: ImportSettings, out: Path
) -> list[_Job]:
    stems = {
        path: re.sub(r"[^A-Za-z0-9]+", "_", str(path.relative_to(folder).with_suffix(""))).strip("_") for path in meshes
    }
    twins = {stem for stem, count in Counter(stems.values()).items() if count > 1}
    jobs, taken = [], set()
    for path in meshes:
        name = f"{stems[path]}_{path.suffix[1:].lower()}" if stems[path] in twins else stems[path]
        while name in taken:
            name += "_"
        taken.add(name)
        identity = json.dumps([VERSION, digests[path], name, scale, asdict(settings)])
        key = hashlib.sha256(identity.encode()).hexdigest()[:24]
        jobs.append(
            _Job(
                path=path,
                source=str(path.relative_to(folder)),
                name=name,
                key=key,
                scale=scale,
                settings=settings,
                out=out,
            )
        )
    return jobs


def _run(jobs: list[_Job], workers: int, progress: bool) -> None:
    with closing(process_pool.run_in_processes(_import_one, jobs, workers)) as finished:
        for job, done in track(finished, len(jobs), "import", progress):
            if done is None:
                reason = "unreadable: its process died while it was imported (a crash, or out of memory)"
                _write_record(job, {"refused": reason})


def _import_one(job: _Job) -> bool:
    """Import one mesh and write the outcome; never raise for a bad mesh."""
    from dexgrasp.sim.objects.model_builder import make_entry

    try:
        model = model_from_mesh(job.path, job.name, job.scale, job.settings)
    except RefusedMeshError as refusal:
        _write_record(job, {"refused": str(refusal)})
        return True
    data = model.to_bytes()
    file = f"objects/{job.name}.npz"
    files.write_bytes(job.out / file, data)
    _write_record(job, {"entry": asdict(make_entry(model, file, data, source=job.source))})
    return True


def _finish(jobs: list[_Job], reused: int, scale: float, unit: str, out: Path) -> ImportReport:
    entries: list[ObjectEntry] = []
    refused: dict[str, str] = {}
    for job in jobs:
        record = json.loads(_record_path(job).read_text())
        if "refused" in record:
            refused[job.source] = record["refused"]
        else:
            entries.append(entry_from_dict(record["entry"]))
    if not entries:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in list(refused.items())[:5])
        raise ValueError(f"none of {len(jobs)} meshes could be imported: {reasons}")
    request = {
        "meshes": len(jobs),
        "scale": scale,
        "unit": unit,
        "settings": asdict(jobs[0].settings),
        "refused": refused,
    }
    library = write_library(out, entries, request, f"dexgrasp objects import DIR scale={scale:g} out=LIB")
    return ImportReport(library=library, scale=scale, unit=unit, reused=reused, refused=refused)


def _record_path(job: _Job) -> Path:
    return job.out / "imported" / f"{job.key}.json"


def _is_done(job: _Job) -> bool:
    if not _record_path(job).is_file():
        return False
    record = json.loads(_record_path(job).read_text())
    return "refused" in record or (job.out / record["entry"]["file"]).is_file()


def _write_record(job: _Job, record: dict[str, object]) -> None:
    files.write_bytes(_record_path(job), json.dumps(record).encode())


class RefusedMeshError(ValueError):
    """A mesh that cannot be used; the text starts with the reason's name."""


@dataclass(frozen=True)
class Limits:
    """Sizes that are accepted [m]."""

    longest_m: float = 0.35
    """Longest side; beyond it nothing fits a hand on a table."""
    thinnest_m: float = 0.004
    """Shortest side of the tightest box; beneath it a mesh is a sheet."""


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


def guess_folder_unit(files: list[Path]) -> tuple[float, str]:
    """Return the factor to metres and the unit's name for the meshes of one folder.

    Unusable files are ignored.
    """
    longest = []
    for path in files:
        try:
            longest.append(float(read_mesh(path).extents.max()))
        except RefusedMeshError:
            continue  # it is refused with its reason when its turn comes
    usable = [side for side in longest if side > 0]
    unit = guess_unit(usable) if usable else "m"
    return UNITS_M[unit], unit


def guess_unit(longest: list[float]) -> str:
    """Return the unit ("m", "cm", "mm") that fits the meshes of a folder best.

    The median longest side comes nearest to a hand's size. Raises ValueError where no unit brings it near.
    """
    middle = float(np.median(longest))
    unit = min(UNITS_M, key=lambda unit: abs(np.log(middle * UNITS_M[unit] / TYPICAL_M)))
    if abs(np.log(middle * UNITS_M[unit] / TYPICAL_M)) > np.log(DOUBTFUL_FACTOR):
        raise ValueError(
            f"the unit of these meshes cannot be guessed: their median longest side is {middle:.4g}, which is "
            + ", ".join(f"{middle * factor:.3g} m in {name}" for name, factor in UNITS_M.items())
            + ": give scale=..., the metres of one unit of the files"
        )
    return unit


def clean_parts(mesh: "trimesh.Trimesh", scale: float, limits: Limits, apart: bool = False) -> list[Surface]:
    """Return the closed parts of a mesh [m], faces outward.

    Raise RefusedMeshError, with the reason, where there are none.

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


def _solids(mesh: "trimesh.Trimesh") -> "list[trimesh.Trimesh]":
    mesh = _repaired(mesh)
    bodies = [mesh] if mesh.is_watertight else list(mesh.split(only_watertight=False))
    if not bodies or not all(body.is_watertight for body in bodies):  # bodies that touch share edges of four faces
        edges = np.unique(mesh.edges_sorted, axis=0, return_counts=True)[1]
        open_edges = int((edges != 2).sum())
        raise RefusedMeshError(f"not closed: {open_edges} of {len(edges)} edges do not join two faces")
    parts = [part for body in bodies for part in body.split(only_watertight=True)]
    return [part if part.volume > 0 else _inverted(part) for part in parts]


def model_from_mesh(path: Path, name: str, scale: float, settings: ImportSettings) -> ObjectModel:
    """Return the object of one mesh file; raise RefusedMeshError where the mesh is unusable."""
    from dexgrasp.sim.objects.decomposition import are_convex, decompose, merge_convex_parts
    from dexgrasp.sim.objects.model_builder import assemble, mass_properties

    apart = settings.decomposition == "parts"
    parts = clean_parts(read_mesh(path, merge=not apart), scale, Limits(), apart)
    vertices, faces = _united(parts)
    volume = mass_properties(vertices, faces)[0]
    mass = float(np.clip(settings.density * volume, settings.mass_min, settings.mass_max))
    try:
        if apart and are_convex(parts):
            pieces = merge_convex_parts([points for points, _ in parts], settings.pieces)
        else:
            pieces = decompose(vertices, faces, settings.pieces, "auto" if apart else settings.decomposition)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return assemble(
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
    except (ValueError, RuntimeError) as error:
        raise RefusedMeshError(f"unusable: {error}") from error


def _check_size(mesh: "trimesh.Trimesh", limits: Limits) -> None:
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


def _repaired(mesh: "trimesh.Trimesh") -> "trimesh.Trimesh":
    """Merge doubled vertices, drop doubled and flat faces, close small holes, turn faces outward.

    A closed mesh that this would open, because a flat face joins others, keeps its faces.
    """
    import trimesh

    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    merged = mesh.copy()
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    if not mesh.is_watertight:
        trimesh.repair.fill_holes(mesh)
    if merged.is_watertight and not mesh.is_watertight:
        mesh = merged
    trimesh.repair.fix_normals(mesh, multibody=True)
    return mesh


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
