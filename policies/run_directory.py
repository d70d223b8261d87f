"""Create and resume run directories, which record configuration, versions, git state, seed and log.

RUN/config.yaml   the resolved configuration
RUN/run.json      git hash, versions, machine, seed, command line, SHA-256 of the inputs; time, commit and versions of
                  each start
RUN/run.log       log messages with times
"""

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType
from typing import Any

from dexgrasp import configs
from dexgrasp.policies.input_identity import InputFile, current_sha256
from dexgrasp.utils import output
from dexgrasp.utils.files import check_place, write_json
from dexgrasp.utils.output import FolderKind, claimed_folder
from dexgrasp.utils.readers import DamagedFileError, read_json_object, reading

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dexgrasp", "mujoco", "torch", "numpy", "onnxruntime")
RECORD = ("run.json", "config.yaml", "run.log")
"""Files that every run directory gets before its command begins."""
KEPT = "what was finished is kept"
"""Words about an interrupted command that has written a result."""
NOTHING_YET = "nothing was finished yet"
"""Words about an interrupted command that has written none."""
RUN_JSON = "run.json of a command"
WARP_PACKAGES = ("mujoco-warp", "warp-lang")
"""Further packages recorded for engine=warp."""

log = logging.getLogger("dexgrasp")


class Run:
    """Run directory of one command, which no other process writes meanwhile.

    As a context manager it closes the log file and gives the folder free at the end, also after an interruption.
    """

    def __init__(self, path: Path, held: ExitStack, resumes: bool = False) -> None:
        self.path = path
        """The run directory."""
        self.facts: dict[str, Any] = {}
        """Content of run.json: git, versions, machine, seed, command, inputs, starts."""
        self._held = held
        self._handler: logging.Handler | None = None
        self._early = _collect_messages()
        self._is_new = False
        self._resumes = resumes

    @classmethod
    def claim(cls, out: str | Path | None, schema: type, *, anew: bool = False, resumes: bool = False) -> "Run":
        """Lock the run directory `out` of a command, by default a new one under runs/; write nothing yet.

        `schema`: the command's dataclass. `anew`: move an older run aside. `resumes`: the command goes on with a run
        that was stopped, which an interruption says. Raises ValueError for a folder that is no run of this command.
        """
        kind, held = kind_of_run(schema.__name__), ExitStack()
        folder_kind = FolderKind(
            f"run of '{output.words_of_kind(kind)}'", lambda path: output.kind_of_run(path, kind) == kind
        )
        for path in [Path(out)] if out else _default_paths(kind):
            with suppress(FileExistsError):
                folder = held.enter_context(claimed_folder(path, folder_kind, new=not out, anew=anew))
                return cls(folder, held, resumes)
        raise OSError(f"runs/ has no free name for a run of '{output.words_of_kind(kind)}': give out=FOLDER")

    @classmethod
    def open(
        cls, out: str | Path | None, cfg: Any, *, may_differ: Collection[str] | None = None, resumes: bool = False
    ) -> "Run":
        """Claim a run directory and record the configuration `cfg`; see `claim` and `record`."""
        with ExitStack() as failed:
            run = failed.enter_context(cls.claim(out, type(cfg), resumes=resumes))
            run.record(cfg, may_differ=may_differ)
            failed.pop_all()
        return run

    def record(
        self, cfg: Any, *, inputs: Mapping[str, InputFile] | None = None, may_differ: Collection[str] | None = None
    ) -> None:
        """Write config.yaml and run.json, and open the log file.

        `inputs`: the inputs by option. With `may_differ`, the folder must hold a run with equal inputs, versions and
        configuration, except for those (dotted) keys, otherwise ValueError: its results would mix two experiments.
        """
        before = read_facts(self.path)
        self._is_new = not before and not any(self.path.glob("[!.]*"))
        facts = collect_facts(getattr(cfg, "seed", None))
        facts["versions"] |= versions(WARP_PACKAGES) if getattr(cfg, "engine", "cpu") == "warp" else {}
        facts |= {"kind": kind_of_run(type(cfg).__name__)}
        facts["inputs"] = {key: {"value": item.value, "sha256": item.sha256} for key, item in (inputs or {}).items()}
        if may_differ is not None:
            _refuse_difference(self.path, cfg, may_differ, before, facts)
        starts = [{"time": one} if isinstance(one, str) else one for one in before.get("starts", [])]
        start = {"time": utc_now()} | {key: facts[key] for key in ("git", "versions")}
        self.facts = facts | {"starts": [*starts, start]}
        write_json(self.path / "run.json", self.facts)  # first: it makes the folder one of this command
        configs.save(cfg, self.path / "config.yaml")
        self._handler = _attach_log(self.path / "run.log")
        _release(self._early, self._handler)

    def refuse_other_options(self, cfg: Any, may_differ: Collection[str]) -> None:
        """Raise ValueError where options other than `may_differ` differ from those of the run in this folder."""
        _refuse_changes(self.path, _changed_options(self.path, cfg, may_differ))

    @property
    def start(self) -> int:
        """Index of this start in `starts` of run.json."""
        return len(self.facts["starts"]) - 1

    def check_inputs(self) -> None:
        """Raise ValueError where the content of an input has changed since `record`."""
        values = {key: item["value"] for key, item in self.facts["inputs"].items()}
        if changed := changed_inputs(self.facts["inputs"], current_sha256(values)):
            raise ValueError(f"{self.path}: {', '.join(changed)}: it was changed while this command ran; start it anew")

    def file(self, name: str) -> Path:
        """Return the path of a file of this run and create its folder; see `files.check_place`."""
        self.check_place()
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def check_place(self) -> None:
        """Raise FolderMovedError where the folder was moved, removed or replaced since `claim`."""
        check_place(self.path)

    def close(self) -> None:
        """Close the log file, and give the folder free."""
        self.__exit__(None, None, None)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, KeyboardInterrupt):
                self._note("interrupted")
                if not error.args or str(error).startswith((KEPT, NOTHING_YET)):  # the outer one of nested runs is told
                    error.args = (self._interruption(),)
            elif error is not None:
                self._note(f"failed: {type(error).__name__}: {error}")
            if self._is_new and isinstance(error, (ValueError, ImportError)):
                self._remove_record()
            _release(self._early)
            if self._handler is not None:
                log.removeHandler(self._handler)
                self._handler.close()
        finally:
            self._held.__exit__(kind, error, trace)  # without them an error in it would hide an interruption

    def _interruption(self) -> str:
        """Return what an interrupted command leaves, and how it goes on."""
        if self._resumes:
            return f"{KEPT if self._has_result() else NOTHING_YET}; the same command with out={self.path} goes on"
        return f"{KEPT}: {self.path}" if self._has_result() else NOTHING_YET

    def _has_result(self) -> bool:
        """Return whether the folder holds more than the record and empty files."""
        files = [file for file in self.path.glob("[!.]*") if file.name not in RECORD]
        return any(not file.is_file() or file.stat().st_size for file in files)

    def _remove_record(self) -> None:
        """Remove the files of `record`, unless the folder holds a result: a refused command leaves nothing."""
        if not self._has_result():
            for file in self.path.glob("[!.]*"):
                file.unlink(missing_ok=True)

    def _note(self, text: str) -> None:
        """Write a line to the log file only; the terminal shows it as the last line of the command."""
        if self._handler is not None:
            self._handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), None))


