"""Training loop of a learner: iterations, callbacks, curriculum and checkpoints.

A run resumes exactly from its checkpoints.
"""

import math
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from torch import Tensor

from dexgrasp.policies.agents.checkpoint import (
    Checkpoint,
    CheckpointData,
    CheckpointError,
    TrainingState,
    read_checkpoint,
    write_checkpoint,
)
from dexgrasp.policies.networks.actor_critic import GraspPolicy
from dexgrasp.policies.run_directory import utc_now
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils import distributed
from dexgrasp.utils.text import one_line

ADAM_EPS = 1e-5
SUCCESS_RATE_WINDOW = 100
"""Episodes whose success rate is logged as rollout/success_rate."""


class IterationCallback:
    """Callback at fixed points of training; a subclass overrides the methods that it needs.

    Callbacks of Stable-Baselines3 act on single environment steps of its own algorithms and are not accepted here; on
    `GraspVecEnv` its PPO trains with any of them.
    """

    def on_training_start(self, learner: "Learner") -> None:
        """Called once, before the first rollout of this start."""

    def on_rollout_start(self, learner: "Learner") -> None:
        """Called before each rollout."""

    def on_rollout_end(self, learner: "Learner") -> None:
        """Called between rollout and update; the episodes of the next rollout are open already."""

    def on_iteration_end(self, learner: "Learner") -> None:
        """Called after each update; `learner.stop()` makes this iteration the last one."""

    def on_iteration_logged(self, learner: "Learner") -> None:
        """Called once the row of progress of the iteration is written, with what `on_iteration_end` recorded."""

    def on_training_end(self, learner: "Learner") -> None:
        """Called once, after the last iteration."""


