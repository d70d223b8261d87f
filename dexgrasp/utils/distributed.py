"""Helpers for several processes that train one policy (torchrun); with one process they do nothing."""

import importlib
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def init_process_group(backend: str) -> None:
    """Join the process group that torchrun describes in the environment."""
    # Imported later, on the first step of an optimiser, its default arguments would hold the group, and with it threads
    # that outlive the interpreter, which aborts the process now and then.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend)


def shutdown() -> None:
    """Wait at a barrier, then destroy the process group.

    An early exit would break the last messages of other processes.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum of `value` over all ranks."""
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def all_reduce_mean(value: Tensor) -> Tensor:
    """Return the mean of `value` over all ranks."""
    return all_reduce_sum(value) / world_size()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their mean over all ranks; one message for all of them."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, averaged in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))
