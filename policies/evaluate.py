"""How often a policy succeeds, on which objects, and how it fails.

RUN/trials.jsonl        one line per finished trial, in order; where a run stopped, the same command goes on
RUN/trials/*.parquet    with ray=...: one row per finished trial, in no order, as policies.trial_table says
RUN/result.json         the numbers
RUN/diagnostics.json    what helps to read them: penetration, slip, lift, objects, speed
RUN/report.html         the same for the eye; RUN/videos/*.mp4
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

import configs
from dexgrasp.utils.files import folder_lock, write_json
from dexgrasp.utils.progress import Progress
from policies import report, trained, trial_log, videos
from policies.attempts import ATTEMPTS, play
from policies.runs import Run
from policies.scoreboard import print_scoreboard
from policies.statistics import count_by, percentile, success_summary
from policies.synergy import POLICIES, Policy, check_policy, make_policy
from sim.disturbances import DISTURBANCES
from sim.engine_cfg import EngineName, WarpCfg
from sim.hands import HandSpec
from sim.objects import ObjectLibrary, open_library, trained_on
from sim.outcomes import FAILURES, Outcome
from sim.render import RenderUnavailable
from sim.scene import PhysicsCfg
from sim.task import GraspTask, task_class
from sim.task_cfg import TaskCfg

MAY_DIFFER = ("trials", "videos", "out", "num_threads", "ray")
"""What the same evaluation may change when it goes on: none of it changes the outcome of a trial."""

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
class EvaluateCfg:
    """Measure the success rate of a policy; the same command with the same `out` goes on where it stopped."""

    policy: str = "synergy"
    """synergy (the scripted prior alone), zero, random, or a trained one: a run, a checkpoint, a bundle, HAND/STAGE.
    What of hand, task and view belongs to a trained policy is taken from it."""
    objects: str = "shipped"
    """Object library: shipped; generated:N (training objects, :test or :validation behind it for others);
    random_urdfs (PyBullet's 1,000, loaded once); a library folder; or a folder of OBJ/STL/PLY/GLB meshes."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Which hand; left ones are mirrored."""
    mount: str = "floating"
    """What carries the hand: floating or ur5e."""
    perception: Literal["model", "rendered"] = "model"
    """model: the camera of training, surface samples. rendered: depth images drawn by MuJoCo, with a D435's flaws,
    through the robot's own pipeline."""
    trials: int = 200
    """Trials per disturbance; trial i takes object i modulo the number of objects."""
    disturbance: Literal["none", "shift3", "shift5", "force", "heavy", "slippery", "all"] = "none"
    """What goes wrong on purpose; all = each in turn, with the same trials."""
    attempts: int = ATTEMPTS
    """Grasps in a trial at most: a student that feels its hand empty goes back and tries again. 1: never."""
    seed: int = 0
    """Seed of all chance; a trial is decided by the seed and its number."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    videos: int = 0
    """At most so many videos of successes, and of failures."""
    num_envs: int = 64
    """Trials that run side by side."""
    num_threads: int = 0
    """Threads of the physics; 0 = all cores; with ray, of each worker, 0 = one."""
    ray: str = ""
    """Spread the trials over processes and machines by Ray: auto = the cluster of this machine, else its own cores;
    local; or the address of a cluster. Trials are then stored as Parquet in RUN/trials; the numbers are the same."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo. warp: MuJoCo Warp on a GPU, slowly on the CPU where there is none; needs the extra `gpu`."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffers of engine=warp."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Phases, control rate, success criterion, reset noise."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings; numbers to report are measured on reference."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("attempts", 1), ("num_envs", 1), ("videos", 0), ("num_threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in 0..2^63 - 1, got {self.seed}")
        if self.ray and self.engine != "cpu":
            raise ValueError("ray spreads trials over processors: with engine=warp leave ray out")
        check_policy(self.policy)

    def disturbances(self) -> list[str]:
        """Names of the disturbances to run, in order."""
        return list(DISTURBANCES) if self.disturbance == "all" else [self.disturbance]

    def rows(self) -> int:
        """Trials per block: at most num_envs, and all blocks alike."""
        return math.ceil(self.trials / math.ceil(self.trials / self.num_envs))


def evaluate(cfg: EvaluateCfg) -> dict[str, Any]:
    """Run (or finish) the trials, write the run directory, print a table, return what result.json holds."""
    from policies import sharding  # built on this module

    torch.set_num_threads(1)  # the batch is small: more threads cost time, and the physics has its own
    if cfg.ray:
        sharding.check_installed()
    cfg = with_policy(cfg)
    hand, library = HandSpec.load(cfg.hand, side=cfg.side), open_library(cfg.objects)
    with Run.open(cfg.out, cfg, may_differ=MAY_DIFFER if begun(cfg.out) else None) as run, folder_lock(run.path):
        start_s = time.monotonic()
        if cfg.ray:
            outcomes, simulated = sharding.run_trials(cfg, library, run.path)
        else:
            outcomes, simulated = run_trials(cfg, hand, library, run.file("trials.jsonl"))
        result = summarise(cfg, outcomes, run.facts)
        write_json(run.file("result.json"), result)
        notes = diagnose(outcomes, library) | speed(simulated, time.monotonic() - start_s)
        write_json(run.file("diagnostics.json"), notes)
        print_scoreboard(result, notes)
        log.info("%d of %d trials succeeded", result["successes"], result["trials"])
        if cfg.videos:
            film(cfg, hand, library, outcomes, run.path / "videos")
        print(f"report: {report.write_report(run.path)}")
    return result


def begun(out: str) -> bool:
    """Whether trials are stored in the run directory `out`: only then could two experiments be mixed."""
    stored = [Path(out, "trials.jsonl"), *Path(out, "trials").glob("*.parquet")] if out else []
    return any(path.is_file() and path.stat().st_size > 0 for path in stored)


def with_policy(cfg: EvaluateCfg) -> EvaluateCfg:
    """`cfg` with what of hand, task and view belongs to its policy; ValueError where something else was asked for."""
    return cfg if cfg.policy in POLICIES else trained.adopt(cfg, cfg.policy)


def make_task(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, disturbance: str, rows: int) -> GraspTask:
    """The task of one disturbance with `rows` environments."""
    view = replace(cfg.task.view, camera="rendered") if cfg.perception == "rendered" else cfg.task.view
    return task_class(cfg.task)(
        replace(cfg.task, view=view),
        hand,
        library,
        cfg.physics,
        num_envs=rows,
        num_threads=cfg.num_threads,
        seed=cfg.seed,
        mount=cfg.mount,
        disturbance=disturbance,
        auto_reset=False,
        in_order=True,
        engine=cfg.engine,
        warp=cfg.warp,
    )


def film(
    cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, outcomes: Sequence[Outcome], folder: Path
) -> list[Path]:
    """Videos of some of the trials; without OpenGL none, and a warning that says what to install."""

    def rerun(disturbance: str, rows: int) -> tuple[GraspTask, Policy]:
        task = make_task(cfg, hand, library, disturbance, rows)
        return task, make_policy(cfg.policy, task)

    try:
        return videos.record(outcomes, cfg.videos, folder, library, cfg.attempts, rerun)
    except RenderUnavailable as error:
        log.warning("no videos: %s", error)
        return []


def run_trials(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, path: Path) -> tuple[list[Outcome], int]:
    """Outcomes of all trials of all disturbances, in order, and how many of them were simulated now.

    Trials are run in blocks of the same rows however often the run was stopped, and a block is stored as a whole.
    """
    stored = trial_log.read(path)
    stored = trial_log.keep_whole_blocks(stored, cfg.disturbances(), cfg.trials, cfg.rows(), library.names)
    trial_log.rewrite(path, stored)
    simulated = 0
    total = cfg.trials * len(cfg.disturbances())
    with Progress(total, "evaluate", done=min(len(stored), total)) as progress:
        for disturbance in cfg.disturbances():
            first = sum(outcome.disturbance == disturbance for outcome in stored)
            if first >= cfg.trials:
                continue
            log.info("disturbance %s: trials %d to %d on %d objects", disturbance, first, cfg.trials - 1, len(library))
            task = make_task(cfg, hand, library, disturbance, cfg.rows())
            task.guard.dump_dir = path.parent
            policy = make_policy(cfg.policy, task)
            for start in range(first, cfg.trials, cfg.rows()):
                block = play(task, policy, range(start, start + cfg.rows()), cfg.attempts)[: cfg.trials - start]
                trial_log.append(path, block)
                stored += block
                simulated += len(block)
                progress.advance(len(block), f"{sum(outcome.success for outcome in stored)} successes")
    order = {name: i for i, name in enumerate(cfg.disturbances())}
    ran = [outcome for outcome in stored if outcome.trial < cfg.trials]
    return sorted(ran, key=lambda outcome: (order[outcome.disturbance], outcome.trial)), simulated


def summarise(cfg: EvaluateCfg, outcomes: Sequence[Outcome], facts: dict[str, Any]) -> dict[str, Any]:
    """What result.json holds. With several disturbances the counts are of all their trials."""
    success = [outcome.success for outcome in outcomes]
    by_disturbance = count_by([outcome.disturbance for outcome in outcomes], success)
    failed = Counter(outcome.failure for outcome in outcomes if not outcome.success)
    if unknown := sorted(set(failed) - set(FAILURES)):
        raise ValueError(f"the task reports failures {unknown}; known: {list(FAILURES)}")
    return success_summary(sum(success), len(success)) | {
        "per_object": count_by([outcome.object for outcome in outcomes], success),
        "per_disturbance": {name: success_summary(**by_disturbance[name]) for name in cfg.disturbances()},
        "failures": {name: failed[name] for name in FAILURES},
        "config": configs.as_dict(cfg),
        "versions": facts["versions"],
        "git": facts["git"],
        "seed": cfg.seed,
    }


def diagnose(outcomes: Sequence[Outcome], library: ObjectLibrary) -> dict[str, Any]:
    """What helps to read a result, over all trials; lengths in m. Objects as the library describes them."""
    seen = {outcome.object for outcome in outcomes}
    entries = [library.entry(name) for name in library.names if name in seen]
    at_once = Counter(outcome.disturbance for outcome in outcomes if outcome.success and outcome.attempts == 1)
    return {
        "at_first_attempt": {
            name: at_once[name] for name in dict.fromkeys(outcome.disturbance for outcome in outcomes)
        },
        "penetration_m": spread([outcome.penetration_m for outcome in outcomes]),
        "slip_of_successes_m": spread([outcome.slip_m for outcome in outcomes if outcome.success]),
        "lift_m": spread([outcome.lift_m for outcome in outcomes]),
        "unstable_resets": sum(outcome.failure == "unstable" for outcome in outcomes),
        "trained_on": trained_on(entries),
        "objects": {
            entry.name: {
                "family": entry.family,
                "split": entry.split,
                "extents_m": list(entry.extents),
                "mass_kg": entry.mass,
            }
            for entry in entries
        },
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Median, 99th percentile and largest of the finite values; None without any."""
    finite = [value for value in values if math.isfinite(value)]
    marks = {"median": 50.0, "p99": 99.0, "max": 100.0}
    return {name: percentile(finite, mark) if finite else None for name, mark in marks.items()}


def speed(simulated: int, wall_s: float) -> dict[str, float | int]:
    """How fast this start of the run went."""
    return {
        "trials_simulated": simulated,
        "wall_s": wall_s,
        "trials_per_s": simulated / wall_s,
    }
