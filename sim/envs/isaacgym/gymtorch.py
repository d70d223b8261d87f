"""Conversions between tensor API and PyTorch under the names of Isaac Gym's `gymtorch`.

Both sides are PyTorch here.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TensorHandle:
    """Holds the tensor that `Gym.acquire_*` returns and `Gym.set_*` takes."""

    tensor: Tensor


def wrap_tensor(handle: TensorHandle) -> Tensor:
    """Return the tensor of a handle; `Gym.refresh_*` writes new values into it."""
    return handle.tensor


def unwrap_tensor(tensor: Tensor) -> TensorHandle:
    """Return a handle on a tensor."""
    return TensorHandle(tensor)
