"""Folders of meshes as object libraries: each mesh once, whatever happens to its neighbours.

Work is kept by content: OUT/imported/KEY.json says what became of a mesh (an object, or a refusal with its reason),
where KEY hashes the file, its name and the settings.  A second import finds every key and does nothing; a killed one
goes on where it was.  Heavy libraries are imported only where there is work, so that the second import is quick.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.library import ObjectLibrary, write_library
from dexgrasp.sim.objects.manifest import ObjectEntry, entry_from_dict
from dexgrasp.utils import files, process_pool
from dexgrasp.utils.progress import track

log = logging.getLogger("dexgrasp")

VERSION = 1
"""Raised when an import gives other objects than before, so that old caches are not used."""
SUFFIXES = (".obj", ".stl", ".ply", ".glb")
SAMPLED_FOR_UNIT = 25


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

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
        """A few lines for a person: counts, unit, volume ratio, each refusal."""
        ratios = [e.piece_volume_ratio for e in self.library.entries]
        said = f"unit {self.unit} (scale={self.scale:g})" if self.unit == "given" else f"unit guessed: {self.unit}"
        lines = [
            f"{len(self.library)} objects in {self.library.path} ({self.reused} known before), {said}",
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
    """Imports every OBJ, STL, PLY and GLB under `folder`, or the first `most` of them, into library `out`.

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
    """The library of a folder of meshes, kept under the user's cache folder."""
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
    """The factor to metres and its name; a guess is kept by the contents of the folder."""
    if settings.scale is not None:
        return settings.scale, "given"
    key = hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()[:16]
    record = out / "imported" / f"unit-{key}.json"
    if not record.is_file():
        from dexgrasp.sim.objects.meshes import guess_folder_unit

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
        jobs.append(_Job(path, str(path.relative_to(folder)), name, key, scale, settings, out))
    return jobs


def _run(jobs: list[_Job], workers: int, progress: bool) -> None:
    with closing(process_pool.run_in_processes(_import_one, jobs, workers)) as finished:
        for job, done in track(finished, len(jobs), "import", progress):
            if done is None:
                reason = "unreadable: its process died while it was imported (a crash, or out of memory)"
                _write_record(job, {"refused": reason})


def _import_one(job: _Job) -> bool:
    """Imports one mesh and writes what became of it; never raises for a bad mesh."""
    from dexgrasp.sim.objects.meshes import RefusedMeshError, model_from_mesh
    from dexgrasp.sim.objects.model_builder import describe

    try:
        model = model_from_mesh(job.path, job.name, job.scale, job.settings)
    except RefusedMeshError as refusal:
        _write_record(job, {"refused": str(refusal)})
        return True
    data = model.to_bytes()
    file = f"objects/{job.name}.npz"
    files.write_bytes(job.out / file, data)
    _write_record(job, {"entry": asdict(describe(model, file, data, source=job.source))})
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
    return ImportReport(library, scale, unit, reused, refused)


def _record_path(job: _Job) -> Path:
    return job.out / "imported" / f"{job.key}.json"


def _is_done(job: _Job) -> bool:
    if not _record_path(job).is_file():
        return False
    record = json.loads(_record_path(job).read_text())
    return "refused" in record or (job.out / record["entry"]["file"]).is_file()


def _write_record(job: _Job, record: dict[str, object]) -> None:
    files.write_bytes(_record_path(job), json.dumps(record).encode())
