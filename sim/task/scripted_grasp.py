"""Scripted grasp that policies correct: approach, close the hand, keep it closed in the lift.

It reads joint positions, the palm pose and the pre-grasp plan, all available on a robot. Alone it is the baseline.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from dexgrasp.utils.bounds import Bounds, bounded


@dataclass(frozen=True)
@bounded
class ScriptedGraspCfg:
    """Configure timing and strength of the scripted grasp."""

    approach_fraction: Annotated[float, Bounds(0.01, 0.99)] = 0.43
    """Fraction of the grasp phase spent on the approach."""
    close_rad: Annotated[float, Bounds(0.001, 1)] = 0.15
    """Finger target ahead of the measured position, per unit of the hand's closing direction [rad]."""
    sink_gain_hz: Annotated[float, Bounds(0, 100)] = 5.0
    """Palm speed along its normal per metre of the lowest keypoint's height above `keypoint_floor_m` [1/s]."""
    sink_speed_m_s: Annotated[float, Bounds(0, 2)] = 0.1
    """Largest palm speed along its normal while closing [m/s]."""
    keypoint_floor_m: Annotated[float | None, Bounds(0, 0.2)] = None
    """Height over the table of the lowest keypoint while the hand closes [m]; null: that of keypoint_floor_fingers."""
    keypoint_floor_fingers: Annotated[float, Bounds(0, 10)] = 0.875
    """That height as a multiple of `finger_m` of the hand, half the thickness of a finger."""
    sink_m: Annotated[float, Bounds(0, 0.2)] = 0.006
    """Largest advance of the palm while closing, beyond the end of the approach [m]."""
    close_at_grip: Annotated[float, Bounds(0.001, 1)] = 0.5
    """Grip confidence above which the hand closes before the approach is over; 1: never."""
    close_within_m: Annotated[float, Bounds(0, 1)] = 0.055
    """Longest remaining approach at which it may close early [m]; an earlier grasp is shallower."""
    follow_m_s: Annotated[float, Bounds(0, 5)] = 0.3
    """Speed at which the approach follows an object that moved over the table [m/s]; 0: not at all."""
    follow_from_m: Annotated[float, Bounds(0, 1)] = 0.015
    """Motion of the object up to which the approach is not changed, as trackers drift [m]."""
    follow_fully_m: Annotated[float, Bounds(0.0001, 1)] = 0.025
    """Motion of the object from which on the approach follows in full [m]."""

    def __post_init__(self) -> None:
        if self.follow_from_m >= self.follow_fully_m:
            raise ValueError(
                "scripted_grasp.follow_from_m must be less than follow_fully_m, "
                f"got {self.follow_from_m} and {self.follow_fully_m}"
            )


def scripted_grasp_of(finger_m: float, cfg: ScriptedGraspCfg) -> ScriptedGraspCfg:
    """Return the scripted grasp of a hand: a keypoint_floor_m that is not given comes from its fingers."""
    if cfg.keypoint_floor_m is not None:
        return cfg
    return replace(cfg, keypoint_floor_m=cfg.keypoint_floor_fingers * finger_m)


@dataclass(frozen=True)
class ScriptedStep:
    """Hold the command of the scripted grasp for one control step."""

    palm_m: Tensor
    """(env,) advance of the palm target along its normal [m]."""
    finger_rad: Tensor
    """(env, motor) finger targets relative to the measured positions [rad]."""


def scripted_grasp_step(
    cfg: ScriptedGraspCfg,
    closing: Tensor,
    floor_m: Tensor,
    step_s: float,
    phase_s: Tensor,
    grasp_s: float,
    travelled_m: Tensor,
    depth_m: Tensor,
    palm_height_m: Tensor,
    palm_down: Tensor,
    keypoint_height_m: Tensor,
    grip: Tensor,
) -> ScriptedStep:
    """Compute one step of approach or closing; shapes (env,) unless stated.

    `cfg`: that of `scripted_grasp_of`. `phase_s`: time since the start of the grasp phase. `travelled_m`, `depth_m`:
    done and planned length of the approach. `palm_height_m`, `palm_down`: height of the palm target and the downward
    share of its normal. `keypoint_height_m` (env, keypoint): heights over the table. `closing` (env, motor): direction
    of closing. `grip`: confidence that thumb and another finger touch the object, 0 to 1.
    """
    assert cfg.keypoint_floor_m is not None, "scripted_grasp_of gives the number of the hand"
    approach_s = cfg.approach_fraction * grasp_s
    approaching = phase_s < approach_s
    left_s = (approach_s - phase_s).clamp(min=step_s)
    to_floor = (palm_height_m - floor_m) / palm_down.clamp(min=0.2)
    advance = ((depth_m - travelled_m) * (step_s / left_s)).clamp(min=0.0)
    advance = torch.minimum(advance, to_floor.clamp(min=0.0))
    lowest = keypoint_height_m.amin(dim=1)
    limit = cfg.sink_speed_m_s * step_s
    sink = (cfg.sink_gain_hz * step_s * (lowest - cfg.keypoint_floor_m)).clamp(-limit, limit)
    sink = torch.minimum(sink, (depth_m + cfg.sink_m - travelled_m).clamp(min=-limit))
    sink = torch.where(phase_s < grasp_s, sink, torch.zeros_like(sink))
    early = (grip > cfg.close_at_grip) & (depth_m - travelled_m < cfg.close_within_m)
    fingers = torch.where((approaching & ~early)[:, None], 0.0, cfg.close_rad) * closing
    return ScriptedStep(palm_m=torch.where(approaching, advance, sink), finger_rad=fingers)


def follow_step(
    cfg: ScriptedGraspCfg, moved_m: Tensor, followed_m: Tensor, step_s: float, phase_s: Tensor, grasp_s: float
) -> Tensor:
    """Return the horizontal motion (env, 2) [m] of the palm target that follows a moved object.

    `moved_m` (env, 2): displacement of the object since the plan; `followed_m` (env, 2): part that the palm target has
    followed. Zero after the approach.
    """
    distance = moved_m.norm(dim=1, keepdim=True)
    share = ((distance - cfg.follow_from_m) / (cfg.follow_fully_m - cfg.follow_from_m)).clamp(0.0, 1.0)
    left_m = share * moved_m - followed_m
    step_m = left_m * (cfg.follow_m_s * step_s / left_m.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)
    return torch.where((phase_s < cfg.approach_fraction * grasp_s)[:, None], step_m, 0.0)
