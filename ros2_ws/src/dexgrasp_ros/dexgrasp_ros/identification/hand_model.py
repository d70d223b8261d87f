"""Hand model for system identification: rest pose, free ranges, inertias, first guess."""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.motors import Motors
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp_ros.identification.excitation import ExcitationCfg
from dexgrasp_ros.identification.fit import JointParameters

Array = NDArray[np.float64]
SCAN_RAD = 0.02
"""Step of the search for contacts along a joint range [rad]."""
MIN_CLEARANCE_M = 0.003
"""Smallest distance between fingers [m]."""
GUESSED_FRICTION_NM = 0.01
"""First guess of the dry friction [N m]."""


@dataclass(frozen=True)
class HandModel:
    """Model of one hand, motors in the order of hand.yaml."""

    name: str
    motors: Motors
    """Motors and the joints that they move."""
    lower: Array
    """(motor,) lower ends of the ranges of the motors' joints [rad]."""
    upper: Array
    """(motor,) upper ends of the ranges [rad]."""
    rest: Array
    """(motor,) position while another motor is tested [rad]."""
    free_lower: Array
    """(motor,) lower ends of the contact-free ranges about the rest pose [rad]."""
    free_upper: Array
    """(motor,) upper ends of the contact-free ranges [rad]."""
    inertia: Array
    """(motor,) inertia of all joints that a motor moves, seen from its joint, in the rest pose [kg m2]."""
    guess: Sequence[JointParameters]
    """First guess of the servo parameters, from hand.yaml."""


def load_hand(name: str, cfg: ExcitationCfg) -> HandModel:
    """Load a hand of assets/hands or of a folder, and choose the rest pose with the largest free ranges."""
    hand = HandSpec.load(name)
    spec = hand.to_mjspec()
    spec.body("palm").add_freejoint()  # MuJoCo takes a palm without joints for the world, which meets its fingers
    for geom in spec.geoms:
        geom.margin = MIN_CLEARANCE_M / 2  # of a pair, the margins add up
    model = spec.compile()
    data = mujoco.MjData(model)
    address = [int(model.joint(joint).qposadr[0]) for joint in hand.joint_names]
    rest, low, high = max(
        ((pose, *_free(model, data, address, pose, hand, cfg)) for pose in _poses(hand, cfg)),
        key=lambda item: float((item[2] - item[1]).min()),
    )
    return HandModel(
        name=hand.name,
        motors=hand.motors,
        lower=hand.motor_lower,
        upper=hand.motor_upper,
        rest=rest,
        free_lower=low,
        free_upper=high,
        inertia=_inertias(model, data, address, rest, hand),
        guess=[
            JointParameters(
                kp=hand.kp[i],
                kd=hand.kd[i],
                damping=_of_motor(hand, hand.damping)[i],
                friction_loss=GUESSED_FRICTION_NM,
                effort_limit=hand.effort_limit[i],
            )
            for i in range(len(hand.motors.names))
        ],
    )


def _poses(hand: HandSpec, cfg: ExcitationCfg) -> list[Array]:
    """Return candidate rest poses with room on either side: open, stretched, centre of the ranges."""
    room = cfg.margin_rad + 2 * cfg.small_rad
    lower, upper = hand.motor_lower, hand.motor_upper
    known = [hand.motors.positions(style.open_pose.numpy()) for style in (hand.power, hand.pinch)]
    poses = [*known, np.zeros(len(lower)), (lower + upper) / 2]
    return [np.clip(pose, lower + room, upper - room) for pose in poses]


def _free(
    model: mujoco.MjModel, data: mujoco.MjData, address: list[int], rest: Array, hand: HandSpec, cfg: ExcitationCfg
) -> tuple[Array, Array]:
    """Return lower and upper ends (motor,) [rad] of the contact-free ranges about a pose."""
    low, high = rest.copy(), rest.copy()
    for i in range(len(rest)):
        for ends, way in ((low, -SCAN_RAD), (high, SCAN_RAD)):
            while abs(ends[i] - rest[i]) < cfg.reach_rad + cfg.margin_rad:
                pose = rest.copy()
                pose[i] = ends[i] + way
                inside = hand.motor_lower[i] <= pose[i] <= hand.motor_upper[i]
                if not inside or _touches(model, data, address, hand.motors.joint_positions(pose)):
                    break
                ends[i] = pose[i]
    return low, high


def _touches(model: mujoco.MjModel, data: mujoco.MjData, address: list[int], pose: Array) -> bool:
    data.qpos[address] = pose
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    return bool(data.ncon)


def _inertias(model: mujoco.MjModel, data: mujoco.MjData, address: list[int], rest: Array, hand: HandSpec) -> Array:
    data.qpos[address] = hand.motors.joint_positions(rest)
    mujoco.mj_forward(model, data)
    whole = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, whole)
    dofs = [int(model.joint(joint).dofadr[0]) for joint in hand.joint_names]
    motors = hand.motors
    if not motors.coupled:
        return np.diag(whole)[dofs].copy()
    moved = motors.moved(np.eye(len(motors.names)))  # (motor, joint)
    return np.einsum("mi,ij,mj->m", moved, whole[np.ix_(dofs, dofs)], moved)


def _of_motor(hand: HandSpec, of_joint: Array) -> Array:
    """Return damping (motor,) seen from the motors' joints, of damping (joint,)."""
    motors = hand.motors
    return np.square(motors.moved(np.eye(len(motors.names)))) @ of_joint if motors.coupled else of_joint
