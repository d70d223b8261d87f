"""Named state over the raw arrays of a MuJoCo batch, palm actuation, physics variation.

A quantity of the state is a view of the arrays where MuJoCo stores it; `refresh` computes the others. Palm actuation
converts palm targets to controls, of a floating palm or of an arm. `apply_variation` writes the physics parameters of
an environment into its model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from dexgrasp.perception.transforms import (
    compose,
    invert,
    quat_nlerp,
    quat_rotate,
    quat_rotate_inverse,
    rotvec_from_quat,
)
from dexgrasp.sim.engine.base import InitialState, Neighbours, PhysicsVariation, State
from dexgrasp.sim.robots.arm import ArmIK, ArmSpec
from dexgrasp.sim.robots.mount import palm_actuators
from dexgrasp.sim.scene import PARKED_M, ModelPool, PhysicsCfg
from dexgrasp.utils.rows import Rows, where_rows

MAX_CHUNKS = 5
"""Most parts in which the palm target moves per control step."""
LIVE = {"joint_pos", "joint_vel", "joint_target", "object_pos_w", "object_quat_w", "object_linvel_w"}
"""Quantities of the state that share the simulation's memory."""
WRITABLE = (*sorted(LIVE), "object_angvel_w", "palm_pos_w", "palm_quat_w")


