"""`key=1,2,3 -m`: runs of one command with every combination of values, one after the other.

OUT/NAME/       run directory of a job; its name holds the words of the job
OUT/sweep.json  command, words, status and seconds of every job

The jobs run in processes of their own, in sequence: a job uses all cores, and with cluster= all machines, by itself.
"""

import csv
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from dexgrasp import configs
from dexgrasp.configs import multirun
from dexgrasp.policies.cli.commands import CliCommand
from dexgrasp.policies.cli.option_docs import keys
from dexgrasp.policies.run_directory import SWEEP_JSON, default_path, inputs_have_changed
from dexgrasp.utils.files import write_json
from dexgrasp.utils.output import FolderKind
from dexgrasp.utils.readers import read_json_object
from dexgrasp.utils.text import print_table

SWEEP = FolderKind("sweep", lambda folder: (folder / SWEEP_JSON).is_file())
"""Kind of the folder that -m writes."""
LONGEST_NAME = 80
"""Characters of a job's folder; longer names are cut and end with a hash."""


@dataclass(frozen=True)
class SweepJob:
    """One job of a sweep."""

    name: str
    """Words of its own, as a folder name."""
    words: tuple[str, ...]
    """All words of its command line but `out`."""
    folder: str
    """Run directory that it writes."""
    status: str = "waiting"
    """waiting, done, failed or interrupted."""
    seconds: float = 0.0
    """Wall time of its last start."""


def refusal(command: CliCommand) -> str:
    """Return why a command cannot be swept; empty if it can."""
    if command.out_is_file:
        return f"`dexgrasp {command.words}` writes one file and cannot be swept: leave out -m"
    if not any(key.name == "out" for key in keys(command.schema, command.config)):
        return f"`dexgrasp {command.words}` has no key out, and cannot be swept: leave out -m"
    return ""


def advice(command: CliCommand, words: Sequence[str], error: str) -> str:
    """Return what to add where an error quotes several values of one key; empty otherwise."""
    for word in words:
        value = word.partition("=")[2]
        if "," in value and value in error and len(multirun.sweep_values(word)) > 1 and not refusal(command):
            return f"add -m to run each value of '{word}'"
    return ""


def root(command: CliCommand, words: Sequence[str]) -> Path:
    """Return the folder of a sweep. Raises ConfigError for a command that cannot be swept."""
    if reason := refusal(command):
        raise configs.ConfigError(reason)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise configs.ConfigError("-m starts the jobs one after the other: start it without torchrun")
    outs = [word.partition("=")[2] for word in words if word.startswith("out=")]
    return Path(outs[-1]) if outs else default_path(f"sweep-{command.config.replace('_', '-')}")


def plan(root: Path, words: Sequence[str]) -> list[SweepJob]:
    """Return the jobs of a sweep, with the status of those that an earlier start of it finished.

    A finished job whose inputs have changed since is started again: it refuses its folder, and says what has changed.
    """
    words = [word for word in words if not word.startswith("out=")]
    shared, combinations = multirun.common(words), multirun.expand(words)
    if len(combinations) < 2:
        raise configs.ConfigError(
            f"-m runs several values of a key, for instance seed=1,2,3; no key has more than one{_hint(words)}"
        )
    finished = {
        tuple(job["words"])
        for job in _stored(root)
        if job["status"] == "done" and not inputs_have_changed(Path(job["folder"]))
    }
    jobs = []
    for own in combinations:
        name, words = _folder_name(own), (*shared, *own)
        status = "done" if words in finished else "waiting"
        jobs.append(SweepJob(name=name, words=words, folder=str(root / name), status=status))
    return jobs


def _hint(words: Sequence[str]) -> str:
    """Return how the values of a key are written, for words that try it in another way."""
    for word in words:
        key, _, value = word.partition("=")
        if ends := re.fullmatch(r"(-?\d+)(?:\.\.|-|:)(-?\d+)", value):
            return f": '{word}' is one value, a range is written {key}=range({ends[1]},{int(ends[2]) + 1})"
        if value.endswith(",") or value.startswith(","):
            return f": '{word}' has an empty value, give for instance {key}={value.strip(',') or 1},2"
    return ""


