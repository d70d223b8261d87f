"""The mirror image of a model: how a left hand comes from a right one."""

import mujoco
import numpy as np

MIRROR_POS = np.array([1.0, -1.0, 1.0])
"""Factors of a position under y -> -y."""
MIRROR_QUAT = np.array([1.0, -1.0, 1.0, -1.0])
"""Factors of a quaternion: the mirrored rotation M R M, which is a rotation again."""


def mirror(spec: mujoco.MjSpec) -> None:
    """Reflect the model in the x-z plane of its base frame (y -> -y). A mirrored hinge takes the same joint values."""
    if spec.meshes or spec.frames:
        raise ValueError(f"model '{spec.modelname}' has meshes or frames: give the other side a hand.yaml of its own")
    for element in [*spec.bodies[1:], *spec.geoms, *spec.sites]:
        if element.alt.type != mujoco.mjtOrientation.mjORIENTATION_QUAT:
            raise ValueError(f"'{element.name}' of model '{spec.modelname}': give its orientation as quat to mirror it")
        element.pos, element.quat = element.pos * MIRROR_POS, element.quat * MIRROR_QUAT
    for capsule in spec.geoms:
        capsule.fromto = capsule.fromto * np.tile(MIRROR_POS, 2)
    for body in spec.bodies[1:]:
        body.ipos, body.iquat = body.ipos * MIRROR_POS, body.iquat * MIRROR_QUAT
        body.fullinertia = body.fullinertia * [1, 1, 1, -1, 1, -1]  # xx yy zz xy xz yz
    for joint in spec.joints:
        joint.pos, joint.axis = joint.pos * MIRROR_POS, -joint.axis * MIRROR_POS  # an axis is a pseudovector
