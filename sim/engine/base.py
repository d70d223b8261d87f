"""Interface of the physics engines: named, batched state, and stepping towards targets.

A task depends on neither thread pools nor Warp; an engine depends on neither rewards nor episodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from dexgrasp.sim.scene import GRAVITY_M_S2, NOMINAL_FRICTION, NOMINAL_TABLE_FRICTION


@dataclass
class State:
    """Named quantities of all environments after the last step, on the engine's device.

    Poses and velocities are current. Contacts and torques are those of the last substep, as MuJoCo reports them.
    Contact bodies are ordered as in `HandSpec.contact_bodies`.
    """

    joint_pos: Tensor
    """(env, joint) [rad]."""
    joint_vel: Tensor
    """(env, joint) [rad/s]."""
    joint_target: Tensor
    """(env, motor) last finger targets, of the motors' joints [rad]."""
    joint_torque: Tensor
    """(env, motor) actuator torques [N m]."""
    palm_pos_w: Tensor
    """(env, 3) palm centre [m]."""
    palm_quat_w: Tensor
    """(env, 4) palm frame, wxyz."""
    keypoints_w: Tensor
    """(env, keypoint, 3) [m]."""
    object_pos_w: Tensor
    """(env, 3) centre of mass [m]."""
    object_quat_w: Tensor
    """(env, 4) wxyz."""
    object_linvel_w: Tensor
    """(env, 3) [m/s]."""
    object_angvel_w: Tensor
    """(env, 3) [rad/s]."""
    object_contact: Tensor
    """(env, body) bool: the hand body touches the object."""
    object_force_w: Tensor
    """(env, body, 3) net force of the hand body on the object [N]."""
    table_contact: Tensor
    """(env, body) bool: the hand body touches the table."""
    table_force_w: Tensor
    """(env, body, 3) net force of the hand body on the table [N]."""
    penetration_m: Tensor
    """(env,) deepest penetration of the hand into the object [m]."""
    object_mass: Tensor
    """(env,) [kg]; privileged."""
    object_friction: Tensor
    """(env,) sliding friction of the object against the hand; privileged."""
    neighbour_pos_w: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 3))
    """(env, neighbour, 3) centres of mass of the other objects on the table [m]."""
    neighbour_quat_w: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 4))
    """(env, neighbour, 4) wxyz."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Hold the other objects on the tables of some rows, in as many places as a scene has bodies."""

    names: Sequence[tuple[str, ...]]
    """Object names per row; empty: the place is not used, its body lies below the table."""
    pos_w: Tensor
    """(row, neighbour, 3) [m]."""
    quat_w: Tensor
    """(row, neighbour, 4) wxyz."""


@dataclass(frozen=True)
class PhysicsVariation:
    """Set physics parameters of some rows relative to the nominal model; first dimension: those rows."""

    friction: Tensor
    """(row,) sliding friction of the object against the hand."""
    table_friction: Tensor
    """(row,) sliding friction of the object on the table."""
    mass_scale: Tensor
    """(row,) factor on the object's mass and inertia."""
    com_offset: Tensor
    """(row, 3) shift of the object's centre of mass, object frame [m]."""
    size: Tensor
    """(row,) factor on the object's size."""
    kp_scale: Tensor
    """(row, motor) factor on the position gains."""
    kd_scale: Tensor
    """(row, motor) factor on the velocity gains."""
    damping_scale: Tensor
    """(row, motor) factor on the damping of the joints that the motor moves."""
    effort_scale: Tensor
    """(row, motor) factor on the effort limits."""
    palm_stiffness: Tensor
    """(row,) factor on the stiffness of a floating palm's servos, whose damping gain grows as its root."""
    gravity: Tensor
    """(row, 3) [m/s^2]."""

    @staticmethod
    def none(rows: int, motors: int) -> "PhysicsVariation":
        """Return the nominal physics of `rows` environments of a hand with `motors`."""
        one, ones = torch.ones(rows, dtype=torch.float64), torch.ones(rows, motors, dtype=torch.float64)
        down = torch.tensor([0.0, 0.0, -GRAVITY_M_S2], dtype=torch.float64).repeat(rows, 1)
        return PhysicsVariation(
            friction=NOMINAL_FRICTION * one,
            table_friction=NOMINAL_TABLE_FRICTION * one,
            mass_scale=one,
            com_offset=torch.zeros_like(down),
            size=one,
            kp_scale=ones,
            kd_scale=ones,
            damping_scale=ones,
            effort_scale=ones,
            palm_stiffness=one,
            gravity=down,
        )

    def differs_from_nominal(self) -> Tensor:
        """Return the mask (row,) of rows whose physics, apart from the size, differs from the nominal.

        A size has a model of its own.
        """
        nominal = PhysicsVariation.none(*self.kp_scale.shape)
        differs = torch.zeros(len(self.friction), dtype=torch.bool)
        for item in fields(self):
            if item.name != "size":
                unequal = getattr(self, item.name) != getattr(nominal, item.name)
                differs |= unequal.flatten(1).any(dim=1) if unequal.dim() > 1 else unequal
        return differs


