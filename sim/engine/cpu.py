"""CPU engine on `mujoco.batch.Batch`: one compiled model per environment, chosen at its reset.

State tensors are views of the batch's rows where MuJoCo stores the quantity; the others are computed after a step.

Poses, velocities and contact forces of all bodies are computed on demand, on a copy: MuJoCo's own are those before the
last substep, and updating the batch itself would change the contact sensors and the start of the next step.
"""

import copy
import logging
import os
import warnings
from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp.sim.engine.base import InitialState
from dexgrasp.sim.engine.state import BatchState, RawBatch, apply_variation, chunks_of
from dexgrasp.sim.scene import ModelPool

Rows = NDArray[np.float64]
log = logging.getLogger(__name__)


def body_states(model: mujoco.MjModel, data: mujoco.MjData, qpos: Rows, qvel: Rows) -> Rows:
    """Return the states of all bodies but the world (body, 13), world frame.

    Position [m], quaternion wxyz, velocity of the body frame's origin [m/s], angular velocity [rad/s]. `data`:
    scratch of that layout.
    """
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_comVel(model, data)
    spin, lever = data.cvel[1:, :3], data.xpos[1:] - data.subtree_com[model.body_rootid[1:]]
    velocity = data.cvel[1:, 3:] + np.cross(spin, lever)  # cvel belongs to the tree's centre of mass
    return np.concatenate([data.xpos[1:], data.xquat[1:], velocity, spin], axis=1)


def contact_forces(
    model: mujoco.MjModel, data: mujoco.MjData, qpos: Rows, qvel: Rows, ctrl: Rows, warmstart: Rows, push: Rows
) -> Rows:
    """Return the net contact force on all bodies but the world (body, 3), world frame [N].

    `push` (body, 6): external wrenches, which do not count.
    """
    data.qpos[:], data.qvel[:], data.ctrl[:], data.qacc_warmstart[:] = qpos, qvel, ctrl, warmstart
    data.xfrc_applied[:] = push
    mujoco.mj_forward(model, data)
    mujoco.mj_rnePostConstraint(model, data)
    return data.cfrc_ext[1:, 3:] - push[1:, :3]


