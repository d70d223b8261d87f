"""GPU engine on MuJoCo Warp: one model for all scenes, whose objects are rows of its arrays.

    targets -> schedule (chunk, env, ctrl) -> [ servo -> physics -> counters ] x substeps -> state

On a GPU the brackets are one CUDA graph. The state tensors share Warp's memory, and a step reads nothing back to the
host. On a machine without a GPU the same code runs, slowly, on Warp's CPU backend.

Warp allocates its contact and constraint buffers once and drops what does not fit. Counters on the device hold the
largest demand, so that an overflow raises an error that names a sufficient size.

Features that MuJoCo Warp 4.0.0 lacks:
    orientation servo    missing; sim/engine/warp_kernels.py makes it of three servos
    solver tolerance     not below 1e-6: numbers are float32
    arms                 not here: their inverse kinematics runs on the CPU
"""

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import mujoco
import numpy as np
import torch
from torch import Tensor

from dexgrasp.utils.text import install_command

try:
    import mujoco_warp as mjw
    import warp as wp
except ImportError as error:
    raise ImportError(f"engine=warp needs mujoco_warp and warp: {install_command('gpu')} ({error})") from error

from dexgrasp.sim.engine.base import InitialState, PhysicsVariation
from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.engine.cuda_graph import run_between_graphs
from dexgrasp.sim.engine.state import BatchState, RawBatch, SceneIndices, apply_variation, chunks_of
from dexgrasp.sim.engine.warp_kernels import PalmServo, record_peaks
from dexgrasp.sim.engine.warp_objects import PER_WORLD, ObjectTable, PerWorldFields
from dexgrasp.sim.scene import OBJECT, TABLE, ModelPool, build_model

log = logging.getLogger(__name__)

MARGIN = 1.5
"""Factor on the need of a warm-up."""

MIN_CONTACTS, MIN_ROWS = 24, 80
"""Least buffer sizes: a hand that lies on the table needs as many."""

HARMLESS_OVERFLOWS = mjw.OverflowType.ITERATIONS | mjw.OverflowType.LS_ITERATIONS
"""Overflow bits of a solver that reached its last iteration: less exact, but no contact or constraint is dropped."""
SOLVER_LIMITS = ("iterations", "ls_iterations", "ccd_iterations")
"""Fields of WarpCfg that replace MuJoCo's options."""
MIN_TOLERANCE = 1e-6
"""Least solver tolerance of Warp."""
MAX_VALID = 1e10
"""Largest valid position, velocity and acceleration; MuJoCo's mjMAXVAL."""
OTHER_OBJECTS = "the memory of the meshes grew for other objects"
"""Why a graph of the physics does not fit any more."""


@dataclass(frozen=True)
class BufferUsage:
    """Hold the largest buffer use of a batch so far."""

    rows: int
    """Constraint rows of one environment."""
    contacts: int
    """Contacts of all environments together."""
    pairs: int
    """Pairs of geoms of all environments together that passed the broad phase."""

    def sizes(self, num_envs: int, margin: float = MARGIN) -> tuple[int, int]:
        """Return (nconmax, njmax) for that use, with a margin."""
        per_env = max(self.contacts, self.pairs) / num_envs
        return max(MIN_CONTACTS, math.ceil(margin * per_env)), max(MIN_ROWS, math.ceil(margin * self.rows))


class BufferMonitor:
    """Monitors the buffers of a batch."""

    def __init__(self, model: mjw.Model, data: mjw.Data) -> None:
        model.opt.warn_overflow = 0  # no printing from kernels: `check` says it once
        self._model, self._data = model, data
        self._peaks = wp.zeros(3, dtype=int)

    def record(self) -> None:
        """Update the counters after a substep; nothing is read back."""
        data = self._data
        wp.launch(record_peaks, data.nworld, [data.nefc, data.nacon, data.ncollision], [self._peaks])

    def peak_usage(self) -> BufferUsage:
        """Return the largest use so far; synchronises with the device."""
        rows, contacts, pairs = (int(peak) for peak in self._peaks.numpy())
        return BufferUsage(rows=rows, contacts=contacts, pairs=pairs)

    def check(self) -> None:
        """Raise BufferError if anything was dropped; synchronises with the device."""
        data, peaks = self._data, self.peak_usage()
        nconmax, njmax = peaks.sizes(data.nworld)
        if peaks.rows > data.njmax:
            raise BufferError(
                f"Warp left constraints out: an environment needed {peaks.rows} rows and there is room for "
                f"{data.njmax}; set warp.njmax={njmax}"
            )
        if max(peaks.contacts, peaks.pairs) > data.naconmax:
            raise BufferError(
                f"Warp left contacts out: {data.nworld} environments needed {peaks.pairs} pairs of geoms and "
                f"{peaks.contacts} contacts and there is room for {data.naconmax}; set warp.nconmax={nconmax}"
            )
        self._check_bits()

    def _check_bits(self) -> None:
        """Check the overflow bits, which Warp reports without a number."""
        bits = mjw.OverflowType(int(np.bitwise_or.reduce(self._data.overflow.numpy())))
        if bits & mjw.OverflowType.CONTACT_MATCH:
            raise BufferError(
                f"Warp left contacts out of a contact sensor: more than {self._model.opt.contact_sensor_maxmatch} "
                "belong to one sensor; set warp.max_contacts_per_sensor to twice as many"
            )
        if bits & ~HARMLESS_OVERFLOWS:
            log.warning("Warp gave up on some contacts of this batch: %s", (bits & ~HARMLESS_OVERFLOWS).name)
            self._data.overflow.zero_()


