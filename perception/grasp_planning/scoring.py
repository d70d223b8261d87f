"""Score of a grasp candidate with one grasp style, in log-odds of success.

    score = share * (style - low * low_m - narrow * narrow_m) - (1 - share) * tall * tall_m
            - length * length_m + across * across_m - crush * crush_m - off_centre * off_centre_m
            - short * short_m - blocked * max(0, blocked_m - BLOCKED_M) - angle * angle_rad

up to a constant that all candidates of an object have in common.

    share         grasp style: 0 pinch grasp, 1 power grasp
    low_m         height of the object below LOW_M
    tall_m        height of the object above LOW_M
    narrow_m      extent of the points along the fingers below NARROW_M
    length_m      extent of the points along the fingers (criterion of the published method)
    across_m      extent of the points across the fingers, at most ACROSS_M, the width of the fingers
    crush_m       excess of that length, near the fingers, over the distance from thumb tip to fingertip
    off_centre_m  distance along the fingers from the points' centre to the middle between thumb and fingers
    short_m       part of the approach that the table prevents
    blocked_m     distance before the end of the approach at which the open hand meets a point
    angle_rad     angle between the approach and the vertical

Failed grasps are avoided by their descriptors: position of the palm relative to the centroid of the points, orientation
of the palm, and grasp style, each divided by the change that makes a different grasp. The score of a candidate is
reduced by

    REPETITION_COST * sum over failed grasps of exp(-|descriptor - failed descriptor|^2)
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.candidates import SLANTED, Candidates
from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.utils.bounds import Bounds, bounded

LOW_M, NARROW_M, ACROSS_M = 0.045, 0.07, 0.08

BESIDE_M = 0.02
"""A point this close beside the path of a keypoint blocks it."""

BLOCKED_M, FREE_M = 0.09, 0.12
"""Values of `blocked_m`: above the first one the score is reduced, because fingertips yield; up to the second one a
candidate counts as free, because neither palm nor knuckles meet a point."""

SLAB_M, PAST_TIPS_M = 0.045, 0.03
"""Points this far to the side of the fingers' middle, and this far beyond their tips, are near the fingers."""

FINGER_M = 0.012
"""Half the thickness of a finger of hands that do not state it."""

FAR_M = 1e30
"""Distance that stands for infinity where 0 is multiplied by it."""
FLOOR_SHARE = 0.8
"""Fraction of the style's least palm height that is added to a slanted hand's reach downwards."""
DESCRIPTOR_POSITION_M, DESCRIPTOR_AXIS, DESCRIPTOR_STYLE = 0.02, 0.35, 0.5
"""Units of a descriptor: palm position, tips of the palm's unit axes (20 degrees), style share."""
DESCRIPTOR_SIZE = 10
"""Length of a descriptor."""
REPETITION_COST = 3.0
"""Reduction of the score of an exactly repeated grasp, in log-odds."""
NO_GRASP = 1e4
"""Value of an empty descriptor: further away than any two descriptors are apart."""


@dataclass(frozen=True)
@bounded
class ScoreCfg:
    """Weights of the score, in log-odds."""

    style: Annotated[float, Bounds(-1000, 1000)] = 0.6
    """For all fingers instead of a pinch."""
    low: Annotated[float, Bounds(-1000, 1000)] = 94.0
    """[1/m]"""
    narrow: Annotated[float, Bounds(-1000, 1000)] = 31.0
    """[1/m]"""
    tall: Annotated[float, Bounds(-1000, 1000)] = 11.0
    """[1/m]"""
    length: Annotated[float, Bounds(-1000, 1000)] = 9.0
    """[1/m]"""
    across: Annotated[float, Bounds(-1000, 1000)] = 48.0
    """[1/m]"""
    crush: Annotated[float, Bounds(-1000, 1000)] = 41.0
    """[1/m]"""
    off_centre: Annotated[float, Bounds(-1000, 1000)] = 36.0
    """[1/m]"""
    short: Annotated[float, Bounds(-1000, 1000)] = 15.0
    """[1/m]"""
    blocked: Annotated[float, Bounds(-1000, 1000)] = 31.0
    """[1/m]"""
    angle: Annotated[float, Bounds(-1000, 1000)] = 3.4
    """[1/rad]"""


