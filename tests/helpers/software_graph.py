"""CUDA graphs that are not there: operations are recorded with their memory, and repeated without Python.

As of a CUDA graph, a recording changes nothing, and a replay reads and writes the memory of the recording: what was
assigned anew, decided or counted in Python in between is not seen. Operations are those of the pretended GPU.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.helpers.fake_gpu import OnGpu, unwrap


class SoftwareRecorder:
    """Takes the place of dexgrasp.sim.engine.cuda_graph.CudaRecorder."""

    def __init__(self, device=None):
        self.warmed = self.recorded = 0

    def warm_up(self, function):
        self.warmed += 1
        return function()

    def begin(self):
        self.recorded += 1
        self._graph = _Operations()
        self._graph.__enter__()

    def end(self):
        graph = self._graph
        graph.__exit__(None, None, None)
        graph.undo()
        return graph.replay


class _Operations(TorchDispatchMode):
    """Operations in order: (function, arguments, results that the replay fills)."""

    def __init__(self):
        super().__init__()
        self._done, self._kept = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for value in _written(func, args, kwargs):
            if not isinstance(value, OnGpu):
                continue
            storage = unwrap(value).untyped_storage()
            self._kept.setdefault(storage.data_ptr(), (storage, storage.clone()))
        before = tree_map(_memory, (args, kwargs))
        made = func(*args, **kwargs)
        if not any(isinstance(value, OnGpu) for value in tree_leaves((args, kwargs, made))):
            return made  # of the host
        fresh = [_memory(value) for value in tree_leaves(made) if isinstance(value, torch.Tensor)]
        if any(returned.alias_info is not None for returned in func._schema.returns):
            fresh = []  # a view, or what was written in place
        before[1].update({"device": "cpu"} if "device" in kwargs else {})
        self._done.append((func, *before, fresh))
        return made

    def undo(self):
        """A recording runs nothing."""
        for storage, before in self._kept.values():
            storage.copy_(before)

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, fresh in self._done:
            made = func(*tree_map(_memory, args), **tree_map(_memory, kwargs))
            found = [value for value in tree_leaves(made) if isinstance(value, torch.Tensor)]
            for memory, value in zip(fresh, found, strict=False):
                if memory.shape != value.shape:
                    raise RuntimeError(f"{func}: {tuple(memory.shape)} became {tuple(value.shape)}")
                memory.copy_(value)


def _memory(value):
    """A tensor of the CPU with the memory and shape that a tensor has now; anything else as it is."""
    return unwrap(value).detach() if isinstance(value, torch.Tensor) else value


def _written(func, args, kwargs):
    """Tensors that an operation writes in place."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (part for part in tree_leaves(value) if isinstance(part, torch.Tensor))
    for argument in func._schema.arguments:
        if argument.name in kwargs and argument.alias_info is not None and argument.alias_info.is_write:
            yield from (part for part in tree_leaves(kwargs[argument.name]) if isinstance(part, torch.Tensor))
