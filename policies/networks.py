"""Actor, critic and normaliser, as a policy of Stable-Baselines3.

    observation groups -> normaliser -> actor MLP  -> mean of a diagonal Gaussian (one learnt deviation per action)
                       -> normaliser -> critic MLP -> value, in units of the returns seen so far

Actor and critic may look at different groups: what only a simulator knows can go to the critic alone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from policies import ranks

CLIP = 5.0
"""Normalised observations are clipped to so many standard deviations."""
LEAST_STD = 0.05
"""Exploration does not fall below this, in units of the action."""


class Normaliser(nn.Module):
    """Mean and variance of everything that `update` has seen, merged over batches and over ranks (Chan et al. 1979)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.var: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, value: Tensor) -> Tensor:
        """Values (..., size) in standard deviations from the mean, clipped."""
        return ((value - self.mean) * (self.var + 1e-8).rsqrt()).clamp(-CLIP, CLIP)

    def inverse(self, value: Tensor) -> Tensor:
        """What `forward` made `value` from, where it was not clipped."""
        return value * self.deviation + self.mean

    @property
    def deviation(self) -> Tensor:
        """(size,) standard deviation."""
        return (self.var + 1e-8).sqrt()

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        """Take in values (..., size)."""
        flat = value.reshape(-1, value.shape[-1]).double()
        moments = torch.cat([flat.new_tensor([float(len(flat))]), flat.sum(0), flat.square().sum(0)])
        moments = ranks.total(moments)
        number, size = moments[0], flat.shape[1]
        mean = moments[1 : 1 + size] / number
        var = (moments[1 + size :] / number - mean.square()).clamp(min=0.0)
        both = self.count + number
        gap = mean - self.mean
        spread = self.var * self.count + var * number + gap.square() * self.count * number / both
        self.mean.copy_(self.mean + gap * number / both)
        self.var.copy_(spread / both)
        self.count.copy_(both)


class Head(nn.Linear):
    """A last layer: in single precision where autocast computes those before it in half."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out), float32."""
        if not torch.is_autocast_enabled(input.device.type):  # no such branch in what is exported
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def mlp(sizes: Sequence[int], gain_out: float) -> nn.Sequential:
    """Linear layers with ELU between them, orthogonal weights; the last layer's are scaled by `gain_out`."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = Head(fan_in, fan_out) if last else nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(linear.weight, gain_out if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ELU()]
    return nn.Sequential(*layers[:-1])


class Actor(nn.Module):
    """Observation vector (env, size) to the mean action (env, action)."""

    normaliser: Normaliser
    net: nn.Sequential

    def __init__(self, size: int, actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.normaliser = Normaliser(size)
        self.net = mlp([size, *hidden, actions], gain_out=0.01)

    def forward(self, obs: Tensor) -> Tensor:
        """Mean of the action distribution."""
        return self.net(self.normaliser(obs))


class Critic(nn.Module):
    """Observation vector (env, size) to the value (env,); it learns in units of the returns that it has seen."""

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.normaliser, self.returns = Normaliser(size), Normaliser(1)
        self.net = mlp([size, *hidden, 1], gain_out=1.0)

    def standard(self, obs: Tensor) -> Tensor:
        """The value in standard deviations of the returns."""
        return self.net(self.normaliser(obs))

    def forward(self, obs: Tensor) -> Tensor:
        """The expected discounted return."""
        return self.returns.inverse(self.standard(obs)).squeeze(-1)


class GraspPolicy(ActorCriticPolicy):
    """Actor and critic on observation groups (a dictionary), with what Stable-Baselines3 expects of a policy."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        actor_group: str = "teacher",
        critic_group: str = "teacher",
        hidden: Sequence[int] = (256, 128),
        init_std: float = 0.3,
        **options: Any,
    ) -> None:
        """`hidden`: widths of actor and critic. `init_std`: exploration at the start, in units of the action."""
        groups = observation_space.spaces  # pyright: ignore[reportAttributeAccessIssue]
        for group in (actor_group, critic_group):
            if group not in groups:
                raise ValueError(f"no observation group '{group}'; groups: {sorted(groups)}")
        self.actor_group, self.critic_group = actor_group, critic_group
        self.hidden, self.init_std = tuple(hidden), init_std
        super().__init__(observation_space, action_space, lr_schedule, **options)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"actor_group": self.actor_group, "critic_group": self.critic_group}
        return super()._get_constructor_parameters() | own | {"hidden": self.hidden, "init_std": self.init_std}

    def _build(self, lr_schedule: Schedule) -> None:
        actions = self.action_space.shape[0]  # pyright: ignore[reportOptionalSubscript]
        self.actor = self._make_actor(actions)
        self.critic = Critic(self._size(self.critic_group), self.hidden)
        self.log_std = nn.Parameter(torch.full((actions,), self.init_std).log())
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1.0),  # pyright: ignore[reportCallIssue]
            **self.optimizer_kwargs,
        )

    def _size(self, group: str) -> int:
        return self.observation_space[group].shape[0]  # pyright: ignore[reportIndexIssue]

    def _make_actor(self, actions: int) -> Any:
        return Actor(self._size(self.actor_group), actions, self.hidden)

    def mean(self, obs: dict[str, Tensor]) -> Tensor:
        """Mean action (env, action)."""
        return self.actor(obs[self.actor_group])

    @property
    def std(self) -> Tensor:
        """(action,) standard deviation of the exploration."""
        return self.log_std.exp().clamp(min=LEAST_STD)

    @torch.no_grad()
    def narrow(self, final_std: float, progress: float) -> None:
        """Keep exploration under the line from `init_std` to `final_std`, even in its logarithm; `progress` 0 to 1."""
        most = (1 - progress) * math.log(self.init_std) + progress * math.log(final_std)
        self.log_std.clamp_(max=most)

    def update_normalisers(self, obs: dict[str, Tensor]) -> None:
        """Take in observations (..., size) of both groups."""
        self.actor.normaliser.update(obs[self.actor_group])
        self.critic.normaliser.update(obs[self.critic_group])

    def predict_values(self, obs: dict[str, Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Values (env,)."""
        return self.critic(obs[self.critic_group])

    def get_distribution(self, obs: dict[str, Tensor]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The action distribution of Stable-Baselines3."""
        return self.action_dist.proba_distribution(self.mean(obs), self.std.log())  # pyright: ignore[reportCallIssue]

    def forward(self, obs: dict[str, Tensor], deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Actions (env, action), values (env,) and log-probabilities (env,)."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: dict[str, Tensor], actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Values (env,), log-probabilities (env,) of the actions, entropy (env,)."""
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def _predict(self, observation: dict[str, Tensor], deterministic: bool = False) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.get_distribution(observation).get_actions(deterministic=deterministic)