class CpuEngine:
    """Simulates `num_envs` scenes on `num_threads` threads (0 = all cores).

    Results are bit-identical for any number of threads.
    """

    device = torch.device("cpu")

    def __init__(self, pool: ModelPool, num_envs: int, num_threads: int = 0) -> None:
        self.pool, self.num_envs = pool, num_envs
        model = pool.get(pool.library.names[0])
        self._models: list[mujoco.MjModel] = [model] * num_envs
        self.batch = Batch(model, nsim=num_envs, nthread=num_threads or os.cpu_count() or 1)
        self.batch.set_models(self._models)
        self._failed, self._frozen = (torch.zeros(num_envs, dtype=torch.bool) for _ in range(2))
        self._scratch = mujoco.MjData(model)
        self._raw, self._warning = self._bind()
        self._rows = BatchState(pool, model, self._raw)
        self.slots, self.state = self._rows.slots, self._rows.named
        self.body_names = [model.body(i).name for i in range(1, model.nbody)]

    def _bind(self) -> tuple[RawBatch, Tensor]:
        """Return live tensors over the batch's rows, and MuJoCo's warnings."""
        fields = ("qpos", "qvel", "ctrl", "xfrc_applied", "actuator_force", "sensordata", "warning")
        live = {name: getattr(self.batch, name) for name in fields}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # derived fields are read-only
            tensors = {name: torch.from_numpy(array) for name, array in live.items()}
        warning = tensors.pop("warning")
        return RawBatch(**tensors), warning

    def reset(self, rows: Tensor, start: InitialState) -> None:
        """Reset the scenes `rows` to `start`, at rest (`Engine.reset`).

        Rows whose physics departs from the nominal get a copy of their object's model.
        """
        variation, varied = start.variation, start.variation.differs_from_nominal().tolist()
        for i, row in enumerate(rows.tolist()):
            around = start.neighbours.names[i] if start.neighbours else ()
            model = self.pool.get(start.objects[i], float(variation.size[i]), around)
            if varied[i]:
                model = copy.copy(model)
                apply_variation(model, self.slots, self.pool.physics, variation, i, self._scratch)
            self._models[row] = model
            self.state.object_mass[row] = model.body_mass[self.slots.object_body]
        self.state.object_friction[rows] = variation.friction
        self.batch.set_models(self._models)
        ids = rows.numpy().astype(np.int32)
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self._rows.place(rows, start)
        self.batch.forward(ids)
        self._failed[rows] = self._frozen[rows] = False
        self._rows.refresh()

    def step(
        self, joint_target: Tensor, palm_pos_w: Tensor, palm_quat_w: Tensor, period_s: float, late: Tensor | None = None
    ) -> None:
        """Simulate one control period (`Engine.step`)."""
        fingers = self._rows.fingers
        target = joint_target.to(fingers.dtype)
        fingers.copy_(target if late is None else torch.where(late[:, None], fingers, target))
        substeps = round(period_s / self.pool.physics.timestep_s)
        chunks = chunks_of(substeps)
        self._rows.set_palm_target(palm_pos_w, palm_quat_w)
        for chunk in range(1, chunks + 1):
            self._rows.palm_actuation.interpolate(chunk / chunks)
            self._run(substeps // chunks)
            fingers.copy_(target)
        self._rows.refresh()

    def _run(self, substeps: int) -> None:
        ids = (~self._frozen).nonzero().squeeze(1).numpy().astype(np.int32) if self._frozen.any() else None
        try:
            self.batch.step(ids, nstep=substeps)
        except SimulationError as error:  # these rows stand still, the others have run to completion
            self._failed[error.ids] = True
            log.warning("%s", error)

    def freeze(self, rows: Tensor) -> None:
        """Stop stepping `rows` until their reset (`Engine.freeze`)."""
        self._frozen[rows] = True

    def push(self, force_w: Tensor) -> None:
        """Apply external forces to the objects (`Engine.push`)."""
        self._rows.push(force_w)

    def move_object(self, rows: Tensor, object_pos_w: Tensor, where: Tensor | None = None) -> None:
        """Place the objects of `rows`, at rest (`Engine.move_object`)."""
        self._rows.move_object(rows, object_pos_w, where)

    def recover(self, mask: Tensor) -> None:
        """Put scenes back to the start of their episodes (`Engine.recover`)."""
        ids = mask.nonzero().squeeze(1).numpy().astype(np.int32)
        if not len(ids):
            return
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self._rows.recover(mask)
        self.batch.forward(ids)
        self._failed[mask] = False
        self._rows.refresh()

    def write(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Overwrite quantities of the state in `rows` (`Engine.write`)."""
        self._rows.write(rows, values)

    def simulate(self, substeps: int = 1) -> None:
        """Simulate physics steps with the present targets (`Engine.simulate`)."""
        self._run(substeps)
        self._rows.refresh()

    def body_states(self) -> Tensor:
        """Return the states of all bodies (`Engine.body_states`)."""
        q, v = self._raw.qpos.numpy(), self._raw.qvel.numpy()
        rows = [body_states(model, self._scratch, q[i], v[i]) for i, model in enumerate(self._models)]
        return torch.from_numpy(np.stack(rows))

    def contact_forces(self) -> Tensor:
        """Return the net contact forces on all bodies (`Engine.contact_forces`)."""
        raw = self._raw
        arrays = (raw.qpos, raw.qvel, raw.ctrl, torch.from_numpy(self.batch.qacc_warmstart), raw.xfrc_applied)
        inputs = [array.numpy() for array in arrays]
        rows = [contact_forces(m, self._scratch, *(a[i] for a in inputs)) for i, m in enumerate(self._models)]
        return torch.from_numpy(np.stack(rows))

    def finite(self) -> Tensor:
        """Return where the physics is valid (`Engine.finite`)."""
        finite = torch.isfinite(self._raw.qpos).all(dim=1) & torch.isfinite(self._raw.qvel).all(dim=1)
        return finite & (self._warning[:, :, 1].sum(dim=1) == 0) & ~self._failed

    def check(self) -> None:
        """Do nothing: MuJoCo allocates its buffers on demand."""

    def get_model(self, row: int) -> mujoco.MjModel:
        """Return the model of one environment (`Engine.get_model`)."""
        return self._models[row]

    def get_data(self, row: int) -> mujoco.MjData:
        """Return the data of one environment, with poses and contacts recomputed from its state."""
        data = self.batch.get_data(row)
        mujoco.mj_forward(self._models[row], data)
        return data
