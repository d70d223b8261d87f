"""`dexgrasp train`: trains a teacher on privileged observations, or a student that imitates it from one camera.

RUN/last.zip        checkpoint of the last iteration; the command repeated with `out=RUN` resumes from it exactly
RUN/best.zip        checkpoint with the highest success rate on the validation objects
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
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat

from dexgrasp import configs
from dexgrasp.policies.algorithms.distillation import DistillationCfg
from dexgrasp.policies.algorithms.learner import Learner
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.networks.actor_critic import Encoder
from dexgrasp.policies.run_directory import Run
from dexgrasp.policies.training.callbacks import (
    CheckpointCallback,
    ConsoleCallback,
    ObjectCurriculum,
    ValidationCallback,
)
from dexgrasp.policies.training.learners import make_learner
from dexgrasp.policies.training.learning_curves import ProgressCsv, draw_curves
from dexgrasp.policies.training.profiling import ProfilerCallback
from dexgrasp.sim.engine.config import BUFFERS, EngineName, WarpCfg
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.objects import open_library, refuse_overlap, refuse_test_objects
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask, task_class
from dexgrasp.sim.task.task_cfg import TaskCfg
from dexgrasp.utils import distributed
from dexgrasp.utils.interrupt import StopRequest

MAY_DIFFER = ("iterations", "time_limit", "out", "num_threads", "resume", "plateau", *BUFFERS)
"""Options that may differ when a run is resumed."""
VALIDATION_HOLD_S = 1.5
"""Hold of every validation trial, whatever the training holds: success rates of all runs stay comparable."""

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
class TrainCfg:
    """Train a policy; the command repeated with its `out` resumes where it stopped."""

    stage: Literal["teacher", "student"] = "teacher"
    """teacher: observes contacts, forces, the whole object and its motion. student: proprioception and one camera."""
    hand: str = "allegro"
    """Hand: name of a folder of assets/hands, or a path."""
    side: Literal["right", "left"] = "right"
    """Side of the hand; a left hand is mirrored from the right one."""
    objects: str = "generated:1440"
    """Training objects: generated:N (made on first use), a library, or a folder of meshes; no test objects."""
    validation_objects: str = "generated:216:validation"
    """Objects on which the best checkpoint is chosen: none of the training and none of the test split."""
    disturbance: Literal["none", "mixed"] = "mixed"
    """mixed: objects are shifted, pushed, heavy or slippery, more strongly as success grows. none: undisturbed."""
    disturbance_step: float = 0.02
    """Growth of the disturbances' strength with an iteration of high success; their full strength is 1."""
    iterations: int = 400
    """Iterations: rollouts of one episode in every environment, each followed by an update."""
    time_limit_min: float = 0.0
    """Minutes after which this start ends; 0: no limit."""
    num_envs: int = 256
    """Environments of each process."""
    num_threads: int = 0
    """Threads of the physics; 0: all cores."""
    validation_interval: int = 25
    """Iterations between validations."""
    validation_trials: int = 216
    """Trials of each validation."""
    early_stop_patience: int = 0
    """Validations without a better success rate after which training ends; 0: never."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo. warp: MuJoCo Warp, rollouts and learning on a GPU; needs the extra `gpu`."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """BufferMonitor of engine=warp."""
    seed: int = 0
    """Seed of all random numbers."""
    out: str = ""
    """Run directory; empty: a new one under runs/."""
    resume: Literal["auto", "never"] = "auto"
    """auto: resume from RUN/last.zip where there is one. never: start anew."""
    init_checkpoint: str = ""
    """Policy of the same stage to start from: a shipped name, a run directory or a checkpoint file."""
    learning_rate: float = 3e-4
    """Learning rate at the start; it follows `target_kl` afterwards."""
    target_kl: float = 0.02
    """KL divergence of a minibatch step that the learning rate aims at; it falls to a third until the end."""
    num_epochs: int = 5
    """Passes over each rollout."""
    num_minibatches: int = 4
    """Minibatches of each pass over a rollout."""
    gamma: float = 0.99
    """Discount per control step."""
    init_std: float = 0.3
    """Standard deviation of the exploration at the start, in units of the action."""
    final_std: float = 0.0
    """Standard deviation to which exploration is limited at the end of `iterations`; 0: no limit."""
    hidden: tuple[int, ...] = (256, 128)
    """Widths of the hidden layers of actor and critic; a student with init_from_teacher=true has those of its teacher."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: networks compute in bfloat16 up to their last layers. auto: bf16 where the processor supports it."""
    teacher: str = ""
    """Teacher that the student imitates: a run, its best.zip, or a shipped teacher (HAND/teacher)."""
    init_from_teacher: bool = True
    """Initialise the student from the teacher where observation terms match."""
    history_encoder: Encoder = "conv"
    """Network that reads the student's history: lstm (the published method), conv or mlp."""
    distillation: DistillationCfg = field(default_factory=DistillationCfg)
    """Schedule of the student from imitation to reinforcement."""
    reproduce_release: bool = False
    """true: deviate from the paper as the published release does: exploration stays at `init_std`, rewards have no
    floor, the palm's position has no noise."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Task of the training; its hold is shorter than that of an evaluation."""
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
    """Train, or resume a run; returns the best validation of this start, the run directory and the last iteration."""
    torch.set_num_threads(1)  # the networks are small; the physics has its own threads
    torch.set_flush_denormal(True)
    check_objects(cfg)
    _join_ranks(cfg)
    cfg = reproduce_published_release(cfg) if cfg.reproduce_release else cfg
    if distributed.rank() > 0:
        result = _learn(cfg, Path(cfg.out), {})
    else:
        with Run.open(cfg.out, cfg, may_differ=MAY_DIFFER if _begun(cfg) else None) as run:
            result = _learn(cfg, run.path, run.facts)
    distributed.shutdown()
    return result