def default_path(command: str) -> Path:
    """Return runs/<command>-<UTC time>, with a number if that exists."""
    return next(path for path in _default_paths(command) if not path.exists())


def _default_paths(command: str) -> Iterator[Path]:
    stem = Path("runs") / f"{output.words_of_kind(command).replace(' ', '-')}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    yield from (stem if n == 1 else Path(f"{stem}-{n}") for n in range(1, 1000))


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
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
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


SWEEP_JSON = "sweep.json"
"""File of a folder that `-m` writes: the jobs of the sweep, each a folder beside it."""


def kind_of_run(class_name: str) -> str:
    """Return the kind of a run in run.json: "evaluate" for the configuration class "EvaluateCfg"."""
    return class_name.removesuffix("Cfg").lower() or "run"


def read_facts(path: Path) -> dict[str, Any]:
    """Return run.json of a run directory; empty where there is none.

    Raises DamagedFileError where it is no JSON object, or where `kind`, `starts`, `inputs`, `versions` or `git` have
    other types than `Run.record` writes.
    """
    file = path / "run.json"
    if not file.is_file():
        return {}
    facts = read_json_object(file)
    for key, kind in (("kind", str), ("starts", list), ("inputs", dict), ("versions", dict)):
        if key in facts and not isinstance(facts[key], kind):
            raise DamagedFileError(file, RUN_JSON, f"its {key} is {str(facts[key])[:60]!r}")
    with reading(file, RUN_JSON):
        starts, inputs = facts.get("starts", []), facts.get("inputs", {}).values()
        states = [facts, *(one for one in starts if isinstance(one, dict))]
        texts = [one if isinstance(one, str) else one["time"] for one in starts]
        texts += [item[key] for item in inputs for key in ("value", "sha256")]
        texts += [state["git"]["hash"] for state in states if state.get("git") is not None]
        texts += [text for state in states for text in state.get("versions", {}).values() if text is not None]
    if wrong := [str(text)[:60] for text in texts if not isinstance(text, str)]:
        raise DamagedFileError(file, RUN_JSON, f"expected a text, got {wrong[0]}")
    return facts


