"""Proximal policy optimisation on the task's device, with a learning rate that follows the KL divergence.

Rollout   every iteration opens new episodes and plays them to their end; it depends on nothing but its number, so that
          a run that was stopped continues exactly
Update    clipped surrogate + value loss in units of the returns; after each minibatch the learning rate is raised or
          lowered so that the policy moves by about `target_kl` (Schulman et al. 2017; rsl_rl does it as well)
"""

import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from torch import Tensor, nn
from torch.nn import functional

from policies import ranks
from policies.actor_policy import ActorPolicy
from policies.checkpoint import (
    Checkpoint,
    CheckpointData,
    CheckpointError,
    TrainingState,
    read_checkpoint,
    write_checkpoint,
)
from policies.losses import gaussian_kl, log_prob, mean_record, normalize_advantages, surrogate_loss
from policies.networks import GraspPolicy
from policies.rollout import Minibatch, RolloutBuffer
from policies.runs import utc_now
from sim.outcomes import Outcome
from sim.step import Step
from sim.task import GraspTask
from sim.vec_env import GraspVecEnv

CLIP = 0.2
"""The surrogate is clipped where the ratio of probabilities leaves 1 by more than this."""
RATE_STEP = 1.3
"""Factor by which the learning rate follows the KL divergence."""
LEARNING_RATES = (5e-6, 4e-4)
"""Range of the learning rate."""
REWARD_SCALE = 0.2
MAX_GRAD_NORM = 1.0
ADAM_EPS = 1e-5
RECENT = 100
"""Episodes whose success rate is logged as rollout/success_rate."""


class IterationCallback:
    """Acts at fixed points of training; a subclass overrides what it needs.

    Callbacks of Stable-Baselines3 act on single environment steps of its own algorithms and are not taken here; on
    `GraspVecEnv` its PPO trains with any of them.
    """

    def on_training_start(self, learner: "GraspPPO") -> None:
        """Called once, before the first rollout of this start."""

    def on_rollout_start(self, learner: "GraspPPO") -> None:
        """Called before each rollout."""

    def on_rollout_end(self, learner: "GraspPPO") -> None:
        """Called between rollout and update; the episodes of the next rollout are open already."""

    def on_iteration_end(self, learner: "GraspPPO") -> None:
        """Called after each update; `learner.stop()` makes this iteration the last one."""

    def on_training_end(self, learner: "GraspPPO") -> None:
        """Called once, after the last iteration."""


