"""Import of folders of meshes as object libraries; a mesh that fails does not affect the others.

Each mesh is read, measured, decomposed and posed in a process of its own, with limits of time and memory. Files of one
thing count once: the best of them is taken. Results are cached by content in OUT/imported: facts-KEY.json holds size
and shape of a file, same-KEY.json the comparison of two, KEY.json the manifest row or the reason of a refusal, where
KEY hashes the file, its name and the settings. A repeated import reads the cache only, and an interrupted one
continues. Heavy libraries are imported only where there is work, so that a repeated import is fast.
"""

import hashlib
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.library import MANIFEST, ObjectEntry, ObjectLibrary, entry_from_dict, write_library
from dexgrasp.sim.objects.mesh_cleaning import RefusedMeshError, model_from_mesh
from dexgrasp.sim.objects.mesh_files import (
    LONGEST_M,
    MIN_LONGEST_M,
    UNITS_M,
    MeshFileError,
    SurfaceFacts,
    compare_surfaces,
    file_doubt,
    find_meshes,
    group_same,
    guess_unit,
    is_rough,
    pattern_of,
    shared_units,
    shown_name,
    states_metres,
    surface_facts,
    thing_of,
    unit_doubt,
)
from dexgrasp.utils import files, process_pool
from dexgrasp.utils.process_pool import TaskFailure, TaskLimits
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import comma_separated, counted, one_line

log = logging.getLogger("dexgrasp")

T = TypeVar("T")
Record = dict[str, Any]
"""Outcome of a task as plain values."""

VERSION = 5
"""Raised when an import gives other objects than before, so that old caches are not used."""
LIMITS = TaskLimits(time_s=120.0, memory_gib=4.0, clock_s=240.0)
"""Limits of each mesh; one that exceeds them is refused. Where others take half of each core, it may compute 120 s."""
RECORDS = "imported"
"""Folder of a library with the cached results of its import."""
MOST_NAMES_SHOWN = 20
"""Longest list of files in a summary."""
MOST_STATED_SHOWN = 5
"""Longest list of files with a stated unit in a summary."""
NO_PART_OF_AN_OBJECT = ("size", "unit", "include", "exclude")
"""Settings that say how files are found and scaled; the scale of each is part of its key."""
MOST_NAME_LENGTH = 100
"""Longest name of an object; longer ones end in a hash of the path."""
_imported: dict[Path, tuple[list[object], ObjectLibrary]] = {}
"""Libraries that this process has imported into the cache, with the states of their files."""


