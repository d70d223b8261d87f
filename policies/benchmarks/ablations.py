"""`dexgrasp bench ablations`: contribution of each part of the method, at equal control steps.

RUN/<variant>/      the training run of each, as `dexgrasp train` leaves it; a run that was stopped goes on
RUN/bench.json      successes of each on the same trials
"""

import gc
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from dexgrasp import configs
from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.agents.checkpoint import Checkpoint, load_checkpoint
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.run_directory import Run
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.train import find_compatible_checkpoint, train
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.disturbances import DISTURBANCES
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.utils.bounds import Bounds, NumTrials, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.text import print_table


@dataclass(frozen=True)
class Variant:
    """Variant of the training: its dictionaries replace fields of the full method's options."""

    stage: str = "student"
    steps_as: str = ""
    """Stage whose exploration and step sizes the variant uses; empty = its own."""
    train: dict[str, Any] = field(default_factory=dict)
    distillation: dict[str, Any] = field(default_factory=dict)
    reward: dict[str, Any] = field(default_factory=dict)
    camera: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)


RL_ONLY = {"imitation_weight": 0.0, "rho_start": 0.0, "rho_end": 0.0, "rho_max": 1.0}
VARIANTS = {
    "student": Variant(),
    "imitation only": Variant(distillation={"rho_max": 0.0}),
    "reinforcement only": Variant(distillation=RL_ONLY),
    "fixed ratio": Variant(distillation={"rho_start": 0.0, "rho_end": 0.0, "rho_max": 0.5}),
    "no privileged learning": Variant(steps_as="teacher", train={"init_from_teacher": False}, distillation=RL_ONLY),
    "frozen view": Variant(camera={"mode": "first_frame"}),
    "refreshed view": Variant(camera={"mode": "latest"}),
    "LSTM reads the history": Variant(train={"history_encoder": "lstm"}),
    "teacher": Variant(stage="teacher"),
    "teacher, no lift reward": Variant(stage="teacher", reward={"lift": 0.0, "success": 0.0}),
    "teacher, vectors along world axes": Variant(stage="teacher", task={"vector_frame": "world"}),
    "teacher, no scripted prior": Variant(stage="teacher", task={"use_scripted_grasp": False}),
}


@dataclass(frozen=True)
@bounded
class BenchAblationsCfg(TrainCfg):
    """Train every variant on `budget` control steps and compare them.

    Options of `train` apply to all variants.
    """

    budget: Annotated[float, Bounds(1e-6, 1e6)] = 1.0
    """Million control steps of each variant."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names of the variants."""
    trials: NumTrials = 432
    """Trials of each variant per disturbance."""
    disturbances: tuple[str, ...] = ("none", "shift5")
    """Disturbances under which each variant is measured."""
    test: str = "generated:216:test"
    """Test objects, used neither in training nor in the choice of checkpoints."""

    def __post_init__(self) -> None:
        for name, known in (("variants", VARIANTS), ("disturbances", DISTURBANCES)):
            if unknown := sorted(set(getattr(self, name)) - set(known)):
                raise ValueError(f"{name}: no {unknown}; known: {list(known)}")


def bench_ablations(cfg: BenchAblationsCfg) -> dict[str, Any]:
    """Train and measure, print the table, write RUN/bench.json; return its content."""
    results: dict[str, Any] = {}
    if any(VARIANTS[name].stage == "student" for name in cfg.variants):
        find_compatible_checkpoint(cfg, "teacher")  # before anything is trained
    with Run.open(cfg.out, cfg, resumes=True) as run:
        for name in cfg.variants:
            variant = varied(cfg, VARIANTS[name], run.path / name.replace(" ", "_").replace(",", ""))
            train(variant)
            gc.collect()  # the learner's engine and buffers, which refer to each other, before the next ones are made
            checkpoint = load_checkpoint(Path(variant.out) / "last.zip")
            results[name] = {
                disturbance: measure(cfg, variant, checkpoint, disturbance) for disturbance in cfg.disturbances
            } | {"steps": checkpoint.state.num_timesteps}
            write_json(run.path / "bench.json", {"results": results, "facts": run.facts})
        show(cfg, results)
    return results


def varied(cfg: BenchAblationsCfg, variant: Variant, out: Path) -> TrainCfg:
    """Return the configuration that trains a variant."""
    plain: dict[str, Any] = {name: getattr(cfg, name) for name in TrainCfg.__dataclass_fields__}
    task = replace(
        cfg.task,
        reward=replace(cfg.task.reward, **variant.reward),
        camera=replace(cfg.task.camera, **variant.camera),
        **variant.task,
    )
    steps = cfg.num_envs * task.phase_steps[-1]
    plain |= {
        "stage": variant.stage,
        "task": task,
        "distillation": replace(cfg.distillation, **variant.distillation),
        "out": str(out),
    }
    own = configs.load(TrainCfg, "train", [f"recipe={variant.steps_as or variant.stage}"])
    plain |= {"iterations": max(2, round(1e6 * cfg.budget / steps))}
    plain |= {name: getattr(own, name) for name in ("init_std", "final_std", "target_kl")} | variant.train
    return TrainCfg(**plain)


def measure(cfg: BenchAblationsCfg, variant: TrainCfg, checkpoint: Checkpoint, disturbance: str) -> dict[str, Any]:
    """Return the successes with a hold of three seconds on objects of the test split."""
    rows = min(cfg.trials, 108)
    task = GraspTask(
        replace(variant.task, hold_s=3.0),
        HandSpec.load(cfg.hand, side=cfg.side),
        open_library(cfg.test),
        cfg.physics,
        rows,
        cfg.num_threads,
        cfg.seed,
        disturbance=disturbance,
        auto_reset=False,
        in_order=True,
    )
    outcomes = []
    for first in range(0, cfg.trials, rows):
        outcomes += play(task, ActorAgent(checkpoint.actor, task), range(first, first + rows))
    won = sum(outcome.success for outcome in outcomes[: cfg.trials])
    return success_summary(won, cfg.trials)


def show(cfg: BenchAblationsCfg, results: dict[str, Any]) -> None:
    """Print the table."""
    table = [("variant", "million steps", *cfg.disturbances)]
    for name, result in results.items():
        cells = []
        for disturbance in cfg.disturbances:
            low, high = (100 * end for end in result[disturbance]["wilson95"])
            cells.append(f"{100 * result[disturbance]['success_rate']:.1f} ({low:.1f} - {high:.1f})")
        table.append((name, f"{1e-6 * result['steps']:.2f}", *cells))
    print_table(table, f"{cfg.budget:g} million control steps each")
