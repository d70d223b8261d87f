"""The learners of both stages: new, gone on with, or started from another run's policy."""

import logging
import math
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import configs
from policies import trained
from policies.checkpoint import load_checkpoint
from policies.curriculum import StudentPPO
from policies.networks import GraspPolicy
from policies.ppo import GraspPPO
from policies.runs import flat
from policies.student import StudentPolicy
from policies.trained import BELONGS_TO_POLICY
from sim.hands import HandSpec
from sim.task_cfg import TaskCfg
from sim.vec_env import GraspVecEnv

if TYPE_CHECKING:
    from policies.train import TrainCfg

log = logging.getLogger("dexgrasp")


def learner_of(cfg: "TrainCfg") -> type[GraspPPO]:
    """The class of the stage's learner."""
    return StudentPPO if cfg.stage == "student" else GraspPPO


def make_model(cfg: "TrainCfg", env: GraspVecEnv, path: Path) -> GraspPPO:
    """A new learner, that of RUN/last.zip, or one that starts from another run's policy."""
    last = path / "last.zip"
    if cfg.resume == "auto" and last.is_file():
        log.info("going on from %s", last)
        return _resumed(cfg, env, last)
    model = _student(cfg, env) if cfg.stage == "student" else GraspPPO(GraspPolicy, **_options(cfg, env))
    if cfg.start:
        before = read_learner(learner_of(cfg), known_policy(cfg, "start"), device="cpu")
        model.policy.load_state_dict(before.policy.state_dict())
        model.level = env.task.disturber.level = before.level
        model.policy.log_std.data.fill_(math.log(cfg.init_std))
        model.iteration = 1
    return model


def load_teacher(cfg: "TrainCfg", device: torch.device | str = "cpu") -> GraspPolicy:
    """The policy that labels what the student sees."""
    policy = read_learner(GraspPPO, known_policy(cfg, "teacher"), device=device).policy
    policy.set_training_mode(False)
    return policy


def known_policy(cfg: "TrainCfg", key: str) -> Path:
    """The checkpoint that `teacher` or `start` names, once it is known to be whole and of the same hand and task."""
    name, stage = getattr(cfg, key), "teacher" if key == "teacher" else cfg.stage
    if not name:
        raise FileNotFoundError(f"{key}: none is given; it is what `dexgrasp train stage={stage}` leaves in out=RUN")
    path = trained.find(name, key, "checkpoint").path
    made = load_checkpoint(path)
    if made.stage != stage:
        raise ValueError(f"{key}: {path} is a {made.stage}, a {stage} is needed")
    there = {"hand": made.hand.name, "side": made.hand.side} | _meaning(made.task)
    here = {"hand": HandSpec.load(cfg.hand).name, "side": cfg.side} | _meaning(cfg.task)
    if differ := [f"{item}: {there[item]} there, {here[item]} here" for item in here if here[item] != there[item]]:
        raise ValueError(f"{key}: {path} was trained for something else ({', '.join(differ)})")
    return path


def read_learner(kind: type[GraspPPO], path: Path, **options: Any) -> GraspPPO:
    """`kind.load`; a file that is damaged is a ValueError."""
    try:
        return kind.load(path, **options)
    except (AssertionError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a whole checkpoint of Stable-Baselines3: {error}") from error


def _meaning(task: TaskCfg) -> dict[str, Any]:
    """What of the task decides the meaning of an action, by dotted key."""
    plain = configs.as_dict(task)
    return flat({name: plain[name] for name in BELONGS_TO_POLICY}, "task.")


def _resumed(cfg: "TrainCfg", env: GraspVecEnv, last: Path) -> GraspPPO:
    model = read_learner(learner_of(cfg), last, env=env, device=env.task.device)
    model.bf16 = _half(cfg, env)
    if isinstance(model, StudentPPO):
        model.recall(last)
        model.teacher = load_teacher(cfg, env.task.device)
    return model.go_on()


def _student(cfg: "TrainCfg", env: GraspVecEnv) -> StudentPPO:
    teacher = load_teacher(cfg, env.task.device)
    options = _options(cfg, env)
    options["policy_kwargs"] |= {"layouts": env.task.layouts, "encoder": cfg.encoder}
    if cfg.copy:
        options["policy_kwargs"]["hidden"] = teacher.hidden
    model = StudentPPO(StudentPolicy, mix=cfg.mix, iterations=cfg.iterations, **options)
    if cfg.start:
        model.teacher = teacher
    else:
        model.meet(teacher, copy=cfg.copy)
    return model


def _half(cfg: "TrainCfg", env: GraspVecEnv) -> bool:
    """Whether the networks learn in half precision; auto: where the processor has instructions for bfloat16."""
    if cfg.precision != "auto":
        return cfg.precision == "half"
    if env.task.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _options(cfg: "TrainCfg", env: GraspVecEnv) -> dict[str, Any]:
    return {
        "env": env,
        "device": env.task.device,
        "learning_rate": cfg.learning_rate,
        "minibatches": cfg.minibatches,
        "n_epochs": cfg.epochs,
        "gamma": cfg.gamma,
        "target_kl": cfg.target_kl,
        "seed": cfg.seed,
        "bf16": _half(cfg, env),
        "restarts": cfg.engine == "cpu",  # a reset of a few rows costs a GPU as much as one of all
        "frozen_std": cfg.init_std if cfg.paper else 0.0,
        "final_std": cfg.final_std,
        "policy_kwargs": {"hidden": cfg.hidden, "init_std": cfg.init_std},
    }
