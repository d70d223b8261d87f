"""Safety gate of tests that move the joints of a hand and not its palm."""

import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.deploy.safety_gate import DesiredCommand, MeasuredState, SafeCommand, SafetyGate

Array = NDArray[np.float64]
PALM = np.array([0.0, 0.0, 0.4]), np.array([1.0, 0.0, 0.0, 0.0])
"""Constant palm pose for the gate: position [m] and quaternion wxyz."""


def pass_gate(gate: SafetyGate, target: Array, joints: Array, stamp_s: float, now_s: float) -> SafeCommand:
    """Return what may be sent for targets (motor,) [rad], from measured joints (joint,) [rad]."""
    pos, quat = PALM
    return gate(
        DesiredCommand(joint_target=target, palm_pos_w=pos, palm_quat_w=quat, stamp_s=now_s),
        MeasuredState(joint_pos=joints, palm_pos_w=pos, palm_quat_w=quat, stamp_s=stamp_s),
        now_s,
    )
