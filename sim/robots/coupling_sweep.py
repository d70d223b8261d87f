"""Measures how the joints of a model move with one actuator, without gravity and contacts."""

import copy

import mujoco
import numpy as np

STEPS = 15
"""Commands of a sweep."""
SETTLE_S = 1.0
"""Time after each command; the joints then stand still."""


def sweep(model: mujoco.MjModel, actuator: int) -> dict[str, np.ndarray]:
    """Return the positions (command,) of all hinges [rad] while one actuator moves through its range.

    The other actuators hold the start, where they exert no force.
    """
    model = copy.copy(model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_GRAVITY | mujoco.mjtDisableBit.mjDSBL_CONTACT
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    gain, bias = model.actuator_gainprm[:, 0], model.actuator_biasprm
    data.ctrl[:] = -(bias[:, 0] + bias[:, 1] * data.actuator_length) / np.where(gain, gain, 1.0)
    if model.actuator_ctrllimited[actuator]:
        low, high = model.actuator_ctrlrange[actuator]
    else:
        low, high = data.actuator_length[actuator] + np.array([-1.0, 1.0])
    hinges = [i for i in range(model.njnt) if model.jnt_type[i] == mujoco.mjtJoint.mjJNT_HINGE]
    rows = []
    for command in np.linspace(low, high, STEPS):
        data.ctrl[actuator] = command
        mujoco.mj_step(model, data, round(SETTLE_S / model.opt.timestep))
        rows.append(data.qpos[model.jnt_qposadr[hinges]].copy())
    return {model.joint(i).name: column for i, column in zip(hinges, np.array(rows).T, strict=True)}
