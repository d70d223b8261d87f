"""Claim the folder or file that `out=` names before anything is written there.

A command writes into a new or empty folder, or into one of its own kind. Everything else is refused and stays as it is;
with `force=true` it is moved aside first. A claimed folder is locked: one process writes it at a time.
"""

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dexgrasp.utils.files import (
    LOCK,
    PARTIAL,
    expand_user,
    folder_lock,
    remove_partial_folders,
    remove_partials,
    remove_partials_of,
    restore_folder,
)
from dexgrasp.utils.readers import read_json_object
from dexgrasp.utils.text import comma_separated

if TYPE_CHECKING:
    from PIL.Image import Image

FILE_MARK = b"written by dexgrasp"
"""Text in every file that a command writes to out=; a file without it is not replaced."""

WORDS_OF_KIND = {
    "printboard": "calibrate board",
    "calibratecamera": "calibrate camera",
    "comparelibrary": "objects compare",
    "publicbenchmark": "benchmark",
    "validatebenchmark": "benchmark validate",
    "playgrasps": "benchmark dexgraspbench",
    "writegrasps": "benchmark grasps",
    "newhand": "hands new",
    "checkhand": "hands check",
    "checkarm": "arms check",
    "checkscene": "check scene",
    "tunehand": "hands tune",
    "showrandomization": "randomization show",
}
"""Command that writes runs of a kind, where it has another name; `bench NAME` writes the kind benchNAME."""

