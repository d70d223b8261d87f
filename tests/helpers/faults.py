"""Faults at a chosen write of a command, in a forked process: a kill, or a disk that is full from then on.

Writes are counted by Python's audit events (open for writing, rename, remove, mkdir, rmdir, link) and by calls of
`os.fsync`, so that a test meets every one of them, not those at which luck strikes.
"""

import errno
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.main import main
from dexgrasp.utils import files

EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
TORN_BYTES = 5
"""Bytes of a file that are lost when its process is killed before they are on the disk."""


class Faults:
    """Count the writes below a folder, and make one of them fail."""

    def __init__(self, root, at, kind):
        """`at`: number of the write, from 1; 0: none. `kind`: kill or full."""
        self.root, self.at, self.kind, self.count = str(root), at, kind, 0
        self._inside = False
        fsync, exchange = os.fsync, files._exchange

        def counted_fsync(handle):
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if path.is_file():
                self._event(str(path), torn=path)
            fsync(handle)

        def counted_exchange(one, other):
            self._event(str(other))
            exchange(one, other)

        os.fsync, files._exchange = counted_fsync, counted_exchange
        sys.addaudithook(self._audit)

    def _audit(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes, os.PathLike)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._event(os.fsdecode(path))
        elif event in EVENTS and (event != "os.remove" or os.path.lexists(arguments[0])):
            for path in arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]:
                if self._event(os.fsdecode(path) if not isinstance(path, int) else ""):
                    break

    def _event(self, path, torn=None):
        """Return whether the path lies below the root: its write is then counted, and fails if it is the chosen one."""
        if self._inside or not os.path.abspath(path).startswith(self.root):
            return False
        self.count += 1
        if self.at and self.count >= self.at:
            if self.kind == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([] if torn else [path]))
            self._inside = True
            if torn is not None and torn.stat().st_nlink == 1:  # a link is to a file that was there before
                os.truncate(torn, max(0, torn.stat().st_size - TORN_BYTES))
            os.kill(os.getpid(), signal.SIGKILL)
        return True


def warm_up(commands):
    """Import what commands import, so that forked processes need not."""
    for command in COMMANDS:
        if command.words in commands:
            importlib.import_module(command.function.partition(":")[0])


def run(words, root, at=0, kind="kill", prepare=lambda: None):
    """Run a command line in a forked process; return its exit status (-9: killed), output, and number of writes.

    `root`: folder whose writes count; the working directory of the command. `prepare`: called in the process first.
    """
    report = root.parent / "report.json"
    report.unlink(missing_ok=True)
    with (root.parent / "output.txt").open("wb") as output:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                os.chdir(root)
                prepare()
                faults = Faults(root, at, kind)
                status = main(words)
                faults.at = 0
                report.write_text(json.dumps(faults.count))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, how = os.waitpid(child, 0)
    count = json.loads(report.read_text()) if report.exists() else 0
    return os.waitstatus_to_exitcode(how), (root.parent / "output.txt").read_text(errors="replace"), count


def leftovers(root):
    """Return the names of unfinished files below a folder."""
    return [path.name for path in root.rglob(".*") if path.name != files.LOCK] + [
        path.name for path in root.rglob("*.next")
    ]


def fresh(root, template):
    """Make `root` a copy of the folder `template`; return it."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root, symlinks=True)
    return root


def contents(folder):
    """Return the bytes of all files below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
