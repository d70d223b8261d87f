"""Guard against writes outside given folders: a faulty command fails where it would change the machine."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dexgrasp.utils import files

PATHS = {
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "shutil.rmtree": 1,
    "shutil.move": 2,
}
"""Audit event -> number of its first arguments that are paths which change."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DEVICES = ("/dev", "/proc")
_allowed: list[str] = []


class WriteOutsideError(AssertionError):
    """Refuses a write outside the allowed folders."""


@contextmanager
def only_writes_below(*folders: Path | str) -> Iterator[None]:
    """Let writes of this process and its forks outside the folders fail with WriteOutsideError."""
    before = _allowed[:]
    _install()
    _allowed[:] = [*DEVICES, *(os.path.realpath(folder) for folder in folders)]
    try:
        yield
    finally:
        _allowed[:] = before


def _install() -> None:
    if getattr(_install, "done", False):
        return
    exchange = files._exchange

    def guarded(one: Path, other: Path) -> None:
        for path in (one, other) if _allowed else ():
            _check(path)
        exchange(one, other)

    files._exchange = guarded
    sys.addaudithook(_audit)
    _install.done = True


def _audit(event: str, arguments: tuple) -> None:
    if not _allowed:
        return
    if event == "open":
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        nameless = isinstance(arguments[0], (str, os.PathLike)) and os.path.isdir(arguments[0])  # a temporary file
        if flags & WRITES and not nameless:
            _check(arguments[0])
    elif event in PATHS and not (event in ("os.remove", "os.rmdir") and arguments[1] not in (-1, None)):
        for path in arguments[: PATHS[event]]:
            _check(path)


def _check(path: object) -> None:
    if not isinstance(path, (str, bytes, os.PathLike)):  # an open file
        return
    folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
    place = os.path.join(os.path.realpath(folder), name)
    if not any(place == allowed or place.startswith(allowed + os.sep) for allowed in _allowed):
        raise WriteOutsideError(f"a write to {place}, outside {', '.join(_allowed)}")
