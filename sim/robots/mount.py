"""Mounts of the palm: servos alone (`floating`), or an arm by name, folder or file.

mount      qpos                                 ctrl
floating   slides 3, ball 4 (wxyz), fingers     position of the hand base in the world 3 [m],
                                                its orientation as a rotation vector 3 [rad], finger targets
an arm     joints of the arm, fingers           targets of the arm's joints [rad], finger targets
"""

from typing import Literal

import mujoco

from dexgrasp.sim.robots.arm import ArmSpec
from dexgrasp.sim.robots.hand import HandSpec

SLIDE_NAMES, BALL_NAME = ("palm_x", "palm_y", "palm_z"), "palm_ball"

SLIDE_KP, SLIDE_KV, SLIDE_FORCE_N, SLIDE_DAMPING = 2000.0, 100.0, 100.0, 1.0

BALL_KP, BALL_KV, BALL_TORQUE_NM = 50.0, 2.5, 20.0

PALM_ARMATURE = 0.01  # kg for the slides, kg m2 for the ball

_PREFIX = "attached/"

Turn = Literal["geodesic", "axes"]


def attach(world: mujoco.MjSpec, hand: HandSpec, mount: str, turn: Turn = "geodesic") -> None:
    """Add the hand, and its mount, to a world; the hand base frame is body "palm"; orders as above.

    `turn`: the servo that turns a floating hand. geodesic: MuJoCo's orientation actuator. axes: one position servo per
    axis of the rotation vector, for simulators without that actuator; its controls are the same in number and place.
    """
    if mount == "floating":
        _attach_floating(world, hand, turn)
    else:
        arm, carried = ArmSpec.load(mount, hand), hand.to_mjspec()
        spec = arm.to_mjspec()
        flange = spec.site(arm.flange)
        _rename_namesakes(spec, carried)
        _attach_tree(spec, flange.parent.add_frame(pos=flange.pos, quat=flange.quat), carried)
        _attach_tree(world, world.worldbody.add_frame(), spec)


def _rename_namesakes(arm: mujoco.MjSpec, hand: mujoco.MjSpec) -> None:
    """Rename bodies, geoms, sites and meshes of an arm of which the hand has a namesake."""
    for kind in ("bodies", "geoms", "sites", "meshes"):
        taken = {element.name for element in getattr(hand, kind)} - {"", "world"}
        for element in getattr(arm, kind):
            if element.name in taken:
                old, element.name = element.name, f"arm_{element.name}"
                for geom in arm.geoms if kind == "meshes" else ():
                    geom.meshname = element.name if geom.meshname == old else geom.meshname


def palm_actuators(model: mujoco.MjModel) -> list[int]:
    """Return the servos of a floating palm; none where an arm carries it."""
    return [i for i in range(model.nactuator) if model.actuator(i).name.startswith((*SLIDE_NAMES, BALL_NAME))]


def _attach_floating(world: mujoco.MjSpec, hand: HandSpec, turn: Turn) -> None:
    """Player-axis slides, then a ball: at qpos = (p, q) the hand base frame is at p with orientation q."""
    spec = hand.to_mjspec()
    palm = spec.body("palm")
    for i, name in enumerate(SLIDE_NAMES):
        slide = palm.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[float(i == k) for k in range(3)])
        slide.armature, slide.damping[0] = PALM_ARMATURE, SLIDE_DAMPING
        servo = world.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=SLIDE_KP, kv=SLIDE_KV)
        servo.forcerange = [-SLIDE_FORCE_N, SLIDE_FORCE_N]
    palm.add_joint(name=BALL_NAME, type=mujoco.mjtJoint.mjJNT_BALL, armature=PALM_ARMATURE)
    for axis in (None,) if turn == "geodesic" else range(3):
        name = BALL_NAME if axis is None else f"{BALL_NAME}_{'xyz'[axis]}"
        servo = world.add_actuator(name=name, target=BALL_NAME, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        if axis is None:
            servo.set_to_orientation(kp=BALL_KP, kv=BALL_KV)
            servo.forcerange = [0.0, BALL_TORQUE_NM]  # of the norm of the torque
        else:
            servo.set_to_position(kp=BALL_KP, kv=BALL_KV)
            servo.gear = [float(axis == k) for k in range(6)]
            servo.forcerange = [-BALL_TORQUE_NM, BALL_TORQUE_NM]
    _attach_tree(world, world.worldbody.add_frame(), spec)


def _attach_tree(world: mujoco.MjSpec, frame: mujoco.MjsFrame, child: mujoco.MjSpec) -> None:
    """Attach a model at a frame and keep its names: MuJoCo insists on a prefix, which is taken off again."""
    world.attach(child, prefix=_PREFIX, frame=frame)
    for kind in (world.bodies, world.joints, world.geoms, world.sites, world.actuators):
        for element in kind:
            element.name = element.name.removeprefix(_PREFIX)
    for servo in world.actuators:
        servo.target = servo.target.removeprefix(_PREFIX)
    for equality in world.equalities:
        for key in ("name", "name1", "name2"):
            setattr(equality, key, getattr(equality, key).removeprefix(_PREFIX))
    for pair in world.excludes:
        pair.bodyname1, pair.bodyname2 = pair.bodyname1.removeprefix(_PREFIX), pair.bodyname2.removeprefix(_PREFIX)
