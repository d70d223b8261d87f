"""CUDA graphs of functions of tensors: a few launches instead of one for every operation.

    call 1   plain: kernels are loaded, what outlives a call is allocated
    call 2   recorded: Python runs, the GPU does not; then replayed
    then     inputs are copied to the memory of the recording, the graphs are replayed, outputs are copied from theirs

A graph repeats operations on the memory of its recording, and no Python: the function asks the host nothing, and what
it assigns to attributes of its owner is copied to where it was (`HeldState`). On a CPU every call is a plain one.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger("dexgrasp")

Tensors = Mapping[str, Tensor]


class Recorder(Protocol):
    """Records operations as graphs, one after another, which share the memory of what they make."""

    def warm_up(self, function: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Call a function as recording does, without recording it."""
        ...

    def begin(self) -> None:
        """Start to record a graph."""
        ...

    def end(self) -> Callable[[], None]:
        """End the graph; return its replay."""
        ...


class CudaRecorder:
    """Records CUDA graphs on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self._graph, self._open = torch.cuda.CUDAGraph(), ExitStack()

    def warm_up(self, function: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Call a function on the stream of the recordings."""
        present = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            found = function()
        present.wait_stream(self._stream)
        return found

    def begin(self) -> None:
        """Start to record a graph."""
        self._graph = torch.cuda.CUDAGraph()
        self._open.enter_context(torch.cuda.graph(self._graph, pool=self._pool, stream=self._stream))

    def end(self) -> Callable[[], None]:
        """End the graph; return its replay."""
        self._open.close()
        return self._graph.replay


def make_recorder(device: torch.device) -> Recorder | None:
    """Return the recorder of a device; None where there is nothing to record with."""
    return CudaRecorder(device) if device.type == "cuda" else None


class _Recording:
    """Graphs, and the work between them, in the order in which they are played."""

    present: "_Recording | None" = None
    """That which is being recorded now."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._parts: list[Callable[[], None]] = []

    def record(self, function: Callable[[], None]) -> None:
        _Recording.present = self
        try:
            self._recorder.begin()
            function()
            self._parts.append(self._recorder.end())
        finally:
            _Recording.present = None

    def split(self, work: Callable[[], None]) -> None:
        self._parts += [self._recorder.end(), work]
        self._recorder.begin()

    def replay(self) -> None:
        for part in self._parts:
            part()


def run_between_graphs(work: Callable[[], None]) -> None:
    """Do work that no graph of torch can hold, as the launch of another graph.

    While a function is recorded, the work waits for the replays: between the graph of what came before and the next.
    """
    if _Recording.present is None:
        work()
    else:
        _Recording.present.split(work)


class HeldState:
    """Tensors that an object, and the objects of this package that it holds, refer to by their attributes.

    `hold` copies those that were assigned anew to the memory of before, so that graphs find them there. Tensors of the
    CPU beside a GPU, and numbers, are the host's: they are set again after a replay, which runs no Python.
    """

    def __init__(self, owner: object, device: torch.device, apart: Sequence[object]) -> None:
        """`apart`: objects that are left out, with all that is reached by them alone."""
        self._device, self._objects = device, list(_objects(owner, apart))
        self._values = {(place, name): value for place, name, value in self._attributes() if self._leaves(value)}

    def hold(self) -> None:
        """Copy tensors that were assigned anew to their first memory.

        Raise ValueError, and change nothing, where they do not fit there.
        """
        pairs: dict[int, tuple[Tensor, Tensor]] = {}
        moved = [(self._objects[place], name, value) for (place, name), value in self._values.items()]
        moved = [(holder, name, value) for holder, name, value in moved if vars(holder)[name] is not value]
        for holder, name, value in moved:
            old, new = self._leaves(value), self._leaves(vars(holder)[name])
            if [leaf.shape for leaf in old] != [leaf.shape for leaf in new]:
                raise ValueError(f"{type(holder).__name__}.{name} has another shape")
            for to, source in zip(old, new, strict=True):
                if pairs.setdefault(id(to), (to, source))[1] is not source:
                    raise ValueError(f"{type(holder).__name__}.{name} shares its memory no more")
        sources = [source.clone() if id(source) in pairs else source for _, source in pairs.values()]
        for (to, _), source in zip(pairs.values(), sources, strict=True):
            if to is not source:
                to.copy_(source)
        for holder, name, value in moved:
            setattr(holder, name, value)

    def host_values(self) -> dict[tuple[int, str], Any]:
        """Return copies of the host's tensors and numbers."""
        return {
            (place, name): value.clone() if isinstance(value, Tensor) else value
            for place, name, value in self._attributes()
            if isinstance(value, (bool, int, float)) or (isinstance(value, Tensor) and value.device != self._device)
        }

    def set_host_values(self, values: Mapping[tuple[int, str], Any]) -> None:
        """Set the host's tensors and numbers to copies of `values`."""
        for (place, name), value in values.items():
            present = vars(self._objects[place])[name]
            if isinstance(value, Tensor):
                present.copy_(value)
            else:
                setattr(self._objects[place], name, value)

    def _attributes(self) -> Iterator[tuple[int, str, Any]]:
        for place, holder in enumerate(self._objects):
            for name, value in vars(holder).items():
                yield place, name, value

    def _leaves(self, value: object) -> list[Tensor]:
        return [leaf for leaf in _entries(value) if isinstance(leaf, Tensor) and leaf.device == self._device]


