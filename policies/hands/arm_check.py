"""`dexgrasp arms check`: findings about the model of an arm, and the workspace that it reaches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from dexgrasp.sim.hand_setup.checks import Finding, Level
from dexgrasp.sim.robots.arm import ArmIK, ArmSpec
from dexgrasp.sim.robots.arms.arm_file import find_arm
from dexgrasp.sim.robots.arms.arm_model import FREE_TURN_RAD
from dexgrasp.sim.robots.arms.arm_values import workspace_poses
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import comma_separated, counted, print_table

REACHED = {"odd": 0.95, "wrong": 0.5}
"""Part of the palm poses reached, below which it is odd or wrong: grasps are planned anywhere in the workspace."""
ROOM = 0.1
"""Least distance from joint limits at home [quarter turns]: from nearer, the arm turns round before it grasps."""
BATCH = 20
"""Poses between two reports of progress."""


@dataclass(frozen=True)
@bounded
class CheckArmCfg:
    """Check an arm: joints, limits, base, wrist, and the palm poses over the table that it reaches."""

    arm: str = "ur5e"
    """Arm by name, folder, arm.yaml, MJCF or URDF; behind a path :base=NAME, :tip=NAME."""
    hand: str = "allegro"
    """Hand that it carries, by name or path; home and reach are those of its palm."""
    side: Literal["right", "left"] = "right"
    """Side of the hand."""
    poses: Annotated[int, Bounds(1, 100_000)] = 1000
    """Number of palm poses, always the same ones: within 15 cm of the middle, 10 to 35 cm high, facing down."""


def check(cfg: CheckArmCfg) -> int:
    """Print the findings; return 1 where something is wrong, otherwise 0."""
    hand = HandSpec.load(cfg.hand, side=cfg.side)
    arm = ArmSpec.load(cfg.arm, hand)
    ik = ArmIK(arm, hand)
    found = [*_model(cfg, arm), *_home(arm, ik), *_wrist(arm, hand), _reach(ik, cfg.poses)]
    print_table([("result", "check", "measured"), *((item.level, item.what, item.text) for item in found)])
    wrong, odd = (sum(item.level == level for item in found) for level in ("wrong", "odd"))
    print(f"{arm.name}: {counted(wrong, 'check')} wrong, {odd} odd, {len(found) - wrong - odd} ok")
    return int(wrong > 0)


def _model(cfg: CheckArmCfg, arm: ArmSpec) -> Iterator[Finding]:
    model = arm.model
    left_out = f"; left out: {comma_separated(model.dropped_joints)}" if model.dropped_joints else ""
    yield Finding("ok", "model", f"{len(arm.joint_names)} joints from '{model.base}' to '{model.tip}'{left_out}")
    rows = find_arm(cfg.arm).content.joints
    free = [
        joint.name
        for joint in model.joints
        if joint.upper - joint.lower >= 2 * FREE_TURN_RAD and (joint.name not in rows or rows[joint.name].range is None)
    ]
    turns = f"two turns for {comma_separated(free)}, or none: where cables turn less, state `range` in an arm.yaml"
    text = turns if free else "of all joints"
    yield Finding("odd" if free else "ok", "limits", text)
    yield Finding("ok", "base", f"at {np.round(arm.base_pos_w, 3).tolist()} m, yaw {arm.base_yaw_rad:.3f} rad")


def _home(arm: ArmSpec, ik: ArmIK) -> Iterator[Finding]:
    room = float(ik.room(torch.tensor(arm.home)))
    advice = "" if room >= ROOM else "; state another `home` or `place` in an arm.yaml"
    text = f"{np.round(arm.home, 2).tolist()} rad, {90 * room:.0f} deg from the nearest limit{advice}"
    yield Finding("ok" if room >= ROOM else "odd", "home", text)


def _wrist(arm: ArmSpec, hand: HandSpec) -> Iterator[Finding]:
    offset_m, clearance_m = arm.wrist(hand)
    text = f"{1000 * offset_m:.0f} mm behind the palm of {hand.name}, kept {1000 * clearance_m:.0f} mm over the table"
    yield Finding("ok", "wrist", text)


def _reach(ik: ArmIK, count: int) -> Finding:
    """Check the part of palm poses that inverse kinematics finds from home and from random starts."""
    reached = 0
    pos_w, quat_w = workspace_poses(count)
    with Progress(count, "arms check: palm poses") as progress:
        for pos, quat in zip(pos_w.split(BATCH), quat_w.split(BATCH), strict=True):
            reached += int(ik.reaches(pos, quat).sum())
            progress.advance(len(pos))
    share = reached / count
    level: Level = "wrong" if share < REACHED["wrong"] else "odd" if share < REACHED["odd"] else "ok"
    advice = "" if level == "ok" else "; state another `place` in an arm.yaml, or another tip"
    return Finding(level, "reach", f"{reached} of {count} palm poses over the table ({100 * share:.1f} %){advice}")
