"""Checks of the readings of the grasp node: each returns why they must not be used, or an empty text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.policies.deploy.contract import HandContract
from dexgrasp.policies.deploy.safety_gate import SafetyGate
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.grasping.types import Inputs

Array = NDArray[np.float64]
ESTOP = "the emergency stop was pressed: release it, then call reset_fault"
BOX_TOLERANCE_M = 0.01
"""Distance of the palm outside its workspace that is accepted [m]."""
JUMP_RAD, JUMP_M, JUMP_TURN_RAD = 0.8, 0.08, 0.5
"""Motion of a joint, of the palm and of its orientation that is impossible within a control period of 0.05 s."""


def not_ready(inputs: Inputs, hand: HandContract, gate: SafetyGate, period_s: float, outside_rad: float) -> str:
    """Return why no command may be sent from these readings; empty where they are valid."""
    if reason := ESTOP if inputs.estop else never_received(inputs):
        return reason
    names, lower, upper = hand.joint_names, np.array(hand.joint_lower_rad), np.array(hand.joint_upper_rad)
    try:
        joints, palm = measured_state(inputs, len(names))
    except ValueError as error:
        return str(error)
    return (
        too_old(inputs, period_s, gate.cfg.joints_timeout_s)
        or outside_joint_range(joints, names, lower, upper, outside_rad)
        or outside_workspace(palm, gate.palm.lower, gate.palm.upper)
    )


def measured_state(inputs: Inputs, joints: int) -> tuple[Array, Pose]:
    """Return joint positions (joint,) [rad] and T_world_palm. Raises ValueError for invalid ones."""
    pos = np.asarray(inputs.joint_pos, dtype=np.float64)
    if pos.shape != (joints,) or not np.isfinite(pos).all():
        raise ValueError(f"joint positions are not {joints} finite values. {inputs.input_errors}".rstrip())
    return pos, Pose.of(inputs.palm_pos_w, inputs.palm_quat_w)


def clip_fingers(value: ArrayLike, lower: Array, upper: Array) -> Array:
    """Return finger positions (joint,) of a plan, clipped to limits [rad]. Raises ValueError."""
    joints = np.asarray(value, dtype=np.float64)
    if joints.shape != lower.shape or not np.isfinite(joints).all():
        raise ValueError(f"the finger positions of the plan are not {len(lower)} finite values")
    return np.clip(joints, lower, upper)


def never_received(inputs: Inputs) -> str:
    """Return which reading has never arrived."""
    if inputs.joint_pos is not None and inputs.palm_pos_w is not None:
        return ""
    name = "joint states of the hand" if inputs.joint_pos is None else "palm pose"
    return f"no {name} received" + (f": {inputs.input_errors}" if inputs.input_errors else "")


def too_old(inputs: Inputs, period_s: float, limit_s: float) -> str:
    """Return the age of the readings if it exceeds the limit or is less than -`period_s`."""
    age_s = inputs.now_s - oldest_stamp_s(inputs)
    if -period_s <= age_s <= limit_s:
        return ""
    return f"readings are {age_s:.4g} s old, at most {limit_s} s are allowed. {inputs.input_errors}".rstrip()


def oldest_stamp_s(inputs: Inputs) -> float:
    """Return the older of the stamps of joints and palm [s]; NaN where one is NaN."""
    return float(np.minimum(inputs.joints_stamp_s, inputs.palm_stamp_s))


def jumped(before: tuple[Array, Pose], after: tuple[Array, Pose], periods: float) -> str:
    """Return what moved further between two readings than is possible in so many control periods."""
    far_rad = float(np.abs(after[0] - before[0]).max())
    far_m, turn_rad = before[1].distance_m(after[1]), before[1].angle_rad(after[1])
    if far_rad > periods * JUMP_RAD:
        return f"a joint jumped by {far_rad:.3g} rad between two readings"
    if far_m > periods * JUMP_M or turn_rad > periods * JUMP_TURN_RAD:
        return f"the palm jumped by {far_m:.3g} m and {turn_rad:.3g} rad between two readings"
    return ""


def palm_far_from_target(target: Pose, palm: Pose, follow_m: float, follow_rad: float) -> str:
    """Return the distance of the palm from its target if it exceeds a limit: the arm does not follow."""
    distance_m, angle_rad = target.distance_m(palm), target.angle_rad(palm)
    if distance_m <= follow_m and angle_rad <= follow_rad:
        return ""
    return f"the palm does not follow: {distance_m:.3g} m and {angle_rad:.3g} rad from its target. Is the arm stopped?"


def outside_joint_range(joints: Array, names: Sequence[str], lower: Array, upper: Array, tolerance_rad: float) -> str:
    """Return the joint of joints (joint,) [rad] furthest outside its range, if beyond the tolerance."""
    far = np.maximum(lower - joints, joints - upper)
    worst = int(far.argmax())
    if not far[worst] > tolerance_rad:
        return ""
    return (
        f"joint {names[worst]} is measured at {joints[worst]:.4g} rad, outside {lower[worst]:.2f} to "
        f"{upper[worst]:.2f}: check zero, sign and unit in the driver description of the hand"
    )


def outside_workspace(palm: Pose, lower_m: Array, upper_m: Array) -> str:
    """Return how far the palm is outside its workspace (3,), (3,) [m]."""
    gap_m = float(np.abs(np.clip(palm.pos_m, lower_m, upper_m) - palm.pos_m).max())
    if gap_m <= BOX_TOLERANCE_M:
        return ""
    where = np.round(palm.pos_m, 3).tolist()
    return f"the palm at {where} m is {gap_m:.3g} m outside its workspace: move the arm into it by other means"
