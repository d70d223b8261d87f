"""Builds the learner of a training run: a new one, one that resumes, or one that starts from another run's policy."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dexgrasp import configs
from dexgrasp.policies.agents import registry
from dexgrasp.policies.agents.checkpoint import Checkpoint, load_checkpoint
from dexgrasp.policies.agents.registry import BELONGS_TO_POLICY
from dexgrasp.policies.algorithms.distillation import StudentPPO
from dexgrasp.policies.algorithms.ppo import GraspPPO
from dexgrasp.policies.networks.actor_critic import GraspPolicy
from dexgrasp.policies.run_directory import flat
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.task_cfg import TaskCfg

if TYPE_CHECKING:
    from dexgrasp.policies.training.train import TrainCfg

log = logging.getLogger("dexgrasp")


def make_learner(cfg: "TrainCfg", env: GraspVecEnv, path: Path, provenance: dict[str, Any] | None = None) -> GraspPPO:
    """Return a new learner, that of RUN/last.zip, or one that starts from another run's policy.

    `provenance`: plain facts for the manifest of every checkpoint.
    """
    last = path / "last.zip"
    resumes = cfg.resume == "auto" and last.is_file()
    options: dict[str, Any] = _options(cfg, env) | {"provenance": provenance}
    if cfg.stage == "teacher":
        learner = GraspPPO(env, **options)
    else:
        teacher = load_teacher(cfg, env.task.device)
        if cfg.init_from_teacher:
            options["hidden"] = teacher.hidden
        learner = StudentPPO(
            env,
            mix=cfg.distillation,
            iterations=cfg.iterations,
            teacher=teacher,
            history_encoder=cfg.history_encoder,
            **options,
        )
    if resumes:
        log.info("going on from %s", last)
        return learner.resume(last)
    if cfg.init_checkpoint:
        learner.start_from(find_compatible_checkpoint(cfg, "start"))
    elif isinstance(learner, StudentPPO):
        learner.start_from_teacher(copy=cfg.init_from_teacher)
    return learner


def load_teacher(cfg: "TrainCfg", device: torch.device | str = "cpu") -> GraspPolicy:
    """Return the policy that labels the student's observations."""
    return find_compatible_checkpoint(cfg, "teacher").policy.to(device)


def find_compatible_checkpoint(cfg: "TrainCfg", key: str) -> Checkpoint:
    """Return the checkpoint that `teacher` or `start` names, if it has the hand, the stage and the actions of `cfg`."""
    name, stage = getattr(cfg, key), "teacher" if key == "teacher" else cfg.stage
    if not name:
        raise FileNotFoundError(f"{key}: none is given; it is what `dexgrasp train stage={stage}` leaves in out=RUN")
    path = registry.find_policy(name, key, "checkpoint").path
    checkpoint = load_checkpoint(path)
    if checkpoint.stage != stage:
        raise ValueError(f"{key}: {path} is a {checkpoint.stage}, a {stage} is needed")
    there = {"hand": checkpoint.hand.name, "side": checkpoint.hand.side} | _action_semantics(checkpoint.task)
    here = {"hand": HandSpec.load(cfg.hand).name, "side": cfg.side} | _action_semantics(cfg.task)
    if differ := [f"{item}: {there[item]} there, {here[item]} here" for item in here if here[item] != there[item]]:
        raise ValueError(f"{key}: {checkpoint.path} was trained for something else ({', '.join(differ)})")
    return checkpoint


def _action_semantics(task: TaskCfg) -> dict[str, Any]:
    """Return the options of the task that decide the meaning of an action, by dotted key."""
    plain = configs.as_dict(task)
    return flat({name: plain[name] for name in BELONGS_TO_POLICY}, "task.")


def _use_bf16(cfg: "TrainCfg", env: GraspVecEnv) -> bool:
    """Whether the networks learn in half precision; auto: where the processor has instructions for bfloat16."""
    if cfg.precision != "auto":
        return cfg.precision == "bf16"
    if env.task.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _options(cfg: "TrainCfg", env: GraspVecEnv) -> dict[str, Any]:
    return {
        "hidden": cfg.hidden,
        "init_std": cfg.init_std,
        "learning_rate": cfg.learning_rate,
        "minibatches": cfg.num_minibatches,
        "num_epochs": cfg.num_epochs,
        "gamma": cfg.gamma,
        "target_kl": cfg.target_kl,
        "frozen_std": cfg.init_std if cfg.reproduce_release else 0.0,
        "final_std": cfg.final_std,
        "bf16": _use_bf16(cfg, env),
        "restarts": cfg.engine == "cpu",  # a reset of a few rows costs a GPU as much as one of all
        "seed": cfg.seed,
    }