@dataclass(frozen=True)
class ImportReport:
    """Result of a mesh import."""

    library: ObjectLibrary
    scale: float | None
    """Factor to metres of files that state no unit; None where each mesh has its own."""
    unit: str
    """Name "m", "cm" or "mm" of the guessed unit, "stated", "given", or "size"."""
    reused: int
    """Meshes known from an earlier import."""
    files: int
    """Mesh files that were looked at."""
    refused: dict[str, str]
    """Mesh file, relative to the folder -> reason."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Mesh file, relative to the folder -> file of the same thing that was taken."""
    doubt: str = ""
    """Reason for which the unit may be another one."""
    doubtful: Mapping[str, str] = field(default_factory=dict)
    """Mesh file whose size fits another unit than the guessed one better -> sizes in both."""
    not_selected: int = 0
    """Mesh files that include/exclude leave out."""
    stated: tuple[str, ...] = ()
    """Mesh files that were taken in the unit that their format states, the metre (glTF)."""
    closed: Mapping[str, str] = field(default_factory=dict)
    """Mesh file, relative to the folder -> number and size of its holes that were closed."""
    alike: Mapping[str, str] = field(default_factory=dict)
    """Mesh file that may be the same thing as another one -> that file."""

    def summary(self) -> str:
        """Return lines for a person: counts, unit, sizes, volume ratio, files left out, each refusal."""
        ratios = [e.piece_volume_ratio for e in self.library.entries]
        longest = sorted(max(entry.extents) for entry in self.library.entries)
        lines = [
            f"{counted(len(self.library), 'object')} of {counted(self.files, 'file')} in {self.library.path}"
            f"{self._earlier()}, "
            f"{self._unit()}, longest side: median {np.median(longest):.3f} m, {longest[0]:.3f} to {longest[-1]:.3f} m",
            f"volume of the pieces / mesh: median {sorted(ratios)[len(ratios) // 2]:.2f}, worst {max(ratios):.2f}",
        ]
        if self.doubt:
            lines.append(f"the unit is in doubt: {self.doubt}")
        if self.doubtful:
            lines.append(f"{counted(len(self.doubtful), 'file')} may be in another unit than the others:")
            lines += _few_lines(
                [
                    f"{file}: {sizes}, with unit=..., include={pattern_of(file)} and an out= of its own"
                    for file, sizes in self.doubtful.items()
                ],
                "",
            )
        if self.not_selected:
            lines.append(f"{counted(self.not_selected, 'file')} left out by include/exclude")
        if self.left_out:
            lines.append(f"{counted(len(self.left_out), 'file')} left out: the thing is taken from another file:")
            lines += _few_lines([f"{file}: as {taken}" for file, taken in self.left_out.items()])
        if self.alike:
            lines.append(f"{counted(len(self.alike), 'file')} may be of a thing that is counted already:")
            lines += _few_lines(
                [f"{file}: of the size and shape of {other}; compare them" for file, other in self.alike.items()]
            )
        if self.closed:
            lines.append(f"holes were closed in {counted(len(self.closed), 'mesh', 'meshes')}:")
            lines += _few_lines([f"{file}: {holes}" for file, holes in self.closed.items()])
        lines.append(f"{counted(len(self.refused), 'mesh', 'meshes')} refused" + (":" if self.refused else ""))
        return "\n".join(lines + _few_lines([f"{file}: {reason}" for file, reason in self.refused.items()]))

    def _earlier(self) -> str:
        return f" ({self.reused} {'was' if self.reused == 1 else 'were'} imported earlier)" if self.reused else ""

    def _unit(self) -> str:
        if self.unit == "size":
            return "each scaled to size="
        if self.unit == "given":
            return f"unit given (scale={self.scale:g})"
        guessed = [] if self.unit == "stated" else [f"unit guessed: {self.unit}"]
        return ", ".join([*guessed, *self._stated()])

    def _stated(self) -> list[str]:
        if not self.stated:
            return []
        more = len(self.stated) - MOST_STATED_SHOWN
        names = comma_separated(self.stated[:MOST_STATED_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return [f"unit stated by the format (glTF: m): {names}"]


def _few_lines(lines: list[str], rest: str = ", all in manifest.json") -> list[str]:
    more = len(lines) - MOST_NAMES_SHOWN
    shown = [f"  {line}" for line in lines[: MOST_NAMES_SHOWN if more > 0 else None]]
    return [*shown, f"  and {more} more{rest}"] if more > 0 else shown


@dataclass(frozen=True)
class _File:
    path: Path
    source: str
    """Path relative to the folder, as text."""
    digest: str


@dataclass(frozen=True)
class _Thing:
    name: str
    files: list[_File]
    """Files of one thing, best first."""


@dataclass(frozen=True)
class _Unit:
    name: str
    scale: float | None
    doubt: str = ""
    doubtful: Mapping[str, str] = field(default_factory=dict)
    """Files that another unit fits better -> sizes in both."""
    stated: tuple[str, ...] = ()
    """Files whose format states the metre, whatever the scale of the others."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Files without a unit that could be guessed, beside others that state theirs -> reason."""

    def factor(self, source: str) -> float:
        """Return the factor to metres of a file; 1 where each is scaled to a size afterwards."""
        return 1.0 if source in self.stated or self.scale is None else self.scale


@dataclass(frozen=True)
class _Pair:
    first: Path
    second: Path
    variants: bool
    ratio: float
    """Unit of the second file / unit of the first."""


@dataclass(frozen=True)
class _Job:
    path: Path
    source: str
    name: str
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
    one_per_thing: bool = True,
    may_remove: bool = True,
) -> ImportReport:
    """Import every OBJ, STL, PLY and GLB under `folder`, or the first `most` of them, into library `out`.

    What was imported before is reused. `one_per_thing`: files that describe one thing give one object. `may_remove`:
    objects of `out` whose files are not there any more leave the library; otherwise they raise ValueError.
    """
    settings, out = settings or ImportSettings(), Path(out)
    listing = find_meshes(Path(folder), settings.include, settings.exclude)
    refused = dict(listing.refused)
    found = [file for path in listing.meshes[:most] if (file := _hashed(path, listing.folder, refused))]
    with files.folder_lock(out):
        files.remove_partials(out)
        cache = _RecordCache(out / RECORDS, workers or process_pool.available_cores(), progress)
        facts = _facts(found, cache, refused)
        readable = [file for file in found if file.source in facts]
        unit = _unit(readable, facts, settings, cache if one_per_thing else None)
        refused |= unit.refused
        readable = [file for file in readable if file.source not in refused]
        scales = {source: unit.factor(source) for source in facts}
        alike: dict[str, str] = {}
        groups = _groups(readable, facts, scales, cache, alike) if one_per_thing else [[file] for file in readable]
        things = _named(groups)
        if not may_remove:
            _refuse_removal(out, things)
        if settings.size is not None:
            scales = {source: settings.size / facts[source].longest for source in facts}
        closed: dict[str, str] = {}
        entries, left_out = _import_things(things, scales, settings, out, cache, refused, closed)
        alike = {file: other for file, other in alike.items() if not {file, other} & {*refused, *left_out}}
        if not entries:
            none_of = f"none of {counted(len(found), 'mesh', 'meshes')} could be imported"
            raise ValueError(f"{none_of}: {_why_none(facts, scales, refused)}")
        request = {
            "meshes": len(found),
            "scale": unit.scale,
            "unit": unit.name,
            "stated": unit.stated,
            "settings": asdict(settings),
            "refused": refused,
            "left_out": left_out,
            "closed": closed,
            "alike": alike,
        }
        option = f"size={settings.size:g} " if unit.scale is None else f"scale={unit.scale:g} "
        command = f"dexgrasp objects import DIR {'' if unit.stated else option}out=LIB"
        library = write_library(out, entries, request, command)
    computed = {file.digest for file in found if file.source in cache.computed}  # also of files with equal content
    return ImportReport(
        library=library,
        scale=unit.scale,
        unit=unit.name,
        reused=sum(file.digest not in computed for file in found),
        files=len(found),
        refused=refused,
        left_out=left_out,
        doubt=unit.doubt,
        doubtful=unit.doubtful,
        not_selected=listing.not_selected,
        stated=unit.stated,
        closed=closed,
        alike=alike,
    )


def _why_none(facts: Mapping[str, SurfaceFacts], scales: Mapping[str, float], refused: Mapping[str, str]) -> str:
    """Return the first reasons of the refusals; where all files are in another unit, one and that unit."""
    longest = {source: facts[source].longest for source in refused if source in facts}
    sized = [source for source, side in longest.items() if MIN_LONGEST_M <= side * scales[source] <= LONGEST_M]
    unit = "" if sized or len(longest) < max(len(refused), 2) else shared_units(list(longest.values()))
    first = list(refused.items())[: 1 if unit else 5]
    reasons = "; ".join(f"{file}: {reason}" for file, reason in first)
    return f"all {len(longest)} fit {unit}; the first: {reasons}" if unit else reasons


def import_to_cache(folder: Path) -> ObjectLibrary:
    """Return the library of a folder of meshes, kept under the user's cache folder.

    A command opens its objects several times: files are read again where one of the folder has changed.
    """
    place = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:12]
    out, state = files.cache_folder() / f"{folder.resolve().name}-{place}", _file_states(folder)
    if (known := _imported.get(out)) and known[0] == state and (out / MANIFEST).is_file():
        return known[1]
    report = import_meshes(folder, out)
    doubts = (report.refused, report.doubt, report.doubtful, report.closed, report.alike)
    log.log(logging.WARNING if any(doubts) else logging.INFO, report.summary())
    _imported[out] = state, report.library
    return report.library


