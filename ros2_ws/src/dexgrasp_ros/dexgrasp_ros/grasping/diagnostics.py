"""Diagnostics of the grasp node: state, inputs, timing, shadow mode."""

from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from dexgrasp.perception.motors import Motors
from dexgrasp.utils.rotations import Pose
from dexgrasp.utils.timers import PERCENTILES, Timing
from dexgrasp_ros.grasping.types import Inputs, Output
from dexgrasp_ros.message_conversions import ERROR, OK, WARN, diagnostic


def state_report(output: Output, active: bool, mode: str) -> DiagnosticStatus:
    """Return the status of the state machine: ERROR in fault, WARN while not active or with a warning."""
    values = {"state": output.state, "fault": output.fault, "active": active, "mode": mode}
    if output.warning:
        return diagnostic("grasp: state", WARN, f"{output.state}, standing still: {output.warning}", values)
    if output.state == "fault":
        return diagnostic("grasp: state", ERROR, output.fault, values)
    return diagnostic("grasp: state", OK if active else WARN, output.state if active else "not active", values)


def inputs_report(inputs: Inputs, refused: Mapping[str, int], no_clock: str = "") -> DiagnosticStatus:
    """Return the status of the inputs: ages of the newest messages, and numbers of refused ones by kind.

    `no_clock`: why ages mean nothing; empty where they do.
    """
    stamps_s = {
        "joints": inputs.joints_stamp_s,
        "palm": inputs.palm_stamp_s,
        "points": -np.inf if inputs.estimate is None else inputs.estimate.stamp_s,
        "plan": inputs.plan_stamp_s,
    }
    ages = {f"{name}_age_s": inputs.now_s - stamp_s for name, stamp_s in stamps_s.items()}
    counts = {f"{name}_refused": count for name, count in refused.items()}
    values = {**ages, **counts, "estop": inputs.estop, "trouble": inputs.input_errors}
    if inputs.input_errors:
        return diagnostic("grasp: inputs", ERROR, inputs.input_errors, values)
    if no_clock:
        return diagnostic("grasp: inputs", WARN, no_clock, values)
    return diagnostic("grasp: inputs", OK, "emergency stop" if inputs.estop else "ok", values)


def timing_report(timing: Timing) -> DiagnosticStatus:
    """Return the status of the timing: percentiles by name [ms]."""
    values = {
        f"{name}_p{percent}_ms": value
        for name, found in timing.percentiles_ms().items()
        for percent, value in zip(PERCENTILES, found, strict=True)
    }
    return diagnostic("grasp: timing", OK, f"{len(values)} values", values)


def shadow_report(output: Output, inputs: Inputs, motors: Motors) -> DiagnosticStatus:
    """Return the status of shadow mode: difference between the policy's command and the measured robot."""
    proposal = output.proposal
    if proposal is None or inputs.joint_pos is None or inputs.palm_pos_w is None:
        return diagnostic("grasp: shadow", OK, "the policy does not run")
    target = Pose.of(proposal.palm_pos_w, proposal.palm_quat_w)
    palm = Pose.of(inputs.palm_pos_w, inputs.palm_quat_w)
    fingers = np.abs(np.asarray(proposal.joint_target) - motors.positions(np.asarray(inputs.joint_pos)))
    values = {
        "palm_m": target.distance_m(palm),
        "palm_rad": target.angle_rad(palm),
        "joints_mean_rad": float(fingers.mean()),
        "joints_max_rad": float(fingers.max()),
    }
    text = f"policy and robot differ by {values['palm_m']:.3f} m (palm), {values['joints_max_rad']:.2f} rad (joint)"
    return diagnostic("grasp: shadow", OK, text, values)
