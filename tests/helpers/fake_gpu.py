"""A GPU that is not there: tensors that say they lie on another device and compute on the CPU.

What would fail on a real GPU fails here alike: an operation on tensors of two devices, `numpy()` of one on the GPU.
What would wait for the GPU is counted: reading a value back to Python, finding out how many entries a mask has.
"""

import traceback
from collections import Counter
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("meta")
"""Any device but the CPU would do; of this one every build of torch knows."""
CROSSING = {"aten::copy_", "aten::_to_copy"}
"""Operations that may take a tensor of the CPU beside one of the GPU."""
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}
"""Operations whose second argument may be of the CPU: a list of numbers, which is sent along."""
AWAITED = {"aten::nonzero", "aten::_local_scalar_dense"}
"""Operations whose result the host waits for."""

waits = Counter()
"""What the host has waited for: the line of the code that asked."""


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU around one of the CPU."""

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=GPU
        )
        made.inner = inner
        return made

    def __repr__(self):
        return f"OnGpu({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


def wrap(value):
    """Tensors of the CPU as tensors of the pretended GPU, others as they are."""
    return OnGpu(value) if isinstance(value, torch.Tensor) and not isinstance(value, OnGpu) else value


def unwrap(value):
    """The other way round."""
    return value.inner if isinstance(value, OnGpu) else value


@contextmanager
def pretend_gpu():
    """Within it, `device=GPU` makes tensors of the pretended GPU."""
    waits.clear()
    with _Values(), _Operations():
        yield


def _compute(func, args, kwargs):
    name = func.name().partition(".")[0]
    strict = (args[0], *args[2:]) if name in INDEXING else args
    flat = [value for value in tree_flatten((strict, kwargs))[0] if isinstance(value, torch.Tensor)]
    there = {id(value.inner): value for value in flat if isinstance(value, OnGpu)}
    target = kwargs.get("device")
    if not there and target != GPU and not any(isinstance(value, OnGpu) for value in tree_flatten(args)[0]):
        return func(*args, **kwargs)
    if any(isinstance(value, torch.Tensor) and value.device == GPU and not isinstance(value, OnGpu) for value in flat):
        raise RuntimeError(f"{name}: a tensor that holds nothing; the pretence has a gap")
    if name in AWAITED:
        _note()
    if target is None and name not in CROSSING and any(value.dim() and not isinstance(value, OnGpu) for value in flat):
        shapes = [(tuple(value.shape), "GPU" if isinstance(value, OnGpu) else "CPU") for value in flat]
        raise RuntimeError(f"{name}: expected all tensors to be on the same device: {shapes}")
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    made = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    leaves = (name == "aten::_to_copy" and target is not None and target != GPU) or (
        name == "aten::copy_" and not isinstance(args[0], OnGpu)
    )
    if leaves:
        _note()
        return args[0] if name == "aten::copy_" else made
    return tree_map(lambda value: there.get(id(value), wrap(value)) if isinstance(value, torch.Tensor) else value, made)


class _Operations(TorchDispatchMode):
    """Also those that make tensors out of nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class _Values(TorchFunctionMode):
    """What reads a tensor's memory without an operation."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if (
            name in ("tensor", "as_tensor")
            and kwargs.get("device") is not None
            and torch.device(kwargs["device"]) == GPU
        ):
            return wrap(func(*args, **kwargs | {"device": "cpu"}))
        if args and isinstance(args[0], OnGpu):
            if name == "numpy":
                raise TypeError("can't convert a tensor of the GPU to numpy: use Tensor.cpu() first")
            if name in ("__getitem__", "__setitem__"):  # else PyTorch would put a list on the device by itself
                args = (args[0], _sent(args[1]), *args[2:])
            if name == "new_tensor":
                return wrap(args[0].inner.new_tensor(*args[1:], **kwargs))
            if name == "tolist":
                _note()
                return args[0].inner.tolist()
        return func(*args, **kwargs)


def _sent(index):
    """An index whose lists are tensors of the pretended GPU."""
    if isinstance(index, tuple):
        return tuple(_sent(part) for part in index)
    return wrap(torch.tensor(index, dtype=None if index else torch.int64)) if isinstance(index, list) else index


def _note():
    frames = [
        frame for frame in traceback.extract_stack() if "/sim/" in frame.filename or "/perception/" in frame.filename
    ]
    waits[f"{frames[-1].filename.rpartition('/')[2]}: {frames[-1].line}" if frames else "elsewhere"] += 1
