"""Run one command line in this process, and judge its exit status, messages, files and time."""

import contextlib
import copy
import faulthandler
import functools
import io
import logging
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dexgrasp.configs import loader
from dexgrasp.policies.cli import main as cli
from dexgrasp.policies.cli import sweep
from dexgrasp.policies.cli.commands import COMMANDS

LIMIT_S = 60
"""Processor time of a case."""
HANGS_S = 3 * LIMIT_S
"""Time after which a case is killed, on a machine that does other work as well."""
LONGEST_LINE = 4000
"""Characters of the longest message: the list of known keys of the largest command has 3000."""
ERROR = re.compile(r"dexgrasp(?: [a-z0-9 ]+)?: error: \S.*")


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    words: tuple[str, ...]
    status: int
    message: str
    """Last line of the errors."""

    @property
    def refused(self) -> bool:
        """Whether the command line was refused."""
        return self.status == cli.MISUSED


def accept(cfg) -> None:
    """Stand in for the work of a command, which begins when everything is checked."""


def without_work(monkeypatch):
    """Replace the work of every command by `accept`: parsing, resolution and preflight stay."""
    table = tuple(replace(command, function="tests.fuzz.oracle:accept") for command in COMMANDS)
    monkeypatch.setattr(cli, "COMMANDS", table)
    monkeypatch.setattr(sweep, "run", lambda *_: 0)
    compose = functools.cache(loader._compose)  # Hydra takes most of the time of a case
    monkeypatch.setattr(
        loader, "_compose", lambda name, choices, root: copy.deepcopy(compose(name, tuple(choices), root))
    )


def run(words, out=None) -> Outcome:
    """Run a command line in the working directory and check what holds for every one.

    `out`: the only file or folder that it may create or change.
    """
    before = files_of(Path.cwd(), out)
    stdout, stderr = io.StringIO(), io.StringIO()
    logging.getLogger("dexgrasp").setLevel(logging.WARNING)
    start_s = time.process_time()
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            status = cli.main([*words])
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert time.process_time() - start_s < LIMIT_S, words
    lines = stderr.getvalue().splitlines()
    outcome = Outcome(words=tuple(words), status=status, message=lines[-1] if lines else "")
    assert status in (cli.OK, cli.FAILED, cli.MISUSED), (words, outcome.message)
    assert not [line for line in lines if "Traceback" in line or "internal error" in line], (words, outcome.message)
    if outcome.refused:
        assert ERROR.fullmatch(outcome.message) or not words, (words, outcome.message)
        assert len(outcome.message) <= LONGEST_LINE, (words, outcome.message[:200])
    assert files_of(Path.cwd(), out) == before, words
    return outcome


def files_of(folder, leave=None):
    """Return size and time of every file below a folder, but of `leave` and what lies in it."""
    found = {}
    for path, _, names in os.walk(folder):
        if leave is not None and Path(path).is_relative_to(Path(leave).absolute()):
            continue
        for name in names:
            place = Path(path) / name
            if leave is None or place != Path(leave).absolute():
                status = place.lstat()
                found[str(place)] = (status.st_size, status.st_mtime_ns)
    return found
