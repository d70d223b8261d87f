"""`dexgrasp bench physics`: cost of each physics preset and agreement of outcomes with the reference."""

import time
from dataclasses import dataclass, field

import torch

from dexgrasp import configs
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.statistics import percentile, success_summary, wilson_interval
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.bounds import NumEnvs, NumTrials, Seed, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import counted, print_table


@dataclass(frozen=True)
@bounded
class BenchPhysicsCfg:
    """Run the same trials on every physics preset and compare each outcome with that on the first."""

    presets: tuple[str, ...] = ("reference", "balanced", "turbo")
    """Physics presets; the first one is the reference."""
    policy: str = "synergy"
    """Policy, as in `evaluate`."""
    objects: str = "shipped"
    """Object library, as in `evaluate`."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    trials: NumTrials = 240
    """Trials per preset."""
    num_envs: NumEnvs = 60
    """Number of parallel trials."""
    seed: Seed = 0
    """Seed of all random numbers."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Options of the task."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""


def bench_physics(cfg: BenchPhysicsCfg) -> None:
    """Run all presets, print the table, write RUN/bench.json."""
    torch.set_num_threads(1)
    with Run.open(cfg.out, cfg) as run:
        rows, outcomes = {}, {}
        with Progress(cfg.trials * len(cfg.presets), "bench physics") as progress:
            for preset in cfg.presets:
                outcomes[preset], cpu_s = _run(cfg, preset, progress)
                rows[preset] = _row(outcomes[preset], outcomes[cfg.presets[0]], cfg.task, cpu_s)
        write_json(run.path / "bench.json", {"presets": rows, "facts": run.facts})
        _show(rows, cfg)
        print(f"bench: {run.path / 'bench.json'}")


def _run(cfg: BenchPhysicsCfg, preset: str, progress: Progress) -> tuple[list[Outcome], float]:
    """Return the outcomes of all trials on one preset, and their CPU time [s]."""
    evaluation = EvaluateCfg(
        policy=cfg.policy,
        trials=cfg.trials,
        num_envs=cfg.num_envs,
        seed=cfg.seed,
        task=cfg.task,
        physics=configs.load_option(PhysicsCfg, "physics", preset),
    )
    hand, library = HandSpec.load(cfg.hand), open_library(cfg.objects)
    task = make_task(evaluation, hand, library, "none", evaluation.rows())
    policy = make_policy(cfg.policy, task)
    outcomes: list[Outcome] = []
    start = time.process_time()
    for first in range(0, cfg.trials, evaluation.rows()):
        outcomes += play(task, policy, range(first, first + evaluation.rows()))[: cfg.trials - first]
        progress.advance(min(evaluation.rows(), cfg.trials - first))
    return outcomes, time.process_time() - start


def _row(outcomes: list[Outcome], reference: list[Outcome], task: TaskCfg, cpu_s: float) -> dict:
    pairs = list(zip(outcomes, reference, strict=True))
    agree = sum(ours.success == theirs.success for ours, theirs in pairs)
    episode_s = task.grasp_s + task.lift_s + task.hold_s
    return success_summary(sum(o.success for o in outcomes), len(outcomes)) | {
        "agreement": agree / len(pairs),
        "agreement_wilson95": list(wilson_interval(agree, len(pairs))),
        "only_here": sum(ours.success and not theirs.success for ours, theirs in pairs),
        "only_reference": sum(theirs.success and not ours.success for ours, theirs in pairs),
        "control_steps_per_cpu_s": len(outcomes) * task.steps(episode_s) / cpu_s,
        "real_time_factor": len(outcomes) * episode_s / cpu_s,
        "penetration_p99_m": percentile([o.penetration_m for o in outcomes], 99.0),
    }


def _show(rows: dict[str, dict], cfg: BenchPhysicsCfg) -> None:
    columns = "preset|success|agreement|only here|only reference|steps/cpu-s|x real time|penetration p99"
    table: list[list[str]] = [[*columns.split("|")]]
    for name, row in rows.items():
        cells = [
            name,
            f"{row['success_rate']:.1%}",
            f"{row['agreement']:.1%}",
            str(row["only_here"]),
            str(row["only_reference"]),
            f"{row['control_steps_per_cpu_s']:,.0f}",
            f"{row['real_time_factor']:.0f}",
            f"{1e3 * row['penetration_p99_m']:.2f} mm",
        ]
        table.append(cells)
    print_table(table, f"{cfg.policy}, {cfg.hand}, {cfg.objects}, {counted(cfg.trials, 'trial')}")
