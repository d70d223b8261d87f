"""`dexgrasp train`: training of a teacher on privileged observations, or of a student.

RUN/last.zip        checkpoint of the last iteration; the command repeated with `out=RUN` resumes from it exactly
RUN/best.zip        checkpoint with the highest success rate on the validation objects
RUN/progress.csv    one row per iteration; RUN/curves.png draws it, `tensorboard --logdir RUN` shows it; tracker=wandb
                    also sends it to Weights & Biases

Builds the learner of a training run: a new one, one that resumes, or one that starts from another run's policy.
"""

import logging
import os
import shlex
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from stable_baselines3.common.logger import KVWriter, Logger

from dexgrasp import configs
from dexgrasp.policies.agents import registry
from dexgrasp.policies.agents.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from dexgrasp.policies.agents.location import demand_checkpoint
from dexgrasp.policies.agents.registry import BELONGS_TO_POLICY
from dexgrasp.policies.algorithms.distillation import StudentPPO
from dexgrasp.policies.algorithms.learner import Learner
from dexgrasp.policies.algorithms.ppo import GraspPPO
from dexgrasp.policies.evaluation.conditions import results_camera
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.input_identity import identify_inputs
from dexgrasp.policies.networks.actor_critic import GraspPolicy
from dexgrasp.policies.run_directory import Run, flat
from dexgrasp.policies.training.callbacks import (
    CheckpointCallback,
    ConsoleCallback,
    ObjectCurriculum,
    ProfilerCallback,
    ValidationCallback,
)
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.learning_curves import ProgressCsv, draw_curves
from dexgrasp.policies.training.trackers import make_tracker
from dexgrasp.sim.engine.config import BUFFERS
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.objects import open_library, refuse_overlap, refuse_test_objects
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg, task_class
from dexgrasp.utils import distributed
from dexgrasp.utils.interrupt import StopRequest
from dexgrasp.utils.text import counted

log = logging.getLogger("dexgrasp")


def make_learner(cfg: TrainCfg, env: GraspVecEnv, path: Path, provenance: dict[str, Any] | None = None) -> GraspPPO:
    """Return a new learner, that of RUN/last.zip, or one that starts from another run's policy.

    `provenance`: plain facts for the manifest of every checkpoint.
    """
    last = path / "last.zip"
    resumes = cfg.resume == "auto" and last.is_file()
    options: dict[str, Any] = _options(cfg, env) | {"provenance": provenance}
    if cfg.stage == "teacher":
        learner = GraspPPO(env, **options)
    else:
        teacher = load_teacher(cfg, env.task)
        if cfg.init_from_teacher:
            options["hidden"] = teacher.hidden
        learner = StudentPPO(
            env,
            distillation=cfg.distillation,
            iterations=cfg.iterations,
            teacher=teacher,
            encoder=cfg.history_encoder,
            **options,
        )
    learner.first_iteration = first_iteration(cfg)
    if resumes:
        log.info("going on from %s", last)
        return learner.resume(last)
    if cfg.stage == "student" and (warning := cfg.distillation.missing_imitation(cfg.iterations)):
        log.warning(warning)
    if cfg.init_checkpoint:
        learner.start_from(find_compatible_checkpoint(cfg, "init_checkpoint"))
    elif isinstance(learner, StudentPPO):
        log.info("the teacher plays the first episode, which sets the scales of the student's observations")
        learner.start_from_teacher(copy=cfg.init_from_teacher)
    return learner


def first_iteration(cfg: TrainCfg) -> int:
    """Return the number of the first rollout: 1 where another policy has set the scales, else 0."""
    return int(cfg.stage == "student" or bool(cfg.init_checkpoint))


def load_teacher(cfg: TrainCfg, task: GraspTask) -> GraspPolicy:
    """Return the policy that labels the student's observations in `task`."""
    checkpoint = find_compatible_checkpoint(cfg, "teacher")
    registry.demand_observations(checkpoint, task, "teacher")
    return checkpoint.policy.to(task.device)


def find_compatible_checkpoint(cfg: TrainCfg, key: str) -> Checkpoint:
    """Return the checkpoint that the option `teacher` or `init_checkpoint` names.

    Raises ValueError if its hand, stage or actions differ from those of `cfg`.
    """
    name, stage = getattr(cfg, key), "teacher" if key == "teacher" else cfg.stage
    path = demand_checkpoint(name, key, stage, cfg.stage)
    try:
        checkpoint = load_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if checkpoint.stage != stage:
        raise ValueError(f"{key}: {path} is a {checkpoint.stage}, a {stage} is needed")
    there: dict[str, Any] = {"hand": checkpoint.hand.name, "side": checkpoint.hand.side}
    there |= _action_semantics(checkpoint.task)
    here = {"hand": HandSpec.load(cfg.hand).name, "side": cfg.side} | _action_semantics(cfg.task)
    if keys := [item for item in here if here[item] != there[item]]:
        differ = ", ".join(f"{item}: {there[item]} there, {here[item]} here" for item in keys)
        wanted = flat(configs.as_dict(checkpoint.task), "task.") | checkpoint.training["config"]
        words = shlex.join(f"{item}={configs.typed(wanted[item])}" for item in keys)
        raise ValueError(
            f"{key}: {checkpoint.path} was trained for something else ({differ}): give {words}, or another {key}"
        )
    return checkpoint


