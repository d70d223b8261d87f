"""Densities, divergences and losses of the learners, each a pure function."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from policies import ranks


def log_prob(actions: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Log-density (sample,) of actions (sample, action) under Gaussians with these means and deviations (action,)."""
    standard = (actions - means) / log_std.exp()
    return -(0.5 * standard.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def gaussian_kl(old_means: Tensor, old_log_std: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """KL divergence (sample,) of the new Gaussians from the old ones."""
    spread = (old_log_std.exp().square() + (old_means - means).square()) / (2 * log_std.exp().square())
    return (log_std - old_log_std + spread - 0.5).sum(-1)


def surrogate_loss(now: Tensor, before: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (Schulman et al. 2017, eq. 7), to be reduced, and the share of samples that were clipped.

    `now`, `before`: log-probabilities (sample,) of the actions under the policies of now and of the rollout.
    """
    ratio = (now - before).exp()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
    return loss, ((ratio - 1).abs() > clip).float().mean()


def mean_record(records: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of every entry over the gradient steps."""
    return {name: sum(record[name] for record in records) / len(records) for name in records[0]}


@torch.no_grad()
def standardise(advantages: Tensor, counted: Tensor) -> None:
    """To mean 0 and deviation 1 over the samples of all ranks that are `counted` (bool, same shape), in place."""
    samples = advantages[counted]
    moments = torch.stack([samples.new_tensor(samples.numel()), samples.sum(), samples.square().sum()])
    number, first, second = ranks.total(moments.double())
    mean = first / number
    advantages.sub_(mean).div_((second / number - mean.square()).clamp(min=0).sqrt() + 1e-8)


def imitation_loss(means: Tensor, labels: Tensor) -> Tensor:
    """Mean squared difference of the student's mean actions (sample, action) from the teacher's."""
    return functional.mse_loss(means, labels)


def reconstruction_loss(felt: Tensor, true: Tensor) -> Tensor:
    """Mean squared error of what the student feels (sample, felt), in standard deviations."""
    return functional.mse_loss(felt, true)