def evaluations(names: Sequence[str]) -> list[Path]:
    """Return run directories of evaluations by name; the folder of a sweep stands for its finished jobs.

    The file sweep.json, which `SWEEP/*` matches, is left out. Raises ValueError for a sweep without a finished job.
    """
    found: list[Path] = []
    for path in map(Path, names):
        if path.is_file() and path.name == SWEEP_JSON and len(names) > 1:
            continue
        if not (path / SWEEP_JSON).is_file():
            found.append(path)
            continue
        with reading(path / SWEEP_JSON, SWEEP_JSON):
            jobs = read_json_object(path / SWEEP_JSON)["jobs"]
            done = [path / job["name"] for job in jobs if job["status"] == "done"]
        if not done:
            raise ValueError(f"{path} is a sweep without a finished job: give its command again, which runs them")
        found += done
    return found


def check_evaluation(path: Path) -> None:
    """Raise ValueError where `path` is no run directory of an evaluation; say which one to take."""
    if not (path / "run.json").is_file() or not (path / "config.yaml").is_file():
        raise ValueError(f"{path} is no run directory: expected the out= of `dexgrasp evaluate`")
    kind = read_facts(path).get("kind", "evaluate")
    if kind == "compare":
        raise ValueError(f"{path} compares two evaluations: take {path / 'a'} or {path / 'b'}")
    if kind != "evaluate":
        raise ValueError(f"{path} is a run of '{kind}', not of 'evaluate': take the out= of an evaluation")


def _refuse_difference(
    path: Path, cfg: Any, may_differ: Collection[str], before: dict[str, Any], now: dict[str, Any]
) -> None:
    """Raise ValueError, with old and new value, where configuration, inputs or versions have changed."""
    changed = [
        *_changed_options(path, cfg, may_differ),
        *changed_inputs(before.get("inputs", {}), {key: item["sha256"] for key, item in now["inputs"].items()}),
        *_changed_versions(before.get("versions", {}), now["versions"]),
    ]
    _refuse_changes(path, changed)
    if now["inputs"] and "inputs" not in before:
        log.warning("%s is a run of an earlier version, which did not record its inputs: they are not compared", path)


def _refuse_changes(path: Path, changed: Sequence[str]) -> None:
    if changed:
        raise ValueError(
            f"{path} holds another run ({', '.join(changed)}): choose another out=, or give force=true, "
            "which moves the old run aside and starts anew"
        )


