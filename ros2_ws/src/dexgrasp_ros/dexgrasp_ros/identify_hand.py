"""What the simulator knows of a hand before its servos are identified: a rest pose, free ranges, inertias, a guess."""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros.excitation import ExcitationCfg
from dexgrasp_ros.identify_fit import JointParameters
from sim.hands import HandSpec

Array = NDArray[np.float64]
SCAN_RAD = 0.02
CLEAR_M = 0.003
"""Fingers stay this far apart."""
GUESSED_FRICTION_NM = 0.01


@dataclass(frozen=True)
class HandModel:
    """One hand, joints in the order of its description."""

    name: str
    joint_names: Sequence[str]
    lower: Array
    """(joint,) [rad] of its range."""
    upper: Array
    """(joint,) [rad]"""
    rest: Array
    """(joint,) [rad] where the joints are while another one is tested."""
    free_lower: Array
    """(joint,) [rad] how far each may go from the rest pose without touching anything."""
    free_upper: Array
    """(joint,) [rad]"""
    inertia: Array
    """(joint,) [kg m2] about each joint at rest, with its rotor."""
    guess: Sequence[JointParameters]
    """Of the description."""


def load_hand(name: str, cfg: ExcitationCfg) -> HandModel:
    """The hand of assets/hands, or of a folder."""
    hand = HandSpec.load(name)
    spec = hand.to_mjspec()
    for geom in spec.geoms:
        geom.margin = CLEAR_M / 2  # of a pair, the margins add up
    model = spec.compile()
    data = mujoco.MjData(model)
    address = [int(model.joint(joint).qposadr[0]) for joint in hand.joint_names]
    rest, low, high = max(
        ((pose, *_free(model, data, address, pose, hand, cfg)) for pose in _poses(hand, cfg)),
        key=lambda item: float((item[2] - item[1]).min()),
    )
    return HandModel(
        name=hand.name,
        joint_names=hand.joint_names,
        lower=hand.joint_lower,
        upper=hand.joint_upper,
        rest=rest,
        free_lower=low,
        free_upper=high,
        inertia=_inertias(model, data, address, rest, hand),
        guess=[
            JointParameters(hand.kp[i], hand.kd[i], hand.damping[i], GUESSED_FRICTION_NM, hand.effort_limit[i])
            for i in range(len(hand.joint_names))
        ],
    )


def _poses(hand: HandSpec, cfg: ExcitationCfg) -> list[Array]:
    """Rest poses to choose from: the open hand, the stretched hand, the middle; with room on either side."""
    room = cfg.margin_rad + 2 * cfg.small_rad
    known = [hand.power.open_pose.numpy(), hand.pinch.open_pose.numpy(), np.zeros(len(hand.joint_names))]
    return [np.clip(pose, hand.joint_lower + room, hand.joint_upper - room) for pose in
            [*known, (hand.joint_lower + hand.joint_upper) / 2]]  # fmt: skip


def _free(
    model: mujoco.MjModel, data: mujoco.MjData, address: list[int], rest: Array, hand: HandSpec, cfg: ExcitationCfg
) -> tuple[Array, Array]:
    """Ends (joint,), (joint,) [rad] of the free ranges about a pose."""
    low, high = rest.copy(), rest.copy()
    for i in range(len(rest)):
        for ends, way in ((low, -SCAN_RAD), (high, SCAN_RAD)):
            while abs(ends[i] - rest[i]) < cfg.reach_rad + cfg.margin_rad:
                pose = rest.copy()
                pose[i] = ends[i] + way
                inside = hand.joint_lower[i] <= pose[i] <= hand.joint_upper[i]
                if not inside or _touches(model, data, address, pose):
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
    data.qpos[address] = rest
    mujoco.mj_forward(model, data)
    whole = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, whole)
    return np.diag(whole)[[int(model.joint(joint).dofadr[0]) for joint in hand.joint_names]].copy()
