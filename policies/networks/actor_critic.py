"""Actor, critic and observation normaliser.

    observation groups -> normaliser -> actor MLP  -> mean of a diagonal Gaussian (one learnt deviation per action)
                       -> normaliser -> critic MLP -> value, in units of the returns seen so far

Actor and critic may read different groups: privileged values of the simulator can go to the critic alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dexgrasp.perception.observations import Layout
from dexgrasp.utils import distributed
from dexgrasp.utils.text import counted

MAX_NORMALISED = 5.0
"""Normalised observations are clipped to so many standard deviations."""
MIN_STD = 0.05
"""Least standard deviation of the exploration, in units of the action."""

Stage = Literal["teacher", "student"]
Encoder = Literal["lstm", "mlp", "conv"]


@dataclass(frozen=True)
class Architecture:
    """Options that decide the shapes of a policy's networks, as plain values of a checkpoint."""

    stage: Stage
    """teacher: actor and critic read the teacher's observations. student: the actor reads the student's."""
    observations: dict[str, dict[str, int]]
    """Sizes of the terms of each observation group, in order."""
    num_actions: int
    """Size of the action."""
    hidden: tuple[int, ...]
    """Widths of the hidden layers of actor and critic."""
    init_std: float
    """Standard deviation of the exploration at the start, in units of the action."""
    encoder: Encoder | None = None
    """Encoder of a student's history; None for a teacher."""

    def __post_init__(self) -> None:
        if self.init_std <= 0:
            raise ValueError(f"init_std must be positive, got {self.init_std}")

    def difference(self, other: "Architecture") -> str:
        """Return the first difference between this stored policy and what hand and task give (`other`).

        Empty where they agree.
        """
        for group in sorted(set(self.observations) & set(other.observations)):
            if found := observation_difference(group, self.observations[group], other.observations[group]):
                return found
        for name in ("stage", "num_actions", "hidden", "encoder"):
            if getattr(self, name) != getattr(other, name):
                return f"the policy has {name}={getattr(self, name)}, here it is {getattr(other, name)}"
        return ""


def observation_difference(group: str, expected: Mapping[str, int], given: Mapping[str, int]) -> str:
    """Return the first difference between the terms that a policy expects and the given ones, or "".

    `expected`, `given`: sizes of the terms of the observation group, in order.
    """
    for name in {**expected, **given}:
        if expected.get(name) != given.get(name):
            return (
                f"in the observation group '{group}' the policy expects {_term_size(expected, name)}, "
                f"the task gives {_term_size(given, name)}"
            )
    if list(expected) == list(given):
        return ""
    return (
        f"in the observation group '{group}' the policy expects the order {', '.join(expected)}, "
        f"the task gives {', '.join(given)}"
    )


def _term_size(terms: Mapping[str, int], name: str) -> str:
    """Return the size of an observation term in words: "3 values of 'object_up'"."""
    return f"{counted(terms[name], 'value')} of '{name}'" if name in terms else f"no '{name}'"


class Normaliser(nn.Module):
    """Running mean and variance, merged over batches and over ranks (Chan et al. 1979)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.var: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, value: Tensor) -> Tensor:
        """Return values (..., size) in standard deviations from the mean, clipped."""
        return ((value - self.mean) * (self.var + 1e-8).rsqrt()).clamp(-MAX_NORMALISED, MAX_NORMALISED)

    def inverse(self, value: Tensor) -> Tensor:
        """Undo `forward`, where it did not clip."""
        return value * self.deviation + self.mean

    @property
    def deviation(self) -> Tensor:
        """Standard deviation (size,)."""
        return (self.var + 1e-8).sqrt()

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        """Merge values (..., size) into the statistics."""
        flat = value.reshape(-1, value.shape[-1]).double()
        moments = torch.cat([flat.new_tensor([float(len(flat))]), flat.sum(0), flat.square().sum(0)])
        moments = distributed.all_reduce_sum(moments)
        number, size = moments[0], flat.shape[1]
        mean = moments[1 : 1 + size] / number
        var = (moments[1 + size :] / number - mean.square()).clamp(min=0.0)
        both = self.count + number
        gap = mean - self.mean
        spread = self.var * self.count + var * number + gap.square() * self.count * number / both
        self.mean.copy_(self.mean + gap * number / both)
        self.var.copy_(spread / both)
        self.count.copy_(both)


class OutputLayer(nn.Linear):
    """Last layer of a network, in single precision.

    Autocast may run the layers before it in half precision.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out), float32."""
        if not torch.is_autocast_enabled(input.device.type):  # no such branch in what is exported
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def mlp(sizes: Sequence[int], gain_out: float) -> nn.Sequential:
    """Build linear layers with ELU between them and orthogonal weights.

    `gain_out`: scale of the last layer's weights.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = OutputLayer(fan_in, fan_out) if last else nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(linear.weight, gain_out if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ELU()]
    return nn.Sequential(*layers[:-1])


