"""Poses, velocities and contact forces of every body of a scene, computed on a copy when somebody asks.

MuJoCo keeps them as they were before the last substep; bringing the batch itself up to date would change what the next
step starts from and what the contact sensors say.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def body_states(model: mujoco.MjModel, data: mujoco.MjData, qpos: Rows, qvel: Rows) -> Rows:
    """All bodies but the world (body, 13): position [m], quaternion wxyz, velocity [m/s], angular velocity [rad/s].

    In the world frame, velocity of the frame's origin. `data` is scratch of the same layout.
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
    """Net contact force on all bodies but the world (body, 3), world frame [N]; `push` (body, 6): external wrenches."""
    data.qpos[:], data.qvel[:], data.ctrl[:], data.qacc_warmstart[:] = qpos, qvel, ctrl, warmstart
    data.xfrc_applied[:] = push
    mujoco.mj_forward(model, data)
    mujoco.mj_rnePostConstraint(model, data)
    return data.cfrc_ext[1:, 3:] - push[1:, :3]