def _changed(before: Mapping[tuple[int, str], Any], after: Mapping[tuple[int, str], Any]) -> dict[tuple[int, str], Any]:
    """Return the host's values that differ."""

    def differs(one: Any, other: Any) -> bool:
        return not torch.equal(one, other) if isinstance(one, Tensor) else one != other

    return {slot: value for slot, value in after.items() if slot in before and differs(before[slot], value)}


def _entries(value: object) -> Iterator[object]:
    """Yield the entries of nested containers and dataclasses."""
    if isinstance(value, (tuple, list)):
        parts: Any = value
    elif isinstance(value, dict):
        parts = value.values()
    elif is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, item.name) for item in fields(value))
    else:
        yield value
        return
    for part in parts:
        yield from _entries(part)


def _objects(owner: object, apart: Sequence[object]) -> Iterator[object]:
    """Yield an object and all objects of this package that it refers to, without those `apart`."""
    waiting, seen = [owner], {id(owner), *map(id, apart)}
    while waiting:
        holder = waiting.pop()
        yield holder
        for value in vars(holder).values():
            for entry in _entries(value):
                module = type(entry).__module__
                ours = module.startswith("dexgrasp.") and module != __name__ and hasattr(entry, "__dict__")
                if ours and id(entry) not in seen:
                    seen.add(id(entry))
                    waiting.append(entry)


class GraphedFunction:
    """Calls a function of named tensors: on a GPU by graphs that were recorded of it."""

    def __init__(
        self,
        function: Callable[[Tensors], dict[str, Tensor]],
        device: torch.device,
        owner: object = None,
        apart: Sequence[object] = (),
    ) -> None:
        """`owner`: object whose state the function changes, also by assigning to attributes; None: only in place.

        `apart`: objects of the owner that the function does not read, whose tensors may come and go.
        """
        self._function, self._device, self._owner, self._apart = function, device, owner, apart
        self._recorder = make_recorder(device)
        self._inputs: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}
        self._held: HeldState | None = None
        self._plays: dict[Hashable, tuple[_Recording, Mapping] | None] = {}

    def __call__(self, inputs: Tensors, key: Hashable = ()) -> dict[str, Tensor]:
        """Return what the function returns.

        `key`: facts of the host that decide what is computed; each has graphs of its own. None: a plain call.
        """
        if self._recorder is None or key is None:
            return self._function(inputs)
        self._prepare(inputs)
        if key not in self._plays:
            self._plays[key] = None
            found = self._recorder.warm_up(lambda: self._function(self._inputs))
            self._outputs = self._outputs or {name: value.clone() for name, value in found.items()}
            return found
        play = self._plays[key]
        if play is None:
            play = self._plays[key] = self._record()
        play[0].replay()
        if self._held is not None:
            self._held.set_host_values(play[1])
        return {name: value.clone() for name, value in self._outputs.items()}

    def _prepare(self, inputs: Tensors) -> None:
        """Bring inputs and state to the memory of the recordings, which are dropped where they do not fit there."""
        shapes, known = ({name: value.shape for name, value in each.items()} for each in (inputs, self._inputs))
        try:
            if shapes != known:
                raise ValueError("the inputs have another shape")
            if self._held is not None:
                self._held.hold()
        except ValueError as error:
            if known:
                log.info("the CUDA graphs of %s are recorded anew: %s", self._function.__qualname__, error)
            self._inputs = {name: torch.empty_like(value) for name, value in inputs.items()}
            self._outputs, self._held = {}, None
            self._plays.clear()
        for name, memory in self._inputs.items():
            memory.copy_(inputs[name])

    def _record(self) -> tuple[_Recording, Mapping]:
        assert self._recorder is not None
        if self._held is None and self._owner is not None:
            self._held = HeldState(self._owner, self._device, self._apart)
        before = self._held.host_values() if self._held else {}
        recording = _Recording(self._recorder)
        recording.record(self._once)
        return recording, _changed(before, self._held.host_values() if self._held else {})

    def _once(self) -> None:
        for name, value in self._function(self._inputs).items():
            self._outputs[name].copy_(value)
        if self._held is not None:
            self._held.hold()