def _action_semantics(task: TaskCfg) -> dict[str, Any]:
    """Return the options of the task that decide the meaning of an action, by dotted key."""
    plain = configs.as_dict(task)
    return flat({name: plain[name] for name in BELONGS_TO_POLICY}, "task.")


def _use_bf16(cfg: TrainCfg, env: GraspVecEnv) -> bool:
    """Return whether the networks learn in half precision; auto: if the processor supports bfloat16."""
    if cfg.precision != "auto":
        return cfg.precision == "bf16"
    if env.task.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _options(cfg: TrainCfg, env: GraspVecEnv) -> dict[str, Any]:
    return {
        "hidden": cfg.hidden,
        "init_std": cfg.init_std,
        "learning_rate": cfg.learning_rate,
        "num_minibatches": cfg.num_minibatches,
        "num_epochs": cfg.num_epochs,
        "gamma": cfg.gamma,
        "target_kl": cfg.target_kl,
        "frozen_std": cfg.init_std if cfg.reproduce_release else 0.0,
        "final_std": cfg.final_std,
        "bf16": _use_bf16(cfg, env),
        "restarts": cfg.engine == "cpu",  # a reset of a few rows costs a GPU as much as one of all
        "seed": cfg.seed,
    }


MAY_DIFFER = (
    *("iterations", "time_limit_min", "out", "num_threads", "resume", "early_stop_patience", "tracker"),
    *BUFFERS,
)
"""Options that may differ when a run is resumed."""

NO_FLOOR = -1000.0
"""Floor of rewards that no step reaches: every term is capped, but for palm speed and actions, which are small."""

VALIDATION_HOLD_S = 1.5
"""Hold of every validation trial, whatever the training holds: success rates of all runs stay comparable."""


def train(cfg: TrainCfg) -> dict[str, Any]:
    """Train or resume; return the best validation of this start, the run directory and last iteration."""
    torch.set_num_threads(1)  # the networks are small; the physics has its own threads
    torch.set_flush_denormal(True)
    if int(os.environ.get("RANK", distributed.rank())) > 0:
        result = _learn(_checked(cfg), Path(cfg.out), {})
    else:
        with Run.claim(cfg.out, TrainCfg, anew=cfg.resume == "never", resumes=True) as run:
            begun = cfg.resume == "auto" and any((run.path / name).is_file() for name in ("last.zip", "best.zip"))
            if begun:  # before policies and objects are read
                run.refuse_other_options(reproduce_published_release(cfg) if cfg.reproduce_release else cfg, MAY_DIFFER)
                _log_finished(cfg, run.path / "last.zip")
            cfg = _checked(cfg)
            run.record(cfg, inputs=identify_inputs(cfg), may_differ=MAY_DIFFER if begun else None)
            result = _learn(cfg, run.path, run.facts)
    distributed.shutdown()
    return result


def _log_finished(cfg: TrainCfg, last: Path) -> None:
    """Log where a run has all its iterations: what follows reads and checks it, and trains nothing."""
    if last.is_file():
        done = read_checkpoint(last).state.iteration - first_iteration(cfg)
        if done >= cfg.iterations:
            log.info("finished: %d of %s were run; nothing is trained", done, counted(cfg.iterations, "iteration"))


def _checked(cfg: TrainCfg) -> TrainCfg:
    """Check policies and objects, join the other processes, and return the configuration that is trained."""
    check_policies(cfg)
    check_objects(cfg)
    _join_ranks(cfg)
    return reproduce_published_release(cfg) if cfg.reproduce_release else cfg


def check_policies(cfg: TrainCfg) -> None:
    """Raise ValueError or OSError where teacher or init_checkpoint is missing or does not fit."""
    if cfg.stage == "student":
        find_compatible_checkpoint(cfg, "teacher")
    if cfg.init_checkpoint:
        find_compatible_checkpoint(cfg, "init_checkpoint")


def check_objects(cfg: TrainCfg) -> None:
    """Raise ValueError if test objects would be used, or training objects for validation."""
    training, validation = open_library(cfg.objects), open_library(cfg.validation_objects)
    refuse_test_objects(training, f"objects={cfg.objects}")
    refuse_test_objects(validation, f"validation_objects={cfg.validation_objects}")
    refuse_overlap(training, validation)