def _file_states(folder: Path) -> list[object]:
    """Return what changes with the mesh files of a folder: paths, times, sizes, and reasons of refusal."""
    listing = find_meshes(folder)
    stats = [(path, path.stat()) for path in listing.meshes]
    states = [(path, stat.st_mtime_ns, stat.st_size, stat.st_ino) for path, stat in stats]
    return [*states, *listing.refused.items()]


class _RecordCache:
    """Records of tasks, one JSON file for each key; missing ones are computed in processes with limits."""

    def __init__(self, folder: Path, workers: int, progress: bool) -> None:
        self.folder, self.workers, self.progress = folder, workers, progress
        self.computed: set[str] = set()
        """Sources of the items whose records were computed."""

    def records(
        self,
        task: Callable[[T], Record],
        items: Mapping[str, T],
        sources: Mapping[str, str],
        what: str,
        is_valid: Callable[[Record], bool] = bool,
    ) -> dict[str, Record]:
        """Return the record of each item by key.

        A record is {"refused": reason} where the task raised, died or exceeded a limit.
        """
        found = {key: record for key in items if (record := self._read(key)) is not None and is_valid(record)}
        calls = [(task, key, item) for key, item in items.items() if key not in found]
        with self._progress(len(calls), what) as progress:

            def notice(call: tuple[Callable[[T], Record], str, T], seconds: float) -> None:
                note = f"{sources[call[1]]} takes {seconds:.0f} s so far"
                if progress is not None:
                    progress.tell(note)
                elif self.progress:
                    print(f"{what}: {note}", file=sys.stderr, flush=True)

            tasks = process_pool.run_in_processes(_recorded, calls, self.workers, LIMITS, notice)
            with closing(tasks) as finished:
                for (_, key, _), record in finished:
                    found[key] = self._kept(key, record)
                    self.computed.add(sources[key])
                    if progress is not None:
                        progress.advance()
        return found

    def _progress(self, total: int, what: str) -> AbstractContextManager[Progress | None]:
        return Progress(total, what) if self.progress and total > 1 else nullcontext()

    def _kept(self, key: str, record: Record | TaskFailure) -> Record:
        """Return the outcome of a task as a record, stored unless another time may give another one."""
        if isinstance(record, TaskFailure):
            advice = "import again when it is idle" if record.may_pass_later else "simplify the mesh"
            refusal = {"refused": f"unusable: {record.reason}: {advice}, or leave it out"}
            if record.may_pass_later:
                return refusal
            record = refusal
        files.write_bytes(self._path(key), json.dumps(record).encode())
        return record

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _read(self, key: str) -> Record | None:
        try:
            record = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None