class Actor(nn.Module):
    """Network from the observation vector (env, size) to the mean action (env, action)."""

    normaliser: Normaliser
    net: nn.Sequential

    def __init__(self, size: int, actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.normaliser = Normaliser(size)
        self.net = mlp([size, *hidden, actions], gain_out=0.01)

    def forward(self, obs: Tensor) -> Tensor:
        """Return the mean of the action distribution."""
        return self.net(self.normaliser(obs))


class Critic(nn.Module):
    """Network from the observation vector (env, size) to the value (env,).

    Learnt in units of the returns seen so far.
    """

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.normaliser, self.returns = Normaliser(size), Normaliser(1)
        self.net = mlp([size, *hidden, 1], gain_out=1.0)

    def normalised_value(self, obs: Tensor) -> Tensor:
        """Return the value (env, 1) in standard deviations of the returns."""
        return self.net(self.normaliser(obs))

    def forward(self, obs: Tensor) -> Tensor:
        """Return the expected discounted return (env,)."""
        return self.returns.inverse(self.normalised_value(obs)).squeeze(-1)


class GraspPolicy(nn.Module):
    """Actor and critic on observation groups (a dictionary), and the learnt deviation of the exploration."""

    stage: Stage = "teacher"
    actor_group: Stage = "teacher"
    """Group of observations that the actor reads."""
    critic_group: Stage = "teacher"
    """Group of observations that the critic reads."""

    def __init__(
        self,
        layouts: Mapping[str, Layout],
        num_actions: int,
        hidden: Sequence[int] = (256, 128),
        init_std: float = 0.3,
    ) -> None:
        """`layouts`: of the observation groups. `hidden`: widths of actor and critic. `init_std`: at the start."""
        super().__init__()
        self.layouts, self.num_actions = dict(layouts), num_actions
        self.hidden, self.init_std = tuple(hidden), init_std
        self.actor = self._make_actor()
        self.critic = Critic(self.layouts[self.critic_group].size, self.hidden)
        self.log_std = nn.Parameter(torch.full((num_actions,), init_std).log())

    def _make_actor(self) -> Any:
        return Actor(self.layouts[self.actor_group].size, self.num_actions, self.hidden)

    @property
    def architecture(self) -> Architecture:
        """Architecture of the networks, as a checkpoint stores it."""
        return Architecture(
            stage=self.stage,
            observations={
                group: {term.name: term.size for term in self.layouts[group].terms}
                for group in dict.fromkeys((self.actor_group, self.critic_group))
            },
            num_actions=self.num_actions,
            hidden=self.hidden,
            init_std=self.init_std,
        )

    def mean(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the mean action (env, action)."""
        return self.actor(obs[self.actor_group])

    def predict_values(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the values (env,)."""
        return self.critic(obs[self.critic_group])

    @property
    def std(self) -> Tensor:
        """Standard deviation (action,) of the exploration."""
        return self.log_std.exp().clamp(min=MIN_STD)

    @torch.no_grad()
    def limit_std(self, final_std: float, progress: float) -> None:
        """Limit exploration to the log-linear schedule from `init_std` to `final_std`.

        `progress`: 0 to 1.
        """
        most = (1 - progress) * math.log(self.init_std) + progress * math.log(final_std)
        self.log_std.clamp_(max=most)

    def update_normalisers(self, obs: Mapping[str, Tensor]) -> None:
        """Merge observations (..., size) of both groups into the normalisers."""
        self.actor.normaliser.update(obs[self.actor_group])
        self.critic.normaliser.update(obs[self.critic_group])
