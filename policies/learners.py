"""The learners of both stages: new, gone on with, or started from another run's policy."""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.curriculum import StudentPPO
from policies.networks import GraspPolicy
from policies.ppo import GraspPPO
from policies.student import StudentPolicy
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
        before = learner_of(cfg).load(cfg.start, device="cpu")
        model.policy.load_state_dict(before.policy.state_dict())
        model.level = env.task.disturber.level = before.level
        model.policy.log_std.data.fill_(math.log(cfg.init_std))
        model.iteration = 1
    return model


def load_teacher(cfg: "TrainCfg") -> GraspPolicy:
    """The policy that labels what the student sees."""
    if not Path(cfg.teacher).is_file():
        raise FileNotFoundError(
            f"teacher: '{cfg.teacher}' is not a file; a student needs the best.zip of `dexgrasp train stage=teacher`"
        )
    policy = GraspPPO.load(cfg.teacher, device="cpu").policy
    policy.set_training_mode(False)
    return policy


def _resumed(cfg: "TrainCfg", env: GraspVecEnv, last: Path) -> GraspPPO:
    model = learner_of(cfg).load(last, env=env)
    if isinstance(model, StudentPPO):
        model.recall(last)
        model.teacher = load_teacher(cfg)
    return model.go_on()


def _student(cfg: "TrainCfg", env: GraspVecEnv) -> StudentPPO:
    teacher = load_teacher(cfg)
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


def _options(cfg: "TrainCfg", env: GraspVecEnv) -> dict[str, Any]:
    return {
        "env": env,
        "learning_rate": cfg.learning_rate,
        "minibatches": cfg.minibatches,
        "n_epochs": cfg.epochs,
        "gamma": cfg.gamma,
        "target_kl": cfg.target_kl,
        "seed": cfg.seed,
        "frozen_std": cfg.init_std if cfg.paper else 0.0,
        "policy_kwargs": {"hidden": cfg.hidden, "init_std": cfg.init_std},
    }