def run(command: CliCommand, root: Path, jobs: Sequence[SweepJob]) -> int:
    """Run the jobs that are not done and print the table; return 0, 1 (one failed) or 130 (interrupted)."""
    done = list(jobs)
    _write(root, command, done)
    for i, job in enumerate(jobs):
        print(f"job {i + 1} of {len(jobs)}: {' '.join(job.name.split(','))}", file=sys.stderr)
        if job.status != "done":
            done[i] = _run_one(command, job)
            _write(root, command, done)
        if done[i].status == "interrupted":
            break
    print_table(_table(done))
    print(f"sweep: {root}; the same command with out={root} runs what is not done")
    statuses = {job.status for job in done}
    return 130 if "interrupted" in statuses else int("failed" in statuses)


def _write(root: Path, command: CliCommand, jobs: Sequence[SweepJob]) -> None:
    write_json(root / SWEEP_JSON, {"command": command.words, "jobs": [asdict(job) for job in jobs]})


def _run_one(command: CliCommand, job: SweepJob) -> SweepJob:
    Path(job.folder).parent.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "dexgrasp", *command.words.split(), *job.words, f"out={job.folder}"]
    start_s, stopped = time.monotonic(), False
    process = subprocess.Popen(line)

    def forward(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:  # the job has received the Ctrl-C of the terminal as well, and ends by itself
                stopped = True
    finally:
        signal.signal(signal.SIGTERM, before)
    found = code == 1 and (Path(job.folder) / "compare.json").is_file()  # B is worse: a result
    status = "done" if code == 0 or found else "interrupted" if stopped or code == 130 else "failed"
    return replace(job, status=status, seconds=round(time.monotonic() - start_s, 1))


def _stored(root: Path) -> list[dict[str, Any]]:
    try:
        return read_json_object(root / SWEEP_JSON)["jobs"]
    except (OSError, ValueError, KeyError):
        return []


def _folder_name(words: Sequence[str]) -> str:
    text = ",".join(words)
    name = re.sub(r"[^\w.=,+-]", "_", text)
    if name == text and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _table(jobs: Sequence[SweepJob]) -> list[list[str]]:
    """Return a row for each job: its own words, status, seconds and results."""
    results = [_result(Path(job.folder)) if job.status == "done" else {} for job in jobs]
    columns = list(dict.fromkeys(name for result in results for name in result))
    rows = [["job", "status", "seconds", *columns]]
    for job, result in zip(jobs, results, strict=True):
        rows.append([job.name, job.status, f"{job.seconds:.0f}", *(result.get(name, "") for name in columns)])
    return rows


def _result(folder: Path) -> dict[str, str]:
    """Return the results of a run directory by column: evaluate, compare and train have some."""
    if (folder / "result.json").is_file():
        result = read_json_object(folder / "result.json")
        low, high = (100 * end for end in result["wilson95"])
        rates = {f"{name} %": f"{100 * part['success_rate']:.1f}" for name, part in result["per_disturbance"].items()}
        total = {"success %": f"{100 * result['success_rate']:.1f}", "95 % interval": f"{low:.1f} – {high:.1f}"}
        return {**total, "trials": str(result["trials"]), **(rates if len(rates) > 1 else {})}
    if (folder / "compare.json").is_file():
        result = read_json_object(folder / "compare.json")
        return {"difference %": f"{100 * result['difference']:+.1f}", "p": f"{result['p_value']:.3f}"}
    if (folder / "progress.csv").is_file():
        return _training_result(folder / "progress.csv")
    return {}


def _training_result(progress: Path) -> dict[str, str]:
    with progress.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {"last validation %": "validation/success", "training %": "rollout/success"}
    found = {}
    for title, column in columns.items():
        values = [row[column] for row in rows if row.get(column)]
        found[title] = f"{100 * float(values[-1]):.1f}" if values else "none"
    return found
