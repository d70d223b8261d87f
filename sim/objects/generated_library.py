"""Libraries of generated objects, each of which is built when it is first used.

Name, sizes and difficulty of the usual training and validation objects are shipped (assets/generated_objects), so that
scenes, curriculum and random draws are those of the complete library from the first iteration on. An object depends
on its request alone: the order in which objects are built changes no byte.
"""

import functools
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import get_type_hints

import numpy as np

from dexgrasp import assets
from dexgrasp.sim.objects.generator import VERSION, ObjectRequest, build, checked_families
from dexgrasp.sim.objects.library import MANIFEST, ObjectEntry, ObjectLibrary
from dexgrasp.utils import files, process_pool
from dexgrasp.utils.progress import track

WORTH_A_PROCESS = 40
"""Objects that take as long as starting a process."""

COLUMNS = tuple(name for name, kind in get_type_hints(ObjectEntry).items() if kind in (float, int) and name != "seed")
"""Numbers of a manifest row that are shipped."""


class GeneratedLibrary(ObjectLibrary):
    """Library of the first objects of a split, in a folder that fills as objects are used."""

    def __init__(self, path: Path, rows: Sequence[ObjectEntry], cache: int = 512) -> None:
        """`rows`: entries of all objects; `path`: folder of their files."""
        self.path = path
        self.manifest: dict[str, object] = {"request": {"n": len(rows), "split": rows[0].split, "seed": rows[0].seed}}
        self._fill(rows, cache)

    @property
    def spec(self) -> str:
        """Return "generated:N:SPLIT": the folder has no manifest that could be opened."""
        request = self.manifest["request"]
        assert isinstance(request, dict)
        return f"generated:{request['n']}:{request['split']}"

    def prepare(self, names: Iterable[str]) -> None:
        """Build the objects `names` that have no file yet, in several processes where that is worth it."""
        missing = [
            name for name in dict.fromkeys(names) if name not in self._contents and not self._file(name).is_file()
        ]
        workers = min(process_pool.available_cores(), -(-len(missing) // WORTH_A_PROCESS))
        jobs = [(self._request(name), self._file(name)) for name in missing]
        with closing(process_pool.run_in_processes(write_object, jobs, workers)) as finished:
            for (request, _), done in track(finished, len(jobs), "objects", len(jobs) >= WORTH_A_PROCESS):
                if isinstance(done, process_pool.TaskFailure):
                    raise ChildProcessError(f"{request.name} could not be built: {done.reason}")

    def _read(self, name: str) -> bytes:
        self.prepare([name])
        return super()._read(name)

    def _file(self, name: str) -> Path:
        return self.path / self.entry(name).file

    def _request(self, name: str) -> ObjectRequest:
        entry = self.entry(name)
        return ObjectRequest(
            family=entry.family, split=entry.split, seed=entry.seed, index=int(name.rpartition("_")[2])
        )


def write_object(job: tuple[ObjectRequest, Path]) -> None:
    """Build the object of a request and write its file."""
    request, file = job
    files.write_bytes(file, build(request).to_bytes())


def cached_library(n: int, split: str = "train") -> ObjectLibrary:
    """Return the library of the first `n` generated objects of a split under the user's cache folder.

    Objects whose rows are shipped are built when they are used; other libraries are generated at once.
    """
    from dexgrasp.sim.objects import generator

    folder = files.cache_folder() / f"generated-v{VERSION}-{split}-s0-n{n}"
    rows = shipped_rows(split)
    if (folder / MANIFEST).is_file() or not 1 <= n <= len(rows):
        return generator.generate(n, folder, 0, split=split)
    return GeneratedLibrary(folder, rows[:n])


def shipped_rows(split: str) -> tuple[ObjectEntry, ...]:
    """Return the shipped manifest rows of a split, in the order of generation; empty where there are none."""
    file = rows_file(split)
    return _read_rows(file, split) if file.is_file() else ()


@functools.cache  # a thousand rows take a fifth of a second
def _read_rows(file: Path, split: str) -> tuple[ObjectEntry, ...]:
    families = checked_families(None)
    with np.load(file) as stored:
        columns = {name: stored[name] for name in (*COLUMNS, "extents")}
    found = []
    for k in range(len(columns["mass"])):
        request = ObjectRequest(family=families[k % len(families)], split=split, seed=0, index=k)
        numbers = {name: (int if name in ("pieces", "poses") else float)(columns[name][k]) for name in COLUMNS}
        x, y, z = columns["extents"][k].tolist()
        found.append(
            ObjectEntry(
                name=request.name,
                family=request.family,
                split=split,
                seed=0,
                file=f"objects/{request.name}.npz",
                sha256="",
                extents=(x, y, z),
                **numbers,  # pyright: ignore[reportArgumentType]
            )
        )
    return tuple(found)


def write_rows(library: ObjectLibrary, file: Path) -> None:
    """Write the rows of a complete library of `generate`, as they are shipped."""
    columns = {name: np.array([getattr(entry, name) for entry in library.entries], float) for name in COLUMNS}
    extents = np.array([entry.extents for entry in library.entries])
    with files.atomic_path(file) as partial:
        np.savez_compressed(partial, extents=extents, **columns)  # pyright: ignore[reportArgumentType]


def rows_file(split: str) -> Path:
    """Return the path of the shipped rows of a split; the version is that of the generator."""
    return assets.ROOT / "generated_objects" / f"{split}-v{VERSION}.npz"
