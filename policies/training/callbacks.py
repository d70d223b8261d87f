"""Callbacks of training: curriculum, progress line, checkpoints, validation, profile.

Profile of training: shares of CPU or GPU time, printed at the end and logged as profile/*.

Sampling weights of training objects: objects that fail often are drawn more often, every object keeps a floor.

probability = floor / n + (1 - floor) (share of the difficulty, mixed with the share of the failures)
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.algorithms.learner import IterationCallback, Learner
from dexgrasp.policies.evaluation.episodes import BlockProgress, play
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.sim.objects.library import ObjectEntry
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.utils import distributed
from dexgrasp.utils.interrupt import StopRequest
from dexgrasp.utils.progress import Interval
from dexgrasp.utils.timers import Stopwatch, cpu_seconds, device_clock

PARTS = ("physics", "task", "policy", "update", "aside")
"""Physics steps; observations, rewards, camera and resets; networks in the rollout; updates; everything else."""


class ProfilerCallback(IterationCallback):
    """Profiler of training: shares of its parts in CPU time, or in time on a GPU.

    It must be the last callback. On a GPU `policy` is the whole rollout: to time physics and task in it, the host would
    wait in every control step.
    """

    def __init__(self, aside: Sequence[IterationCallback]) -> None:
        """`aside`: callbacks whose work after an iteration counts as `aside`, not as update."""
        self._watch, self._aside = Stopwatch(), aside

    def on_training_start(self, learner: Learner) -> None:
        """Start the time measurement."""
        env = learner.env
        watch = self._watch = Stopwatch(device_clock(env.task.device))
        if env.task.device.type == "cpu":
            watch.wrap(env.task.engine, "step", "physics")
            for method in ("step", "reset"):
                watch.wrap(env.streams, method, "task")
        for callback in self._aside:
            for method in ("on_iteration_end", "on_iteration_logged"):
                watch.wrap(callback, method, "aside")
        self._part = watch.timing("aside")
        self._part.__enter__()

    def on_rollout_start(self, learner: Learner) -> None:
        """Log the shares so far; time from here on counts as rollout."""
        self._turn("policy")
        for part, share in self.shares().items():
            learner.logger.record(f"profile/{part}", share)

    def on_rollout_end(self, learner: Learner) -> None:
        """Count time from here on as update."""
        self._turn("update")

    def on_training_end(self, learner: Learner) -> None:
        """Stop the time measurement."""
        self._part.__exit__(None, None, None)

    def _turn(self, part: str) -> None:
        self._part.__exit__(None, None, None)
        self._part = self._watch.timing(part)
        self._part.__enter__()

    def shares(self) -> dict[str, float]:
        """Return the share of each part so far."""
        total = sum(self._watch.seconds.values())
        return {part: self._watch.seconds.get(part, 0.0) / total for part in PARTS} if total > 0 else {}

    def __str__(self) -> str:
        return ", ".join(f"{part} {100 * share:.0f} %" for part, share in self.shares().items())


def sampling_weights(
    entries: Sequence[ObjectEntry],
    successes: Sequence[int] | np.ndarray | None = None,
    trials: Sequence[int] | np.ndarray | None = None,
    floor: float = 0.3,
    difficulty_share: float = 0.3,
) -> np.ndarray:
    """Return probabilities (object,) of drawing each object; at least floor / number of objects each.

    `successes` and `trials` (object,): counts so far; an object without trials counts as half mastered.
    """
    if not 0 < floor <= 1:
        raise ValueError(f"floor must be in (0, 1], got {floor}: at 0 a mastered object would never be drawn again")
    if not 0 <= difficulty_share <= 1:
        raise ValueError(f"difficulty_share must be in [0, 1], got {difficulty_share}")
    count = len(entries)
    won = np.zeros(count) if successes is None else np.asarray(successes, float)
    tried = np.zeros(count) if trials is None else np.asarray(trials, float)
    if won.shape != (count,) or tried.shape != (count,):
        raise ValueError(f"expected {count} successes and trials, one for each object, got {len(won)} and {len(tried)}")
    if (won > tried).any() or (won < 0).any():
        raise ValueError("successes must lie between 0 and the trials of each object")
    failure = 1 - (won + 1) / (tried + 2)  # Laplace's rule: no trials give one half
    difficulty = np.array([entry.difficulty for entry in entries])
    wanted = difficulty_share * _share(difficulty) + (1 - difficulty_share) * _share(failure)
    return floor / count + (1 - floor) * wanted


def _share(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return values / total if total > 0 else np.full(len(values), 1 / len(values))


FORGET = 0.98
"""Factor by which earlier trials of an object lose weight with every iteration."""

RAISE_AT, LOWER_AT = 0.75, 0.65
"""Mean success rates over the objects above which disturbances grow by a step, and below which they shrink."""

LEARNT = ("rho", "imitation", "reconstruction")
"""Statistics that only a student's progress line shows."""

