"""Write files atomically, lock folders, convert values to JSON, and locate the cache folder."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"
"""Prefix of files that are being written."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` at the end or deleted after an exception.

    The temporary name carries the process id and keeps the suffix of `path`. Missing parent folders are created. Where
    a folder is created at the temporary path, it replaces the folder at `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        if partial.is_dir():  # only an empty folder can be replaced in one step
            shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to a file atomically."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to a file as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to a file as JSON, atomically and with full precision.

    `value` may contain arrays, tensors and paths. Raises ValueError for NaN and infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False, default=_to_json) + "\n")


def remove_partials(folder: Path) -> None:
    """Delete the temporary files that killed processes left in `folder`; hold its `folder_lock` meanwhile."""
    for partial in folder.rglob(f"{PARTIAL}*"):
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process; the operating system releases the lock when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """Return the folder of generated and imported object libraries.

    $DEXGRASP_CACHE/objects, or a folder below the user's cache.
    """
    base = os.environ.get("DEXGRASP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dexgrasp"
    return Path(base).expanduser() / "objects"


def _to_json(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
