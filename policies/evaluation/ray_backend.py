"""Run the trials of an evaluation on many processes and machines with Ray, and store them as Parquet.

    driver: the blocks that are not stored yet --(configuration, files of their objects)--> workers
    workers: one block each, as in `evaluate` on one machine --(rows)--> driver, the only process that writes

A block whose worker dies is run on another one; after the driver dies, the same command resumes the run. Blocks are
those of a run in one process, so that the numbers are equal, bit for bit on machines of one kind.
"""

import contextlib
import functools
import logging
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.trial_store import (
    BlockLog,
    JsonLinesStore,
    ParquetStore,
    Row,
    TrialBlock,
    log_resumed,
)
from dexgrasp.policies.run_directory import Run, git_state, versions
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.sim.task.reset import rest_pose
from dexgrasp.utils.plugins import import_plugins, portable
from dexgrasp.utils.progress import LINE_EVERY_S, Progress
from dexgrasp.utils.text import counted, install_command

RETRIES = 5
"""Workers that may die at one block, one after another; at the next death the evaluation stops with an error."""
BLOCKS_PER_PROCESS = 200
"""Blocks after which a worker process is replaced: its memory is fragmented by thousands of models."""
WAITING = 2
"""Blocks submitted per core, so that a worker never waits for the driver."""

log = logging.getLogger("dexgrasp")


def check_installed() -> None:
    """Raise ImportError with the package to install where Ray or pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
        import ray  # noqa: F401
    except ImportError as error:
        raise ImportError(f"cluster=... needs Ray and pyarrow: {install_command('ray')} ({error})") from error


def run_trials(cfg: EvaluateCfg, library: ObjectLibrary, run: Run) -> tuple[list[Outcome], int]:
    """Run the trials that are not stored yet; return the outcomes of all, in order, and how many were run.

    Blocks are stored under RUN/trials as they finish, and at the end all trials in RUN/trials.jsonl as well.
    """
    plan, store = cfg.plan(library), ParquetStore(run.path / "trials")
    log_of_blocks = BlockLog(run.file("blocks.jsonl"), run.start)
    log_of_blocks.resume()
    stored = store.resume(plan)
    todo, simulated = plan.remaining(stored), 0
    known = {(outcome.disturbance, outcome.trial) for outcome in stored}
    done, won = len(plan.select(stored)), sum(outcome.success for outcome in stored)
    total = cfg.trials * len(cfg.disturbances())
    log_resumed(done, total)
    with Progress(total, "evaluate", done) as progress:
        for block, rows in _spread(cfg, library, todo, progress.tell_sometimes) if todo else ():
            run.check_place()
            log_of_blocks.append(plan.missing(block, stored))
            fresh = [row for row in rows if (row["disturbance"], row["trial"]) not in known]
            store.append(fresh)
            simulated += len(fresh)
            won += sum(row["success"] for row in fresh)
            progress.advance(len(fresh), counted(won, "success", "successes"))
    stored = store.resume(plan)
    if missing := plan.remaining(stored):
        raise RuntimeError(
            f"{counted(len(missing), 'block')} of trials missing in {store.folder}: run the same command again"
        )
    outcomes = plan.select(stored)
    JsonLinesStore(run.file("trials.jsonl")).rewrite(outcomes)
    return outcomes, simulated


def part_for(library: ObjectLibrary, trials: range) -> ObjectLibrary:
    """Return the objects of successive trials in an order indexed by `trial % len(part)`.

    The index finds the objects as in the library.
    """
    names, count = library.names, min(len(trials), len(library))
    place = {trial % count: names[trial % len(names)] for trial in trials}
    return library.part([place[i] for i in range(count)])


def run_one(cfg: EvaluateCfg, objects: ObjectLibrary, block: TrialBlock) -> list[Row]:
    """Run one block on a worker; return one row for each requested trial."""
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


def _spread(
    cfg: EvaluateCfg, library: ObjectLibrary, todo: Sequence[TrialBlock], tell: Callable[[str], None]
) -> Iterator[tuple[TrialBlock, list[Row]]]:
    """Yield each block and its rows as it finishes; only a window of blocks is submitted at a time.

    `tell`: takes the number of blocks that are waited for, every few seconds.
    """
    import ray

    threads = cfg.num_threads or 1
    work = ray.remote(num_cpus=threads, max_retries=RETRIES, max_calls=BLOCKS_PER_PROCESS)(_run_checked)
    sent = replace(cfg, policy=_anywhere(cfg.policy), hand=_anywhere(cfg.hand), num_threads=threads)
    sent = replace(sent, plugins=portable(cfg.plugins))
    waiting, out = iter(todo), {}
    with _connected(cfg.cluster):
        log.info("%d blocks of %d trials on %d cores", len(todo), cfg.rows(), _cores())
        while True:
            room = max(1, WAITING * _cores() // threads) - len(out)
            for block in islice(waiting, max(0, room)):
                out[work.remote(sent, part_for(library, block.trials), block, versions())] = block
            if not out:
                return
            while not (finished := ray.wait(list(out), timeout=LINE_EVERY_S)[0]):
                tell(f"{counted(len(out), 'block')} sent to {counted(_cores(), 'core')}")
            ready = finished[0]
            block = out.pop(ready)
            yield block, _result(ready, block)


def _run_checked(
    cfg: EvaluateCfg, objects: ObjectLibrary, block: TrialBlock, expected: dict[str, str | None]
) -> tuple[list[Row], str]:
    """Check that this worker has the driver's versions, run one block; return its rows and the worker's commit."""
    if versions() != expected:
        raise ValueError(f"{socket.gethostname()} has {versions()}, the driver has {expected}: install the same there")
    return run_one(cfg, objects, block), _commit()


def _result(ready: Any, block: TrialBlock) -> list[Row]:
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
    """Connect to the Ray cluster at `address` (see `find_cluster`) and disconnect at the end."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(find_cluster(address), include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ConnectionError(f"{error} (a cluster that asks for a token needs RAY_AUTH_MODE=token here)") from error
    signal.signal(signal.SIGTERM, on_terminate)  # Ray has installed its own handler
    try:
        yield
    finally:
        ray.shutdown()


def find_cluster(asked: str) -> str:
    """Return the address for Ray.

    "auto": the cluster in RAY_ADDRESS, or this machine's cores if it is not set.

    Raises ConnectionError where no cluster answers at host:port: Ray itself would wait for minutes.
    """
    address = (os.environ.get("RAY_ADDRESS") or "local") if asked == "auto" else asked
    if re.fullmatch(r"[^/:]+:\d+", address) and not _answers(address):
        raise ConnectionError(
            f"no Ray cluster answers at {address}: 'ray start --head' starts one; cluster=local needs none"
        )
    return address


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
    """Return the absolute path of a file or folder; a name is returned as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


@functools.cache
def _commit() -> str:
    """Return the commit of this process; cached, because the checkout may change meanwhile."""
    return (git_state() or {}).get("hash", "")


@functools.cache
def _warn_once(text: str) -> None:
    log.warning(text)