def _changed_options(path: Path, cfg: Any, may_differ: Collection[str]) -> list[str]:
    saved = path / "config.yaml"
    if not saved.is_file():
        return []
    usual = flat(configs.as_dict(type(cfg)()))  # options that came after the run count as they are by default
    before = usual | flat(configs.upgrade(type(cfg), configs.read_plain(saved), str(saved)))
    now = flat(configs.as_dict(cfg))
    changed = [key for key in now | before if key not in may_differ and now.get(key) != before.get(key)]
    words, explained = _changed_groups(type(cfg), changed, before, now)
    alone = [key for key in changed if key not in explained]
    return [*words, *(f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in alone)]


def _changed_groups(
    schema: type, changed: Sequence[str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[str], set[str]]:
    """Return the groups of which other options explain two or more changed keys, in words, and these keys."""
    command = output.words_of_kind(kind_of_run(schema.__name__)).replace(" ", "_")
    usual, groups = flat(configs.as_dict(schema())), configs.groups(command)
    words, explained = list[str](), set[str]()
    for group in sorted(groups, key=lambda one: (groups[one].place != configs.EVERYWHERE, -len(groups[one].place))):
        options = {one: usual | configs.yaml_values(command, {group: one}) for one in configs.options(group)}
        keys = [key for key in changed if key not in explained and len({str(one[key]) for one in options.values()}) > 1]
        then, at_present = (_fitting_option(options, tree, keys) for tree in (before, now))
        if len(keys) > 1 and then and at_present:
            words.append(f"{group}={then} then, {group}={at_present} now")
            explained |= set(keys)
    return words, explained


def _fitting_option(options: Mapping[str, Mapping[str, Any]], tree: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the option with the values of `tree` for `keys`, and with most of its others; empty if none has them."""

    def differences(option: str) -> int:
        return sum(_plain(value) != _plain(tree.get(key)) for key, value in options[option].items())

    fitting = [one for one, values in options.items() if all(_plain(values[k]) == _plain(tree.get(k)) for k in keys)]
    return min(fitting, key=differences, default="")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def changed_inputs(before: Mapping[str, Mapping[str, str]], now: Mapping[str, str]) -> list[str]:
    """Return in words the inputs whose content has changed.

    `before`: value and sha256 by option, as in run.json; `now`: sha256 by option.
    """
    return [
        f"the content of {key}={item['value']}: sha256 {item['sha256'][:12]} then, {now[key][:12]} now"
        for key, item in before.items()
        if key in now and now[key] != item["sha256"]
    ]


def inputs_have_changed(path: Path) -> bool:
    """Return whether inputs or package versions differ from those of a finished run, or are missing."""
    try:
        facts = read_facts(path)
        values = {key: item["value"] for key, item in facts.get("inputs", {}).items()}
        changed = changed_inputs(facts.get("inputs", {}), current_sha256(values))
    except (OSError, ValueError):
        return True
    return bool(changed or _changed_versions(facts.get("versions", {}), versions()))


def _changed_versions(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> list[str]:
    """Return in words the packages whose versions have changed; that of Python changes no result."""
    return [
        f"{name}: {before[name]} then, {now[name]} now"
        for name in now
        if name != "python" and name in before and before[name] != now[name]
    ]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


class _RunLog(logging.FileHandler):
    """Log file that gives up silently on a full disk: the files of the results report it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a name of logging
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # of what a full disk did not take
            super().close()


def _collect_messages() -> MemoryHandler:
    """Keep the messages of a command until its log file is open, for instance those of an import of its objects."""
    early = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    log.addHandler(early)
    log.setLevel(logging.INFO)
    return early


def _release(early: MemoryHandler, log_file: logging.Handler | None = None) -> None:
    """Hand the kept messages to the log file and keep no more."""
    log.removeHandler(early)
    early.setTarget(log_file)
    early.flush()
    early.close()


def _attach_log(path: Path) -> logging.Handler:
    handler = _RunLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return handler
