"""Rollout buffer that stays on the task's device.

Inside: [time, env, ...], so that step t is one contiguous write.   Outside: minibatches [time * env, ...], shuffled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor


@dataclass(frozen=True)
class Minibatch:
    """Some transitions; first dimension: sample."""

    obs: dict[str, Tensor]
    actions: Tensor
    """(sample, action) before clipping."""
    means: Tensor
    """(sample, action) of the distribution that they were drawn from."""
    log_probs: Tensor
    """(sample,)."""
    values: Tensor
    """(sample,)."""
    advantages: Tensor
    """(sample,)."""
    returns: Tensor
    """(sample,)."""


class DeviceRolloutBuffer:
    """What one iteration has seen; made with the arguments of a RolloutBuffer of Stable-Baselines3."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
        device: torch.device | str = "cpu",
        gae_lambda: float = 0.95,
        gamma: float = 0.99,
        n_envs: int = 1,
    ) -> None:
        """`buffer_size`: control steps per iteration."""
        self.buffer_size, self.n_envs, self.gamma, self.gae_lambda = buffer_size, n_envs, gamma, gae_lambda

        def zeros(*size: int) -> Tensor:
            return torch.zeros(buffer_size, n_envs, *size, device=device)

        self.obs = {name: zeros(*space.shape) for name, space in observation_space.spaces.items() if space.shape}
        self.actions, self.means = zeros(*action_space.shape), zeros(*action_space.shape)
        self.rewards, self.values, self.log_probs, self.ends = zeros(), zeros(), zeros(), zeros()
        self.advantages, self.returns = zeros(), zeros()
        self.alive = zeros() == 0.0
        self.pos = 0

    @property
    def full(self) -> bool:
        """Whether every step is filled."""
        return self.pos == self.buffer_size

    def reset(self) -> None:
        """Start over."""
        self.pos = 0

    def add(self, obs: dict[str, Tensor], reward: Tensor, end: Tensor, **values: Tensor) -> None:
        """Store step `pos`: what was seen before it, `reward` and `end` (env,) after; `values` by their names.

        One of them may be `alive` (env,): false from the end of an episode on that no other one follows.
        """
        for name, buffer in self.obs.items():
            buffer[self.pos] = obs[name]
        self.rewards[self.pos], self.ends[self.pos] = reward, end.float()
        for name, value in values.items():
            getattr(self, name)[self.pos] = value
        self.pos += 1

    def finish(self, last_value: Tensor) -> None:
        """Advantages and returns, once full; `last_value` (env,): of what comes after the last step.

        Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation". An end cuts
        the sum; what an episode that was only cut short would have gone on to earn is in its last reward already.
        """
        following, advantage = last_value, torch.zeros_like(last_value)
        for t in reversed(range(self.buffer_size)):
            goes_on = 1.0 - self.ends[t]
            delta = self.rewards[t] + self.gamma * following * goes_on - self.values[t]
            advantage = delta + self.gamma * self.gae_lambda * goes_on * advantage
            self.advantages[t], following = advantage, self.values[t]
        torch.add(self.advantages, self.values, out=self.returns)

    def lived(self, values: Tensor) -> Tensor:
        """(sample, ...) of `values` (time, env, ...): those of steps that belong to an episode."""
        flat = values.flatten(0, 1)
        return flat if self.alive.all() else flat[self.alive.flatten()]

    def minibatches(self, number: int, generator: torch.Generator | None = None) -> Iterator[Minibatch]:
        """All transitions of episodes once, shuffled, in `number` parts."""
        flat: dict[str, Any] = {
            name: getattr(self, name).flatten(0, 1)
            for name in ("actions", "means", "log_probs", "values", "advantages", "returns")
        }
        samples = self.alive.flatten().nonzero().squeeze(1)
        order = samples[torch.randperm(len(samples), generator=generator, device=samples.device)]
        for rows in order.chunk(number):
            obs = {name: buffer.flatten(0, 1)[rows] for name, buffer in self.obs.items()}
            yield Minibatch(obs, **{name: value[rows] for name, value in flat.items()})
