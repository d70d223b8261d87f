"""What may be made of readings, and why a robot must not be commanded from where it is said to be."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.grasp_types import Inputs
from policies.contract import HandContract
from policies.safety import SafetyGate

Array = NDArray[np.float64]
BOX_TOLERANCE_M = 0.01
JUMP_RAD, JUMP_M, JUMP_TURN_RAD = 0.8, 0.08, 0.5
"""More than any joint, the palm, or its orientation moves in a control period of a twentieth of a second."""


def not_ready(inputs: Inputs, hand: HandContract, gate: SafetyGate, period_s: float, outside_rad: float) -> str:
    """Why commands must not begin now, or nothing. `hand`: of the contract."""
    if reason := "the emergency stop is pressed" if inputs.estop else missing(inputs):
        return reason
    names, lower, upper = hand.joint_names, np.array(hand.joint_lower_rad), np.array(hand.joint_upper_rad)
    try:
        joints, palm = measured(inputs, len(names))
    except ValueError as error:
        return str(error)
    return (
        stale(inputs, period_s, gate.cfg.joints_timeout_s)
        or outside(joints, names, lower, upper, outside_rad)
        or beside(palm, gate.palm.lower, gate.palm.upper)
    )


def measured(inputs: Inputs, joints: int) -> tuple[Array, Pose]:
    """Joint positions (joint,) [rad] and T_world_palm. Raises ValueError where they are of no use."""
    pos = np.asarray(inputs.joint_pos, dtype=np.float64)
    if pos.shape != (joints,) or not np.isfinite(pos).all():
        raise ValueError(f"joint positions are not {joints} finite values. {inputs.trouble}".rstrip())
    return pos, Pose.of(inputs.palm_pos_w, inputs.palm_quat_w)


def parts(state: tuple[Array, Pose] | None) -> tuple[Array | None, Array | None, Array | None]:
    """Joints, position and orientation, or nothing of each."""
    return (None, None, None) if state is None else (state[0], state[1].pos_m, state[1].quat)


def fingers_within(value: ArrayLike, lower: Array, upper: Array) -> Array:
    """A plan's finger positions (joint,) within limits [rad]. Raises ValueError where they are of no use."""
    joints = np.asarray(value, dtype=np.float64)
    if joints.shape != lower.shape or not np.isfinite(joints).all():
        raise ValueError(f"the plan's fingers are not {len(lower)} finite values")
    return np.clip(joints, lower, upper)


def missing(inputs: Inputs) -> str:
    """What has never been read, or nothing."""
    if inputs.joint_pos is not None and inputs.palm_pos_w is not None:
        return ""
    what = "joint states of the hand" if inputs.joint_pos is None else "pose of the palm"
    return f"no {what} yet" + (f": {inputs.trouble}" if inputs.trouble else "")


def stale(inputs: Inputs, period_s: float, limit_s: float) -> str:
    """How old the readings are, if older than the limit or more than a period from the future; else nothing."""
    age_s = inputs.now_s - stamp_s(inputs)
    if -period_s <= age_s <= limit_s:
        return ""
    return f"readings are {age_s:.3f} s old, {limit_s} s are allowed. {inputs.trouble}".rstrip()


def stamp_s(inputs: Inputs) -> float:
    """Of the older of joints and palm; not a number where one is none."""
    return float(np.minimum(inputs.joints_stamp_s, inputs.palm_stamp_s))


def jumped(before: tuple[Array, Pose], after: tuple[Array, Pose], share: float) -> str:
    """What moved further from one reading to the next than it can, `share` times the limits; else nothing."""
    far_rad = float(np.abs(after[0] - before[0]).max())
    far_m, turn_rad = before[1].distance_m(after[1]), before[1].angle_rad(after[1])
    if far_rad > share * JUMP_RAD:
        return f"a joint jumped by {far_rad:.2f} rad from one reading to the next"
    if far_m > share * JUMP_M or turn_rad > share * JUMP_TURN_RAD:
        return f"the palm jumped by {far_m:.3f} m and {turn_rad:.2f} rad from one reading to the next"
    return ""


def astray(target: Pose, palm: Pose, follow_m: float, follow_rad: float) -> str:
    """Why the arm seems not to follow its target; else nothing."""
    away_m, away_rad = target.distance_m(palm), target.angle_rad(palm)
    if away_m <= follow_m and away_rad <= follow_rad:
        return ""
    return f"the palm does not follow: {away_m:.3f} m and {away_rad:.2f} rad from its target. Is the arm stopped?"


def outside(joints: Array, names: Sequence[str], lower: Array, upper: Array, tolerance_rad: float) -> str:
    """The joint (joint,) [rad] that is furthest outside its range, if by more than the tolerance; else nothing."""
    far = np.maximum(lower - joints, joints - upper)
    worst = int(far.argmax())
    if not far[worst] > tolerance_rad:
        return ""
    return (
        f"joint {names[worst]} is measured at {joints[worst]:.2f} rad, outside {lower[worst]:.2f} to "
        f"{upper[worst]:.2f}: is the hand's configuration the right one?"
    )


def beside(palm: Pose, lower_m: Array, upper_m: Array) -> str:
    """How far the palm is outside its workspace (3,), (3,) [m], if it is; else nothing."""
    gap_m = float(np.abs(np.clip(palm.pos_m, lower_m, upper_m) - palm.pos_m).max())
    if gap_m <= BOX_TOLERANCE_M:
        return ""
    where = np.round(palm.pos_m, 3).tolist()
    return f"the palm at {where} m is {gap_m:.2f} m outside its workspace: move the arm there by other means"
