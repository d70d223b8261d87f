"""Physics of one environment: writes its parameters into the model of its object."""

import mujoco

from dexgrasp.sim.engine.base import PhysicsVariation
from dexgrasp.sim.engine.state import SceneIndices
from dexgrasp.sim.scene import PhysicsCfg


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
    model.dof_damping[slots.finger_v] *= variation.damping_scale[i].numpy()
    mass, com = float(variation.mass_scale[i]), variation.com_offset[i].numpy()
    if mass != 1.0 or com.any():
        model.body_mass[slots.object_body] *= mass
        model.body_inertia[slots.object_body] *= mass
        model.body_ipos[slots.object_body] += com
        mujoco.mj_setConst(model, scratch)