def _recorded(call: tuple[Callable[[T], Record], str, T]) -> Record:
    """Return the record of one task; an exception becomes a reason of refusal."""
    task, _, item = call
    try:
        return task(item)
    except (RefusedMeshError, MeshFileError) as refusal:
        return {"refused": str(refusal)}
    except MemoryError:
        raise
    except Exception as error:  # readers and geometry libraries raise many kinds
        return {"refused": f"unusable: {type(error).__name__}: {one_line(error, 200)}"}


def _hashed(path: Path, folder: Path, refused: dict[str, str]) -> _File | None:
    """Return a file with the hash of its content and ending; note one that cannot be read."""
    source = shown_name(path, folder)
    try:
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        refused[source] = f"unreadable: {error.strerror}"
        return None
    return _File(path, source, digest)


def _key(*identity: object) -> str:
    return hashlib.sha256(json.dumps([VERSION, *identity]).encode()).hexdigest()[:24]


def _facts(found: Sequence[_File], cache: _RecordCache, refused: dict[str, str]) -> dict[str, SurfaceFacts]:
    """Return size and shape of each file that can be read, by source; note the others in `refused`."""
    keys = {file.source: f"facts-{_key(file.digest, file.path.suffix.lower())}" for file in found}
    paths, sources = ({keys[f.source]: value(f) for f in found} for value in (lambda f: f.path, lambda f: f.source))
    records = cache.records(_facts_record, paths, sources, "read")
    facts = {}
    for file in found:
        record = records[keys[file.source]]
        if "refused" in record:
            refused[file.source] = record["refused"]
        else:
            facts[file.source] = SurfaceFacts(**{**record, "radii": tuple(record["radii"])})
    return facts