@dataclass(frozen=True)
class CurriculumState:
    """Disturbances and object weights of the next episodes and of the open episodes.

    The open episodes were drawn earlier, so that theirs may differ.
    """

    level: float = 0.0
    """Strength of the disturbances, 0 to 1."""
    weights: np.ndarray | None = None
    """(object,) probabilities of drawing each object; None: uniform."""
    counts: np.ndarray | None = None
    """(2, object) recent successes and trials of each object."""
    open_level: float = 0.0
    """Strength of the disturbances in the open episodes."""
    open_weights: np.ndarray | None = None
    """Probabilities that the objects of the open episodes were drawn with."""

    def apply(self, task: GraspTask) -> None:
        """Set disturbances and object weights of the next episodes of `task`."""
        task.object_weights, task.disturber.level = self.weights, self.level

    def apply_open(self, task: GraspTask) -> None:
        """Set disturbances and object weights of the open episodes of `task`."""
        task.object_weights, task.disturber.level = self.open_weights, self.open_level

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name, as a checkpoint stores them."""
        arrays = {"weights": self.weights, "counts": self.counts, "open_weights": self.open_weights}
        return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}


class Learner(ABC):
    """Trainer of a policy on a GraspVecEnv with both observation groups; subclasses define the update."""

    policy: GraspPolicy

    def __init__(
        self,
        env: GraspVecEnv,
        *,
        hidden: Sequence[int] = (256, 128),
        init_std: float = 0.3,
        learning_rate: float = 3e-4,
        seed: int | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        """`hidden`: widths of actor and critic. `init_std`: exploration at the start, in units of the action.

        `provenance`: plain facts for the manifest of every checkpoint.
        """
        if not isinstance(env.observation_space, spaces.Dict):
            raise TypeError(
                f"{type(self).__name__} needs both observation groups: make the environment with obs='both'"
            )
        self.env, self.device = env, env.task.device
        self.seed, self.provenance = seed, provenance or {}
        self.num_steps = env.task.episode_steps
        """Control steps of a rollout: one episode."""
        self.iteration = 0
        """Finished iterations; the first one sets the scales of the normalisers."""
        self.first_iteration = 0
        """Value of `iteration` before the first rollout: 1 where another policy has set the scales."""
        self.num_timesteps = 0
        """Control steps of all environments and ranks."""
        self.iteration_stats: dict[str, float] = {}
        """Statistics of the last iteration: success, reward terms, KL, ..."""
        self.outcomes: list[Outcome] = []
        """Outcomes of the last iteration's episodes."""
        self.curriculum = CurriculumState()
        self.best_validation = 0.0
        """Highest success rate passed to `record_validation`."""
        self.validated_iteration = 0
        """Iteration of the last validation."""
        self.validations_since_best = 0
        """Validations since the best one."""
        self.logger = Logger(None, [])
        if seed is not None:  # all ranks start with one policy, each with environments of its own
            set_random_seed(seed, using_cuda=self.device.type == "cuda")
            env.seed((seed << 16) + distributed.rank() * env.num_envs)
        self.policy = self._make_policy(hidden, init_std).to(self.device)
        self.optimizer = self._make_optimizer()
        self._rate = torch.full((), learning_rate, dtype=torch.float64, device=self.device)
        self._set_learning_rate(learning_rate)
        self._recent_successes: deque[bool] = deque(maxlen=SUCCESS_RATE_WINDOW)
        self._progress_remaining, self._stopping, self._open = 1.0, False, False

    def _make_policy(self, hidden: Sequence[int], init_std: float) -> GraspPolicy:
        task = self.env.task
        return GraspPolicy(task.layouts, task.num_actions, hidden=hidden, init_std=init_std)

    def _make_optimizer(self) -> torch.optim.Adam:
        """Return Adam; on a GPU one whose step waits for nothing, with a rate on the device.

        There it leaves parameters and moments as they are while `_stopped` is 1.
        """
        self._stopped = torch.zeros((), device=self.device)
        if self.device.type == "cpu":
            return torch.optim.Adam(self.policy.parameters(), eps=ADAM_EPS)
        optimizer = torch.optim.Adam(self.policy.parameters(), eps=ADAM_EPS, fused=True, capturable=True)
        optimizer.param_groups[0]["lr"] = torch.zeros((), device=self.device)
        optimizer.found_inf = self._stopped  # pyright: ignore[reportAttributeAccessIssue]: as torch.amp.GradScaler does
        return optimizer

    @abstractmethod
    def _collect_rollout(self) -> None:
        """Run an episode in all environments; count its steps, outcomes and statistics."""

    @abstractmethod
    def _update(self) -> None:
        """Update the policy from the rollout, and count the iteration."""

    def set_logger(self, logger: Logger) -> None:
        """Write progress to `logger` from now on."""
        self.logger = logger

    def stop(self) -> None:
        """End training after the present iteration."""
        self._stopping = True

    def record_validation(self, success_rate: float) -> bool:
        """Record the success rate of a validation; return True if none was better."""
        self.validations_since_best += 1
        self.validated_iteration = self.iteration
        if success_rate < self.best_validation:
            return False
        self.best_validation, self.validations_since_best = success_rate, 0
        return True

    def advance_curriculum(self, level: float, weights: np.ndarray, counts: np.ndarray) -> None:
        """Set disturbances and object weights of the episodes after the open ones (CurriculumState)."""
        task = self.env.task
        self.curriculum = CurriculumState(
            level=level,
            weights=weights,
            counts=counts,
            open_level=task.disturber.level,
            open_weights=task.object_weights,
        )
        self.curriculum.apply(task)

    def learn(self, total_timesteps: int, callbacks: Sequence[IterationCallback] = ()) -> None:
        """Train until `num_timesteps`, which counts all starts, reaches `total_timesteps`, or until `stop`."""
        for callback in callbacks:
            if not isinstance(callback, IterationCallback):
                raise TypeError(
                    f"callbacks of {type(self).__name__} are IterationCallbacks, got {type(callback).__name__}; "
                    "stable_baselines3.PPO on a GraspVecEnv takes callbacks of Stable-Baselines3"
                )
        start_ns, first_step, self._stopping = time.time_ns(), self.num_timesteps, False
        if not self._open:
            self.env.reset()
            self._open = True
        self._call(callbacks, "on_training_start")
        iterations = 0
        while self.num_timesteps < total_timesteps and not self._stopping:
            self._call(callbacks, "on_rollout_start")
            self._collect_rollout()
            self._call(callbacks, "on_rollout_end")
            iterations += 1
            self._progress_remaining = 1.0 - float(self.num_timesteps) / float(total_timesteps)
            self._update()
            self._call(callbacks, "on_iteration_end")
            self._stopping = bool(distributed.all_reduce_sum(torch.tensor(float(self._stopping))))  # all ranks or none
            self._log_progress(iterations, first_step, start_ns)
            self._call(callbacks, "on_iteration_logged")  # no value is pending: a checkpoint needs to keep none
        self._call(callbacks, "on_training_end")

    def _call(self, callbacks: Sequence[IterationCallback], method: str) -> None:
        for callback in callbacks:
            getattr(callback, method)(self)

    def _log_progress(self, iterations: int, first_step: int, start_ns: int) -> None:
        """Write the row of progress of an iteration."""
        passed_s = max((time.time_ns() - start_ns) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/iterations", iterations, exclude="tensorboard")
        self.logger.record("time/fps", int((self.num_timesteps - first_step) / passed_s))
        self.logger.record("time/time_elapsed", int(passed_s), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        if self._recent_successes:
            self.logger.record("rollout/success_rate", float(np.mean(self._recent_successes)))
        self.logger.dump(step=self.num_timesteps)

    @property
    def learning_rate(self) -> float:
        """Present learning rate; waits for the device."""
        return float(self._rate)

    def _set_learning_rate(self, rate: float | Tensor) -> None:
        self._rate.fill_(rate)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(self._rate)
            else:
                group["lr"] = float(self._rate)

    def save(self, path: Path, with_rollouts: bool = False) -> None:
        """Write a checkpoint, from which `resume` continues exactly; the file appears complete or not at all.

        `with_rollouts`: write beside it the earlier rollouts that learning still uses; PPO alone uses none.
        """
        saved = {"iteration": self.iteration, "control_steps": self.num_timesteps, "saved": utc_now()}
        tensors = {f"policy/{name}": value for name, value in self.policy.state_dict().items()}
        for name, parameter in self.policy.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{name}/{key}": value for key, value in moments.items()}
        tensors |= {f"curriculum/{name}": value for name, value in self.curriculum.tensors().items()}
        data = CheckpointData(
            architecture=self.policy.architecture,
            state=self._state(),
            manifest=self.provenance | saved,
            tensors=tensors,
        )
        write_checkpoint(Path(path), data)

    def _state(self) -> TrainingState:
        return TrainingState(
            iteration=self.iteration,
            num_timesteps=self.num_timesteps,
            learning_rate=self.learning_rate,
            best_validation=self.best_validation,
            validated_iteration=self.validated_iteration,
            validations_since_best=self.validations_since_best,
            level=self.curriculum.level,
            open_level=self.curriculum.open_level,
            trials=tuple(self.env.task.trial.tolist()),
            iteration_stats={name: value for name, value in self.iteration_stats.items() if math.isfinite(value)},
            recent_successes=tuple(map(bool, self._recent_successes)),
        )

    @property
    def iterations_run(self) -> int:
        """Number of finished iterations over all starts of the run, as the option `iterations` counts them."""
        return self.iteration - self.first_iteration

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Start from the policy of another run, with new exploration and the other run's disturbances."""
        if difference := checkpoint.policy.architecture.difference(self.policy.architecture):
            raise CheckpointError(
                f"{checkpoint.path} has other networks than this run: {difference}; give hand, plugins, task and "
                "hidden as in its training"
            )
        self.policy.load_state_dict(checkpoint.policy.state_dict())
        self.policy.log_std.data.fill_(math.log(self.policy.init_std))
        self.curriculum = CurriculumState(level=checkpoint.state.level)
        self.env.task.disturber.level = checkpoint.state.level
        self.iteration = 1  # the normalisers know their scales

    def resume(self, path: Path) -> Self:
        """Continue from a checkpoint of a learner with these settings: open again the episodes that were open."""
        data, task = read_checkpoint(path), self.env.task
        if difference := data.architecture.difference(self.policy.architecture):
            raise CheckpointError(
                f"{path} has other networks than this run: {difference}; give the options of "
                f"{path.parent}/config.yaml, or choose another out="
            )
        if len(data.state.trials) != self.env.num_envs:
            raise CheckpointError(
                f"{path} holds {len(data.state.trials)} environments, this run has {self.env.num_envs}"
            )
        self._load_state(path, data)
        self.curriculum.apply_open(task)
        self.env.reset()  # takes the seeds that the constructor has set
        self.env.streams.next_trial[:] = torch.tensor(data.state.trials)
        self.env.reset()
        self.curriculum.apply(task)
        self._open = True
        return self

    def _load_state(self, path: Path, data: CheckpointData) -> None:
        """Set policy, optimiser, counters and curriculum."""
        state, arrays = data.state, {name: value.numpy() for name, value in data.group("curriculum").items()}
        self.iteration, self.num_timesteps = state.iteration, state.num_timesteps
        self.best_validation, self.iteration_stats = state.best_validation, dict(state.iteration_stats)
        self.validated_iteration = state.validated_iteration
        self.validations_since_best = state.validations_since_best
        self._recent_successes.extend(state.recent_successes)
        objects = len(self.env.task.library)
        shapes = {"weights": (objects,), "counts": (2, objects), "open_weights": (objects,)}
        if any(name not in shapes or array.shape != shapes[name] for name, array in arrays.items()):
            raise CheckpointError(f"{path}: its curriculum is not one of {objects} objects: train with its objects")
        self.curriculum = CurriculumState(state.level, open_level=state.open_level, **arrays)
        try:
            self.policy.load_state_dict(data.group("policy"))
            moments = self._optimizer_state(data.group("optimizer"))
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path}: its tensors are not those of this learner: {one_line(error, 300)}"
            ) from error
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self._set_learning_rate(state.learning_rate)

    def _optimizer_state(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Return the optimiser's tensors by number of the parameter."""
        known = {name: (number, value) for number, (name, value) in enumerate(self.policy.named_parameters())}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, part = key.rpartition("/")
            number, parameter = known[name]
            if value.shape != (() if part == "step" else parameter.shape):
                raise ValueError(f"optimizer/{key} has shape {tuple(value.shape)}")
            state.setdefault(number, {})[part] = value
        if any(set(parts) != {"step", "exp_avg", "exp_avg_sq"} for parts in state.values()):
            raise ValueError("the optimiser's tensors are incomplete")
        return state
