"""Runtime of an exported policy for a robot; needs numpy and onnxruntime only.

    policy = Policy.load("bundle", joint_names)          refused unless hashes, joints and recorded outputs agree
    policy.reset(PregraspPlan(...))                      the palm stands at its pre-grasp
    command = policy.act(Observation(...))               rate_hz times a second: grasp, lift, hold

Everything has a leading batch dimension or none; a robot has none.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray

from dexgrasp.policies.deploy.bundle import BATCH_MULTIPLE, GOLDEN, GRAPH, Bundle, BundleError, read_bundle
from dexgrasp.policies.deploy.contract import Contract
from dexgrasp.policies.deploy.time_limit import time_limit
from dexgrasp.utils.number_arrays import NUMBERS, number_array
from dexgrasp.utils.text import one_line

TOLERANCE = 1e-5
"""Largest difference from a recorded output [rad, m or 1]."""
STEP_LIMIT_S, BATCH_LIMIT_S = 1.0, 10.0
"""Longest time of a step of the graph for one robot, and for a batch [s]; a graph may hold a loop without an end."""
MAX_MEMORY_BYTES = 2**31
"""Most memory of the tensors of all graphs of a process; a graph may ask for any size."""
MAX_GOLDEN = 4096
"""Largest number of recorded steps."""
PLAN_FIELDS = {
    "start_pos_w": "palm_pos_w",
    "start_quat_w": "palm_quat_w",
    "target_pos_w": "palm_pos_w",
    "target_quat_w": "palm_quat_w",
    "joint_target": "joint_pos",
    "depth_m": "depth_m",
    "closing": "closing",
    "floor_m": "floor_m",
}
"""Input of the graph -> field of the plan that gives its value, or its first value."""
QUAT_TOLERANCE = 0.01
"""Accepted deviation of the length of a quaternion from 1."""
RANGES = {
    "palm_pos_w": (-10.0, 10.0, " m"),
    "points_w": (-10.0, 10.0, " m"),
    "joint_pos": (-7.0, 7.0, " rad"),
    "depth_m": (0.0, 2.0, " m"),
    "floor_m": (0.0, 2.0, " m"),
    "closing": (-100.0, 100.0, ""),
    "visible_fraction": (0.0, 1.0, ""),
}
"""Least and greatest value of readings and plans, and the unit."""
ONNX_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)", "int64": "tensor(int64)", "bool": "tensor(bool)"}

Array = NDArray[Any]


@dataclass(frozen=True)
class PregraspPlan:
    """Pre-grasp of an episode."""

    palm_pos_w: ArrayLike
    """(3,) position of the palm [m]."""
    palm_quat_w: ArrayLike
    """(4,) wxyz."""
    depth_m: ArrayLike
    """() length of the approach along the palm normal [m]."""
    closing: ArrayLike
    """(motor,) direction in which the fingers close, of the grasp style."""
    floor_m: ArrayLike
    """() least height of the palm while the fingers are open, of the grasp style [m]."""
    joint_pos: ArrayLike
    """(motor,) finger targets at which the hand waits [rad]."""


@dataclass(frozen=True)
class Observation:
    """Sensor readings of one control step."""

    joint_pos: ArrayLike
    """(joint,) [rad], in the contract's order."""
    palm_pos_w: ArrayLike
    """(3,) [m]."""
    palm_quat_w: ArrayLike
    """(4,) wxyz."""
    points_w: ArrayLike
    """(point, 3) of the object [m]; as many as the contract says."""
    visible_fraction: ArrayLike = 1.0
    """() points of the newest frame as a fraction of the first frame's; unused with one frame only."""
    view_fresh: ArrayLike = True
    """() whether the newest frame had enough points."""


@dataclass(frozen=True)
class Command:
    """Targets of hand and arm for the next control period."""

    joint_target: Array
    """(motor,) targets of the motors' joints [rad]."""
    palm_pos_w: Array
    """(3,) [m]."""
    palm_quat_w: Array
    """(4,) wxyz."""
    action: Array
    """(action,) correction of the scripted grasp."""
    grip: Array
    """() grip confidence: thumb and another finger touch the object, 0 to 1, estimated from the joints."""
    object_bottom_m: Array
    """() mean height of the lowest quarter of the object's points [m]."""


