"""Losses of the learners: log-densities, KL divergence, clipped surrogate, imitation, reconstruction."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dexgrasp.utils import distributed


def log_prob(actions: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Return log-densities (sample,) of actions (sample, action) under Gaussians of means and log_std (action,)."""
    standard = (actions - means) / log_std.exp()
    return -(0.5 * standard.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def gaussian_kl(old_means: Tensor, old_log_std: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Return the KL divergence (sample,) of the new Gaussians from the old ones."""
    spread = (old_log_std.exp().square() + (old_means - means).square()) / (2 * log_std.exp().square())
    return (log_std - old_log_std + spread - 0.5).sum(-1)


def surrogate_loss(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss (Schulman et al. 2017, eq. 7) and the share of clipped samples.

    `log_prob`, `old_log_prob`: (sample,) of the actions under the present policy and that of the rollout.
    """
    ratio = (log_prob - old_log_prob).exp()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
    return loss, ((ratio - 1).abs() > clip).float().mean()


def mean_record(records: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every entry over the gradient steps."""
    return {name: sum(record[name] for record in records) / len(records) for name in records[0]}


@torch.no_grad()
def normalize_advantages(advantages: Tensor, counted: Tensor) -> None:
    """Scale advantages in place to mean 0 and deviation 1 over the `counted` samples (bool mask) of all ranks."""
    samples = advantages[counted]
    moments = torch.stack([samples.new_tensor(samples.numel()), samples.sum(), samples.square().sum()])
    number, first, second = distributed.all_reduce_sum(moments.double())
    mean = first / number
    advantages.sub_(mean).div_((second / number - mean.square()).clamp(min=0).sqrt() + 1e-8)


def imitation_loss(means: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared difference of the student's mean actions (sample, action) from the teacher's."""
    return functional.mse_loss(means, labels)


def reconstruction_loss(felt: Tensor, true: Tensor) -> Tensor:
    """Return the mean squared error of reconstructed values (sample, felt), in standard deviations."""
    return functional.mse_loss(felt, true)
