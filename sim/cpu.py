"""The CPU engine: MuJoCo's own `mujoco.batch.Batch`, one compiled model per environment, re-chosen at every reset.

State tensors are views of the batch's rows wherever MuJoCo stores the quantity; the rest is computed after a step.
"""

import copy
import logging
import os
import warnings
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch, SimulationError
from torch import Tensor

from perception.geometry import compose, invert, quat_rotate, quat_rotate_inverse
from sim.bodies import body_states, contact_forces
from sim.carriers import make_carrier
from sim.engine import Start, State, Variation
from sim.scene import ModelPool

log = logging.getLogger(__name__)

MAX_CHUNKS = 5
"""The palm target moves in at most this many pieces per control step."""

LIVE = {"joint_pos", "joint_vel", "joint_target", "object_pos_w", "object_quat_w", "object_linvel_w"}
"""Quantities of the state that are the simulation's own memory."""
WRITABLE = (*sorted(LIVE), "object_angvel_w", "palm_pos_w", "palm_quat_w")


class CpuEngine:
    """`num_envs` scenes on `num_threads` threads (0 = all cores); bit-identical whatever the number of threads."""

    def __init__(self, pool: ModelPool, num_envs: int, num_threads: int = 0) -> None:
        self.pool, self.num_envs = pool, num_envs
        model = pool.get(pool.library.names[0])
        self._models: list[mujoco.MjModel] = [model] * num_envs
        self.batch = Batch(model, nsim=num_envs, nthread=num_threads or os.cpu_count() or 1)
        self.batch.set_models(self._models)
        self._failed = torch.zeros(num_envs, dtype=torch.bool)
        self._scratch = mujoco.MjData(model)
        self._object_body = model.body("object").id
        self._object_geoms = [model.geom(f"object_{i}").id for i in range(pool.slots)]
        self._bind(model)
        self._carrier = make_carrier(pool.mount, model, self._qpos, self._ctrl)
        self._kinematics = pool.hand.kinematics().to(torch.float64)
        self._palm_in_base = torch.tensor(pool.hand.palm_pos_b), torch.tensor(pool.hand.palm_quat_b)
        self._base_in_palm = invert(*self._palm_in_base)
        self.state = self._make_state()
        self.body_names = [model.body(i).name for i in range(1, model.nbody)]

    def _bind(self, model: mujoco.MjModel) -> None:
        """Live tensors over the batch's rows; every index is found here, by name, once."""
        fields = ("qpos", "qvel", "ctrl", "xfrc_applied", "actuator_force", "sensordata", "warning")
        live = {name: getattr(self.batch, name) for name in fields}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # derived fields are read-only
            tensors = [torch.from_numpy(live[name]) for name in fields]
        self._qpos, self._qvel, self._ctrl, self._xfrc, self._force, self._sensors, self._warning = tensors
        names = self.pool.hand.joint_names
        self._actuators = actuators = [model.actuator(name).id for name in names]
        self._table = model.geom("table").id
        self._finger_q = _span([model.joint(name).qposadr[0] for name in names])
        self._finger_v = _span([model.joint(name).dofadr[0] for name in names])
        self._finger_u = _span(model.actuator_ctrladr[actuators])
        self._finger_f = _span(model.actuator_outadr[actuators])
        q, v = model.joint("object").qposadr[0], model.joint("object").dofadr[0]
        self._object_q, self._object_v = slice(q, q + 7), slice(v, v + 6)

    def _make_state(self) -> State:
        bodies = len(self.pool.hand.contact_bodies)
        object_q, object_v = self._qpos[:, self._object_q], self._qvel[:, self._object_v]
        contact = self._sensors[:, :-1].unflatten(1, (2, bodies, 4))  # [against object, table] x body x [found, force]
        self._found, self._depth = contact[..., 0], self._sensors[:, -1]
        return State(
            joint_pos=self._qpos[:, self._finger_q],
            joint_vel=self._qvel[:, self._finger_v],
            joint_target=self._ctrl[:, self._finger_u],
            joint_torque=self._force[:, self._finger_f],
            palm_pos_w=torch.zeros(self.num_envs, 3, dtype=torch.float64),
            palm_quat_w=torch.zeros(self.num_envs, 4, dtype=torch.float64),
            keypoints_w=torch.zeros(self.num_envs, len(self.pool.hand.keypoint_names), 3, dtype=torch.float64),
            object_pos_w=object_q[:, :3],
            object_quat_w=object_q[:, 3:],
            object_linvel_w=object_v[:, :3],
            object_angvel_w=torch.zeros(self.num_envs, 3, dtype=torch.float64),
            object_contact=torch.zeros(self.num_envs, bodies, dtype=torch.bool),
            object_force_w=contact[:, 0, :, 1:],
            table_contact=torch.zeros(self.num_envs, bodies, dtype=torch.bool),
            table_force_w=contact[:, 1, :, 1:],
            penetration_m=torch.zeros(self.num_envs, dtype=torch.float64),
            object_mass=torch.zeros(self.num_envs, dtype=torch.float64),
            object_friction=torch.zeros(self.num_envs, dtype=torch.float64),
        )

    def reset(self, rows: Tensor, start: Start) -> None:
        """See `Engine.reset`. Rows whose physics departs from the nominal get a copy of their object's model."""
        variation, varied = start.variation, start.variation.departs().tolist()
        for i, row in enumerate(rows.tolist()):
            model = self.pool.get(start.objects[i], float(variation.size[i]))
            if varied[i]:
                model = copy.copy(model)
                self._vary(model, variation, i)
            self._models[row] = model
            self.state.object_mass[row] = model.body_mass[self._object_body]
        self.state.object_friction[rows] = variation.friction
        self.batch.set_models(self._models)
        ids = rows.numpy().astype(np.int32)
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self._qpos[rows, self._finger_q] = start.joint_pos
        self._ctrl[rows, self._finger_u] = start.joint_pos
        self._qpos[rows, self._object_q] = torch.cat([start.object_pos_w, start.object_quat_w], dim=1)
        self._carrier.place(rows, *compose(start.palm_pos_w, start.palm_quat_w, *self._base_in_palm))
        self.batch.forward(ids)
        self._failed[rows] = False
        self._refresh()

    def _vary(self, model: mujoco.MjModel, variation: Variation, i: int) -> None:
        """Write row `i` of the variation into a nominal model."""
        scale = self.pool.physics.friction_scale
        model.geom_friction[self._object_geoms, 0] = float(variation.friction[i]) * scale
        model.geom_friction[self._table, 0] = float(variation.table_friction[i]) * scale
        model.opt.gravity[:] = variation.gravity[i]
        kp, kd = variation.kp_scale[i].numpy(), variation.kd_scale[i].numpy()
        model.actuator_gainprm[self._actuators, 0] *= kp
        model.actuator_biasprm[self._actuators, 1] *= kp
        model.actuator_biasprm[self._actuators, 2] *= kd
        model.actuator_forcerange[self._actuators] *= variation.effort_scale[i].numpy()[:, None]
        model.dof_damping[self._finger_v] *= variation.damping_scale[i].numpy()
        mass, com = float(variation.mass_scale[i]), variation.com_offset[i].numpy()
        if mass != 1.0 or com.any():
            model.body_mass[self._object_body] *= mass
            model.body_inertia[self._object_body] *= mass
            model.body_ipos[self._object_body] += com
            mujoco.mj_setConst(model, self._scratch)

    def step(
        self, joint_target: Tensor, palm_pos_w: Tensor, palm_quat_w: Tensor, period_s: float, late: Tensor | None = None
    ) -> None:
        """See `Engine.step`."""
        target = joint_target.to(self._ctrl.dtype)
        fingers = self._ctrl[:, self._finger_u]
        fingers.copy_(target if late is None else torch.where(late[:, None], fingers, target))
        substeps = round(period_s / self.pool.physics.timestep_s)
        chunks = max(n for n in range(1, MAX_CHUNKS + 1) if substeps % n == 0)
        self._carrier.aim(*compose(palm_pos_w.double(), palm_quat_w.double(), *self._base_in_palm))
        for chunk in range(1, chunks + 1):
            self._carrier.advance(chunk / chunks)
            self._run(substeps // chunks)
            fingers.copy_(target)
        self._refresh()

    def _run(self, substeps: int) -> None:
        try:
            self.batch.step(nstep=substeps)
        except SimulationError as error:  # these rows stand still, the others have run to completion
            self._failed[error.ids] = True
            log.warning("%s", error)

    def _refresh(self) -> None:
        """Bring the tensors that are no views up to date."""
        state = self.state
        base = self._carrier.base_pose()
        pos, quat = compose(*base, *self._palm_in_base)
        state.palm_pos_w.copy_(pos)
        state.palm_quat_w.copy_(quat)
        state.keypoints_w.copy_(self._kinematics.keypoints(*base, state.joint_pos))
        spin_in_object = self._qvel[:, self._object_v][:, 3:]  # MuJoCo's free joint turns in the body frame
        state.object_angvel_w.copy_(quat_rotate(state.object_quat_w, spin_in_object))
        state.penetration_m.copy_(-self._depth)
        torch.gt(self._found[:, 0], 0, out=state.object_contact)
        torch.gt(self._found[:, 1], 0, out=state.table_contact)

    def push(self, force_w: Tensor) -> None:
        """See `Engine.push`."""
        self._xfrc[:, self._object_body, :3] = force_w.to(self._xfrc.dtype)

    def move_object(self, rows: Tensor, object_pos_w: Tensor) -> None:
        """See `Engine.move_object`."""
        self._qpos[rows, self._object_q.start : self._object_q.start + 3] = object_pos_w.to(self._qpos.dtype)
        self._qvel[rows, self._object_v] = 0.0

    def write(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """See `Engine.write`."""
        unknown = sorted(set(values) - set(WRITABLE))
        if unknown:
            raise ValueError(f"quantities {unknown} cannot be written; those that can: {list(WRITABLE)}")
        state, values = self.state, {name: value.to(torch.float64) for name, value in values.items()}
        for name in LIVE & set(values):
            getattr(state, name)[rows] = values[name]
        if "object_angvel_w" in values:
            spin = quat_rotate_inverse(state.object_quat_w[rows], values["object_angvel_w"])
            self._qvel[rows, self._object_v.start + 3 : self._object_v.stop] = spin
        if "palm_pos_w" in values or "palm_quat_w" in values:
            pos = values.get("palm_pos_w", state.palm_pos_w[rows])
            quat = values.get("palm_quat_w", state.palm_quat_w[rows])
            self._carrier.place(rows, *compose(pos, quat, *self._base_in_palm))
            self._qvel[rows, : self._finger_v.start] = 0.0
        self._refresh()

    def simulate(self, substeps: int = 1) -> None:
        """See `Engine.simulate`."""
        self._run(substeps)
        self._refresh()

    def body_states(self) -> Tensor:
        """See `Engine.body_states`."""
        q, v = self._qpos.numpy(), self._qvel.numpy()
        rows = [body_states(model, self._scratch, q[i], v[i]) for i, model in enumerate(self._models)]
        return torch.from_numpy(np.stack(rows))

    def contact_forces(self) -> Tensor:
        """See `Engine.contact_forces`."""
        arrays = (self._qpos, self._qvel, self._ctrl, torch.from_numpy(self.batch.qacc_warmstart), self._xfrc)
        inputs = [array.numpy() for array in arrays]
        rows = [contact_forces(m, self._scratch, *(a[i] for a in inputs)) for i, m in enumerate(self._models)]
        return torch.from_numpy(np.stack(rows))

    def finite(self) -> Tensor:
        """See `Engine.finite`."""
        finite = torch.isfinite(self._qpos).all(dim=1) & torch.isfinite(self._qvel).all(dim=1)
        return finite & (self._warning[:, :, 1].sum(dim=1) == 0) & ~self._failed

    def get_model(self, row: int) -> mujoco.MjModel:
        """See `Engine.get_model`."""
        return self._models[row]

    def get_data(self, row: int) -> mujoco.MjData:
        """See `Engine.get_data`; poses and contacts are computed afresh from the row's state."""
        data = self.batch.get_data(row)
        mujoco.mj_forward(self._models[row], data)
        return data


def _span(indices: Sequence[int]) -> slice:
    """Consecutive indices as a slice, so that indexing with it gives a view."""
    start = int(indices[0])
    if [int(i) for i in indices] != list(range(start, start + len(indices))):
        raise ValueError(f"the hand's joints are not stored one after another: {list(indices)}")
    return slice(start, start + len(indices))