def warp_device(index: int) -> str:
    """Return the device name of GPU `index` for Warp and torch, "cpu" without a GPU.

    Raise ValueError where only Warp finds the GPU.
    """
    if not wp.is_cuda_available():
        log.warning("engine=warp: no GPU here, physics runs slowly on Warp's CPU backend")
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError(
            f"engine=warp: Warp finds a GPU, this torch ({torch.__version__}) does not; install a build of torch "
            "for CUDA, or hide the GPU with CUDA_VISIBLE_DEVICES="
        )
    if not any(Path(wp.config.kernel_cache_dir or "").rglob("*.cubin")):
        log.warning("engine=warp: compiling kernels for this GPU, once; that takes minutes")
    return f"cuda:{index % torch.cuda.device_count()}"


def compile_scene(pool: ModelPool) -> mujoco.MjModel:
    """Compile the scene with all object slots collidable; each world enables its own."""
    if pool.mount != "floating":
        raise ValueError(
            f"engine=warp knows mount=floating, got '{pool.mount}': the inverse kinematics of an arm runs on the CPU; "
            "use engine=cpu"
        )
    obj = pool.library[pool.library.names[0]]
    model = build_model(pool.hand, obj, pool.physics, pool.mount, pool.slots, turn="axes")
    slots = [model.geom(f"object_{i}").id for i in range(pool.slots)]
    model.geom_contype[slots], model.geom_conaffinity[slots] = OBJECT, TABLE
    model.opt.jacobian = mujoco.mjtJacobian.mjJAC_DENSE  # with which parity was measured
    return model


def put_model(compiled: mujoco.MjModel, num_envs: int) -> mjw.Model:
    """Put the model on the device with its per-world fields. Raise ValueError where Warp lacks a feature."""
    worlds = max(num_envs, 2)  # Warp looks for absent pieces only where it sees several rows of them
    try:
        model = mjw.put_model(compiled, batch_sizes=dict.fromkeys(PER_WORLD, worlds))
    except NotImplementedError as error:
        raise ValueError(
            f"engine=warp cannot simulate this scene, MuJoCo Warp says: {error}; use engine=cpu"
        ) from error
    if compiled.opt.tolerance < MIN_TOLERANCE:
        log.info("engine=warp: solver tolerance %g instead of %g", MIN_TOLERANCE, compiled.opt.tolerance)
    # The acceleration without constraints is nothing but a start of the solver, which has a better one: the last step.
    model.opt.run_qacc_smooth = False
    model.opt.gravity = wp.array(np.tile(compiled.opt.gravity, (worlds, 1)), dtype=wp.vec3)
    return model