@dataclass(frozen=True)
class ScoredCandidates:
    """Palm poses and scores at the end of the approach, one per candidate of one grasp style."""

    palm_pos_w: Tensor
    """(env, cand, 3) [m]."""
    floor_m: Tensor
    """(env, cand) least palm height while the fingers are open."""
    score: Tensor
    """(env, cand) log-odds."""
    blocked_m: Tensor
    """(env, cand) distance before the end of the approach at which the open hand meets a point [m]."""
    ahead_m: Tensor
    """(env, cand) distance of the target from the palm along its normal."""

    @staticmethod
    def join(several: Sequence["ScoredCandidates"]) -> "ScoredCandidates":
        """Concatenate the candidates of several styles."""
        columns = {item.name: [getattr(one, item.name) for one in several] for item in fields(ScoredCandidates)}
        return ScoredCandidates(**{name: torch.cat(column, dim=1) for name, column in columns.items()})


def score_candidates(
    points_w: Tensor,
    candidates: Candidates,
    style: GraspStyle,
    share: float,
    hand_p: Tensor,
    cfg: ScoreCfg,
    finger_m: float = FINGER_M,
) -> ScoredCandidates:
    """Return the palm positions and scores of the candidates with a style (fields with a leading (env,)).

    `points_w` (env, point, 3); `hand_p` (env, keypoint, 3): the open hand in the palm frame; `finger_m`: half the
    thickness of its fingers.
    """
    middle = torch.stack([style.offset_y_m, style.offset_z_m], dim=-1)[:, None]  # (env, 1, 2) across the approach
    ahead = candidates.top_m + style.gap_m[:, None]
    offset = torch.cat([ahead[..., None], middle.expand(-1, ahead.shape[1], -1)], dim=-1)
    palm_w = candidates.target_w - (candidates.axes_w @ offset[..., None]).squeeze(-1)
    points_p = (points_w[:, None] - palm_w[:, :, None]) @ candidates.axes_w
    down = -candidates.axes_w[..., 2, 0]
    floor = _floor(candidates, style, hand_p, down, finger_m)
    blocked = _blocked(points_p, hand_p)
    score = _fit(points_w, points_p, share, cfg) - cfg.crush * _crush(points_p, hand_p, middle)
    off_centre = (points_p[..., 2].mean(dim=-1) - middle[..., 1]).abs()
    short = ((floor - palm_w[..., 2]) / down.clamp(min=0.2)).clamp(min=0.0)
    score = score - cfg.off_centre * off_centre - cfg.short * short - cfg.angle * down.clamp(-1.0, 1.0).acos()
    score = score - cfg.blocked * (blocked - BLOCKED_M).clamp(min=0.0)
    return ScoredCandidates(palm_pos_w=palm_w, floor_m=floor, score=score, blocked_m=blocked, ahead_m=ahead)


def _fit(points_w: Tensor, points_p: Tensor, share: float, cfg: ScoreCfg) -> Tensor:
    """Return the score terms (env, cand) of the object's extents along and across the fingers."""
    height = torch.quantile(points_w[..., 2], 0.97, dim=1)[:, None]
    across, length = (points_p.amax(dim=2) - points_p.amin(dim=2))[..., 1:].unbind(-1)
    low, tall = (LOW_M - height).clamp(min=0.0), (height - LOW_M).clamp(min=0.0)
    whole = cfg.style - cfg.low * low - cfg.narrow * (NARROW_M - length).clamp(min=0.0)
    return (
        share * whole - (1.0 - share) * cfg.tall * tall - cfg.length * length + cfg.across * across.clamp(max=ACROSS_M)
    )


def _floor(candidates: Candidates, style: GraspStyle, hand_p: Tensor, down: Tensor, finger_m: float) -> Tensor:
    """Return the least palm height (env, cand) over the table.

    For a level hand it comes from the style; a slanted hand keeps its lower side off the table.
    """
    level = style.floor_m[:, None].expand_as(down)
    reach = -(hand_p[..., 1:] @ candidates.axes_w[..., 2, 1:].transpose(1, 2)).amin(dim=1)  # (env, cand) below the palm
    slanted = FLOOR_SHARE * level * down + reach.clamp(min=0.0) + finger_m
    return torch.where(candidates.kind == SLANTED, slanted, level)