def _facts_record(path: Path) -> Record:
    return asdict(surface_facts(path))


def _groups(
    found: Sequence[_File],
    facts: Mapping[str, SurfaceFacts],
    scales: Mapping[str, float],
    cache: _RecordCache,
    alike: dict[str, str],
) -> list[list[_File]]:
    """Return the files of each thing, best first. `scales`: factor of each file to a common unit.

    A file that may be of another's thing is noted in `alike`, with that file.
    """
    things = [thing_of(file.source) for file in found]

    def compare(pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bool]:
        keys, items, sources = {}, {}, {}
        for i, j in pairs:
            variants, ratio = things[i] == things[j], scales[found[j].source] / scales[found[i].source]
            own = (ratio,) if ratio != 1.0 else ()
            key = keys[i, j] = f"same-{_key(found[i].digest, found[j].digest, variants, *own)}"
            items[key] = _Pair(first=found[i].path, second=found[j].path, variants=variants, ratio=ratio)
            sources[key] = found[i].source
        records = cache.records(_same_record, items, sources, "compare")
        alike.update({found[i].source: found[j].source for (i, j), key in keys.items() if records[key].get("alike")})
        return {pair: records[key].get("same", False) for pair, key in keys.items()}

    groups = group_same([facts[file.source].scaled(scales[file.source]) for file in found], things, compare)

    def preference(file: _File) -> tuple[bool, bool, bool, int]:
        return facts[file.source].preference(is_rough(file.source))

    return [sorted((found[i] for i in group), key=preference) for group in groups]


def _same_record(pair: _Pair) -> Record:
    found = compare_surfaces(pair.first, pair.second, pair.variants, pair.ratio)
    return {"same": found == "same", "alike": found == "alike"}


def _named(groups: Sequence[list[_File]]) -> list[_Thing]:
    """Return the things with names that differ, made of their paths."""
    bases = [_base_name(group) for group in groups]
    count = Counter(bases)
    things, taken = [], set[str]()
    for base, group in zip(bases, groups, strict=True):
        name = f"{base}_{group[0].path.suffix[1:].lower()}" if count[base] > 1 else base
        while name in taken:
            name += "_"
        taken.add(name)
        things.append(_Thing(name, group))
    return things


def _base_name(group: Sequence[_File]) -> str:
    path = Path(min(file.source for file in group))
    text = str(path.with_suffix("")) if len(group) == 1 else thing_of(str(path)) or str(path.with_suffix(""))
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "mesh"
    if len(name) > MOST_NAME_LENGTH:
        name = f"{name[:MOST_NAME_LENGTH]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def _unit(
    found: Sequence[_File], facts: Mapping[str, SurfaceFacts], settings: ImportSettings, cache: _RecordCache | None
) -> _Unit:
    """Return the unit: as asked for, else as the formats state, else guessed from the files that state none.

    `cache`: of comparisons, so that files of one thing have one voice; None: each file has its own.
    """
    if settings.size is not None:
        return _Unit("size", None)
    if settings.factor is not None:
        return _Unit("given", settings.factor)
    stated = tuple(file.source for file in found if states_metres(file.path))
    others = [file for file in found if not states_metres(file.path)]
    if not others:
        return _Unit("stated", 1.0, stated=stated)
    alike = dict.fromkeys((file.source for file in others), 1.0)
    groups = [[file] for file in others] if cache is None else _groups(others, facts, alike, cache, {})
    longest = [facts[group[0].source].longest for group in groups]
    try:
        unit = guess_unit(longest)
    except ValueError as error:
        if not stated:
            raise
        return _Unit("stated", 1.0, stated=stated, refused={file.source: str(error) for file in others})
    doubts = {group[0].source: file_doubt(facts[group[0].source].longest, unit) for group in groups}
    doubtful = {source: sizes for source, sizes in doubts.items() if sizes and len(groups) > 1}
    return _Unit(unit, UNITS_M[unit], doubt=unit_doubt(longest, unit), doubtful=doubtful, stated=stated)


