"""Values of an arm that neither its description nor its model states, derived from the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp.perception.transforms import quat_from_rotvec, quat_multiply
from dexgrasp.sim.robots.arms.arm_model import ArmModel

SPEED_RAD_S = 1.5
"""Speed limit where none is stated: below that of common arms."""
ARMATURE = 0.1
"""Inertia of a rotor and its gear seen from the joint where none is stated [kg m^2]; of arms that carry some kg."""
LEAST_EFFORT_NM, EFFORT_FACTOR = 10.0, 2.0
"""Effort limit where none is stated: a multiple of the torque that holds the arm, the hand and its load."""
NATURAL_RAD_S, DAMPING_RATIO = 100.0, 1.5
"""Response of the servos: natural frequency with the usual inertia, and damping; they lag by 30 ms at speed."""
LOAD_KG = 1.5
"""Mass of a hand and an object at the tip."""
POSES, SEED = 256, 0
"""Number of drawn joint positions, and the seed of the draw."""
DISTANCES = (0.5, 0.6, 0.7, 0.8)
"""Distances of the base from the middle of the workspace that are tried, as shares of the arm's reach."""
PALM_DOWN = (0.5**0.5, 0.0, 0.5**0.5, 0.0)
"""Orientation of a palm that faces down, with the fingers along +x of the world."""
HOUSING_MARGIN_M = 0.015
"""Margin of the last joint's housing above the table."""

Array = NDArray[np.float64]
Stick = tuple[int, Array, Array, float]
"""Body, two ends in its frame [m], radius [m]."""


@dataclass(frozen=True)
class Dynamics:
    """Values over drawn joint positions, with a load at the tip."""

    inertia: Array
    """(joint,) median inertia about each joint, without rotors [kg m^2]."""
    holding_nm: Array
    """(joint,) largest torque against gravity [N m]."""
    reach_m: float
    """Largest horizontal distance of the tip from the base."""


def dynamics(model: ArmModel, lower: Array, upper: Array) -> Dynamics:
    """Return inertia, torque against gravity and reach of an arm over its joint limits."""
    spec = model.to_mjspec(tuple(joint.name for joint in model.joints))
    tip = spec.site(model.tip)
    load = tip.parent.add_body(name="load", pos=tip.pos)
    load.explicitinertial, load.mass, load.inertia = True, LOAD_KG, [2e-3] * 3
    compiled = spec.compile()
    data, matrix = mujoco.MjData(compiled), np.zeros((compiled.nv, compiled.nv))
    inertia, torque, reach = [], [], []
    for q in drawn(lower, upper, POSES):
        data.qpos[:] = q
        mujoco.mj_forward(compiled, data)
        mujoco.mj_fullM(compiled, data, matrix)
        inertia.append(np.diag(matrix) - compiled.dof_armature)
        torque.append(np.abs(data.qfrc_bias))
        reach.append(np.linalg.norm(data.site(model.tip).xpos[:2]))
    return Dynamics(np.median(inertia, axis=0), np.max(torque, axis=0), float(np.max(reach)))


def drawn(lower: Array, upper: Array, count: int) -> Iterator[Array]:
    """Yield joint positions (joint,) [rad] drawn evenly between the limits, always the same."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        yield rng.uniform(np.maximum(lower, -np.pi), np.minimum(upper, np.pi))


def workspace_poses(count: int) -> tuple[Tensor, Tensor]:
    """Return drawn palm poses (pose, 3) [m], (pose, 4) over the workspace, always the same.

    Within 15 cm of the middle, 10 to 35 cm high, the palm down, tilted by some 9 degrees, turned by up to 90.
    """
    rng = torch.Generator().manual_seed(SEED)
    pos = torch.rand(count, 3, generator=rng, dtype=torch.float64) * torch.tensor([0.3, 0.3, 0.25])
    yaw = (torch.rand(count, generator=rng, dtype=torch.float64) - 0.5) * np.pi
    turn = quat_from_rotvec(torch.stack([0 * yaw, 0 * yaw, yaw], dim=-1))
    tilt = quat_from_rotvec(0.15 * torch.randn(count, 3, generator=rng, dtype=torch.float64))
    down = torch.tensor(PALM_DOWN, dtype=torch.float64).expand(count, 4)
    return pos + torch.tensor([-0.15, -0.15, 0.1]), quat_multiply(quat_multiply(turn, tilt), down)


def wrist_centre(data: mujoco.MjData, last_two: Sequence[int]) -> Array:
    """Return the point (3,) of the last joint's axis nearest the axis of the joint before, world [m]."""
    axis, anchor = data.xaxis[last_two[-1]], data.xanchor[last_two[-1]]
    before, other = data.xaxis[last_two[0]], data.xanchor[last_two[0]]
    slope = float(axis @ before)
    if 1 - slope**2 < 1e-6:
        return anchor
    gap = other - anchor
    return anchor + axis * float(gap @ axis - slope * (gap @ before)) / (1 - slope**2)


def housing_radius(sticks: Sequence[Stick], data: mujoco.MjData, centre: Array, last: int) -> float:
    """Return the radius of the last joint's housing about its centre [m].

    It contains the capsule of the link before that is nearest the centre, and the last link around its axis.
    """
    body, axis = int(data.model.jnt_bodyid[last]), data.xaxis[last]
    parent = int(data.model.body_parentid[body])
    placed = [(at, *(data.xpos[at] + data.xmat[at].reshape(3, 3) @ end - centre for end in ends), radius)
              for at, *ends, radius in sticks]  # fmt: skip
    radii = [float(np.linalg.norm(_across(end, axis))) + r for at, *ends, r in placed if at == body for end in ends]
    before = sorted((_distance(start, end) - radius, radius) for at, start, end, radius in placed if at == parent)
    return max([*radii, *(radius for _, radius in before[:1])], default=0.04)


def _across(vector: Array, axis: Array) -> Array:
    return vector - (vector @ axis) * axis


def _distance(start: Array, end: Array) -> float:
    """Return the distance of the origin from a line between two points."""
    along = end - start
    share = np.clip(-start @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    return float(np.linalg.norm(start + share * along))
