"""What the task asks of a physics engine: named, batched state, and stepping towards targets.

The task knows neither thread pools nor Warp; an engine knows neither rewards nor episodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from sim.scene import GRAVITY_M_S2, NOMINAL_FRICTION, NOMINAL_TABLE_FRICTION


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
    """(env, joint) last finger targets [rad]."""
    joint_torque: Tensor
    """(env, joint) actuator torques [N m]."""
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


@dataclass(frozen=True)
class Variation:
    """How the physics of some rows departs from the nominal model; first dimension: those rows."""

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
    """(row, joint) factor on the position gains."""
    kd_scale: Tensor
    """(row, joint) factor on the velocity gains."""
    damping_scale: Tensor
    """(row, joint) factor on the joint damping."""
    effort_scale: Tensor
    """(row, joint) factor on the effort limits."""
    palm_stiffness: Tensor
    """(row,) factor on the stiffness of a floating palm's servos, whose damping gain grows as its root."""
    gravity: Tensor
    """(row, 3) [m/s^2]."""

    @staticmethod
    def none(rows: int, joints: int) -> "Variation":
        """The nominal physics of `rows` environments."""
        one, ones = torch.ones(rows, dtype=torch.float64), torch.ones(rows, joints, dtype=torch.float64)
        down = torch.tensor([0.0, 0.0, -GRAVITY_M_S2], dtype=torch.float64).repeat(rows, 1)
        frictions = NOMINAL_FRICTION * one, NOMINAL_TABLE_FRICTION * one
        return Variation(*frictions, one, torch.zeros_like(down), one, ones, ones, ones, ones, one, down)

    def departs(self) -> Tensor:
        """(row,) bool: anything but the size differs from the nominal; sizes are models of their own."""
        nominal = Variation.none(*self.kp_scale.shape)
        differs = torch.zeros(len(self.friction), dtype=torch.bool)
        for item in fields(self):
            if item.name != "size":
                unequal = getattr(self, item.name) != getattr(nominal, item.name)
                differs |= unequal.flatten(1).any(dim=1) if unequal.dim() > 1 else unequal
        return differs


@dataclass(frozen=True)
class Start:
    """Initial conditions of the rows that a reset touches; first dimension: those rows."""

    objects: Sequence[str]
    """Object name per row."""
    object_pos_w: Tensor
    object_quat_w: Tensor
    palm_pos_w: Tensor
    palm_quat_w: Tensor
    joint_pos: Tensor
    variation: Variation


class Engine(Protocol):
    """A batch of scenes. Rows are environments; a call touches only the rows that it is given."""

    num_envs: int
    device: torch.device
    """Where the state lives, and whatever the engine is given."""
    state: State
    body_names: list[str]
    """All bodies but the world, in the order of `body_states`; the hand's base is "palm", the last is "object"."""

    def reset(self, rows: Tensor, start: Start) -> None:
        """Put the scenes `rows` (sorted, int64) at rest at `start`."""
        ...

    def step(
        self, joint_target: Tensor, palm_pos_w: Tensor, palm_quat_w: Tensor, period_s: float, late: Tensor | None = None
    ) -> None:
        """Move on by one control period; palm targets are interpolated from the last, fingers get theirs at once.

        In environments that are `late` (env,) bool, the fingers get theirs when a part of the period has passed.
        """
        ...

    def rest(self, rows: Tensor) -> None:
        """Nobody looks at `rows` until their reset: an engine that gains by it lets them stand still."""
        ...

    def push(self, force_w: Tensor) -> None:
        """External force (env, 3) on the objects' centres of mass until the next call [N]."""
        ...

    def move_object(self, rows: Tensor, object_pos_w: Tensor) -> None:
        """Place the objects of `rows` elsewhere, at rest, without telling the policy."""
        ...

    def write(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Overwrite, in `rows`, quantities of the state by name: of the joints, the object, or the palm's pose.

        A palm that is placed is at rest there, and its target with it.
        """
        ...

    def simulate(self, substeps: int = 1) -> None:
        """Let physics run with the targets as they are."""
        ...

    def body_states(self) -> Tensor:
        """All bodies (env, body, 13), computed when asked: position [m], quaternion wxyz, velocities [m/s, rad/s]."""
        ...

    def contact_forces(self) -> Tensor:
        """Net force of all contacts on every body (env, body, 3), world frame [N], computed when asked."""
        ...

    def finite(self) -> Tensor:
        """(env,) bool: the physics state is finite, and MuJoCo neither warned nor gave up since the reset."""
        ...

    def check(self) -> None:
        """Raise `BufferError`, which says what to raise, if physics has left something out since the last call."""
        ...

    def get_model(self, row: int) -> mujoco.MjModel:
        """The scene of one environment, for rendering."""
        ...

    def get_data(self, row: int) -> mujoco.MjData:
        """The state of one environment, for rendering."""
        ...