def _refuse_removal(out: Path, things: Sequence[_Thing]) -> None:
    """Raise ValueError where the library in `out` has objects that are not among `things`, by name and by file."""
    if not (out / MANIFEST).is_file():
        return
    names, sources = {thing.name for thing in things}, {file.source for thing in things for file in thing.files}
    entries = ObjectLibrary(out).entries
    lost = [entry.name for entry in entries if entry.name not in names and entry.source not in sources]
    if lost:
        named = f"{', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}"
        raise ValueError(
            f"out={out} is a library of {counted(len(entries), 'object')}, of which this import would remove "
            f"{len(lost)} ({named}): choose another out=, import all files at once, or give force=true, which moves "
            "the library aside"
        )


def _import_things(
    things: Sequence[_Thing],
    scales: Mapping[str, float],
    settings: ImportSettings,
    out: Path,
    cache: _RecordCache,
    refused: dict[str, str],
    closed: dict[str, str],
) -> tuple[list[ObjectEntry], dict[str, str]]:
    """Return the rows of the objects, and the files left out with the file taken instead.

    Refused files and closed holes are noted in `refused` and `closed`, by file.

    Where the best file of a thing is refused, the next one is tried.
    """

    def is_there(record: Record) -> bool:
        return "refused" in record or _is_stored(out, record["entry"])

    common = {key: value for key, value in asdict(settings).items() if key not in NO_PART_OF_AN_OBJECT}
    rows: dict[str, ObjectEntry] = {}
    left_out: dict[str, str] = {}
    waiting = [(thing, 0) for thing in things]
    while waiting:
        keys, items, sources = {}, {}, {}
        for thing, number in waiting:
            file = thing.files[number]
            key = keys[thing.name] = _key(file.digest, thing.name, scales[file.source], common)
            sources[key] = file.source
            items[key] = _Job(
                path=file.path,
                source=file.source,
                name=thing.name,
                scale=scales[file.source],
                settings=settings,
                out=out,
            )
        records, following = cache.records(_object_record, items, sources, "import", is_there), []
        for thing, number in waiting:
            record, file = records[keys[thing.name]], thing.files[number]
            if "refused" not in record:
                rows[thing.name] = entry_from_dict(record["entry"])
                closed |= {file.source: record["closed"]} if record["closed"] else {}
                left_out |= {other.source: file.source for other in thing.files[number + 1 :]}
            else:
                refused[file.source] = record["refused"]
                following += [(thing, number + 1)] if number + 1 < len(thing.files) else []
        waiting = following
    return [rows[thing.name] for thing in things if thing.name in rows], left_out


def _is_stored(out: Path, entry: Mapping[str, Any]) -> bool:
    path = out / entry["file"]
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


def _object_record(job: _Job) -> Record:
    """Import one mesh, write its object and return the manifest row."""
    from dexgrasp.sim.objects.model_builder import make_entry

    model, closed = model_from_mesh(job.path, job.name, job.scale, job.settings)
    data = model.to_bytes()
    file = f"objects/{job.name}.npz"
    files.write_bytes(job.out / file, data)
    entry = asdict(make_entry(model, file, data, source=job.source))
    return {"entry": entry, "closed": str(closed) if closed.count else ""}


def add_mesh(
    library: Path, mesh: Path, name: str, settings: ImportSettings, *, scans: Mapping[str, Any], command: str
) -> ObjectEntry:
    """Add one mesh [m] to a library of scans, which may not exist yet; return its manifest row.

    `scans`: name -> report of every scan in the library, kept in the manifest. Raises RefusedMeshError.
    """
    from dexgrasp.sim.objects.model_builder import make_entry

    model, _ = model_from_mesh(mesh, name, 1.0, settings)
    data, file = model.to_bytes(), f"objects/{name}.npz"
    entry = make_entry(model, file, data, source=f"scans/{mesh.name}")
    kept = ObjectLibrary(library).entries if (library / MANIFEST).is_file() else []
    files.write_bytes(library / file, data)
    write_library(library, [*kept, entry], {"scans": dict(scans)}, command)
    return entry