@dataclass(frozen=True)
class InitialState:
    """Hold the initial conditions of a reset; first dimension: the rows that are reset."""

    objects: Sequence[str]
    """Object name per row."""
    object_pos_w: Tensor
    """(row, 3) [m]."""
    object_quat_w: Tensor
    """(row, 4) wxyz."""
    palm_pos_w: Tensor
    """(row, 3) [m]."""
    palm_quat_w: Tensor
    """(row, 4) wxyz."""
    joint_pos: Tensor
    """(row, joint) [rad]."""
    variation: PhysicsVariation
    neighbours: Neighbours | None = None
    """The other objects; None: the object stands alone."""


class Engine(Protocol):
    """Simulates a batch of scenes. Rows are environments; a call changes only the rows that it is given."""

    num_envs: int
    device: torch.device
    """Device of the state and of all arguments."""
    state: State
    body_names: list[str]
    """All bodies but the world, in the order of `body_states`; the hand's base is "palm", the last is "object"."""

    def reset(self, rows: Tensor, start: InitialState) -> None:
        """Reset the scenes `rows` (sorted, int64) to `start`, at rest."""
        ...

    def step(
        self, joint_target: Tensor, palm_pos_w: Tensor, palm_quat_w: Tensor, period_s: float, late: Tensor | None = None
    ) -> None:
        """Simulate one control period towards the targets.

        Palm targets are interpolated from the last ones; finger targets apply at once.

        Where `late` (env,) bool is set, finger targets apply after the first part of the period.
        """
        ...

    def freeze(self, rows: Tensor) -> None:
        """Stop stepping `rows` until their reset, where the engine saves time by it.

        Their state is not read until then.
        """
        ...

    def push(self, force_w: Tensor) -> None:
        """Apply an external force (env, 3) to the objects' centres of mass until the next call [N]."""
        ...

    def move_object(self, rows: Tensor, object_pos_w: Tensor, where: Tensor | None = None) -> None:
        """Place the objects of `rows` at object_pos_w (row, 3) [m], at rest.

        `where` (row,) bool: the others are not moved; None: all are.
        """
        ...

    def recover(self, mask: Tensor) -> None:
        """Put the scenes of a mask (env,) back to the start of their episodes, at rest.

        The host does not wait for a GPU.
        """
        ...

    def write(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Overwrite quantities of the state in `rows` by name: of the joints, the object, or the palm's pose.

        A palm is placed at rest, and its target with it.
        """
        ...

    def simulate(self, substeps: int = 1) -> None:
        """Simulate `substeps` physics steps with the present targets."""
        ...

    def body_states(self) -> Tensor:
        """Return the states (env, body, 13) of all bodies in the world frame.

        Position [m], quaternion wxyz, velocity [m/s], angular velocity [rad/s].
        """
        ...

    def contact_forces(self) -> Tensor:
        """Compute the net contact force on every body (env, body, 3), world frame [N]."""
        ...

    def finite(self) -> Tensor:
        """Return where the state is finite and MuJoCo neither warned nor failed since the reset, (env,) bool."""
        ...

    def check(self) -> None:
        """Raise BufferError, which names the option to raise, if physics dropped contacts or constraints."""
        ...

    def get_model(self, row: int) -> mujoco.MjModel:
        """Return the model of one environment, for rendering."""
        ...

    def get_data(self, row: int) -> mujoco.MjData:
        """Return the data of one environment, for rendering."""
        ...
