"""A GPU that is not there: tensors that say they lie on another device and compute on the CPU.

What would fail on a real GPU fails here alike: an operation on tensors of two devices, `numpy()` of one on the GPU.
What would wait for the GPU is counted: reading a value back to Python, finding out how many entries a mask has. So is
what the host sends to it: such a copy waits as well, and a recorded graph could not repeat it.
"""

import linecache
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache, partial

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from dexgrasp.sim.engine.cuda_graph import run_between_graphs

GPU = torch.device("meta")
"""Any device but the CPU would do; of this one every build of torch knows."""
CROSSING = {"aten::copy_", "aten::_to_copy"}
"""Operations that may take a tensor of the CPU beside one of the GPU."""
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}
"""Operations whose second argument may be of the CPU: a list of numbers, which is sent along."""
AWAITED = {
    "aten::nonzero",
    "aten::_local_scalar_dense",
    "aten::masked_select",
    "aten::equal",
    "aten::_linalg_check_errors",
    "aten::_unique2",
    "aten::repeat_interleave",
}
"""Operations whose result the host waits for, beside indexing by a mask."""
FOLDERS = ("/sim/", "/perception/", "/policies/")
"""Folders of the code that is named."""

waits = Counter()
"""What the host has waited for: the line of the code that asked."""
sends = Counter()
"""What the host has sent to the GPU: the line of the code that made it."""


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
    """Within it, `device=GPU` makes tensors of the pretended GPU; what asks for the device's name is told the CPU's."""
    waits.clear()
    sends.clear()
    with _Values(), _Operations(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", _Generator)
        for name in ("autocast", "is_autocast_enabled"):
            patch.setattr(torch, name, partial(_on_cpu, getattr(torch, name)))
        patch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda parameter: None)
        yield


class _Generator(torch.Generator):
    """A generator that draws for the pretended GPU as one of the CPU."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu" if device == GPU else device)


def _on_cpu(function, device="cpu", *args, **kwargs):
    """Call a function with the CPU in the place of the pretended GPU."""
    return function("cpu" if device in (GPU, GPU.type) else device, *args, **kwargs)


def _compute(func, args, kwargs):
    name, target = _name(func), kwargs.get("device")
    every = [value for value in _leaves((args, kwargs.values())) if isinstance(value, torch.Tensor)]
    if target != GPU and not any(isinstance(value, OnGpu) for value in every):
        return func(*args, **kwargs)
    flat = every
    if name in INDEXING:
        flat = [value for value in _leaves((args[0], *args[2:])) if isinstance(value, torch.Tensor)]
    there = {id(value.inner): value for value in flat if isinstance(value, OnGpu)}
    if any(isinstance(value, torch.Tensor) and value.device == GPU and not isinstance(value, OnGpu) for value in flat):
        raise RuntimeError(f"{name}: a tensor that holds nothing; the pretence has a gap")
    if name in AWAITED or (name in INDEXING and _by_mask(args[1])):
        _note(waits)
    if _sends(name, args, target):
        _note(sends)
    if target is None and name not in CROSSING and any(value.dim() and not isinstance(value, OnGpu) for value in flat):
        shapes = [(tuple(value.shape), "GPU" if isinstance(value, OnGpu) else "CPU") for value in flat]
        raise RuntimeError(f"{name}: expected all tensors to be on the same device: {shapes}")
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    made = func(*_each(unwrap, args), **{key: _each(unwrap, value) for key, value in kwargs.items()})
    leaves = (name == "aten::_to_copy" and target is not None and target != GPU) or (
        name == "aten::copy_" and not isinstance(args[0], OnGpu)
    )
    if leaves:
        _note(waits)
        return args[0] if name == "aten::copy_" else made
    return _each(lambda value: there.get(id(value), wrap(value)) if isinstance(value, torch.Tensor) else value, made)


@cache
def _name(func):
    return func.name().partition(".")[0]


def _leaves(values):
    """Entries of nested sequences; torch's own trees take longer than the operations."""
    for value in values:
        if isinstance(value, (tuple, list, type({}.values()))):
            yield from _leaves(value)
        else:
            yield value


def _each(function, value):
    """A value, or the entries of nested sequences, that went through a function."""
    if isinstance(value, (tuple, list)):
        return type(value)(_each(function, entry) for entry in value)
    return function(value)


def _by_mask(index):
    """Whether an index has a mask: how many entries it chooses is known on the GPU alone."""
    return any(part is not None and part.dtype in (torch.bool, torch.uint8) for part in index)


def _sends(name, args, target):
    """Whether an operation takes values of the CPU to the GPU; a number, a tensor without dimensions, goes along."""
    if name in INDEXING:
        return any(part is not None and not isinstance(part, OnGpu) for part in args[1])
    source = args[1] if name == "aten::copy_" else args[0] if args else None
    to_gpu = isinstance(args[0], OnGpu) if name == "aten::copy_" else target == GPU
    return name in CROSSING and to_gpu and not isinstance(source, OnGpu) and source.dim() > 0


class EngineOnGpu:
    """The CPU engine, whose tensors lie on the pretended GPU: its physics is exact and fast."""

    device = GPU

    def __init__(self, engine):
        self._engine, self.state = engine, _mapped(wrap, engine.state)

    def __getattr__(self, name):
        value = getattr(self._engine, name)
        if not callable(value):
            return value

        def call(*args, **kwargs):
            return _mapped(wrap, value(*_mapped(unwrap, args), **_mapped(unwrap, kwargs)))

        if name != "finite":
            return partial(_call_between_graphs, call)
        found = call()
        run_between_graphs(lambda: found.inner.copy_(value()))
        return lambda: found


def _call_between_graphs(call, *args, **kwargs):
    """Call what is no operation of torch; its result, None while a function is recorded."""
    found = []
    run_between_graphs(lambda: found.append(call(*args, **kwargs)))
    return found[0] if found else None


def _mapped(function, value):
    """A value whose tensors, also within dataclasses, went through a function."""
    if is_dataclass(value):
        return replace(value, **{item.name: _mapped(function, getattr(value, item.name)) for item in fields(value)})
    return tree_map(lambda leaf: _mapped(function, leaf) if is_dataclass(leaf) else function(leaf), value)


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
            _note(sends)
            return wrap(func(*args, **kwargs | {"device": "cpu"}))
        if args and isinstance(args[0], OnGpu):
            if name == "numpy":
                raise TypeError("can't convert a tensor of the GPU to numpy: use Tensor.cpu() first")
            if name in ("__getitem__", "__setitem__"):  # else PyTorch would put a list on the device by itself
                args = (args[0], _sent(args[1]), *args[2:])
            if name == "new_tensor":
                _note(sends)
                return wrap(args[0].inner.new_tensor(*args[1:], **kwargs))
            if name == "tolist":
                _note(waits)
                return args[0].inner.tolist()
        return func(*args, **kwargs)


def _sent(index):
    """An index whose lists are tensors of the pretended GPU."""
    if isinstance(index, tuple):
        return tuple(_sent(part) for part in index)
    if not isinstance(index, list):
        return index
    _note(sends)
    return wrap(torch.tensor(index, dtype=None if index else torch.int64))


def _note(counts):
    frame = sys._getframe(1)
    while frame and not any(folder in frame.f_code.co_filename for folder in FOLDERS):
        frame = frame.f_back
    if frame is None:
        counts["elsewhere"] += 1
        return
    file = frame.f_code.co_filename
    counts[f"{file.rpartition('/')[2]}: {linecache.getline(file, frame.f_lineno).strip()}"] += 1