def check_objects(cfg: TrainCfg) -> None:
    """Raise ValueError where test objects would be used, or objects of the training for validation as well."""
    training, validation = open_library(cfg.objects), open_library(cfg.validation_objects)
    refuse_test_objects(training, f"objects={cfg.objects}")
    refuse_test_objects(validation, f"validation_objects={cfg.validation_objects}")
    refuse_overlap(training, validation)


def _learn(cfg: TrainCfg, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Run the learner of this rank; the first rank writes, with `facts` of the run in every checkpoint."""
    env = make_env(cfg)
    learner = make_learner(cfg, env, path, facts | {"config": configs.as_dict(cfg)})
    learner.set_logger(_logger(path, learner.num_timesteps))
    checkpoints = CheckpointCallback(path)
    validation = ValidationCallback(
        path, lambda: make_validation_task(cfg), cfg.validation_interval, cfg.early_stop_patience
    )
    profile = ProfilerCallback([checkpoints, validation])
    steps = env.num_envs * distributed.world_size() * learner.num_steps * cfg.iterations
    log.info("%s of %s: %d objects, %s", cfg.stage, cfg.hand, len(env.task.library), path)
    stop, unfinished = StopRequest("after this iteration"), steps > learner.num_timesteps
    console = ConsoleCallback(cfg.iterations, cfg.time_limit_min, stop)
    try:
        with stop if distributed.world_size() == 1 else nullcontext():  # several would not stop at the same iteration
            if unfinished:
                learner.learn(
                    steps, [ObjectCurriculum(cfg.disturbance_step), console, checkpoints, validation, profile]
                )
    finally:
        learner.logger.close()
    if distributed.rank() == 0 and (path / "progress.csv").is_file():
        draw_curves(path / "progress.csv", path / "curves.png")
    if stop.asked:
        raise KeyboardInterrupt(f"stopped after iteration {learner.iteration}, the same with out={path} goes on")
    if distributed.rank() == 0:
        print(summary(cfg, path, learner, done=steps <= learner.num_timesteps))
        if unfinished:
            print(f"{env.task.device.type.upper() + ' time':17}{profile}")
    return {"best": validation.best, "path": str(path), "iteration": learner.iteration}


def summary(cfg: TrainCfg, path: Path, learner: Learner, done: bool) -> str:
    """Return the last lines of a training: result, files, next commands."""
    best = "none yet"
    if (path / "best.zip").is_file():
        result = success_summary(round(learner.best_validation * cfg.validation_trials), cfg.validation_trials)
        low, high = (100 * end for end in result["wilson95"])
        count = f"{result['successes']} of {result['trials']} trials; 95 % interval {low:.1f} – {high:.1f} %"
        best = f"{100 * learner.best_validation:.1f} % ({count}): {path / 'best.zip'}"
    following = {
        "teacher": f"dexgrasp train recipe=student teacher={path}",
        "student": f"dexgrasp export policy={path} out={path / 'bundle'}",
    }[cfg.stage]
    more = f"the same command with out={path}" + (" and a greater iterations=" if done else "")
    return "\n".join(
        (
            f"iterations       {learner.iteration}; to go on: {more}",
            f"best validation  {best}",
            f"curves           {path / 'curves.png'}",
            f"next             dexgrasp evaluate policy={path}",
            f"                 {following}",
        )
    )


def reproduce_published_release(cfg: TrainCfg) -> TrainCfg:
    """Return the configuration with the deviations of the published RobustDexGrasp release from its paper.

    Exploration stays at `init_std`, rewards have no floor, the palm's position has no noise.
    """
    task = cfg.task
    reward, domain = replace(task.reward, floor=-math.inf), replace(task.randomization, palm_noise_m=0.0)
    return replace(cfg, final_std=0.0, task=replace(task, reward=reward, randomization=domain))


def make_env(cfg: TrainCfg) -> GraspVecEnv:
    """Return the training environments of this rank."""
    return GraspVecEnv(
        cfg.num_envs,
        objects=open_library(cfg.objects),
        hand=HandSpec.load(cfg.hand, side=cfg.side),
        obs="both",
        disturbance=cfg.disturbance,
        task=cfg.task,
        physics=cfg.physics,
        num_threads=cfg.num_threads or max(1, (os.cpu_count() or 1) // distributed.world_size()),
        engine=cfg.engine,
        warp=cfg.warp,
    )


def make_validation_task(cfg: TrainCfg) -> GraspTask:
    """Return the task of the validations, one trial per environment."""
    return task_class(cfg.task)(
        replace(cfg.task, hold_s=VALIDATION_HOLD_S),
        HandSpec.load(cfg.hand, side=cfg.side),
        open_library(cfg.validation_objects),
        cfg.physics,
        num_envs=cfg.validation_trials,
        num_threads=cfg.num_threads,
        auto_reset=False,
        in_order=True,
        engine=cfg.engine,
        warp=cfg.warp,
    )


def _begun(cfg: TrainCfg) -> bool:
    return bool(cfg.out) and cfg.resume == "auto" and Path(cfg.out, "last.zip").is_file()


def _logger(path: Path, steps: int) -> Logger:
    """Return the writer of RUN/progress.csv and, where it is installed, of TensorBoard; the first rank alone writes."""
    if distributed.rank() > 0:
        return Logger(str(path), [])
    formats: list[KVWriter] = [ProgressCsv(path / "progress.csv", steps)]
    try:
        formats.append(TensorBoardOutputFormat(str(path)))
    except AssertionError:  # its way to say that the package is missing
        log.info("TensorBoard is not installed, curves go to progress.csv alone; pip install 'dexgrasp[tensorboard]'")
    return Logger(str(path), formats)


def _join_ranks(cfg: TrainCfg) -> None:
    """Join the process group that torchrun describes in the environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if not cfg.out:
            raise ValueError("out: several processes need one run directory; give out=DIR")
        on_gpu = cfg.engine == "warp" and torch.cuda.is_available()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
