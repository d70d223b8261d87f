"""An evaluation spread over processes and machines by Ray: blocks of trials go out, rows of Parquet come back.

    driver: the blocks that are not stored yet --(configuration, their objects' files)--> workers
    workers: one block each, as `evaluate` alone would run it --(rows)--> driver, the only one that writes

A block that dies with its worker is run elsewhere; a driver that dies goes on with the same command. Blocks are those
of a run in one process, so the numbers are the same, on machines of one kind to the last bit.
"""

import contextlib
import functools
import logging
import os
import re
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dexgrasp.utils.progress import Progress
from policies import trial_log, trial_table
from policies.attempts import play
from policies.evaluate import EvaluateCfg, make_task
from policies.plugins import import_plugins, portable
from policies.runs import git_state, versions
from policies.synergy import make_policy
from policies.trial_table import Row
from sim.hands import HandSpec
from sim.objects import ObjectLibrary
from sim.outcomes import Outcome
from sim.starts import rest_pose

RETRIES = 5
"""A block whose worker died this many times and once more is given up."""
BLOCKS_PER_PROCESS = 200
"""Then a worker makes room for a fresh one: what its allocator has scattered over thousands of models is given back."""
WAITING = 2
"""Blocks that are given out, per core: the next lies ready when one is done."""

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
class Block:
    """Trials that run side by side; the last block may reach beyond the trials that are asked for."""

    disturbance: str
    trials: range