@dataclass(frozen=True)
class CurriculumState:
    """Disturbances and object weights of the next episodes, and of the open ones, which were drawn earlier."""

    level: float = 0.0
    """Strength of the disturbances, 0 to 1."""
    weights: np.ndarray | None = None
    """(object,) probabilities of drawing each object; None: all alike."""
    counts: np.ndarray | None = None
    """(2, object) recent successes and trials of each object."""
    open_level: float = 0.0
    """Strength of the disturbances in the open episodes."""
    open_weights: np.ndarray | None = None
    """Probabilities that the objects of the open episodes were drawn with."""

    def apply(self, task: GraspTask) -> None:
        """Let `task` draw the next episodes accordingly."""
        task.object_weights, task.disturber.level = self.weights, self.level

    def apply_open(self, task: GraspTask) -> None:
        """Let `task` draw the open episodes again."""
        task.object_weights, task.disturber.level = self.open_weights, self.open_level

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name, as a checkpoint stores them."""
        arrays = {"weights": self.weights, "counts": self.counts, "open_weights": self.open_weights}
        return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}


class GraspPPO:
    """PPO on a GraspVecEnv with both observation groups; actor and critic are those of a GraspPolicy."""

    policy: GraspPolicy

    def __init__(
        self,
        env: GraspVecEnv,
        *,
        hidden: Sequence[int] = (256, 128),
        init_std: float = 0.3,
        learning_rate: float = 3e-4,
        minibatches: int = 4,
        num_epochs: int = 5,
        gamma: float = 0.99,
        target_kl: float = 0.02,
        frozen_std: float = 0.0,
        final_std: float = 0.0,
        bf16: bool = False,
        restarts: bool = True,
        seed: int | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        """`target_kl`: of a minibatch step, at the start; a third of it at the end.

        `frozen_std`: rollouts explore with this deviation whatever is learnt, as the published release does; 0: off.
        `final_std`: the deviation is limited so that it ends at this value, evenly in its logarithm; 0: off.
        `bf16`: networks compute in half precision up to their last layers. `restarts`: an episode that ends early is
        followed by another one; otherwise its environment waits, and nothing is learnt from the wait.
        `provenance`: plain facts for the manifest of every checkpoint.
        """
        if not isinstance(env.observation_space, spaces.Dict):
            raise TypeError("GraspPPO needs both observation groups: make the environment with group='both'")
        self.env, self.device = env, env.task.device
        self.minibatches, self.num_epochs, self.gamma, self.target_kl = minibatches, num_epochs, gamma, target_kl
        self.frozen_std, self.final_std, self.bf16, self.restarts = frozen_std, final_std, bf16, restarts
        self.seed, self.provenance = seed, provenance or {}
        self.num_steps = env.task.episode_steps
        """Control steps of a rollout: one episode."""
        self.iteration, self.num_timesteps = 0, 0
        """Finished iterations; control steps of all environments and ranks."""
        self.learning_rate = learning_rate
        """Present learning rate."""
        self.iteration_stats: dict[str, float] = {}
        """Statistics of the last iteration: success, reward terms, KL, ..."""
        self.outcomes: list[Outcome] = []
        """Outcomes of the last iteration's episodes."""
        self.curriculum = CurriculumState()
        self.best_validation = 0.0
        """Highest success rate that `record_validation` was told."""
        self.logger = Logger(None, [])
        if seed is not None:  # all ranks start with one policy, each with environments of its own
            set_random_seed(seed, using_cuda=self.device.type == "cuda")
            env.seed((seed << 16) + ranks.index() * env.num_envs)
        sizes = {group: layout.size for group, layout in env.task.layouts.items()}
        self.rollout_buffer = RolloutBuffer(
            self.num_steps, env.num_envs, sizes, env.task.num_actions, gamma, device=self.device
        )
        self.policy = self._make_policy(hidden, init_std).to(self.device)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=learning_rate, eps=ADAM_EPS)
        self._recent_successes: deque[bool] = deque(maxlen=RECENT)
        self._progress_remaining, self._stopping, self._open = 1.0, False, False

    def _make_policy(self, hidden: Sequence[int], init_std: float) -> GraspPolicy:
        task = self.env.task
        return GraspPolicy(task.layouts, task.num_actions, hidden=hidden, init_std=init_std)

    def set_logger(self, logger: Logger) -> None:
        """Write progress to `logger` from now on."""
        self.logger = logger

    def stop(self) -> None:
        """End training after the present iteration."""
        self._stopping = True

    def record_validation(self, success_rate: float) -> bool:
        """Remember the success rate of a validation; True if none was better."""
        if success_rate < self.best_validation:
            return False
        self.best_validation = success_rate
        return True

    def advance_curriculum(self, level: float, weights: np.ndarray, counts: np.ndarray) -> None:
        """Draw the episodes after the open ones with these disturbances and object weights; see CurriculumState."""
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
            self._log_progress(iterations, first_step, start_ns)
            self._update()
            self._call(callbacks, "on_iteration_end")
            self._stopping = bool(ranks.total(torch.tensor(float(self._stopping))))  # all ranks or none
        self._call(callbacks, "on_training_end")

    def _call(self, callbacks: Sequence[IterationCallback], method: str) -> None:
        for callback in callbacks:
            getattr(callback, method)(self)

    def _log_progress(self, iterations: int, first_step: int, start_ns: int) -> None:
        """Write a row of progress; what an update and its callbacks record appears in the row of the next iteration."""
        passed_s = max((time.time_ns() - start_ns) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/iterations", iterations, exclude="tensorboard")
        self.logger.record("time/fps", int((self.num_timesteps - first_step) / passed_s))
        self.logger.record("time/time_elapsed", int(passed_s), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        if self._recent_successes:
            self.logger.record("rollout/success_rate", float(np.mean(self._recent_successes)))
        self.logger.dump(step=self.num_timesteps)

    def _collect_rollout(self) -> None:
        """Play new episodes in all environments."""
        env, buffer = self.env, self.rollout_buffer
        self.policy.eval()
        buffer.reset()
        outcomes, terms, alive = [], [], torch.ones(env.num_envs, dtype=torch.bool, device=self.device)
        obs, noise = self._new_episodes(), self._noise(self.num_steps, env.num_envs)
        std, policy = self.exploration.detach(), ActorPolicy(self.policy.actor, env.task)
        self._behaviour_log_std = log_std = self.policy.std.log().detach()
        with torch.no_grad():
            for t in range(self.num_steps):
                with self.autocast():
                    means, values = policy.act(obs), self.policy.predict_values(obs)
                actions = means + std * noise[t]
                log_probs = log_prob(actions, means, log_std)
                step = (env.streams if self.restarts else env.task).step(actions, policy.grip)
                rewards, dones = self._reward(step), step.terminated | step.truncated
                stored = {"actions": actions, "means": means, "values": values, "log_probs": log_probs}
                buffer.add(obs, rewards, dones, alive=alive, **stored)
                alive = alive & ~dones | self.restarts
                obs = step.obs
                outcomes += step.info["outcomes"]
                terms.append(step.info["terms"])
                self.num_timesteps += env.num_envs * ranks.count()
            buffer.compute_returns_and_advantages(self._values(obs))
        outcomes = outcomes if self.restarts else env.task.outcomes()
        self._new_episodes()  # before the curriculum moves on, so that `resume` draws all of them alike
        self._summarise(outcomes, terms)

    @property
    def exploration(self) -> Tensor:
        """Standard deviation (action,) of the actions' noise; that of the start where `frozen_std` is set."""
        return torch.full_like(self.policy.std, self.frozen_std) if self.frozen_std else self.policy.std

    def _new_episodes(self) -> dict[str, Tensor]:
        """Open an episode in every environment whose episode has begun; return the observations."""
        task = self.env.task
        begun = (task.step_index > 0).nonzero().squeeze(1)
        return self.env.streams.reset(begun) if len(begun) else task.observe()

    def _noise(self, steps: int, num_envs: int) -> Tensor:
        """Draw standard normal noise (time, env, action) by seed and iteration, for the environments of this rank."""
        generator = torch.Generator().manual_seed(((self.seed or 0) << 20) + self.iteration)
        shape = (steps, num_envs * ranks.count(), self.env.task.num_actions)
        first = ranks.index() * num_envs
        return torch.randn(shape, generator=generator)[:, first : first + num_envs].to(self.device)

    def _reward(self, step: Step) -> Tensor:
        """Return scaled rewards (env,); a truncated episode is credited with the value of its final state."""
        rewards = step.reward * REWARD_SCALE
        rows = step.truncated.nonzero().squeeze(1)
        if len(rows):
            final = {group: values[rows] for group, values in step.info.get("final_obs", step.obs).items()}
            rewards[rows] += self.gamma * self._values(final)
        return rewards

    def _values(self, obs: dict[str, Tensor]) -> Tensor:
        """Return values (env,) in the precision of rollouts."""
        with self.autocast():
            return self.policy.predict_values(obs)

    def autocast(self) -> torch.autocast:
        """Context in which networks compute in half precision if `bf16` is set."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _summarise(self, outcomes: list[Outcome], terms: list[dict[str, float]]) -> None:
        """Average success and reward terms over all ranks and log them."""
        won = torch.tensor([float(sum(o.success for o in outcomes)), float(len(outcomes))], dtype=torch.float64)
        won = ranks.total(won)
        self.outcomes = outcomes
        sums = torch.tensor([[term[name] for name in terms[0]] for term in terms], dtype=torch.float64).sum(dim=0)
        means = dict(zip(terms[0], ranks.mean(sums).tolist(), strict=True))
        rate = float(won[0] / won[1].clamp(min=1))
        self.iteration_stats = {"won": rate, "return": sum(means.values()), **means}
        self._recent_successes.extend(outcome.success for outcome in outcomes)
        for name, value in means.items():
            self.logger.record(f"reward/{name}", value)
        self.logger.record("rollout/success", rate)

    def _update(self) -> None:
        """Update the policy from the rollout; the first rollout only sets the scales of the normalisers."""
        self.policy.train()
        buffer = self.rollout_buffer
        self.policy.critic.returns.update(buffer.valid(buffer.returns)[:, None])
        if self.iteration > 0:
            normalize_advantages(buffer.advantages, buffer.alive)
            means = mean_record([self._update_minibatch(batch) for batch in self._minibatches()])
            self.iteration_stats |= means | {"std": float(self.policy.std.detach().mean()), "lr": self.learning_rate}
            for name in (*means, "std", "lr"):
                self.logger.record(f"train/{name}", self.iteration_stats[name])
        self.policy.update_normalisers({group: buffer.valid(seen) for group, seen in buffer.obs.items()})
        if self.final_std:
            self.policy.narrow(self.final_std, 1 - self._progress_remaining)
        self.iteration += 1

    def _minibatches(self) -> Iterator[Minibatch]:
        """Yield the minibatches of all epochs."""
        generator = torch.Generator(device=self.device).manual_seed(self.iteration)
        for _ in range(self.num_epochs):
            yield from self.rollout_buffer.minibatches(self.minibatches, generator)

    def _update_minibatch(self, batch: Minibatch) -> dict[str, float]:
        """Take one gradient step; return its losses and its KL divergence."""
        with self.autocast():
            loss, record = self._loss(batch)
        self._adapt_learning_rate(record["kl"])
        self._gradient_step(loss)
        return record

    def _gradient_step(self, loss: Tensor) -> None:
        """Take one step of the optimiser along the mean gradient of all ranks."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(self.policy.parameters())
        nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()

    def _loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a minibatch, and its parts."""
        means, log_std = self.policy.mean(batch.obs), self.policy.std.log()
        present = log_prob(batch.actions, means, log_std)
        surrogate, clipped = surrogate_loss(present, batch.log_probs, batch.advantages, CLIP)
        value = self._value_loss(batch)
        with torch.no_grad():
            kl = ranks.mean(gaussian_kl(batch.means, self._behaviour_log_std, means, log_std).mean())
        record = {"kl": kl, "surrogate": surrogate, "value": value, "clipped": clipped}
        return surrogate + value, {name: float(part.detach()) for name, part in record.items()}

    def _value_loss(self, batch: Minibatch) -> Tensor:
        critic = self.policy.critic
        target = critic.returns(batch.returns[:, None])
        return functional.mse_loss(critic.standard(batch.obs[self.policy.critic_group]), target)

    def _adapt_learning_rate(self, kl: float) -> None:
        """Raise or lower the learning rate so that the KL divergence of a step approaches its target."""
        target = (self.target_kl or math.inf) * (1 + 2 * self._progress_remaining) / 3
        if kl > 2 * target:
            self._set_learning_rate(max(self.learning_rate / RATE_STEP, LEARNING_RATES[0]))
        elif 0 < kl < target / 2:
            self._set_learning_rate(min(self.learning_rate * RATE_STEP, LEARNING_RATES[1]))

    def _set_learning_rate(self, rate: float) -> None:
        self.learning_rate = rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate

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
        data = CheckpointData(self.policy.architecture, self._state(), self.provenance | saved, tensors)
        write_checkpoint(Path(path), data)

    def _state(self) -> TrainingState:
        return TrainingState(
            iteration=self.iteration,
            num_timesteps=self.num_timesteps,
            learning_rate=self.learning_rate,
            best_validation=self.best_validation,
            level=self.curriculum.level,
            open_level=self.curriculum.open_level,
            trials=tuple(self.env.task.trial.tolist()),
            iteration_stats={name: value for name, value in self.iteration_stats.items() if math.isfinite(value)},
            recent_successes=tuple(map(bool, self._recent_successes)),
        )

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Start from the policy of another run, with new exploration and the other run's disturbances."""
        if difference := self.policy.architecture.difference(checkpoint.policy.architecture):
            raise CheckpointError(f"{checkpoint.path} has other networks than this run: {difference}")
        self.policy.load_state_dict(checkpoint.policy.state_dict())
        self.policy.log_std.data.fill_(math.log(self.policy.init_std))
        self.curriculum = CurriculumState(level=checkpoint.state.level)
        self.env.task.disturber.level = checkpoint.state.level
        self.iteration = 1  # the normalisers know their scales

    def resume(self, path: Path) -> Self:
        """Continue from a checkpoint of a learner with these settings: open again the episodes that were open."""
        data, task = read_checkpoint(path), self.env.task
        if difference := self.policy.architecture.difference(data.architecture):
            raise CheckpointError(f"{path} has other networks than this run: {difference}")
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
            why = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{path}: its tensors are not those of this learner: {why}") from error
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