class PalmActuation(Protocol):
    """Actuates the hand base; poses are (env, 3) [m] and (env, 4) wxyz in the world."""

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """Return the pose of the hand base at the current joint positions."""
        ...

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """Place the base of `rows` at a pose, or as near as it can reach, at rest, as state and as target."""
        ...

    def set_palm_target(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """Set the target poses of all rows for the end of the next control period."""
        ...

    def interpolate(self, part: float) -> None:
        """Set the controls for the fraction `part` in (0, 1] between the last target and the present one."""
        ...


class FloatingPalm:
    """Actuates a floating palm: three slides and a ball joint in the world frame.

    Controls are position and rotation vector.
    """

    def __init__(self, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> None:
        slide, ball = model.joint("palm_x").qposadr[0], model.joint("palm_ball").qposadr[0]
        self._pos, self._quat = qpos[:, slide : slide + 3], qpos[:, ball : ball + 4]
        self._ctrl = ctrl[:, :6]
        self._last = self._goal = self._pos.clone(), self._quat.clone()

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """Return the pose of the hand base as views of the rows."""
        return self._pos, self._quat

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """Place the base of `rows` at a pose, at rest (`PalmActuation.place`)."""
        for pos, quat in ((self._pos, self._quat), self._goal):
            pos[rows], quat[rows] = pos_w, quat_w
        self._ctrl[rows] = torch.cat([pos_w, rotvec_from_quat(quat_w)], dim=1)

    def set_palm_target(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """Set the target poses for the end of the next control period."""
        self._last, self._goal = self._goal, (pos_w, quat_w)

    def interpolate(self, part: float) -> None:
        """Set the controls for a fraction of the way to the present target."""
        self._ctrl[:, :3] = torch.lerp(self._last[0], self._goal[0], part)
        self._ctrl[:, 3:] = rotvec_from_quat(quat_nlerp(self._last[1], self._goal[1], part))


class ArmPalm:
    """Actuates an arm by joint targets from differential inverse kinematics, once per control period."""

    def __init__(self, arm: ArmSpec, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> None:
        first, n = model.joint(arm.joint_names[0]).qposadr[0], len(arm.joint_names)
        self._q, self._ctrl = qpos[:, first : first + n], ctrl[:, :n]
        self._ik = ArmIK(arm)
        self._q[:] = torch.from_numpy(arm.home)
        self._last = self._goal = self._q.clone()

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """Return the pose of the hand base at the current joint positions."""
        return self._ik.forward(self._q)

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """Place the base of `rows` at a pose, at rest (`PalmActuation.place`)."""
        q, _ = self._ik.reach(pos_w, quat_w)
        self._q[rows] = self._goal[rows] = self._ctrl[rows] = q

    def set_palm_target(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """Set the target poses for the end of the next control period."""
        self._last, self._goal = self._goal, self._ik.solve(self._goal, pos_w, quat_w)

    def interpolate(self, part: float) -> None:
        """Set the controls for a fraction of the way to the present target."""
        self._ctrl[:] = torch.lerp(self._last, self._goal, part)


def make_palm_actuation(pool: ModelPool, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> PalmActuation:
    """Return the actuation of the scenes of `pool`; `qpos` and `ctrl` are the batch's live tensors."""
    if pool.mount == "floating":
        return FloatingPalm(model, qpos, ctrl)
    return ArmPalm(ArmSpec.load(pool.mount, pool.hand), model, qpos, ctrl)


@dataclass(frozen=True)
class RawBatch:
    """Hold MuJoCo's arrays as live tensors of one float type on one device; first dimension: environment."""

    qpos: Tensor
    qvel: Tensor
    ctrl: Tensor
    xfrc_applied: Tensor
    """(env, body, 6)."""
    actuator_force: Tensor
    sensordata: Tensor


class SceneIndices:
    """Finds the indices of hand, object and table in a scene's arrays, by name."""

    def __init__(self, pool: ModelPool, model: mujoco.MjModel) -> None:
        names = pool.hand.joint_names
        self.motors = pool.hand.motors
        self.actuators = [model.actuator(name).id for name in self.motors.names]
        self.palm_actuators = palm_actuators(model)
        self.table = model.geom("table").id
        self.object_body = model.body("object").id
        self.object_geoms = [model.geom(f"object_{i}").id for i in range(pool.slots)]
        self.finger_q = contiguous_slice([model.joint(name).qposadr[0] for name in names])
        self.finger_v = contiguous_slice([model.joint(name).dofadr[0] for name in names])
        self.finger_u = contiguous_slice(model.actuator_ctrladr[self.actuators])
        self.finger_f = contiguous_slice(model.actuator_outadr[self.actuators])
        q, v = model.joint("object").qposadr[0], model.joint("object").dofadr[0]
        self.object_q, self.object_v = slice(q, q + 7), slice(v, v + 6)
        self.neighbours = pool.neighbours
        self.neighbour_q = slice(q - 7 * pool.neighbours, q)  # their bodies stand before the object's


class BatchState:
    """Names the state of all environments and changes it on request."""

    def __init__(self, pool: ModelPool, model: mujoco.MjModel, raw: RawBatch) -> None:
        self._raw, self._hand = raw, pool.hand
        self.slots = SceneIndices(pool, model)
        self.palm_actuation = make_palm_actuation(pool, model, raw.qpos, raw.ctrl)
        self._kinematics = pool.hand.kinematics().to(raw.qpos.dtype, raw.qpos.device)
        in_base = torch.tensor(pool.hand.palm_pos_b), torch.tensor(pool.hand.palm_quat_b)
        self._palm_in_base = in_base[0].to(raw.qpos), in_base[1].to(raw.qpos)
        base_in_palm = invert(*in_base)
        self._base_in_palm = base_in_palm[0].to(raw.qpos), base_in_palm[1].to(raw.qpos)
        self.fingers = raw.ctrl[:, self.slots.finger_u]
        """(env, motor) live finger targets [rad]."""
        self.named = self._name()
        self._start_qpos, self._start_ctrl = raw.qpos.clone(), raw.ctrl.clone()

    def _name(self) -> State:
        raw, slots, envs = self._raw, self.slots, len(self._raw.qpos)
        bodies, keypoints = len(self._hand.contact_bodies), len(self._hand.keypoint_names)
        object_q, object_v = raw.qpos[:, slots.object_q], raw.qvel[:, slots.object_v]
        neighbours = raw.qpos[:, slots.neighbour_q].unflatten(1, (slots.neighbours, 7))
        contact = raw.sensordata[:, :-1].unflatten(1, (2, bodies, 4))  # [of object, table] x body x [found, force]
        self._found, self._depth = contact[..., 0], raw.sensordata[:, -1]

        def zeros(*size: int) -> Tensor:
            return raw.qpos.new_zeros(envs, *size)

        return State(
            joint_pos=raw.qpos[:, slots.finger_q],
            joint_vel=raw.qvel[:, slots.finger_v],
            joint_target=self.fingers,
            joint_torque=raw.actuator_force[:, slots.finger_f],
            palm_pos_w=zeros(3),
            palm_quat_w=zeros(4),
            keypoints_w=zeros(keypoints, 3),
            object_pos_w=object_q[:, :3],
            object_quat_w=object_q[:, 3:],
            object_linvel_w=object_v[:, :3],
            object_angvel_w=zeros(3),
            object_contact=zeros(bodies).bool(),
            object_force_w=contact[:, 0, :, 1:],
            table_contact=zeros(bodies).bool(),
            table_force_w=contact[:, 1, :, 1:],
            penetration_m=zeros(),
            object_mass=zeros(),
            object_friction=zeros(),
            neighbour_pos_w=neighbours[..., :3],
            neighbour_quat_w=neighbours[..., 3:],
        )

    def place(self, rows: Tensor, start: InitialState) -> None:
        """Place hand and object of `rows` at `start`; the caller clears velocities and forces before."""
        raw, slots = self._raw, self.slots
        joint_pos = start.joint_pos.to(raw.qpos)
        raw.qpos[rows, slots.finger_q] = joint_pos
        raw.ctrl[rows, slots.finger_u] = slots.motors.positions(joint_pos)
        raw.qpos[rows, slots.object_q] = torch.cat([start.object_pos_w, start.object_quat_w], dim=1).to(raw.qpos)
        if slots.neighbours:
            around = start.neighbours or parked_neighbours(len(rows), slots.neighbours)
            self.named.neighbour_pos_w[rows] = around.pos_w.to(raw.qpos)
            self.named.neighbour_quat_w[rows] = around.quat_w.to(raw.qpos)
        self.place_palm(rows, start.palm_pos_w.to(raw.qpos), start.palm_quat_w.to(raw.qpos))
        self._start_qpos[rows], self._start_ctrl[rows] = raw.qpos[rows], raw.ctrl[rows]

    def place_palm(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """Place the palms of `rows` at poses (row, 3) [m], (row, 4), as state and as target."""
        self.palm_actuation.place(rows, *compose(pos_w, quat_w, *self._base_in_palm))

    def set_palm_target(self, palm_pos_w: Tensor, palm_quat_w: Tensor) -> None:
        """Set the palm targets (env, 3) [m], (env, 4) for the end of the next control period."""
        self.palm_actuation.set_palm_target(
            *compose(palm_pos_w.to(self._raw.qpos), palm_quat_w.to(self._raw.qpos), *self._base_in_palm)
        )

    def refresh(self) -> None:
        """Recompute the tensors of the state that are not views of MuJoCo's arrays."""
        state = self.named
        base = self.palm_actuation.base_pose()
        pos, quat = compose(*base, *self._palm_in_base)
        state.palm_pos_w.copy_(pos)
        state.palm_quat_w.copy_(quat)
        state.keypoints_w.copy_(self._kinematics.keypoints(*base, state.joint_pos))
        spin_in_object = self._raw.qvel[:, self.slots.object_v][:, 3:]  # MuJoCo's free joint turns in the body frame
        state.object_angvel_w.copy_(quat_rotate(state.object_quat_w, spin_in_object))
        state.penetration_m.copy_(-self._depth)
        torch.gt(self._found[:, 0], 0, out=state.object_contact)
        torch.gt(self._found[:, 1], 0, out=state.table_contact)

    def push(self, force_w: Tensor) -> None:
        """Apply external forces to the objects (`Engine.push`)."""
        self._raw.xfrc_applied[:, self.slots.object_body, :3] = force_w.to(self._raw.xfrc_applied)

    def move_object(self, rows: Tensor, object_pos_w: Tensor, where: Tensor | None = None) -> None:
        """Place the objects of `rows`, at rest (`Engine.move_object`)."""
        moved, first = Rows(rows, where), self.slots.object_q.start
        pos, velocity = self._raw.qpos[:, first : first + 3], self._raw.qvel[:, self.slots.object_v]
        moved.write(pos, object_pos_w.to(pos))
        moved.write(velocity, torch.zeros_like(velocity[rows]))

    def recover(self, mask: Tensor) -> None:
        """Write the positions and controls of the start of the episodes of a mask (env,), at rest."""
        raw = self._raw
        for live, start in ((raw.qpos, self._start_qpos), (raw.ctrl, self._start_ctrl)):
            live.copy_(torch.where(mask[:, None], start, live))
        for live in (raw.qvel, raw.xfrc_applied):
            live.copy_(where_rows(mask, torch.zeros_like(live), live))

    def write(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Overwrite quantities of the state in `rows` (`Engine.write`)."""
        unknown = sorted(set(values) - set(WRITABLE))
        if unknown:
            raise ValueError(f"quantities {unknown} cannot be written; those that can: {list(WRITABLE)}")
        state, values = self.named, {name: value.to(self._raw.qpos) for name, value in values.items()}
        for name in LIVE & set(values):
            getattr(state, name)[rows] = values[name]
        if "object_angvel_w" in values:
            spin = quat_rotate_inverse(state.object_quat_w[rows], values["object_angvel_w"])
            self._raw.qvel[rows, self.slots.object_v.start + 3 : self.slots.object_v.stop] = spin
        if "palm_pos_w" in values or "palm_quat_w" in values:
            pos = values.get("palm_pos_w", state.palm_pos_w[rows])
            quat = values.get("palm_quat_w", state.palm_quat_w[rows])
            self.place_palm(rows, pos, quat)
            self._raw.qvel[rows, : self.slots.finger_v.start] = 0.0
        self.refresh()


def parked_neighbours(rows: int, count: int) -> Neighbours:
    """Return `count` places without an object in each of `rows` rows."""
    pos_w, quat_w = (torch.zeros(rows, count, size, dtype=torch.float64) for size in (3, 4))
    pos_w[..., 2], quat_w[..., 0] = -PARKED_M, 1.0
    return Neighbours(names=[("",) * count] * rows, pos_w=pos_w, quat_w=quat_w)


def chunks_of(substeps: int) -> int:
    """Return the number of equal parts into which the palm motion of a control step is divided."""
    return max(n for n in range(1, MAX_CHUNKS + 1) if substeps % n == 0)


def contiguous_slice(indices: Sequence[int]) -> slice:
    """Return consecutive indices as a slice, which gives views.

    Raise ValueError where they are not consecutive.
    """
    start = int(indices[0])
    if [int(i) for i in indices] != list(range(start, start + len(indices))):
        raise ValueError(f"the hand's joints are not stored one after another: {list(indices)}")
    return slice(start, start + len(indices))


def apply_variation(
    model: mujoco.MjModel,
    slots: SceneIndices,
    physics: PhysicsCfg,
    variation: PhysicsVariation,
    i: int,
    scratch: mujoco.MjData,
) -> None:
    """Write row `i` of the variation into a nominal model; `scratch`: data of a model with that layout."""
    scale = physics.friction_scale
    model.geom_friction[slots.object_geoms, 0] = float(variation.friction[i]) * scale
    model.geom_friction[slots.table, 0] = float(variation.table_friction[i]) * scale
    model.opt.gravity[:] = variation.gravity[i]
    stiffness = float(variation.palm_stiffness[i])
    for servos, kp, kd in (
        (slots.actuators, variation.kp_scale[i].numpy(), variation.kd_scale[i].numpy()),
        (slots.palm_actuators, stiffness, stiffness**0.5),
    ):
        model.actuator_gainprm[servos, 0] *= kp
        model.actuator_biasprm[servos, 1] *= kp
        model.actuator_biasprm[servos, 2] *= kd
    model.actuator_forcerange[slots.actuators] *= variation.effort_scale[i].numpy()[:, None]
    model.dof_damping[slots.finger_v] *= slots.motors.spread(variation.damping_scale[i].numpy())
    mass, com = float(variation.mass_scale[i]), variation.com_offset[i].numpy()
    if mass != 1.0 or com.any():
        model.body_mass[slots.object_body] *= mass
        model.body_inertia[slots.object_body] *= mass
        model.body_ipos[slots.object_body] += com
        mujoco.mj_setConst(model, scratch)
