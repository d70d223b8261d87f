"""What happens between the iterations of training, as callbacks of Stable-Baselines3."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from dexgrasp.utils.interrupt import StopRequest
from policies import ranks
from policies.actor_policy import ActorPolicy
from policies.attempts import play
from policies.statistics import success_summary
from sim.objects import open_library
from sim.objects.weighting import sampling_weights
from sim.task import GraspTask, task_class

if TYPE_CHECKING:
    from policies.ppo import GraspPPO
    from policies.train import TrainCfg

FORGET = 0.98
"""Old trials of an object count this much less with every iteration."""
RAISE_AT, LOWER_AT = 0.75, 0.65
"""Disturbances grow by a step while objects succeed this often, each counted alike, and shrink below the second."""
LEARNT = ("rho", "imitation", "reconstruction")
"""What a student's line shows beside."""
REWARDS = ("reach", "contact", "lift", "success")
"""Terms of the reward on the printed line; all of them are in progress.csv."""

log = logging.getLogger("dexgrasp")


class Milestone(BaseCallback):
    """Acts between iterations."""

    model: "GraspPPO"  # pyright: ignore[reportIncompatibleVariableOverride]
    _acted = -1  # after this iteration

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._act()

    def _on_training_end(self) -> None:
        self._act()

    def _act(self) -> None:
        if self.model.iteration_stats and self.model.iteration != self._acted:
            self._acted = self.model.iteration
            self.between()

    def between(self) -> None:
        """An iteration has ended."""


class ObjectCurriculum(Milestone):
    """Hard objects come more often, and disturbances grow with success."""

    def __init__(self, level_step: float) -> None:
        """`level_step`: by how much disturbances grow or shrink with an iteration."""
        super().__init__()
        self._level_step = level_step

    def _on_rollout_end(self) -> None:
        task, counts = self.model.env.task, self.model.mastery
        index = {name: i for i, name in enumerate(task.library.names)}
        if counts is None:
            counts = np.zeros((2, len(index)))
        now = np.zeros_like(counts)
        for outcome in self.model.outcomes:
            now[:, index[outcome.object]] += outcome.success, 1
        self.model.opened_with = (task.object_weights, task.disturber.level)  # the next episodes are open already
        self.model.mastery = FORGET * counts + ranks.total(torch.from_numpy(now)).numpy()
        task.object_weights = sampling_weights(task.library.entries, *self.model.mastery)
        tried = self.model.mastery[1] > 0
        won = (self.model.mastery[0, tried] / self.model.mastery[1, tried]).mean()
        step = self._level_step * (int(won > RAISE_AT) - int(won < LOWER_AT))
        self.model.level = task.disturber.level = float(np.clip(self.model.level + step, 0.0, 1.0))
        self.logger.record("curriculum/disturbance", self.model.level)
        self.logger.record("curriculum/mastery", won)


class Console(Milestone):
    """One aligned line per iteration; the time limit, and the wish to stop."""

    def __init__(self, iterations: int, time_limit_min: float, stop: StopRequest) -> None:
        super().__init__()
        self._iterations, self._limit_s, self._stop = iterations, 60 * time_limit_min, stop

    def _on_training_start(self) -> None:
        self._start_s, self._first = time.monotonic(), self.model.iteration
        self._steps = self.model.num_timesteps
        self._acted = self._first  # a run that goes on has printed it

    def _on_step(self) -> bool:
        opens = self.n_calls % self.model.n_steps == 1  # nothing is lost: an iteration that goes on opens these again
        begun = opens and self.model.iteration > self._first
        late = self._limit_s and time.monotonic() - self._start_s > self._limit_s
        return not (begun and (late or self._stop.asked))

    def between(self) -> None:
        """Print the line."""
        if ranks.index():
            return
        model, stats = self.model, self.model.iteration_stats
        passed_s = time.monotonic() - self._start_s
        rate_hz = (model.num_timesteps - self._steps) / passed_s
        left_s = passed_s * (self._iterations - model.iteration) / max(model.iteration - self._first, 1)
        left_s = min(left_s, self._limit_s - passed_s) if self._limit_s else left_s
        terms = " ".join(f"{name} {stats[name]:+5.2f}" for name in REWARDS)
        learnt = "".join(
            f"{name} {stats[name]:.3f}  " for name in ("rho", "imitation", "reconstruction") if name in stats
        )
        print(
            f"{model.iteration:5d}  {1e-6 * model.num_timesteps:6.2f} M  success {stats['won']:.3f}  "
            f"return {stats['return']:6.2f} ({terms})  disturbed {model.level:.2f}  kl {stats.get('kl', 0.0):.3f}  "
            f"std {stats.get('std', 0.0):.3f}  {learnt}lr {model.lr:.0e}  {rate_hz:6,.0f}/s  "
            f"left {max(left_s, 0) // 60:3.0f} min",
            flush=True,
        )


class Checkpoints(Milestone):
    """RUN/last.zip, at most once a minute, and at the end."""

    def __init__(self, path: Path, period_s: float = 60.0) -> None:
        super().__init__()
        self._path, self._period_s, self._saved_s = path, period_s, time.monotonic()

    def between(self) -> None:
        """Save."""
        if ranks.index() == 0 and time.monotonic() - self._saved_s > self._period_s:
            self.model.checkpoint(self._path / "last.zip")
            self._saved_s = time.monotonic()

    def _on_training_end(self) -> None:
        if ranks.index() == 0:
            self.model.checkpoint(self._path / "last.zip")


class Validation(Milestone):
    """Success of the deterministic policy on objects that training does not know; RUN/best.zip."""

    def __init__(self, path: Path, cfg: "TrainCfg") -> None:
        super().__init__()
        self._path, self._cfg = path, cfg
        self._task: GraspTask | None = None
        self.best: dict[str, Any] = {}
        """The best validation so far."""
        self._since = 0

    def between(self) -> None:
        """Validate, and keep the policy if it is the best."""
        if ranks.index() == 0 and self.model.iteration % self._cfg.validate_every == 0:
            self._validate()

    def _on_step(self) -> bool:
        return not (self._cfg.plateau and self._since >= self._cfg.plateau)

    def _validate(self) -> None:
        won = validate(self.model, self._task or self._make_task())
        result = success_summary(won, self._cfg.validation_trials) | {"iteration": self.model.iteration}
        log.info("validation: %d of %d, %.1f %%", won, self._cfg.validation_trials, 100 * result["success_rate"])
        self.logger.record("validation/success", result["success_rate"])
        self._since += 1
        if result["success_rate"] >= self.model.best:
            self.model.best, self.best, self._since = result["success_rate"], result, 0
            self.model.save(self._path / "best.zip")

    def _make_task(self) -> GraspTask:
        cfg = self._cfg
        self._task = task_class(cfg.task)(
            replace(cfg.task, hold_s=1.5),
            self.model.env.task.hand,
            open_library(cfg.validation),
            cfg.physics,
            num_envs=cfg.validation_trials,
            num_threads=cfg.num_threads,
            auto_reset=False,
            in_order=True,
            engine=cfg.engine,
            warp=cfg.warp,
        )
        return self._task


def validate(model: "GraspPPO", task: GraspTask) -> int:
    """Successes in one trial of every environment of `task`."""
    model.policy.set_training_mode(False)
    policy = ActorPolicy(model.policy.actor, task)
    return sum(outcome.success for outcome in play(task, policy, range(task.num_envs)))
