"""Folders that survive kills and company: files written in one step, a lock for each folder, the cache."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file in one step: to a name beside it that carries the process id, then renamed over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    partial.write_bytes(data)
    os.replace(partial, path)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds the folder for one process at a time; the system frees it when the process ends in whatever way."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sweep_partials(folder: Path) -> None:
    """Removes partial files that killed processes left; call it while holding the folder's lock."""
    for partial in folder.rglob(".partial-*"):
        partial.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where libraries are kept that nobody gave a place: $DEXGRASP_CACHE, else the user's cache folder."""
    base = os.environ.get("DEXGRASP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dexgrasp"
    return Path(base).expanduser() / "objects"
