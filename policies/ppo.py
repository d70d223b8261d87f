"""PPO of Stable-Baselines3 with a rollout that stays on the task's device, and a learning rate that follows the KL.

collect   every iteration opens new episodes and plays them to their end; an iteration depends on its number alone,
          so that a run that was stopped goes on exactly
train     clipped surrogate + value loss in units of the returns; after each minibatch the learning rate is raised or
          lowered so that the policy moves by about `target_kl` (Schulman et al. 2017; rsl_rl does the same)
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn
from torch.nn import functional

from policies import manifest, ranks
from policies.actor_policy import ActorPolicy
from policies.losses import gaussian_kl, log_prob, mean_record, standardise, surrogate_loss
from policies.networks import GraspPolicy
from policies.rollout import DeviceRolloutBuffer, Minibatch
from policies.runs import utc_now
from sim.outcomes import Outcome
from sim.step import Step
from sim.vec_env import GraspVecEnv

CLIP = 0.2
"""Range of the ratio of probabilities within which the surrogate counts."""
RATE_STEP = 1.3
"""Factor by which the learning rate follows the KL divergence."""
LEARNING_RATES = (5e-6, 4e-4)


class GraspPPO(PPO):
    """PPO on a GraspVecEnv with both observation groups. Actor and critic are those of a GraspPolicy."""

    policy: GraspPolicy
    env: GraspVecEnv
    rollout_buffer: DeviceRolloutBuffer

    def __init__(
        self,
        policy: type[GraspPolicy] = GraspPolicy,
        env: GraspVecEnv | None = None,
        learning_rate: float = 3e-4,
        n_steps: int = 0,
        minibatches: int = 4,
        n_epochs: int = 5,
        gamma: float = 0.99,
        target_kl: float = 0.02,
        reward_scale: float = 0.2,
        frozen_std: float = 0.0,
        final_std: float = 0.0,
        bf16: bool = False,
        restarts: bool = True,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        """`n_steps` 0: whole episodes. `target_kl`: of a minibatch step, at the start; a third of it at the end.
        `frozen_std`: roll-outs explore with this deviation whatever is learnt, as the published release does; 0: not.
        `final_std`: to what the deviation is brought down by the end of learning, evenly in its logarithm; 0: not.
        `bf16`: networks always compute in half precision up to their last layers. `restarts`: what ends early is
        followed by another episode; else it waits for the others, and nothing is learnt from that. `options`: PPO's.
        """
        if env is not None and not isinstance(env.observation_space, spaces.Dict):
            raise TypeError("GraspPPO needs both observation groups: make the environment with obs='both'")
        n_steps = n_steps or (env.task.episode_steps if env else 1)
        self.minibatches, self.bf16, self.restarts = minibatches, bf16, restarts
        self.reward_scale, self.frozen_std, self.final_std = reward_scale, frozen_std, final_std
        self.iteration = 0
        """Rollouts finished so far."""
        self.lr = learning_rate
        """The learning rate now."""
        self.iteration_stats: dict[str, float] = {}
        """Of the last iteration: success, reward terms, KL, ..."""
        self.mastery: np.ndarray | None = None
        """(2, object) recent successes and trials of each training object."""
        self.level, self.best = 0.0, 0.0
        """Strength of the disturbances; the best validation so far."""
        self.opened_with: tuple[np.ndarray | None, float] = (None, 0.0)
        """Weights of the objects and strength of the disturbances that the open episodes were drawn with."""
        self.outcomes: list[Outcome] = []
        """Of the last iteration's episodes."""
        self.made_by: dict[str, Any] = {}
        """Plain facts that every checkpoint takes along: configuration, git state, versions, command, machine, seed."""
        super().__init__(
            policy,
            env,  # pyright: ignore[reportArgumentType]
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=max(2, n_steps * (env.num_envs if env else 1)),  # checked by PPO, not used
            n_epochs=n_epochs,
            gamma=gamma,
            target_kl=target_kl,
            rollout_buffer_class=DeviceRolloutBuffer,  # pyright: ignore[reportArgumentType]
            device=device,
            **dict[str, Any](max_grad_norm=1.0, vf_coef=1.0) | options,
        )

    def set_random_seed(self, seed: int | None = None) -> None:
        """All ranks start with the same policy, each with environments of its own."""
        super().set_random_seed(seed)
        if seed is not None and self.env is not None:
            self.env.seed((seed << 16) + ranks.index() * self.env.num_envs)

    def collect_rollouts(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, env: GraspVecEnv, callback: BaseCallback, rollout_buffer: DeviceRolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Play new episodes in all environments; False if the callback wants to stop."""
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        outcomes, terms, alive = [], [], torch.ones(env.num_envs, dtype=torch.bool, device=self.device)
        obs, noise = self._open(env), self._noise(n_rollout_steps, env.num_envs)
        std, policy = self.exploration.detach(), ActorPolicy(self.policy.actor, env.task)
        self._behaviour_log_std = log_std = self.policy.std.log().detach()
        with torch.no_grad():
            for t in range(n_rollout_steps):
                with self.autocast():
                    means, values = policy.act(obs), self.policy.predict_values(obs)
                actions = means + std * noise[t]
                log_probs = log_prob(actions, means, log_std)
                step = (env.streams if self.restarts else env.task).step(actions, policy.grip)
                rewards, dones = self._reward(step), step.terminated | step.truncated
                stored = {"actions": actions, "means": means, "values": values, "log_probs": log_probs}
                rollout_buffer.add(obs, rewards, dones, alive=alive, **stored)
                alive = alive & ~dones | self.restarts
                obs = step.obs
                outcomes += step.info["outcomes"]
                terms.append(step.info["terms"])
                self.num_timesteps += env.num_envs * ranks.count()
                callback.update_locals(locals())
                if not callback.on_step():  # a roll-out that was broken off does not count
                    self.num_timesteps -= (t + 1) * env.num_envs * ranks.count()
                    return False
            rollout_buffer.finish(self._values(obs))
        outcomes = outcomes if self.restarts else env.task.outcomes()
        self._open(env)  # before the curriculum moves on, so that `go_on` draws all of them alike
        self._summarise(outcomes, terms)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    @property
    def exploration(self) -> Tensor:
        """(action,) standard deviation of the actions' noise; as at the start where `frozen_std` is set."""
        return torch.full_like(self.policy.std, self.frozen_std) if self.frozen_std else self.policy.std

    def _open(self, env: GraspVecEnv) -> dict[str, Tensor]:
        """Observations of episodes that have just begun, in every environment."""
        begun = (env.task.step_index > 0).nonzero().squeeze(1)
        return env.streams.reset(begun) if len(begun) else env.task.observe()

    def _noise(self, steps: int, num_envs: int) -> Tensor:
        """Standard normal (time, env, action): decided by seed and iteration, this rank's part of all environments'."""
        generator = torch.Generator().manual_seed(((self.seed or 0) << 20) + self.iteration)
        shape = (steps, num_envs * ranks.count(), self.env.task.num_actions)
        first = ranks.index() * num_envs
        return torch.randn(shape, generator=generator)[:, first : first + num_envs].to(self.device)

    def _reward(self, step: Step) -> Tensor:
        """Scaled rewards (env,); an episode that time alone ended is credited with what it would still have earned."""
        rewards = step.reward * self.reward_scale
        rows = step.truncated.nonzero().squeeze(1)
        if len(rows):
            final = {group: values[rows] for group, values in step.info.get("final_obs", step.obs).items()}
            rewards[rows] += self.gamma * self._values(final)
        return rewards

    def _values(self, obs: dict[str, Tensor]) -> Tensor:
        """Values (env,) in the precision of roll-outs."""
        with self.autocast():
            return self.policy.predict_values(obs)

    def autocast(self) -> torch.autocast:
        """Within it networks compute in half precision if this learner does."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _summarise(self, outcomes: list, terms: list[dict[str, float]]) -> None:
        won = torch.tensor([float(sum(o.success for o in outcomes)), float(len(outcomes))], dtype=torch.float64)
        won = ranks.total(won)
        self.outcomes = outcomes
        sums = torch.tensor([[term[name] for name in terms[0]] for term in terms], dtype=torch.float64).sum(dim=0)
        means = dict(zip(terms[0], ranks.mean(sums).tolist(), strict=True))
        rate = float(won[0] / won[1].clamp(min=1))
        self.iteration_stats = {"won": rate, "return": sum(means.values()), **means}
        self.ep_success_buffer.extend(outcome.success for outcome in outcomes)  # pyright: ignore[reportOptionalMemberAccess]
        for name, value in means.items():
            self.logger.record(f"reward/{name}", value)
        self.logger.record("rollout/success", self.iteration_stats["won"])

    def train(self) -> None:
        """Update the policy from the rollout; the first one only teaches the normalisers their scales."""
        self.policy.set_training_mode(True)
        buffer = self.rollout_buffer
        self.policy.critic.returns.update(buffer.lived(buffer.returns)[:, None])
        if self.iteration > 0:
            standardise(buffer.advantages, buffer.alive)
            records = [self._update(batch) for batch in self._minibatches()]
            means = mean_record(records)
            self._n_updates += len(records)
            self.iteration_stats |= means | {"std": float(self.policy.std.detach().mean()), "lr": self.lr}
            for name in (*means, "std", "lr"):
                self.logger.record(f"train/{name}", self.iteration_stats[name])
        self.policy.update_normalisers({group: buffer.lived(seen) for group, seen in buffer.obs.items()})
        if self.final_std:
            self.policy.narrow(self.final_std, 1 - self._current_progress_remaining)
        self.iteration += 1

    def _minibatches(self) -> Iterator[Minibatch]:
        """All minibatches of all epochs."""
        buffer = self.rollout_buffer
        generator = torch.Generator(device=self.device).manual_seed(self.iteration)
        for _ in range(self.n_epochs):
            yield from buffer.minibatches(self.minibatches, generator)

    def _update(self, batch: Minibatch) -> dict[str, float]:
        """One gradient step; what is worth knowing about it."""
        with self.autocast():
            loss, record = self._loss(batch)
        self._follow(record["kl"])
        self._descend(loss)
        return record

    def _descend(self, loss: Tensor) -> None:
        """One step of the optimiser, with the gradients of all ranks."""
        self.policy.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(self.policy.parameters())
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()

    def _loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, float]]:
        """What a minibatch asks the parameters to reduce, and its parts."""
        means, log_std = self.policy.mean(batch.obs), self.policy.std.log()
        now = log_prob(batch.actions, means, log_std)
        surrogate, clipped = surrogate_loss(now, batch.log_probs, batch.advantages, CLIP)
        value = self._value_loss(batch)
        with torch.no_grad():
            kl = ranks.mean(gaussian_kl(batch.means, self._behaviour_log_std, means, log_std).mean())
        record = {"kl": kl, "surrogate": surrogate, "value": value, "clipped": clipped}
        return surrogate + self.vf_coef * value, {name: float(part.detach()) for name, part in record.items()}

    def _value_loss(self, batch: Minibatch) -> Tensor:
        critic = self.policy.critic
        target = critic.returns(batch.returns[:, None])
        return functional.mse_loss(critic.standard(batch.obs[self.policy.critic_group]), target)

    def _follow(self, kl: float) -> None:
        """Raise or lower the learning rate so that the KL divergence of a step comes near its target."""
        target = (self.target_kl or math.inf) * (1 + 2 * self._current_progress_remaining) / 3
        if kl > 2 * target:
            self._set_rate(max(self.lr / RATE_STEP, LEARNING_RATES[0]))
        elif 0 < kl < target / 2:
            self._set_rate(min(self.lr * RATE_STEP, LEARNING_RATES[1]))

    def _set_rate(self, rate: float) -> None:
        self.lr = rate
        for group in self.policy.optimizer.param_groups:
            group["lr"] = rate

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """The policy, the optimiser and all that it takes to go on exactly, as a zip file that appears complete."""
        task = self.env.task
        self.resume = {"trials": task.trial.tolist(), "weights": task.object_weights}
        partial = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.zip")
        super().save(partial, exclude, include)
        saved = {"iteration": self.iteration, "control_steps": self.num_timesteps, "saved": utc_now()}
        manifest.add(partial, self.made_by | saved)
        os.replace(partial, path)

    def checkpoint(self, path: Path) -> None:
        """All that it takes to go on exactly."""
        self.save(path)

    def go_on(self) -> Self:
        """Open, after `load`, the episodes that were open when the policy was saved."""
        task = self.env.task
        task.object_weights, task.disturber.level = self.opened_with
        self.env.reset()  # which takes the seeds that `load` has given
        self.env.streams.next_trial[:] = torch.tensor(self.resume["trials"])
        self._last_obs = self.env.reset()  # pyright: ignore[reportAttributeAccessIssue]
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
        task.object_weights, task.disturber.level = self.resume["weights"], self.level
        return self

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "outcomes", "made_by"]