class WarpEngine:
    """Simulates `num_envs` scenes on one device in float32; on a GPU not repeatable bit by bit."""

    def __init__(self, pool: ModelPool, num_envs: int, cfg: WarpCfg, device: str = "cpu") -> None:
        """Make the engine. `cfg` must state buffer sizes (`dexgrasp.sim.engine.warp_buffer_sizing`).

        `device`: of torch and Warp, "cpu" or "cuda:0".

        Raises ValueError for what Warp cannot simulate.
        """
        self.pool, self.num_envs, self.device = pool, num_envs, torch.device(device)
        self._graphs: dict[tuple[int, int], wp.Graph] = {}
        self._wp_device = wp.get_device(device)
        self._compiled = compiled = compile_scene(pool)
        with self._on_device():
            self._model = put_model(compiled, num_envs)
            self._data = mjw.make_data(compiled, nworld=num_envs, nconmax=cfg.nconmax, njmax=cfg.njmax)
            self.buffers = BufferMonitor(self._model, self._data)
            self._raw = self._bind()
            self._rows = BatchState(pool, compiled, self._raw)
            self.slots, self.state = self._rows.slots, self._rows.named
            self._objects = ObjectTable(self._model, compiled, pool.library, pool.physics)
            self._worlds = PerWorldFields(self._model, compiled, self.slots, pool.physics)
            self._targets = wp.zeros((num_envs, compiled.nu), dtype=float)
            self._model.callback.control = PalmServo(compiled, self._targets)
        self.set_solver(cfg)
        self._schedule = torch.zeros(0, device=self.device)
        self.body_names = [compiled.body(i).name for i in range(1, compiled.nbody)]
        self._names = [pool.library.names[0]] * num_envs
        self._variation = _moved(PhysicsVariation.none(num_envs, len(pool.hand.motors.names)), self.device)
        self._write_worlds(torch.arange(num_envs, device=self.device), self._names, self._variation)

    def set_solver(self, cfg: WarpCfg) -> None:
        """Set the limits of the solvers and of a sensor's contacts; graphs are recorded anew."""
        option = self._model.opt
        option.contact_sensor_maxmatch = cfg.max_contacts_per_sensor
        for name in SOLVER_LIMITS:
            setattr(option, name, getattr(cfg, name) or int(getattr(self._compiled.opt, name)))
        self._forget_graphs("other limits of its solvers")

    def _forget_graphs(self, reason: str) -> None:
        """Drop the graphs of the physics, which do not fit any more: the next step records one anew."""
        if self._graphs:
            log.info("engine=warp: the CUDA graph of the physics is recorded anew: %s", reason)
            self._graphs.clear()

    @property
    def physics_state(self) -> tuple[Tensor, ...]:
        """Return the tensors from which a step begins; they share Warp's memory."""
        raw = self._raw
        return raw.qpos, raw.qvel, raw.ctrl, raw.xfrc_applied, self._warmstart

    def solver_iterations(self) -> int:
        """Return the iterations of the slowest environment in the last substep; synchronises with the device."""
        return int(self._data.solver_niter.numpy().max())

    def _bind(self) -> RawBatch:
        """Return tensors that share Warp's memory; controls have the layout of MuJoCo's own model."""
        data = self._data
        tensors = {
            name: wp.to_torch(getattr(data, name))
            for name in ("qpos", "qvel", "xfrc_applied", "actuator_force", "sensordata", "qacc", "qacc_warmstart")
        }
        self._qacc, self._warmstart = tensors.pop("qacc"), tensors.pop("qacc_warmstart")
        return RawBatch(**tensors, ctrl=torch.zeros(self.num_envs, self._compiled.nu, device=self.device))

    def reset(self, rows: Tensor, start: InitialState) -> None:
        """Reset the scenes `rows` to `start`, at rest (`Engine.reset`).

        Synchronises with the device to check its buffers.
        """
        self.check()
        variation, raw = _moved(start.variation, self.device), self._raw
        for row, name in zip(rows.tolist(), start.objects, strict=True):
            self._names[row] = name
        for item in fields(PhysicsVariation):
            getattr(self._variation, item.name)[rows] = getattr(variation, item.name)
        self._write_worlds(rows, start.objects, variation)
        raw.qpos[rows] = torch.from_numpy(self._compiled.qpos0).to(raw.qpos)
        for cleared in (raw.qvel, raw.ctrl, raw.xfrc_applied, self._qacc, self._warmstart):
            cleared[rows] = 0.0
        self._rows.place(rows, start)
        with self._restoring_others(rows):
            self._forward()
        self._rows.refresh()

    def load_objects(self, names: Sequence[str]) -> None:
        """Put objects in their own size on the device, so that drawing them changes no array of the model."""
        self.pool.library.prepare(names)
        with self._on_device():
            _, changed = self._objects.find(names, [1.0] * len(names))
        if changed:
            self._forget_graphs(OTHER_OBJECTS)

    def _write_worlds(self, rows: Tensor, names: Sequence[str], variation: PhysicsVariation) -> None:
        """Write the objects and physics parameters of the worlds `rows`."""
        with self._on_device():
            numbers, changed = self._objects.find(names, variation.size.tolist())
            self._worlds.write(rows, self._objects.gather(numbers), _moved(variation, torch.float32))
        if changed:  # CUDA graphs point to the arrays of before
            self._forget_graphs(OTHER_OBJECTS)
        self.state.object_mass[rows] = self._worlds.object_mass(rows)
        self.state.object_friction[rows] = variation.friction.float()

    def step(
        self, joint_target: Tensor, palm_pos_w: Tensor, palm_quat_w: Tensor, period_s: float, late: Tensor | None = None
    ) -> None:
        """Simulate one control period (`Engine.step`)."""
        fingers, palm = self._rows.fingers, self._rows.palm_actuation
        target = joint_target.to(fingers.dtype)
        fingers.copy_(target if late is None else torch.where(late[:, None], fingers, target))
        substeps = round(period_s / self.pool.physics.timestep_s)
        chunks = chunks_of(substeps)
        schedule = self._scheduled(chunks)
        self._rows.set_palm_target(palm_pos_w, palm_quat_w)
        for chunk in range(chunks):
            palm.interpolate((chunk + 1) / chunks)
            schedule[chunk].copy_(self._raw.ctrl)
            fingers.copy_(target)
        self._run(chunks, substeps // chunks)
        self._rows.refresh()

    def _scheduled(self, chunks: int) -> Tensor:
        """Return the buffer for the controls of `chunks` parts of a control step."""
        if len(self._schedule) < chunks:
            self._schedule = self._raw.ctrl.new_zeros(chunks, *self._raw.ctrl.shape)
            self._forget_graphs("more parts of a control step")
        return self._schedule

    def _run(self, chunks: int, substeps: int) -> None:
        """Simulate `substeps` with each of the scheduled controls."""
        run_between_graphs(partial(self._launch, chunks, substeps))

    def _launch(self, chunks: int, substeps: int) -> None:
        """Do so on the device: on a GPU by a graph of Warp's own."""
        with self._on_device():
            if not self._wp_device.is_cuda:
                self._play(chunks, substeps)
                return
            if (chunks, substeps) not in self._graphs:
                self._graphs[chunks, substeps] = self._record(chunks, substeps)
            wp.capture_launch(self._graphs[chunks, substeps])

    def _play(self, chunks: int, substeps: int) -> None:
        """Simulate; the sensors are evaluated in the last substep, nothing reads them before."""
        option, last = self._model.opt, (chunks - 1, substeps - 1)
        for chunk in range(chunks):
            wp.copy(self._targets, wp.from_torch(self._schedule[chunk]))
            for substep in range(substeps):
                option.disableflags |= mjw.DisableBit.SENSOR
                if (chunk, substep) == last:
                    option.disableflags &= ~mjw.DisableBit.SENSOR
                mjw.step(self._model, self._data)
                self.buffers.record()

    def _record(self, chunks: int, substeps: int) -> "wp.Graph":
        """Record `_play` as a CUDA graph, after loading its kernels by a substep that is undone."""
        memory = self._raw.qpos, self._raw.qvel, self._warmstart, wp.to_torch(self._data.time)
        kept = [tensor.clone() for tensor in memory]
        mjw.step(self._model, self._data)
        self.buffers.record()
        for tensor, value in zip(memory, kept, strict=True):
            tensor.copy_(value)
        wp.synchronize_device(self._wp_device)
        with wp.ScopedStream(wp.Stream(self._wp_device)), wp.ScopedCapture(self._wp_device) as capture:
            self._play(chunks, substeps)
        return capture.graph  # pyright: ignore[reportReturnType]

    def _forward(self) -> None:
        """Compute all quantities derived from positions, velocities and controls."""
        with self._on_device():
            wp.copy(self._targets, wp.from_torch(self._raw.ctrl))
            mjw.forward(self._model, self._data)
            self.buffers.record()

    @contextmanager
    def _restoring_others(self, rows: Tensor | None = None) -> Iterator[None]:
        """Restore sensor and actuator values in all environments but `rows`."""
        others = torch.ones(self.num_envs, 1, dtype=torch.bool, device=self.device)
        if rows is not None:
            others[rows] = False
        shown = self._raw.sensordata, self._raw.actuator_force, self._qacc
        kept = [tensor.clone() for tensor in shown]
        yield
        for tensor, value in zip(shown, kept, strict=True):
            tensor.copy_(torch.where(others, value, tensor))

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Run Warp on this engine's device and torch's stream."""
        with ExitStack() as stack:
            stack.enter_context(wp.ScopedDevice(self._wp_device))
            if self._wp_device.is_cuda:
                stack.enter_context(wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self.device))))
            yield

    def freeze(self, rows: Tensor) -> None:
        """Do nothing: all environments are stepped by one launch."""

    def push(self, force_w: Tensor) -> None:
        """Apply external forces to the objects (`Engine.push`)."""
        self._rows.push(force_w)

    def move_object(self, rows: Tensor, object_pos_w: Tensor, where: Tensor | None = None) -> None:
        """Place the objects of `rows`, at rest (`Engine.move_object`)."""
        self._rows.move_object(rows, object_pos_w, where)

    def recover(self, mask: Tensor) -> None:
        """Put scenes back to the start of their episodes (`Engine.recover`).

        Contacts are those of the next step; until then there are none.
        """
        self._rows.recover(mask)
        for live in (self._raw.sensordata, self._raw.actuator_force, self._qacc, self._warmstart):
            live.copy_(torch.where(mask[:, None], 0.0, live))
        self._rows.refresh()

    def write(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Overwrite quantities of the state in `rows` (`Engine.write`)."""
        self._rows.write(rows, values)

    def simulate(self, substeps: int = 1) -> None:
        """Simulate physics steps with the present targets (`Engine.simulate`)."""
        self._scheduled(1)[0].copy_(self._raw.ctrl)
        self._run(1, substeps)
        self._rows.refresh()

    def body_states(self) -> Tensor:
        """Return the states of all bodies (`Engine.body_states`)."""
        model, data = self._model, self._data
        with self._on_device():
            mjw.kinematics(model, data)
            mjw.com_pos(model, data)
            mjw.com_vel(model, data)
            names = ("xpos", "xquat", "cvel", "subtree_com")
            pos, quat, cvel, com = (wp.to_torch(getattr(data, name)) for name in names)
        root = torch.from_numpy(self._compiled.body_rootid).long().to(self.device)
        spin, lever = cvel[..., :3], pos - com[:, root]
        velocity = cvel[..., 3:] + torch.linalg.cross(spin, lever)  # cvel belongs to the tree's centre of mass
        return torch.cat([pos, quat, velocity, spin], dim=2)[:, 1:]

    def contact_forces(self) -> Tensor:
        """Return the net contact forces on all bodies (`Engine.contact_forces`)."""
        with self._restoring_others(), self._on_device():
            self._forward()
            mjw.rne_postconstraint(self._model, self._data)
        return wp.to_torch(self._data.cfrc_ext)[:, 1:, 3:] - self._raw.xfrc_applied[:, 1:, :3]

    def finite(self) -> Tensor:
        """Return where the physics is valid (`Engine.finite`)."""
        numbers = self._raw.qpos, self._raw.qvel, self._qacc
        return torch.stack([(number.abs() < MAX_VALID).all(dim=1) for number in numbers]).all(dim=0)

    @property
    def buffer_sizes(self) -> dict[str, int]:
        """Return the buffer sizes: constraint rows per environment, contacts of all."""
        return {"njmax": self._data.njmax, "naconmax": self._data.naconmax}

    def check(self) -> None:
        """Raise BufferError if physics dropped contacts or constraints; synchronises with the device."""
        self.buffers.check()

    def get_model(self, row: int) -> mujoco.MjModel:
        """Return the model of one environment, equal to that of the CPU engine (`Engine.get_model`)."""
        own = {item.name: getattr(self._variation, item.name)[row : row + 1].cpu() for item in fields(PhysicsVariation)}
        model, variation = self.pool.get(self._names[row], float(own["size"])), PhysicsVariation(**own)
        if bool(variation.differs_from_nominal()):
            model = copy.copy(model)
            apply_variation(
                model, SceneIndices(self.pool, model), self.pool.physics, variation, 0, mujoco.MjData(model)
            )
        return model

    def get_data(self, row: int) -> mujoco.MjData:
        """Return the data of one environment, with poses and contacts recomputed from its state."""
        model = self.get_model(row)
        data = mujoco.MjData(model)
        for name in ("qpos", "qvel", "ctrl", "xfrc_applied"):
            getattr(data, name)[:] = getattr(self._raw, name)[row].cpu().numpy()
        mujoco.mj_forward(model, data)
        return data


def _moved(variation: PhysicsVariation, to: torch.device | torch.dtype) -> PhysicsVariation:
    """Return a copy on another device or in another type."""
    return PhysicsVariation(
        **{item.name: getattr(variation, item.name).to(to, copy=True) for item in fields(PhysicsVariation)}
    )