class Policy:
    """Exported policy and the state of its episode."""

    def __init__(self, contract: Contract, session: onnxruntime.InferenceSession) -> None:
        self.contract = contract
        """Meaning of the policy's inputs and outputs."""
        self._session = session
        self._inputs = contract.graph.inputs
        self._outputs = contract.graph.outputs
        self._readings = {name: self._inputs[name] for name in contract.graph.readings}
        self._state_names = contract.graph.state
        self._plan: dict[str, Array] = {}
        self._state: dict[str, Array] = {}
        self._other_outputs: dict[str, Array] = {}
        self._is_unbatched = True

    @classmethod
    def load(
        cls,
        folder: str | Path,
        joint_names: Sequence[str] | None = None,
        public_key: str | Path | None = None,
        hand_file: str | Path | None = None,
    ) -> Self:
        """Return the policy of a bundle after a replay of its recorded outputs.

        `hand_file`: hand.yaml with the limits of a hand that is not in assets/hands. Raises BundleError with the reason
        if the bundle is invalid or an output differs, and, where a `public_key` (PEM file) is given, if its owner has
        not signed the bundle.
        """
        bundle = read_bundle(folder, joint_names, public_key, hand_file)
        policy = cls(bundle.contract, _session(folder, bundle))
        policy._replay(folder, bundle)
        return policy

    @property
    def rate_hz(self) -> float:
        """Control rate: calls of `act` per second."""
        return self.contract.control.rate_hz

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints, in the order of all values per joint."""
        return self.contract.hand.joint_names

    @property
    def motor_names(self) -> tuple[str, ...]:
        """Names of the motors, those of their joints, in the order of all values per motor."""
        return self.contract.hand.motors.names

    @property
    def steps(self) -> Array:
        """(env,) control steps since `reset`."""
        return self._state["step"]

    @property
    def step(self) -> int:
        """Control steps of the first row since `reset`; 0 before it."""
        return int(self.steps[0]) if self._state else 0

    @property
    def phase(self) -> str:
        """Phase of the next step: grasp, lift or hold."""
        control = self.contract.control
        if self.step < control.grasp_steps:
            return "grasp"
        return "lift" if self.step < control.grasp_steps + control.lift_steps else "hold"

    def reset(self, plan: PregraspPlan, rows: Sequence[int] | None = None) -> None:
        """Start a new grasp; `rows`: in these rows alone.

        The fields of `plan` have a leading batch dimension, or none. Raises ValueError for values that are not finite,
        of the wrong size or outside RANGES; the running episode then stays unchanged.
        """
        palm_pos_w = _numbers("palm_pos_w", plan.palm_pos_w)
        unbatched = palm_pos_w.ndim <= 1
        number = 1 if unbatched else len(palm_pos_w)
        values = {name: (field, getattr(plan, field)) for name, field in PLAN_FIELDS.items()}
        initial = tuple(
            {
                name: self._batch(name, values[name][1], number, unbatched, values[name][0])
                if name in values
                else self._zeros(name, number)
                for name in names
            }
            for names in (self.contract.graph.plan, self._state_names)
        )
        if rows is not None:
            initial = tuple(
                {name: _with_rows(kept[name], value, rows) for name, value in new.items()}
                for kept, new in zip((self._plan, self._state), initial, strict=True)
            )
        self._plan, self._state = initial
        self._is_unbatched = unbatched

    def act(self, observation: Observation) -> Command:
        """Return the targets for the next control period.

        Raises ValueError for values that are not finite, of the wrong size or outside RANGES, and for a step that takes
        longer than STEP_LIMIT_S (a batch: BATCH_LIMIT_S); the state then stays unchanged.
        """
        found = self._compute(self.graph_inputs(observation))
        for name, value in zip(self._outputs, found, strict=True):
            if not np.isfinite(value).all():
                raise ValueError(f"output '{name}' of the policy is not finite")
        self._state = dict(zip(self._state_names, found, strict=False))
        self._other_outputs = dict(zip(self._outputs[len(self._state) :], found[len(self._state) :], strict=False))
        return self._command()

    def graph_inputs(self, observation: Observation) -> dict[str, Array]:
        """Return the graph's inputs for an observation and the present state."""
        if not self._state:
            raise RuntimeError("the policy has no pre-grasp plan: call reset(plan) before act(observation)")
        rows = len(self._state["step"])
        given = {
            name: self._batch(name, getattr(observation, name), rows, self._is_unbatched) for name in self._readings
        }
        return given | self._plan | self._state

    def _compute(self, feed: dict[str, Array]) -> list[Array]:
        """Return the graph's outputs; the result of a row does not depend on the batch size."""
        rows = len(feed["step"])
        missing = 0 if self._is_unbatched else -rows % BATCH_MULTIPLE
        if missing:
            feed = {name: np.concatenate([value, value[-1:].repeat(missing, axis=0)]) for name, value in feed.items()}
        options, limit_s = onnxruntime.RunOptions(), STEP_LIMIT_S if self._is_unbatched else BATCH_LIMIT_S
        try:
            with time_limit(limit_s, lambda: setattr(options, "terminate", True)):
                found: list[Array] = self._session.run(None, feed, options)  # pyright: ignore[reportAssignmentType]
        except Exception as error:  # onnxruntime's own classes have no public base
            took = too_long(limit_s) if options.terminate else f"failed: {one_line(error, 300)}"
            raise ValueError(f"a step of the policy's graph {took}") from error
        return [value[:rows] for value in found]

    def _command(self) -> Command:
        found = self._state | self._other_outputs
        found = {name: value[0] for name, value in found.items()} if self._is_unbatched else found
        return Command(
            joint_target=found["joint_target"],
            palm_pos_w=found["target_pos_w"],
            palm_quat_w=found["target_quat_w"],
            action=found["last_action"],
            grip=found["grip"],
            object_bottom_m=found["base_m"],
        )

    def _batch(self, name: str, value: ArrayLike, rows: int, unbatched: bool, field: str = "") -> Array:
        """Return a field's `value` in the input's type and shape, batch first; raises ValueError if it does not fit."""
        spec, name = self._inputs[name], field or name
        array = _numbers(name, value)
        if unbatched:
            array = array[None]
        if array.shape != (rows, *spec.size):
            raise ValueError(f"{name}: expected shape {(rows, *spec.size)}, batch first, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
        _check_range(name, array)
        return array.astype(spec.dtype)

    def _zeros(self, name: str, rows: int) -> Array:
        return np.zeros((rows, *self._inputs[name].size), dtype=self._inputs[name].dtype)

    def _replay(self, folder: str | Path, bundle: Bundle) -> None:
        """Raise BundleError if a recorded output is not reproduced."""
        feed, wanted = _recorded(Path(folder) / GOLDEN, bundle)
        self._is_unbatched = False
        try:
            replayed = _abandoned_after(BATCH_LIMIT_S + 1.0, lambda: self._compute(feed))
        except ValueError as error:
            raise BundleError(f"{Path(folder) / GRAPH}: the recorded inputs do not fit the graph: {error}") from error
        for name, value in zip(self._outputs, replayed, strict=True):
            same = value.shape == wanted[name].shape and value.dtype == wanted[name].dtype
            gap = np.abs(value.astype(np.float64) - wanted[name]).max() if same else np.inf
            if not gap <= TOLERANCE:
                raise BundleError(
                    f"{folder}: replayed '{name}' differs from the recorded one by {gap:.3g} (> {TOLERANCE})"
                )
        self._is_unbatched = True


def _abandoned_after(limit_s: float, call: Callable[[], list[Array]]) -> list[Array]:
    """Return the result of a call in another thread, which is left to itself after `limit_s` [s].

    The graph's own time limit ends it between two operators; one operator may take for ever.
    """
    found: list[list[Array]] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="replay", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise ValueError(f"a step of the policy's graph {too_long(limit_s)}")
    if errors:
        raise errors[0]
    return found[0]


def too_long(limit_s: float) -> str:
    """Return why something was ended after `limit_s` [s]; the cause may be another program's load."""
    return f"took longer than {limit_s:g} s; the machine may be busy, run it again when it is idle"


def _numbers(name: str, value: ArrayLike) -> Array:
    """Return a copy of an array of numbers or truth values; error messages contain `name`."""
    try:
        return number_array(value, NUMBERS + "b")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_range(name: str, array: Array) -> None:
    """Raise ValueError for finite values that no robot has, or a quaternion that is none."""
    if name.endswith("quat_w"):
        lengths = np.linalg.norm(array.astype(np.float64), axis=-1)
        if (np.abs(lengths - 1.0) > QUAT_TOLERANCE).any():
            worst = float(lengths.flat[np.abs(lengths - 1.0).argmax()])
            raise ValueError(f"{name}: the quaternion wxyz has length {worst:.4g}, expected 1")
        return
    if name not in RANGES:
        return
    low, high, unit = RANGES[name]
    if ((array < low) | (array > high)).any():
        worst = float(array.flat[np.maximum(low - array, array - high).argmax()])
        millimetres = "; is it in millimetres?" if unit == " m" else ""
        raise ValueError(f"{name}: {worst:.4g}{unit} is outside {low:g} to {high:g}{unit}{millimetres}")


def _with_rows(kept: Array, new: Array, rows: Sequence[int]) -> Array:
    """Return a copy of `kept` with these rows of `new`."""
    changed = kept.copy()
    changed[rows] = new[rows]
    return changed


def _recorded(file: Path, bundle: Bundle) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the recorded inputs and outputs by name. Raises BundleError if one is missing or of the wrong shape."""
    golden, graph = bundle.golden, bundle.contract.graph
    names = [*(f"in/{name}" for name in graph.inputs), *(f"out/{name}" for name in graph.outputs)]
    if missing := [name for name in names if name not in golden]:
        raise BundleError(f"{file} lacks {missing}")
    sizes = {f"in/{name}": spec for name, spec in graph.inputs.items()}
    sizes |= {f"out/next_{name}": graph.inputs[name] for name in graph.state}
    rows = (golden[names[0]].shape or (0,))[0]
    for name, spec in sizes.items():
        value, expected = golden[name], (rows, *spec.size)
        if not 1 <= rows <= MAX_GOLDEN or value.shape != expected or value.dtype != spec.dtype:
            raise BundleError(
                f"{file}: {name} must be {spec.dtype} of shape {expected}, 1 to {MAX_GOLDEN} rows; "
                f"it is {value.dtype} of shape {value.shape}"
            )
    inputs = {name: golden[f"in/{name}"] for name in graph.inputs}
    return inputs, {name: golden[f"out/{name}"] for name in graph.outputs}


@cache
def _limit_memory() -> None:
    """Bound the memory of the sessions of this process that use the common allocator."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    default = -1  # of onnxruntime
    limits = {"max_mem": MAX_MEMORY_BYTES, "arena_extend_strategy": 1}  # 1: as much as is asked for
    limits |= {"initial_chunk_size_bytes": default, "max_dead_bytes_per_chunk": default}
    with suppress(Exception):  # another package has registered its allocator; onnxruntime's class has no public base
        onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg(limits))


