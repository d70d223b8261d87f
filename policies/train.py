"""`dexgrasp train`: a teacher that knows the simulator, or a student that learns from it what one camera can see.

RUN/last.zip        the policy after the last iteration; the same command with `out=RUN` goes on from it exactly
RUN/best.zip        the one that did best on objects that training does not know; both with a manifest inside
RUN/progress.csv    one row per iteration; RUN/curves.png draws it, `tensorboard --logdir RUN` shows it
"""

import logging
import math
import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

import configs
from policies import ranks
from policies.curriculum import MixCfg
from policies.curves import ProgressCsv, draw_curves
from policies.learners import make_model
from policies.milestones import Checkpoints, Console, ObjectCurriculum, Validation
from policies.ppo import GraspPPO
from policies.profiling import Profile
from policies.runs import Run
from policies.statistics import success_summary
from policies.stopping import StopRequest
from policies.student import Encoder
from sim.engines import BUFFERS, EngineName, WarpCfg
from sim.hands import HandSpec
from sim.objects import open_library
from sim.scene import PhysicsCfg
from sim.task_cfg import TaskCfg
from sim.vec_env import GraspVecEnv

MAY_DIFFER = ("iterations", "time_limit", "out", "num_threads", "resume", "plateau", *BUFFERS)
"""What a training run may change when it goes on."""

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
class TrainCfg:
    """Train a policy; the same command with the same `out` goes on where it stopped."""

    stage: Literal["teacher", "student"] = "teacher"
    """teacher: knows contacts, forces, the whole object and its motion. student: proprioception and one camera."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Which hand; left ones are mirrored."""
    objects: str = "generated:1440"
    """Training objects: generated:N (made on first use), a library, or a folder of meshes."""
    validation: str = "generated:216:validation"
    """Objects on which the best checkpoint is chosen."""
    disturbance: Literal["none", "mixed"] = "mixed"
    """mixed: objects are shifted, pushed, heavy or slippery, more so as success grows."""
    level_step: float = 0.02
    """By how much disturbances grow with an iteration that goes well; at 1 they have their full strength."""
    iterations: int = 400
    """Roll-outs, each of one episode in every environment."""
    time_limit: float = 0.0
    """Stop after so many minutes of this start; 0: only after `iterations`."""
    num_envs: int = 256
    """Episodes side by side, of each process."""
    num_threads: int = 0
    """Threads of the physics; 0 = all cores."""
    validate_every: int = 25
    """Iterations between validations."""
    validation_trials: int = 216
    """Trials of each validation."""
    plateau: int = 0
    """Stop after so many validations without a better one; 0: never."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo. warp: MuJoCo Warp on a GPU, with roll-outs and learning there; needs the extra `gpu`."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffers of engine=warp."""
    seed: int = 0
    """Seed of all chance."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from RUN/last.zip where there is one."""
    start: str = ""
    """Policy of the same stage to start from: a shipped name, a run directory or a checkpoint file."""
    learning_rate: float = 3e-4
    """At the start; it follows `target_kl` from there."""
    target_kl: float = 0.02
    """KL divergence of a minibatch step that the learning rate aims at, at the start; a third of it at the end."""
    epochs: int = 5
    """Passes over each roll-out."""
    minibatches: int = 4
    """Parts of each pass."""
    gamma: float = 0.99
    """Discount per control step."""
    init_std: float = 0.3
    """Exploration at the start, in units of the action."""
    final_std: float = 0.0
    """To what it is brought down by the end of `iterations`; 0: it is left to what is learnt."""
    hidden: tuple[int, ...] = (256, 128)
    """Widths of actor and critic; those of the teacher for a student that starts as it."""
    precision: Literal["auto", "single", "half"] = "auto"
    """half: the networks learn in bfloat16, but for their last layers; auto: where the processor computes in it."""
    teacher: str = ""
    """Whom the student imitates: the best.zip of a teacher's run."""
    copy: bool = True
    """Whether the student starts as its teacher, as far as both know the same."""
    encoder: Encoder = "conv"
    """How the student reads its history: lstm (the published method), conv or mlp."""
    mix: MixCfg = field(default_factory=MixCfg)
    """How the student goes over from imitation to reinforcement."""
    paper: bool = False
    """true: the slips of the published release as they are there: exploration frozen at `init_std`, rewards without
    their floor, no noise of the palm's position."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """The task; training holds for a shorter time than evaluation."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""

    def __post_init__(self) -> None:
        ones = ("iterations", "num_envs", "epochs", "minibatches", "validate_every", "validation_trials")
        zeros = ("num_threads", "plateau", "time_limit", "seed", "final_std", "level_step")
        for name, least in (*((name, 1) for name in ones), *((name, 0) for name in zeros)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "target_kl", "init_std"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must lie between 0 and 1, got {self.gamma}")


def train(cfg: TrainCfg) -> dict[str, Any]:
    """Train, or go on; returns the best validation and where the policies are."""
    torch.set_num_threads(1)  # the networks are small; the physics has its own threads
    torch.set_flush_denormal(True)
    _join_ranks(cfg)
    cfg = as_released(cfg) if cfg.paper else cfg
    if ranks.index() > 0:
        result = _learn(cfg, Path(cfg.out), {})
    else:
        with Run.open(cfg.out, cfg, may_differ=MAY_DIFFER if _begun(cfg) else None) as run:
            result = _learn(cfg, run.path, run.facts)
    ranks.part()
    return result


def _learn(cfg: TrainCfg, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What every rank does; the first one writes, `facts` of the run among it."""
    env = make_env(cfg)
    model = make_model(cfg, env, path)
    model.made_by = facts | {"config": configs.as_dict(cfg)}
    model.set_logger(_logger(path, model.num_timesteps))
    validation, checkpoints = Validation(path, cfg), Checkpoints(path)
    profile = Profile([checkpoints, validation])
    steps = env.num_envs * ranks.count() * model.n_steps * cfg.iterations
    log.info("%s of %s: %d objects, %s", cfg.stage, cfg.hand, len(env.task.library), path)
    stop, left = StopRequest("after this iteration"), max(steps - model.num_timesteps, 0)
    console = Console(cfg.iterations, cfg.time_limit, stop)
    callbacks = [ObjectCurriculum(cfg.level_step), console, checkpoints, validation, profile]
    try:
        with stop if ranks.count() == 1 else nullcontext():  # several would not stop at the same iteration
            if left:
                model.learn(left, CallbackList(callbacks), log_interval=1, reset_num_timesteps=False)
    finally:
        model.logger.close()
    if ranks.index() == 0 and (path / "progress.csv").is_file():
        draw_curves(path / "progress.csv", path / "curves.png")
    if stop.asked:
        raise KeyboardInterrupt(f"stopped after iteration {model.iteration}, the same with out={path} goes on")
    if ranks.index() == 0:
        print(summary(cfg, path, model, done=steps <= model.num_timesteps))
        if left:
            print(f"{env.task.device.type.upper() + ' time':17}{profile}")
    return {"best": validation.best, "path": str(path), "iteration": model.iteration}


def summary(cfg: TrainCfg, path: Path, model: GraspPPO, done: bool) -> str:
    """The last lines: how it went, where things are, what comes next."""
    best = "none yet"
    if (path / "best.zip").is_file():
        result = success_summary(round(model.best * cfg.validation_trials), cfg.validation_trials)
        low, high = (100 * end for end in result["wilson95"])
        count = f"{result['successes']} of {result['trials']} trials; 95 % interval {low:.1f} – {high:.1f} %"
        best = f"{100 * model.best:.1f} % ({count}): {path / 'best.zip'}"
    following = {
        "teacher": f"dexgrasp train stage=student teacher={path}",
        "student": f"dexgrasp export policy={path} out={path / 'bundle'}",
    }[cfg.stage]
    more = f"the same command with out={path}" + (" and a greater iterations=" if done else "")
    return "\n".join(
        (
            f"iterations       {model.iteration}; to go on: {more}",
            f"best validation  {best}",
            f"curves           {path / 'curves.png'}",
            f"next             dexgrasp evaluate policy={path}",
            f"                 {following}",
        )
    )


def as_released(cfg: TrainCfg) -> TrainCfg:
    """The configuration with the slips of the published release (method page, section 7)."""
    task = cfg.task
    reward, domain = replace(task.reward, floor=-math.inf), replace(task.randomize, palm_noise_m=0.0)
    return replace(cfg, final_std=0.0, task=replace(task, reward=reward, randomize=domain))


def make_env(cfg: TrainCfg) -> GraspVecEnv:
    """The training environments of this rank."""
    return GraspVecEnv(
        cfg.num_envs,
        objects=open_library(cfg.objects),
        hand=HandSpec.load(cfg.hand, side=cfg.side),
        obs="both",
        disturbance=cfg.disturbance,
        task=cfg.task,
        physics=cfg.physics,
        num_threads=cfg.num_threads or max(1, (os.cpu_count() or 1) // ranks.count()),
        engine=cfg.engine,
        warp=cfg.warp,
    )


def _begun(cfg: TrainCfg) -> bool:
    return bool(cfg.out) and cfg.resume == "auto" and Path(cfg.out, "last.zip").is_file()


def _logger(path: Path, steps: int) -> Logger:
    """RUN/progress.csv and TensorBoard, of the first rank."""
    formats = (
        [ProgressCsv(path / "progress.csv", steps), TensorBoardOutputFormat(str(path))] if not ranks.index() else []
    )
    return Logger(str(path), formats)


def _join_ranks(cfg: TrainCfg) -> None:
    """torchrun tells each process of the others by its environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if not cfg.out:
            raise ValueError("out: several processes need one run directory; give out=DIR")
        on_gpu = cfg.engine == "warp" and torch.cuda.is_available()
        ranks.join("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