def _learn(cfg: TrainCfg, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Run the learner of this rank; the first rank writes, with `facts` of the run in every checkpoint."""
    with ExitStack() as opened:
        tracker = make_tracker(cfg, path) if distributed.rank() == 0 else None  # first: it may refuse
        if tracker is not None:
            opened.callback(tracker.close)
        env = make_env(cfg)
        learner = make_learner(cfg, env, path, facts | {"config": configs.as_dict(cfg)})
        learner.set_logger(_logger(path, tracker, learner.num_timesteps))
        opened.pop_all()  # the logger closes the tracker
    checkpoints = CheckpointCallback(path)
    validation = ValidationCallback(
        path, lambda: make_validation_task(cfg), cfg.validation_interval, cfg.early_stop_patience
    )
    profile = ProfilerCallback([checkpoints, validation])
    steps = env.num_envs * distributed.world_size() * learner.num_steps * cfg.iterations
    log.info("%s of %s: %s, %s", cfg.stage, cfg.hand, counted(len(env.task.library), "object"), path)
    stop, unfinished = StopRequest("after this iteration"), steps > learner.num_timesteps
    console = ConsoleCallback(cfg.iterations, cfg.time_limit_min, stop)
    try:
        with stop if distributed.world_size() == 1 else nullcontext():  # several would not stop at the same iteration
            if unfinished:
                learner.learn(
                    steps, [ObjectCurriculum(cfg.disturbance_step), console, validation, checkpoints, profile]
                )
    finally:
        learner.logger.close()
    if distributed.rank() == 0 and (path / "progress.csv").is_file():
        draw_curves(path / "progress.csv", path / "curves.png")
    if stop.asked:
        raise KeyboardInterrupt(
            f"stopped after iteration {learner.iterations_run}; the same command with out={path} goes on"
        )
    if distributed.rank() == 0:
        print(summary(cfg, path, learner, done=steps <= learner.num_timesteps))
        if unfinished:
            print(f"{env.task.device.type.upper() + ' time':17}{profile}")
            print(f"{'speed':17}{console.steps_per_cpu_s:,.0f} control steps per CPU second")
    return {"best": validation.best, "path": str(path), "iteration": learner.iterations_run}


def summary(cfg: TrainCfg, path: Path, learner: Learner, done: bool) -> str:
    """Return the last lines of a training: result, files, next commands."""
    best = "none yet"
    if (path / "best.zip").is_file():
        result = success_summary(round(learner.best_validation * cfg.validation_trials), cfg.validation_trials)
        low, high = (100 * end for end in result["wilson95"])
        count = f"{result['successes']} of {counted(result['trials'], 'trial')}; 95 % interval {low:.1f} – {high:.1f} %"
        best = f"{100 * learner.best_validation:.1f} % ({count}): {path / 'best.zip'}"
    plugins = [f"plugins={configs.typed(cfg.plugins)}"] if cfg.plugins else []
    preset = results_camera(configs.as_dict(cfg.task.camera), prescribed=cfg.stage == "student")
    camera = [f"camera={preset}"] if preset else []
    following = {
        "teacher": ["train", "recipe=student", f"teacher={path}", *student_options(cfg), *plugins],
        "student": ["export", f"policy={path}", f"out={path / 'bundle'}", *plugins],
    }[cfg.stage]
    more = f"the same command with out={path}" + (
        " and a greater iterations= (limits of std and kl are stretched)" if done else ""
    )
    return "\n".join(
        (
            f"iterations       {learner.iterations_run}; to go on: {more}",
            f"best validation  {best}",
            f"curves           {path / 'curves.png'}",
            f"next             {shlex.join(['dexgrasp', 'evaluate', f'policy={path}', *camera, *plugins])}",
            f"                 {shlex.join(['dexgrasp', *following])}",
        )
    )


def student_options(cfg: TrainCfg) -> list[str]:
    """Return the `key=value` words for a student of a teacher `cfg`: hand, task class, actions.

    Values that `recipe=student` has by itself are left out.
    """
    usual = flat(configs.as_dict(configs.load(TrainCfg, "train", ["recipe=student"])))
    given = flat(configs.as_dict(cfg))
    keys = ["hand", "side", "task.class_name", *_action_semantics(cfg.task)]
    return [f"{key}={configs.typed(given[key])}" for key in keys if given[key] != usual[key]]


def reproduce_published_release(cfg: TrainCfg) -> TrainCfg:
    """Return the configuration with the deviations of the published RobustDexGrasp release from its paper.

    Exploration stays at `init_std`, rewards have no floor, the palm's position has no noise.
    """
    task = cfg.task
    reward, domain = replace(task.reward, floor=NO_FLOOR), replace(task.randomization, palm_noise_m=0.0)
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


def _logger(path: Path, tracker: KVWriter | None, steps: int) -> Logger:
    """Return the writer of RUN/progress.csv and of the tracker; the first rank alone writes."""
    if distributed.rank() > 0:
        return Logger(str(path), [])
    formats: list[KVWriter] = [ProgressCsv(path / "progress.csv", steps), *([tracker] if tracker else [])]
    return Logger(str(path), formats)


def _join_ranks(cfg: TrainCfg) -> None:
    """Join the process group that torchrun describes in the environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if not cfg.out:
            raise ValueError("out: several processes need one run directory; give out=DIR")
        on_gpu = cfg.engine == "warp" and torch.cuda.is_available()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