def _session(folder: str | Path, bundle: Bundle) -> onnxruntime.InferenceSession:
    """Return a session with one thread that does not spin: the control loop shares its core.

    Loading and each step have a time limit, and all sessions of the process a common limit of memory.
    """
    _limit_memory()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised; printed as well they fill the terminal
    cancelled: list[bool] = []

    def cancel() -> None:
        cancelled.append(True)
        options.set_load_cancellation_flag(True)

    try:  # one operator of constants cannot be cancelled where it is folded; a step of the replay is abandoned
        with time_limit(BATCH_LIMIT_S, cancel):
            session = onnxruntime.InferenceSession(
                bundle.graph, options, ["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
            )
    except Exception as error:  # onnxruntime's own classes have no public base
        why = f"loading it {too_long(BATCH_LIMIT_S)}" if cancelled else one_line(error, 300)
        raise BundleError(f"{Path(folder) / GRAPH} is not a graph that onnxruntime runs: {why}") from error
    graph = bundle.contract.graph
    for kind, stated, found in (
        ("inputs", list(graph.inputs), [item.name for item in session.get_inputs()]),
        ("outputs", list(graph.outputs), [item.name for item in session.get_outputs()]),
    ):
        if stated != found:
            raise BundleError(f"{Path(folder) / GRAPH}: {kind} are {found}, the contract states {stated}")
    for item in session.get_inputs():
        spec = graph.inputs[item.name]
        size = tuple(item.shape[1:])
        if (item.type, size) != (ONNX_TYPES[spec.dtype], spec.size) or len(item.shape) != len(spec.size) + 1:
            raise BundleError(
                f"{Path(folder) / GRAPH}: input {item.name} is {item.type} {list(size)} per row, the contract states "
                f"{spec.dtype} {list(spec.size)}"
            )
    return session