REWARDS = ("reach", "contact", "lift", "success")
"""Reward terms of the progress line; all of them are in progress.csv."""

log = logging.getLogger("dexgrasp")


class ObjectCurriculum(IterationCallback):
    """Curriculum that draws failing objects more often and strengthens disturbances with success."""

    def __init__(self, level_step: float) -> None:
        """`level_step`: change of the disturbances' strength with an iteration."""
        self._level_step = level_step

    def on_rollout_end(self, learner: Learner) -> None:
        """Count successes of each object; set weights and disturbances of later episodes.

        The open episodes keep theirs.
        """
        library, counts = learner.env.task.library, learner.curriculum.counts
        index = {name: i for i, name in enumerate(library.names)}
        if counts is None:
            counts = np.zeros((2, len(index)))
        latest = np.zeros_like(counts)
        for outcome in learner.outcomes:
            latest[:, index[outcome.object]] += outcome.success, 1
        counts = FORGET * counts + distributed.all_reduce_sum(torch.from_numpy(latest)).numpy()
        tried = counts[1] > 0
        won = (counts[0, tried] / counts[1, tried]).mean()
        step = self._level_step * (int(won > RAISE_AT) - int(won < LOWER_AT))
        level = float(np.clip(learner.curriculum.level + step, 0.0, 1.0))
        learner.advance_curriculum(level, weights=sampling_weights(library.entries, *counts), counts=counts)
        learner.logger.record("curriculum/disturbance", level)
        learner.logger.record("curriculum/mastery", won)


class ConsoleCallback(IterationCallback):
    """Progress line of each iteration; stops training at the time limit or on Ctrl-C."""

    def __init__(self, iterations: int, time_limit_min: float, stop: StopRequest) -> None:
        self._iterations, self._limit_s, self._stop = iterations, 60 * time_limit_min, stop
        self.steps_per_cpu_s = 0.0
        """Control steps per CPU second of all processes, validations included, since the start."""

    def on_training_start(self, learner: Learner) -> None:
        """Start the time measurement."""
        self._start_s, self._first_iteration, self._first_step = (
            time.monotonic(),
            learner.iterations_run,
            learner.num_timesteps,
        )
        self._start_cpu_s = cpu_seconds()

    def on_iteration_end(self, learner: Learner) -> None:
        """Print the line; end training where time is up or a stop was requested."""
        passed_s = time.monotonic() - self._start_s
        spent_s = torch.tensor(cpu_seconds() - self._start_cpu_s, dtype=torch.float64)
        steps = learner.num_timesteps - self._first_step
        self.steps_per_cpu_s = steps / max(float(distributed.all_reduce_sum(spent_s)), 0.01)
        learner.logger.record("time/steps_per_cpu_s", round(self.steps_per_cpu_s, 1))
        if distributed.rank() == 0:
            print(self._line(learner, passed_s), flush=True)
        if self._stop.asked or (self._limit_s and passed_s > self._limit_s):
            learner.stop()

    def _line(self, learner: Learner, passed_s: float) -> str:
        stats = learner.iteration_stats
        rate_hz = (learner.num_timesteps - self._first_step) / passed_s
        done = learner.iterations_run
        left_s = passed_s * (self._iterations - done) / max(done - self._first_iteration, 1)
        left_s = min(left_s, self._limit_s - passed_s) if self._limit_s else left_s
        terms = " ".join(f"{name} {stats[name]:+5.2f}" for name in REWARDS)
        learnt = "".join(f"{name} {stats[name]:.3f}  " for name in LEARNT if name in stats)
        return (
            f"{done:5d}  {steps_in_words(learner.num_timesteps):>8}  success {stats['won']:.3f}  "
            f"return {stats['return']:6.2f} ({terms})  disturbed {learner.curriculum.level:.2f}  "
            f"kl {_or_dash(stats.get('kl'))}  std {_or_dash(stats.get('std') or None)}  {learnt}"
            f"lr {learner.learning_rate:.0e}  "
            f"{rate_hz:6,.0f}/s  {self.steps_per_cpu_s:5,.0f}/cpu-s  left {max(left_s, 0) // 60:3.0f} min"
        )


