"""Rollout buffer on the task's device, with generalised advantage estimation.

Inside: [time, env, ...], so that step t is one contiguous write.   Outside: minibatches [time * env, ...], shuffled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Minibatch:
    """Transitions; first dimension: sample."""

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
    labelled: Mapping[str, Tensor] = field(default_factory=dict)
    """Stored observations with a teacher's labels, beside the transitions; empty where nothing is imitated."""


class RolloutBuffer:
    """Transitions of one iteration."""

    def __init__(
        self,
        num_steps: int,
        num_envs: int,
        observations: Mapping[str, int],
        num_actions: int,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        device: torch.device | str = "cpu",
    ) -> None:
        """`num_steps`: control steps per iteration. `observations`: size of each group."""
        self.num_steps, self.gamma, self.gae_lambda = num_steps, gamma, gae_lambda

        def zeros(*size: int) -> Tensor:
            return torch.zeros(num_steps, num_envs, *size, device=device)

        self.obs = {name: zeros(size) for name, size in observations.items()}
        self.actions, self.means = zeros(num_actions), zeros(num_actions)
        self.rewards, self.values, self.log_probs, self.ends = zeros(), zeros(), zeros(), zeros()
        self.advantages, self.returns = zeros(), zeros()
        self.alive = zeros() == 0.0
        self.pos = 0

    def reset(self) -> None:
        """Restart at the first step."""
        self.pos = 0

    def add(self, obs: Mapping[str, Tensor], reward: Tensor, end: Tensor, **values: Tensor) -> None:
        """Store step `pos`: observations before it, `reward` and `end` (env,) after it, `values` by name.

        One of `values` may be `alive` (env,): false after the end of an episode that no other episode follows.
        """
        for name, buffer in self.obs.items():
            buffer[self.pos] = obs[name]
        self.rewards[self.pos], self.ends[self.pos] = reward, end.float()
        for name, value in values.items():
            getattr(self, name)[self.pos] = value
        self.pos += 1

    def compute_returns_and_advantages(self, last_value: Tensor) -> None:
        """Fill `returns` and `advantages` once every step is stored; `last_value` (env,): after the last step.

        Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation". An end cuts
        the sum; the last reward of a truncated episode holds the value of its final state already.
        """
        next_value, advantage = last_value, torch.zeros_like(last_value)
        for t in reversed(range(self.num_steps)):
            goes_on = 1.0 - self.ends[t]
            delta = self.rewards[t] + self.gamma * next_value * goes_on - self.values[t]
            advantage = delta + self.gamma * self.gae_lambda * goes_on * advantage
            self.advantages[t], next_value = advantage, self.values[t]
        torch.add(self.advantages, self.values, out=self.returns)

    def valid(self, values: Tensor) -> Tensor:
        """Return those (sample, ...) of `values` (time, env, ...) whose steps belong to an episode."""
        flat = values.flatten(0, 1)
        return flat if self.alive.all() else flat[self.alive.flatten()]

    def shuffled(self, number: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Return the rows (sample,) of all transitions of episodes, shuffled, in `number` parts.

        On a GPU all parts have one size, whatever ended early, because its host does not wait to count: the first
        transitions fill the last part once more.
        """
        alive = self.alive.flatten()
        if alive.device.type == "cpu":
            samples = alive.nonzero().squeeze(1)
            return samples[torch.randperm(len(samples), generator=generator)].chunk(number)
        order = torch.randperm(len(alive), generator=generator, device=alive.device)
        order = order[alive[order].int().argsort(descending=True, stable=True)]
        size = -(-len(alive) // number)
        return order[torch.arange(number * size, device=alive.device) % alive.sum()].split(size)

    def minibatch(self, rows: Tensor) -> Minibatch:
        """Return the transitions `rows` (sample,)."""
        names = ("actions", "means", "log_probs", "values", "advantages", "returns")
        obs = {name: buffer.flatten(0, 1)[rows] for name, buffer in self.obs.items()}
        return Minibatch(obs, **{name: getattr(self, name).flatten(0, 1)[rows] for name in names})
