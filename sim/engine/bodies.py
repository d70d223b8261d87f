"""Poses, velocities and contact forces of every body of a scene, computed on demand on a copy.

MuJoCo's own are those before the last substep; updating the batch itself would change the start of the next step and
the contact sensors.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


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