def _or_dash(value: float | None) -> str:
    """Return a statistic with three digits, or a dash where the iteration has none."""
    return f"{'-':>5}" if value is None else f"{value:.3f}"


def steps_in_words(steps: int) -> str:
    """Return a number of control steps in words: 448, 1.3 k (thousands), 1.00 M (millions)."""
    if steps < 1000:
        return str(steps)
    return f"{1e-3 * steps:.1f} k" if steps < 999_950 else f"{1e-6 * steps:.2f} M"


class CheckpointCallback(IterationCallback):
    """Writer of RUN/last.zip, at most once per period, and at the end of training.

    It is written after the validation, best.zip and row of its iteration: a resumed run repeats none of them, and what
    later iterations have written is written again.
    """

    def __init__(self, path: Path, period_s: float = 60.0) -> None:
        self._path, self._period_s, self._saved_s = path, period_s, time.monotonic()

    def on_iteration_logged(self, learner: Learner) -> None:
        """Save a checkpoint if the period has elapsed."""
        if time.monotonic() - self._saved_s > self._period_s:
            self.on_training_end(learner)
            self._saved_s = time.monotonic()

    def on_training_end(self, learner: Learner) -> None:
        """Save the last checkpoint."""
        if distributed.rank() == 0:
            learner.save(self._path / "last.zip", with_rollouts=True)


class ValidationCallback(IterationCallback):
    """Validation of the deterministic policy on held-out objects; saves the best one as RUN/best.zip."""

    def __init__(self, path: Path, make_task: Callable[[], GraspTask], interval: int, patience: int = 0) -> None:
        """`make_task`: of the validation, one trial per environment; called at the first one.

        `interval`: iterations between validations. `patience`: validations without a better one that end training;
        0: any number.
        """
        self._path, self._make_task, self._interval, self._patience = path, make_task, interval, patience
        self._task: GraspTask | None = None
        self.best: dict[str, Any] = {}
        """Summary of the best validation of this start."""

    def on_training_start(self, learner: Learner) -> None:
        """End training at once where an earlier start had not improved for long."""
        self._stop_without_progress(learner)

    def on_iteration_end(self, learner: Learner) -> None:
        """Validate after every `interval` iterations; end training where it has not improved for long."""
        if distributed.rank() == 0 and learner.iteration % self._interval == 0:
            self._validate(learner)
        self._stop_without_progress(learner)

    def _stop_without_progress(self, learner: Learner) -> None:
        if self._patience and learner.validations_since_best >= self._patience:
            learner.stop()

    def _validate(self, learner: Learner) -> None:
        self._task = self._task or self._make_task()
        won, trials = validate(learner, self._task), self._task.num_envs
        result = success_summary(won, trials) | {"iteration": learner.iteration}
        log.info("validation: %d of %d, %.1f %%", won, trials, 100 * result["success_rate"])
        learner.logger.record("validation/success", result["success_rate"])
        if learner.record_validation(result["success_rate"]):
            self.best = result
            learner.save(self._path / "best.zip")


def validate(learner: Learner, task: GraspTask) -> int:
    """Return the successes of the deterministic policy in one trial of every environment of `task`."""
    learner.policy.eval()
    policy, due = ActorAgent(learner.policy.actor, task), Interval()

    def tell(note: str) -> None:
        if due():
            log.info("validation: %s", note)

    watch = BlockProgress(task, tell)
    return sum(outcome.success for outcome in play(task, policy, range(task.num_envs), watch=watch))
