"""Write files and folders atomically, lock folders, convert values to JSON, locate the cache folder.

What these functions have written is on the disk when they return: it survives a kill and a loss of power.
"""

import contextlib
import ctypes
import errno
import fcntl
import glob
import json
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"
"""Prefix of files and folders that are being written."""
OLD = ".old-"
"""Prefix of a folder during its replacement, on file systems that cannot exchange two folders in one step."""
LOCK = ".lock"
"""Lock file of a folder; it names the process that holds or held the lock."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV)
_held: dict[tuple[int, int], int] = {}
"""Thread that holds the lock, by device and inode of the lock file."""
_places: dict[Path, tuple[int, int]] = {}
"""Device and inode of each locked folder, by absolute path."""


class FolderInUseError(OSError):
    """Error of a folder that another process writes; the message names that process."""


class FolderMovedError(OSError):
    """Error of a locked folder that is no longer in its place."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` at the end or deleted after an exception.

    The temporary name carries the process id and keeps the suffix of `path`. Missing parent folders are created, but
    for a folder that this process has locked: see `check_place`.
    """
    path = Path(path)
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with disk_errors_name(path):
            yield partial
            check_place(path)
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the next command removes it
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path, own: Collection[str]) -> Iterator[Path]:
    """Yield a new folder that takes the place of the folder `path` at the end, in one step.

    `own`: names of the entries that the new folder replaces; all other entries of the old folder are kept. After an
    exception the old folder stays as it was.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_errors_name(path):
            partial.mkdir()
            yield partial
            if path.is_dir():
                check_place(path)
                _keep_others(path, partial, {*own, LOCK})
            for folder, _, names in os.walk(partial):
                for entry in (Path(folder), *(Path(folder, name) for name in names)):
                    if not entry.is_symlink() and (entry.is_file() or entry.is_dir()):  # a pipe would wait for a writer
                        _sync(entry)
            _put_in_place(partial, path)
            _sync(path.parent)
            if (place := _absolute(path)) in _places:
                _places[place] = _identity(path.stat())
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # after an exchange: the old folder


def append_text(path: str | Path, text: str) -> None:
    """Append `text` to a file; a kill leaves none, all or the beginning of it."""
    check_place(path)
    with disk_errors_name(path), open(path, "ab", buffering=0) as file:  # closing would write a buffer once more
        size, left = file.tell(), memoryview(text.encode())
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:  # the disk is full: the file ends with a whole line
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise
        os.fsync(file.fileno())


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
    """Delete what killed processes left unfinished in `folder`; hold its `folder_lock` meanwhile.

    Folders with a lock file of their own belong to other runs and are not entered.
    """
    for place, folders, names in os.walk(folder):
        for name in folders:
            if name.startswith(PARTIAL):
                shutil.rmtree(Path(place, name), ignore_errors=True)
        for name in names:
            if name.startswith(PARTIAL):
                Path(place, name).unlink(missing_ok=True)
        folders[:] = [name for name in folders if not Path(place, name, LOCK).exists()]


def remove_partials_of(path: Path) -> None:
    """Delete what killed processes of this machine left unfinished of the file `path`."""
    for partial in path.parent.glob(f"{PARTIAL}*-{glob.escape(path.name)}"):
        process = partial.name.removeprefix(PARTIAL).partition("-")[0]
        if process.isdecimal() and not _is_running(int(process)):
            partial.unlink(missing_ok=True)


def restore_folder(path: Path) -> None:
    """Put back the folder `path` if a process was killed between the two renames of its replacement."""
    old = path.with_name(OLD + path.name)
    if old.is_dir() and not path.exists():
        with folder_lock(old, wait=False):
            os.rename(old, path)


def remove_partial_folders(path: Path) -> None:
    """Delete what killed replacements of the folder `path` left beside it; hold its lock meanwhile."""
    for partial in path.parent.glob(f"{PARTIAL}*-{path.name}"):
        if partial.is_dir() and partial.name.removeprefix(PARTIAL).removesuffix(f"-{path.name}").isdigit():
            shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(path.with_name(OLD + path.name), ignore_errors=True)


@contextlib.contextmanager
def folder_lock(folder: Path, wait: bool = True) -> Iterator[None]:
    """Lock `folder` for this process; the operating system releases the lock when the process ends.

    A thread that holds the lock may lock the folder again. `wait`: wait for the process that holds it; otherwise
    raise FolderInUseError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with contextlib.ExitStack() as stack:
        while True:
            handle = stack.enter_context(open(path, "a+", encoding="utf-8"))
            key = _identity(os.fstat(handle.fileno()))
            if _held.get(key) == threading.get_ident():
                yield
                return
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                handle.seek(0)
                raise FolderInUseError(
                    f"{folder} is in use by {handle.read().strip() or 'another process'}: wait for its end, or choose "
                    "another out="
                ) from error
            with contextlib.suppress(FileNotFoundError):
                if _identity(os.stat(path)) == key:
                    break
            folder.mkdir(parents=True, exist_ok=True)  # the folder was replaced meanwhile: lock the new one
        _held[key] = threading.get_ident()
        stack.callback(_held.pop, key)
        with contextlib.suppress(OSError):  # on a full disk the lock holds as well
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), f"{_this_process()}\n".encode())  # a buffer would be written again when closed
        place = _absolute(folder)
        _places[place] = _identity(folder.stat())
        stack.callback(_places.pop, place, None)
        yield


def check_place(path: str | Path) -> None:
    """Raise FolderMovedError for a path in a locked folder that was moved, removed or replaced since.

    A file written there would be separated from the others.
    """
    whole = _absolute(path)
    for folder in (whole, *whole.parents):
        if folder in _places and _places[folder] != _identity_of(folder):
            raise FolderMovedError(
                f"{folder} was moved or removed while this command wrote to it: what was stored lies in the moved "
                "folder; start the command again with out= that folder"
            )


@contextlib.contextmanager
def disk_errors_name(path: str | Path) -> Iterator[None]:
    """Let errors of the disk in the block name the finished file, or `path` where they name none."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        name = re.sub(rf"{re.escape(PARTIAL)}\d+-", "", os.fsdecode(error.filename or path))
        raise OSError(error.errno, os.strerror(error.errno), name) from error


def cache_folder() -> Path:
    """Return the folder of generated and imported object libraries.

    $DEXGRASP_CACHE/objects, or a folder below the user's cache.
    """
    base = os.environ.get("DEXGRASP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dexgrasp"
    return expand_user(base) / "objects"


def expand_user(path: str | Path) -> Path:
    """Return a path with a leading ~ or ~user replaced; that of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))


def _partial(path: Path) -> Path:
    return path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _keep_others(old: Path, new: Path, own: Collection[str]) -> None:
    """Put into `new` the entries of `old` whose names are not in `own`; files are linked, not copied."""
    for entry in old.iterdir():
        if entry.name in own or entry.name.startswith(PARTIAL):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=_link)
        else:
            _link(entry, new / entry.name)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _put_in_place(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; a folder there is at `new` afterwards, or removed."""
    if not path.is_dir() or not any(path.iterdir()):
        os.replace(new, path)
        return
    try:
        _exchange(new, path)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        old = path.with_name(OLD + path.name)
        os.rename(path, old)
        os.rename(new, path)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders in one step."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError as error:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), exchange):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a folder, or None where there is none."""
    try:
        return _identity(path.stat())
    except OSError:
        return None


def _this_process() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    return (
        f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC ({command})"
    )


def _to_json(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
