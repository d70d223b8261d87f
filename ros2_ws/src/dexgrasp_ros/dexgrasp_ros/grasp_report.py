"""What the grasp node says of itself on /diagnostics."""

from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from dexgrasp.utils.rotations import Pose
from dexgrasp.utils.timers import PERCENTILES, Timing
from dexgrasp_ros.grasp_types import Inputs, Output
from dexgrasp_ros.messages import ERROR, OK, WARN, diagnostic


def state_report(output: Output, active: bool, mode: str) -> DiagnosticStatus:
    """Where the sequence is; an error while it is in fault."""
    values = {"state": output.state, "fault": output.fault, "active": active, "mode": mode}
    if output.state == "fault":
        return diagnostic("grasp: state", ERROR, output.fault, values)
    return diagnostic("grasp: state", OK if active else WARN, output.state if active else "not active", values)


def inputs_report(inputs: Inputs, refused: Mapping[str, int]) -> DiagnosticStatus:
    """Ages of what came last, and how many messages were of no use."""
    stamps_s = {
        "joints": inputs.joints_stamp_s,
        "palm": inputs.palm_stamp_s,
        "points": -np.inf if inputs.view is None else inputs.view.stamp_s,
        "plan": inputs.plan_stamp_s,
    }
    ages = {f"{name}_age_s": inputs.now_s - stamp_s for name, stamp_s in stamps_s.items()}
    counts = {f"{name}_refused": count for name, count in refused.items()}
    values = {**ages, **counts, "estop": inputs.estop, "trouble": inputs.trouble}
    if inputs.trouble:
        return diagnostic("grasp: inputs", ERROR, inputs.trouble, values)
    return diagnostic("grasp: inputs", OK, "emergency stop" if inputs.estop else "ok", values)


def timing_report(timing: Timing) -> DiagnosticStatus:
    """Percentiles of what takes time [ms]."""
    values = {
        f"{name}_p{percent}_ms": value
        for name, found in timing.percentiles_ms().items()
        for percent, value in zip(PERCENTILES, found, strict=True)
    }
    return diagnostic("grasp: timing", OK, f"{len(values)} values", values)


def shadow_report(output: Output, inputs: Inputs) -> DiagnosticStatus:
    """How far what the policy would do is from what the robot does."""
    wish = output.proposal
    if wish is None or inputs.joint_pos is None or inputs.palm_pos_w is None:
        return diagnostic("grasp: shadow", OK, "the policy does not run")
    wanted, palm = Pose.of(wish.palm_pos_w, wish.palm_quat_w), Pose.of(inputs.palm_pos_w, inputs.palm_quat_w)
    fingers = np.abs(np.asarray(wish.joint_target) - np.asarray(inputs.joint_pos))
    values = {
        "palm_m": wanted.distance_m(palm),
        "palm_rad": wanted.angle_rad(palm),
        "joints_mean_rad": float(fingers.mean()),
        "joints_max_rad": float(fingers.max()),
    }
    text = f"the palm would go {values['palm_m']:.3f} m away, the fingers {values['joints_max_rad']:.2f} rad at most"
    return diagnostic("grasp: shadow", OK, text, values)