def check_installed() -> None:
    """Raises ImportError, which says what to install, where Ray or pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
        import ray  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ray=... needs Ray and pyarrow: pip install 'dexgrasp[ray]' ({error})") from error


def run_trials(cfg: EvaluateCfg, library: ObjectLibrary, folder: Path) -> tuple[list[Outcome], int]:
    """Outcomes of all trials of all disturbances, in order, and how many of them were simulated now.

    They are stored block by block under folder/trials, and at the end in folder/trials.jsonl as well.
    """
    table, wanted = folder / "trials", [(name, trial) for name in cfg.disturbances() for trial in range(cfg.trials)]
    stored = _stored(table, library.names)
    todo = [block for block in blocks(cfg) if any(key not in stored for key in _keys(cfg, block))]
    simulated, done, won = 0, sum(key in stored for key in wanted), sum(outcome.success for outcome in stored.values())
    with Progress(len(wanted), "evaluate", done) as progress:
        for rows in _spread(cfg, library, todo) if todo else ():
            fresh = [row for row in rows if (row["disturbance"], row["trial"]) not in stored]
            trial_table.append(table, fresh)
            simulated += len(fresh)
            won += sum(row["success"] for row in fresh)
            progress.advance(len(fresh), f"{won} successes")
    stored = _stored(table, library.names)
    outcomes = [stored[key] for key in wanted]
    trial_log.rewrite(folder / "trials.jsonl", outcomes)
    return outcomes, simulated


def blocks(cfg: EvaluateCfg) -> list[Block]:
    """All blocks, those of a run in one process."""
    rows = cfg.rows()
    return [Block(name, range(i, i + rows)) for name in cfg.disturbances() for i in range(0, cfg.trials, rows)]


def part_for(library: ObjectLibrary, trials: range) -> ObjectLibrary:
    """The objects of successive trials, where `trial % number of objects` finds them as in the whole library."""
    names, count = library.names, min(len(trials), len(library))
    place = {trial % count: names[trial % len(names)] for trial in trials}
    return library.part([place[i] for i in range(count)])


def run_one(cfg: EvaluateCfg, objects: ObjectLibrary, block: Block) -> list[Row]:
    """Run one block, on a worker: a row of the table for each trial that was asked for."""
    start_s = time.monotonic()
    torch.set_num_threads(1)
    import_plugins(cfg.plugins)
    task = make_task(cfg, HandSpec.load(cfg.hand, side=cfg.side), objects, block.disturbance, len(block.trials))
    outcomes = play(task, make_policy(cfg.policy, task), block.trials, cfg.attempts)
    poses = [rest_pose(objects[outcome.object], float(task.draws.rest[i])) for i, outcome in enumerate(outcomes)]
    about = {
        "seed": cfg.seed,
        "block_s": time.monotonic() - start_s,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    rows = [asdict(outcome) | {"rest_pose": pose} | about for outcome, pose in zip(outcomes, poses, strict=True)]
    return [row for row in rows if row["trial"] < cfg.trials]


def _keys(cfg: EvaluateCfg, block: Block) -> list[tuple[str, int]]:
    return [(block.disturbance, trial) for trial in block.trials if trial < cfg.trials]


def _stored(table: Path, names: Sequence[str]) -> dict[tuple[str, int], Outcome]:
    """Outcomes by disturbance and trial; ValueError where they are of other objects."""
    outcomes = trial_table.read(table)
    for outcome in outcomes:
        if outcome.object != names[outcome.trial % len(names)]:
            raise ValueError(
                f"{table} has trial {outcome.trial} with '{outcome.object}', not with "
                f"'{names[outcome.trial % len(names)]}': the objects have changed; choose another out="
            )
    return {(outcome.disturbance, outcome.trial): outcome for outcome in outcomes}


def _spread(cfg: EvaluateCfg, library: ObjectLibrary, todo: Sequence[Block]) -> Iterator[list[Row]]:
    """Rows of the blocks as they finish; a window of them is out at any time, whatever machines come and go."""
    import ray

    threads = cfg.num_threads or 1
    work = ray.remote(num_cpus=threads, max_retries=RETRIES, max_calls=BLOCKS_PER_PROCESS)(_run_checked)
    sent = replace(cfg, policy=_anywhere(cfg.policy), hand=_anywhere(cfg.hand), num_threads=threads)
    sent = replace(sent, plugins=portable(cfg.plugins))
    waiting, out = iter(todo), {}
    with _connected(cfg.ray):
        log.info("%d blocks of %d trials on %d cores", len(todo), cfg.rows(), _cores())
        while True:
            room = max(1, WAITING * _cores() // threads) - len(out)
            for block in islice(waiting, max(0, room)):
                out[work.remote(sent, part_for(library, block.trials), block, versions())] = block
            if not out:
                return
            (ready, *_), _ = ray.wait(list(out))
            yield _result(ready, out.pop(ready))


def _run_checked(
    cfg: EvaluateCfg, objects: ObjectLibrary, block: Block, expected: dict[str, str | None]
) -> tuple[list[Row], str]:
    """`run_one` where the versions are those of the driver, and the commit that it ran."""
    if versions() != expected:
        raise ValueError(f"{socket.gethostname()} has {versions()}, the driver has {expected}: install the same there")
    return run_one(cfg, objects, block), _commit()


def _result(ready: Any, block: Block) -> list[Row]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        rows, commit = ray.get(ready)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise ChildProcessError(
            f"trials {block.trials.start} to {block.trials[-1]} were given up after {RETRIES + 1} workers died "
            f"({type(error).__name__}); out of memory? num_envs=... makes blocks smaller, the same command goes on"
        ) from error
    if commit != _commit():
        _warn_once(f"workers run commit {commit or 'unknown'}, this is {_commit() or 'unknown'}")
    return rows


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """Ray at the address; "auto": the cluster that this machine is part of, else one of its own cores."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(find_cluster(address), include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ConnectionError(f"{error} (a cluster that asks for a token needs RAY_AUTH_MODE=token here)") from error
    signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own there
    try:
        yield
    finally:
        ray.shutdown()


def find_cluster(asked: str) -> str | None:
    """What Ray is to connect to; None leaves the search to Ray, which finds a cluster of this machine or starts one.

    Whether a cluster answers is tried first: for one that is gone Ray would wait minutes.
    """
    if asked != "auto":
        if re.fullmatch(r"[^/:]+:\d+", asked) and not _answers(asked):
            raise ConnectionError(
                f"no Ray cluster answers at {asked}: 'ray start --head' starts one; ray=local needs none"
            )
        return asked
    record = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "ray_current_cluster")
    gone = not os.environ.get("RAY_ADDRESS") and record.is_file() and not _answers(record.read_text().strip())
    return "local" if gone else None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def _cores() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


def _anywhere(name: str) -> str:
    """A path that does not depend on the working directory; a name stays."""
    return str(Path(name).resolve()) if Path(name).exists() else name


@functools.cache
def _commit() -> str:
    """The commit that this process runs: found once, for the files may change under it."""
    return (git_state() or {}).get("hash", "")


@functools.cache
def _warn_once(text: str) -> None:
    log.warning(text)