def _blocked(points_p: Tensor, hand_p: Tensor) -> Tensor:
    """Return the distance (env, cand) by which the open hand must move back to be free of points.

    `hand_p` (env, keypoint, 3): keypoints in the palm frame.

    One keypoint at a time, so that the numbers stay in the processor's cache.
    """
    x, y, z = (value.contiguous() for value in points_p.unbind(-1))
    foremost = torch.full_like(x, -FAR_M)  # of the keypoints in whose way a point is
    for place in hand_p.unbind(1):
        ahead, side, along = (value[:, None, None] for value in place.unbind(-1))
        aside = (y - side).square_().add_((z - along).square_()).ge_(BESIDE_M**2)  # 1 or 0: `where` is slower
        torch.maximum(foremost, aside.mul_(-FAR_M).add_(ahead), out=foremost)
    return (foremost - x + BESIDE_M).amax(dim=-1).clamp(min=0.0)


def _crush(points_p: Tensor, hand_p: Tensor, middle: Tensor) -> Tensor:
    """Return the excess (env, cand) of the points' extent along the fingers over thumb tip to fingertip.

    Only points near the fingers count.
    """
    ahead, along = hand_p[..., 0], hand_p[..., 2]
    beyond = along > middle[..., 1]
    last = [torch.where(side, ahead, -torch.inf).argmax(dim=1, keepdim=True) for side in (beyond, ~beyond)]
    high, low = (along.gather(1, i)[..., None] for i in last)
    z = points_p[..., 2]
    near = (points_p[..., 1] - middle[..., :1]).abs() < SLAB_M
    near &= (z > low - PAST_TIPS_M) & (z < high + PAST_TIPS_M)
    extent = torch.where(near, z, -torch.inf).amax(dim=-1) - torch.where(near, z, torch.inf).amin(dim=-1)
    return (extent - (high - low)[..., 0]).clamp(min=0.0)


def grasp_descriptor(place_m: Tensor, axes_w: Tensor, share: Tensor) -> Tensor:
    """Return descriptors (..., DESCRIPTOR_SIZE) of grasps.

    `place_m` (..., 3): palm at the end of the approach relative to the centroid of the points, world axes. `axes_w`
    (..., 3, 3): columns palm normal, y, finger direction. `share` (...): 0 pinch grasp, 1 power grasp.
    """
    normal, _, fingers = axes_w.unbind(-1)
    return torch.cat(
        [
            place_m / DESCRIPTOR_POSITION_M,
            normal / DESCRIPTOR_AXIS,
            fingers / DESCRIPTOR_AXIS,
            share[..., None] / DESCRIPTOR_STYLE,
        ],
        dim=-1,
    )


def repetition_penalty(descriptors: Tensor, failed: Tensor) -> Tensor:
    """Return the repetition penalty (env, cand) in log-odds.

    `descriptors` (env, cand, DESCRIPTOR_SIZE): candidates; `failed` (env, grasp, DESCRIPTOR_SIZE): failed grasps.
    """
    apart = (descriptors[:, :, None] - failed[:, None]).square().sum(dim=-1)
    return REPETITION_COST * torch.exp(-apart).sum(dim=-1)


class FailedGrasps:
    """Remembers the latest grasps of each environment's trial."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu", kept: int = 4) -> None:
        self.descriptors = torch.full((num_envs, kept, DESCRIPTOR_SIZE), NO_GRASP, device=device)
        """(env, grasp, DESCRIPTOR_SIZE) newest first; NO_GRASP where there were fewer."""

    def clear(self, rows: Tensor) -> None:
        """Clear the grasps of `rows` (row,)."""
        self.descriptors[rows] = NO_GRASP

    def add(self, rows: Tensor, descriptors: Tensor | None) -> None:
        """Add grasps (row, DESCRIPTOR_SIZE) in `rows`; None, of a planner without candidates, adds nothing."""
        if descriptors is not None:
            self.descriptors[rows] = torch.cat([descriptors[:, None].float(), self.descriptors[rows, :-1]], dim=1)
