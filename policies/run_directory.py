"""Create and resume run directories, which record configuration, versions, git state, seed and log.

RUN/config.yaml   the resolved configuration
RUN/run.json      git hash, versions, machine, seed, command line, time of each start
RUN/run.log       log messages with times
"""

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from dexgrasp import configs
from dexgrasp.utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dexgrasp", "mujoco", "torch", "numpy")
WARP_PACKAGES = ("mujoco-warp", "warp-lang")
"""Further packages recorded for engine=warp."""

log = logging.getLogger("dexgrasp")


class Run:
    """Open run directory.

    As a context manager it closes the log file at the end, also after an interruption.
    """

    def __init__(self, path: Path, facts: dict[str, Any], handler: logging.Handler) -> None:
        self.path = path
        """The run directory."""
        self.facts = facts
        """Content of run.json: git, versions, machine, seed, command, starts."""
        self._handler = handler

    @classmethod
    def open(cls, out: str | Path | None, cfg: Any, *, may_differ: Collection[str] | None = None) -> "Run":
        """Create the run directory `out` (default: runs/<command>-<UTC time>), or reopen an existing one.

        `cfg` is the command's dataclass. With `may_differ`, an existing directory must hold the same configuration
        except for those (dotted) keys, otherwise ValueError: its results would mix two experiments.
        """
        path = Path(out) if out else default_path(kind_of_run(type(cfg).__name__))
        _refuse_other_command(path, kind_of_run(type(cfg).__name__))
        path.mkdir(parents=True, exist_ok=True)
        if may_differ is not None:
            _refuse_other_config(path, cfg, may_differ)
        facts = collect_facts(getattr(cfg, "seed", None))
        facts["versions"] |= versions(WARP_PACKAGES) if getattr(cfg, "engine", "cpu") == "warp" else {}
        facts |= {"kind": kind_of_run(type(cfg).__name__), "starts": [*_earlier(path).get("starts", []), utc_now()]}
        configs.save(cfg, path / "config.yaml")
        write_json(path / "run.json", facts)
        return cls(path, facts, _attach_log(path / "run.log"))

    def file(self, name: str) -> Path:
        """Return the path of a file of this run and create its folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def close(self) -> None:
        """Close the log file."""
        log.removeHandler(self._handler)
        self._handler.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is KeyboardInterrupt:
            self._note("interrupted")
        elif error is not None:
            self._note(f"failed: {type(error).__name__}: {error}")
        self.close()

    def _note(self, text: str) -> None:
        """Write a line to the log file only; the terminal shows it as the last line of the command."""
        self._handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), None))


def default_path(command: str) -> Path:
    """Return runs/<command>-<UTC time>, with a number if that exists."""
    stem = Path("runs") / f"{command}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    candidates = (stem if n == 1 else Path(f"{stem}-{n}") for n in range(1, 1000))
    return next(path for path in candidates if not path.exists())


def collect_facts(seed: int | None) -> dict[str, Any]:
    """Return git state, versions, machine, seed and command line of this process, as plain values."""
    return {
        "git": git_state(),
        "versions": versions(),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "seed": seed,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Return the versions of Python and of packages that affect results.

    None for a package that is not installed.
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Return {"hash", "dirty"} of the checkout that contains this code.

    None without git or outside a checkout.
    """
    top = _git("rev-parse", "--show-toplevel")
    commit = _git("rev-parse", "HEAD")
    if top is None or commit is None or Path(top) != ROOT:
        return None
    return {"hash": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def utc_now() -> str:
    """Return the current time as 2025-01-31T12:00:00Z."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def kind_of_run(class_name: str) -> str:
    """Return the kind of a run in run.json: "evaluate" for the configuration class "EvaluateCfg"."""
    return class_name.removesuffix("Cfg").lower() or "run"


def _earlier(path: Path) -> dict[str, Any]:
    """Return run.json of an earlier start; empty where there is none."""
    try:
        return json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def _refuse_other_command(path: Path, kind: str) -> None:
    """Raise ValueError for a run of another command: its config.yaml describes the policy beside it."""
    before = _earlier(path).get("kind", kind)
    if before != kind:
        raise ValueError(f"{path} is a run of '{before}', not of '{kind}': choose another out=")


def _refuse_other_config(path: Path, cfg: Any, may_differ: Collection[str]) -> None:
    saved = path / "config.yaml"
    if not saved.is_file():
        return
    usual = flat(configs.as_dict(type(cfg)()))  # options that came after the run count as they are by default
    before = usual | flat(configs.upgrade(type(cfg), configs.read_plain(saved), str(saved)))
    now = flat(configs.as_dict(cfg))
    changed = [key for key in now | before if key not in may_differ and now.get(key) != before.get(key)]
    if changed:
        shown = ", ".join(f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in changed)
        raise ValueError(f"{path} holds a run with another configuration ({shown}); choose another out=")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _attach_log(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    return handler
