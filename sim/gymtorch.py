"""Isaac Gym's `gymtorch` by name: what crosses between the tensor API and PyTorch. Here both sides are PyTorch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TensorHandle:
    """What `Gym.acquire_*` returns and `Gym.set_*` takes."""

    tensor: Tensor


def wrap_tensor(handle: TensorHandle) -> Tensor:
    """The tensor behind a handle; `Gym.refresh_*` writes new values into it."""
    return handle.tensor


def unwrap_tensor(tensor: Tensor) -> TensorHandle:
    """A handle on a tensor."""
    return TensorHandle(tensor)
