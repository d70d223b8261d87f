"""Safety gate of the identification: all checks of the gate, with room for the steps."""

import numpy as np

from dexgrasp import configs
from dexgrasp.policies.deploy.contract import HandContract, KinematicsContract
from dexgrasp.policies.deploy.safety_gate import SafetyCfg, SafetyGate
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp_ros.identification.excitation import ExcitationCfg

MAX_SPEED_RAD_S, MAX_EFFORT_NM = 100.0, 1000.0
"""Bounds of a contract."""


def make_gate(name: str, cfg: ExcitationCfg, stale_s: float) -> SafetyGate:
    """Return the gate of a hand of assets/hands or of a folder.

    Its limits of speed and effort allow jumps of `cfg.jump_rad`, which saturate the servos on purpose.
    """
    hand = HandSpec.load(name)
    count = len(hand.motors.names)
    speed = min(cfg.jump_rad * cfg.rate_hz, MAX_SPEED_RAD_S)
    lead_rad = 2 * (cfg.reach_rad + cfg.jump_rad)
    contract = HandContract(
        name=hand.name,
        side="left" if hand.side == "left" else "right",
        joint_names=tuple(hand.joint_names),
        joint_lower_rad=tuple(hand.joint_lower.tolist()),
        joint_upper_rad=tuple(hand.joint_upper.tolist()),
        effort_limit_nm=tuple(np.minimum(hand.kp * lead_rad, MAX_EFFORT_NM).tolist()),
        speed_limit_rad_s=(speed,) * count,
        kp_nm_rad=tuple(hand.kp.tolist()),
        kd_nms_rad=tuple(hand.kd.tolist()),
        palm_pos_b=tuple(hand.palm_pos_b.tolist()),
        palm_quat_b=tuple(hand.palm_quat_b.tolist()),
        kinematics=configs.from_dict(KinematicsContract, hand.kinematics().to_dict(), "hand.kinematics"),
        conventions="",
        coupled=hand.coupled,
    )
    safety = SafetyCfg(
        joint_margin_rad=0.0,
        joint_speed=1.0,
        joint_step_rad=min(cfg.jump_rad, 3.2),
        joint_acceleration_rad_s2=1e4,
        joints_timeout_s=stale_s,
    )
    return SafetyGate(contract, cfg.rate_hz, safety, palm_follows=False)