SYSTEM_FOLDERS = {"bin", "boot", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr"}
"""Folders of the root in which nothing is moved aside."""

log = logging.getLogger("dexgrasp")
_force: ContextVar[bool] = ContextVar("force", default=False)


@dataclass(frozen=True)
class FolderKind:
    """Kind of folder that a command writes."""

    name: str
    """The kind in messages: "bundle", "run of 'evaluate'"."""
    is_own: Callable[[Path], bool]
    """Whether a folder that is not empty is of this kind."""


@contextlib.contextmanager
def forced(force: bool = True) -> Iterator[None]:
    """Let claims in this block move aside what lies at their `out`, as `force=true` does."""
    token = _force.set(force)
    try:
        yield
    finally:
        _force.reset(token)


@contextlib.contextmanager
def claimed_folder(out: str | Path, kind: FolderKind, new: bool = False, anew: bool = False) -> Iterator[Path]:
    """Lock the folder `out`; create it if it is missing, remove unfinished files of killed processes.

    `new`: raise FileExistsError where the folder exists. `anew`: move a folder of this kind aside.

    Raises ValueError for a folder that this command must not write, FolderInUseError where another process writes it;
    nothing in the folder has changed then. A folder that this call has created and nothing was written to is removed.
    """
    path = _writable(out)
    restore_folder(path)
    if _force.get() and _entries(path):
        _refuse_to_move(path)
    elif not _force.get():
        _refuse_other(path, kind)  # once before the lock file is written, once with the lock
    locked_before = (path / LOCK).exists()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with contextlib.ExitStack() as stack:
            path.mkdir(parents=True, exist_ok=not new)
            stack.enter_context(folder_lock(path, wait=False))
            if _entries(path) and (_force.get() or (anew and kind.is_own(path))):
                target = _move_aside(path)
                if not locked_before:
                    (target / LOCK).unlink()
                path.mkdir()
                stack.enter_context(folder_lock(path, wait=False))
            _refuse_other(path, kind)
            remove_partials(path)
            remove_partial_folders(path)
            stack.enter_context(forced(False))  # what this command writes below stays
            yield path
    finally:
        _remove_empty(missing)


def claim_file(out: str | Path) -> Path:
    """Return the path of the file `out`, which may be replaced.

    Raises ValueError for a file that no command has written; with `force=true` it is moved aside.
    """
    refuse_url(out)
    path = Path(out).resolve() if Path(out).is_symlink() else Path(out)
    remove_partials_of(path)
    if not path.exists():
        return path
    if not path.is_file():
        raise ValueError(f"out={path} is no regular file: choose another out=")
    if _force.get():
        _refuse_to_move(path)
        _move_aside(path)
    refuse_foreign_file(path)
    return path


def png_with_mark(image: "Image") -> bytes:
    """Return a PNG file that a later command may replace."""
    from PIL.PngImagePlugin import PngInfo

    buffer, about = io.BytesIO(), PngInfo()
    about.add_text("Comment", FILE_MARK.decode())
    image.save(buffer, "PNG", optimize=True, pnginfo=about)
    return buffer.getvalue()


def demand_png(out: str) -> None:
    """Raise ValueError for an `out` that is no .png file."""
    if Path(out).suffix.lower() != ".png":
        raise ValueError(f"out must be a .png file, got '{out}'")


def refuse_foreign_file(path: Path) -> None:
    """Raise ValueError for a file that no command has written, unless `force=true` was given."""
    if path.is_file() and not _force.get() and FILE_MARK not in path.read_bytes():
        raise ValueError(
            f"out={path} exists and was not written by dexgrasp: choose another out=, or give force=true, which moves "
            f"it to {_aside(path)}"
        )


def kind_of_run(path: Path, default: str = "") -> str:
    """Return the kind of the run in a folder; empty where it is no run.

    `default`: kind of a run whose run.json states none. Raises DamagedFileError where run.json is no JSON object.
    """
    file = path / "run.json"
    return str(read_json_object(file).get("kind", default)) if file.is_file() else ""


def words_of_kind(kind: str) -> str:
    """Return the words of the command that writes runs of a kind."""
    return f"bench {kind[5:]}" if kind.startswith("bench") else WORDS_OF_KIND.get(kind, kind)


def refuse_url(out: str | Path) -> None:
    """Raise ValueError where `out` is an address of a network or a store, not a path of this machine."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(out)):  # pathlib leaves one slash of two
        raise ValueError(
            f"out={out} is an address, expected a folder or file of this machine: write to one, then copy it there"
        )


def _writable(out: str | Path) -> Path:
    """Return the folder `out`, without links. Raises ValueError for a file and for a link to nothing."""
    refuse_url(out)
    if not str(out):
        raise ValueError("out is empty: give out=FOLDER, a new folder")
    path = expand_user(out)
    if path.is_symlink() and not path.exists():
        raise ValueError(f"out={path} is a link to {os.readlink(path)}, which does not exist: choose another out=")
    if path.is_symlink() or not path.name or ".." in path.parts:
        path = path.resolve()
    if not path.name:
        raise ValueError(f"out={out} is the root of the file system: choose another out=")
    if path.exists() and not path.is_dir():
        raise ValueError(f"out={path} is a file, expected a folder: choose another out=")
    return path


def _entries(path: Path) -> list[str]:
    """Return the names of the entries of a folder, without lock and unfinished files; none where it is missing."""
    names = (entry.name for entry in path.iterdir()) if path.is_dir() else ()
    return sorted(name for name in names if name != LOCK and not name.startswith(PARTIAL))


def _refuse_other(path: Path, kind: FolderKind) -> None:
    names = _entries(path)
    if not names or kind.is_own(path):
        return
    run = kind_of_run(path)
    what = (
        f"is a run of '{words_of_kind(run)}'"
        if run
        else f"holds other files ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
    )
    raise ValueError(
        f"out={path} {what} and is no {kind.name}: choose another out=, or give force=true, which moves the folder to "
        f"{_aside(path)}"
    )


def _refuse_to_move(path: Path) -> None:
    """Raise ValueError for folders on which more depends than results."""
    whole = path.resolve()
    places = (Path.cwd(), Path.home(), Path(__file__), Path(sys.prefix), Path(tempfile.gettempdir()))
    of_system = len(whole.parts) < 3 or whole.parts[1] in SYSTEM_FOLDERS
    if of_system or any(whole == place or whole in place.resolve().parents for place in places):
        raise ValueError(f"no command moves {whole}, which holds more than results: choose another out=")


def _move_aside(path: Path) -> Path:
    target, names = _aside(path), _entries(path)
    os.rename(path, target)
    what = f" ({len(names)} entries: {comma_separated(names[:4])})" if names else ""
    log.warning("what was at %s%s is now at %s", path, what, target)
    return target


def _aside(path: Path) -> Path:
    """Return the first free name NAME.replaced-N beside `path`."""
    numbers = (path.with_name(f"{path.name}.replaced-{number}") for number in range(1, 10**6))
    return next(target for target in numbers if not target.exists())


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, as long as they hold nothing but a lock file."""
    for folder in folders:
        if not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir()):
            return
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
