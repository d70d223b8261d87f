"""Score of a grasp candidate with one grasp style, in log-odds of success.

    score = share * (style - low * low_m - narrow * narrow_m) - (1 - share) * tall * tall_m
            - length * length_m + across * across_m - crush * crush_m - off_centre * off_centre_m
            - short * short_m - blocked * max(0, blocked_m - BLOCKED_M) - angle * angle_rad

in log-odds of success, up to what all candidates of an object share.

    share         0: the hand pinches, 1: it takes hold with all fingers
    low_m         how much lower than LOW_M the object is; tall_m: how much higher
    narrow_m      how much shorter than NARROW_M the points extend along the fingers
    length_m      their extent along the fingers (the published method's criterion)
    across_m      their extent across the fingers, up to ACROSS_M: as wide as the fingers stand
    crush_m       how much further they extend, near the fingers, than from thumb tip to fingertip
    off_centre_m  distance along the fingers from the points' centre to the middle between thumb and fingers
    short_m       how much too early the table ends the approach
    blocked_m     how far before the end of the approach the open hand meets a point
    angle_rad     between the approach and the vertical

Penalty for repeating failed grasps, so that the next attempt is a different grasp.

A mark describes a grasp by the palm's final position relative to the centroid of the points, the palm's orientation and
the grasp style, each divided by the change that makes a different grasp. A candidate loses, in log-odds of success,

    COST * sum over failed grasps of exp(-|mark - failed mark|^2)
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.candidates import SLANTED, Candidates
from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle

LOW_M, NARROW_M, ACROSS_M = 0.045, 0.07, 0.08

BESIDE_M = 0.02
"""A point this close beside the way of a keypoint is in its way."""

BLOCKED_M, FREE_M = 0.09, 0.12
"""A fingertip that meets a point gives way. One that does so earlier than the first counts against a candidate; a
candidate is free when none does earlier than the second: then neither palm nor knuckles meet anything."""

SLAB_M, PAST_TIPS_M = 0.045, 0.03
"""Points this far to the side of the fingers' middle, and this far beyond their tips, are near the fingers."""

FINGER_M = 0.012
"""Half the thickness of a finger."""

FLOOR_SHARE = 0.8
"""Share of the least palm height that a slanted approach keeps, besides the hand's reach downwards."""


@dataclass(frozen=True)
class ScoreCfg:
    """Weights of the score, in log-odds."""

    style: float = 0.6
    """For all fingers instead of a pinch."""
    low: float = 94.0
    """[1/m]"""
    narrow: float = 31.0
    """[1/m]"""
    tall: float = 11.0
    """[1/m]"""
    length: float = 9.0
    """[1/m]"""
    across: float = 48.0
    """[1/m]"""
    crush: float = 41.0
    """[1/m]"""
    off_centre: float = 36.0
    """[1/m]"""
    short: float = 15.0
    """[1/m]"""
    blocked: float = 31.0
    """[1/m]"""
    angle: float = 3.4
    """[1/rad]"""


@dataclass(frozen=True)
class ScoredCandidates:
    """The palm at the end of the approach, one stance per candidate of one style."""

    palm_pos_w: Tensor
    """(env, cand, 3) [m]."""
    floor_m: Tensor
    """(env, cand) least palm height while the fingers are open."""
    score: Tensor
    """(env, cand) log-odds."""
    blocked_m: Tensor
    """(env, cand) how far before the end of the approach the open hand meets a point."""
    ahead_m: Tensor
    """(env, cand) distance of the target from the palm along its normal."""

    @staticmethod
    def join(several: Sequence["ScoredCandidates"]) -> "ScoredCandidates":
        """The stances of several styles in a row."""
        columns = {item.name: [getattr(one, item.name) for one in several] for item in fields(ScoredCandidates)}
        return ScoredCandidates(**{name: torch.cat(column, dim=1) for name, column in columns.items()})


def score_candidates(
    points_w: Tensor, ways: Candidates, style: GraspStyle, share: float, hand_p: Tensor, cfg: ScoreCfg
) -> ScoredCandidates:
    """Return the palm positions and scores of the candidates with a style (fields with a leading (env,)).

    `points_w` (env, point, 3); `hand_p` (env, keypoint, 3): the open hand in the palm frame.
    """
    middle = torch.stack([style.offset_y_m, style.offset_z_m], dim=-1)[:, None]  # (env, 1, 2) across the approach
    ahead = ways.top_m + style.gap_m[:, None]
    offset = torch.cat([ahead[..., None], middle.expand(-1, ahead.shape[1], -1)], dim=-1)
    palm_w = ways.target_w - (ways.axes_w @ offset[..., None]).squeeze(-1)
    points_p = (points_w[:, None] - palm_w[:, :, None]) @ ways.axes_w
    down = -ways.axes_w[..., 2, 0]
    floor = _floor(ways, style, hand_p, down)
    blocked = _blocked(points_p, hand_p)
    score = _fit(points_w, points_p, share, cfg) - cfg.crush * _crush(points_p, hand_p, middle)
    off_centre = (points_p[..., 2].mean(dim=-1) - middle[..., 1]).abs()
    short = ((floor - palm_w[..., 2]) / down.clamp(min=0.2)).clamp(min=0.0)
    score = score - cfg.off_centre * off_centre - cfg.short * short - cfg.angle * down.clamp(-1.0, 1.0).acos()
    score = score - cfg.blocked * (blocked - BLOCKED_M).clamp(min=0.0)
    return ScoredCandidates(palm_w, floor, score, blocked, ahead)


def _fit(points_w: Tensor, points_p: Tensor, share: float, cfg: ScoreCfg) -> Tensor:
    """Return the score terms (env, cand) of the object's extents along and across the fingers."""
    height = torch.quantile(points_w[..., 2], 0.97, dim=1)[:, None]
    across, length = (points_p.amax(dim=2) - points_p.amin(dim=2))[..., 1:].unbind(-1)
    low, tall = (LOW_M - height).clamp(min=0.0), (height - LOW_M).clamp(min=0.0)
    whole = cfg.style - cfg.low * low - cfg.narrow * (NARROW_M - length).clamp(min=0.0)
    return (
        share * whole - (1.0 - share) * cfg.tall * tall - cfg.length * length + cfg.across * across.clamp(max=ACROSS_M)
    )


def _floor(ways: Candidates, style: GraspStyle, hand_p: Tensor, down: Tensor) -> Tensor:
    """Return the least palm height (env, cand) over the table.

    For a level hand it comes from the style; a slanted hand keeps its lower side off the table.
    """
    level = style.floor_m[:, None].expand_as(down)
    reach = -(hand_p[..., 1:] @ ways.axes_w[..., 2, 1:].transpose(1, 2)).amin(dim=1)  # (env, cand) below the palm
    slanted = FLOOR_SHARE * level * down + reach.clamp(min=0.0) + FINGER_M
    return torch.where(ways.kind == SLANTED, slanted, level)


def _blocked(points_p: Tensor, hand_p: Tensor) -> Tensor:
    """Return the distance (env, cand) by which the open hand must move back to be free of points.

    `hand_p` (env, keypoint, 3): keypoints in the palm frame.

    One keypoint at a time, so that the numbers stay in the processor's cache.
    """
    x, y, z = (value.contiguous() for value in points_p.unbind(-1))
    foremost = torch.full_like(x, -torch.inf)  # of the keypoints in whose way a point is
    for place in hand_p.unbind(1):
        ahead, side, along = (value[:, None, None] for value in place.unbind(-1))
        beside = (y - side).square_().add_((z - along).square_()) < BESIDE_M**2
        foremost = torch.maximum(foremost, torch.where(beside, ahead, -torch.inf))
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


DESCRIPTOR_POSITION_M, DESCRIPTOR_AXIS, DESCRIPTOR_STYLE = 0.02, 0.35, 0.5
"""Units of a mark: palm position, tips of the palm's unit axes (20 degrees), share of the power grasp."""

REPETITION_COST = 3.0
"""Penalty of an exact repetition, in log-odds."""

DESCRIPTOR_SIZE = 10
"""Length of a mark."""

NO_GRASP = 1e4
"""Entry of an empty mark: further than any two marks are apart."""


def grasp_descriptor(place_m: Tensor, axes_w: Tensor, share: Tensor) -> Tensor:
    """Return marks (..., MARK) of grasps.

    `place_m` (..., 3): palm at the end of the approach relative to the centroid of the points, world axes. `axes_w`
    (..., 3, 3): columns palm normal, y, finger direction. `share` (...): 0 pinch grasp, 1 power grasp.
    """
    normal, _, fingers = axes_w.unbind(-1)
    return torch.cat([place_m / DESCRIPTOR_POSITION_M, normal / DESCRIPTOR_AXIS, fingers / DESCRIPTOR_AXIS, share[..., None] / DESCRIPTOR_STYLE], dim=-1)


def repetition_penalty(descriptors: Tensor, failed: Tensor) -> Tensor:
    """Return the repetition penalty (env, cand) in log-odds.

    `marks` (env, cand, MARK): candidates; `tried` (env, grasp, MARK): failed grasps.
    """
    apart = (descriptors[:, :, None] - failed[:, None]).square().sum(dim=-1)
    return REPETITION_COST * torch.exp(-apart).sum(dim=-1)


class FailedGrasps:
    """Remembers the latest grasps of each environment's trial."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu", kept: int = 4) -> None:
        self.descriptors = torch.full((num_envs, kept, DESCRIPTOR_SIZE), NO_GRASP, device=device)
        """(env, grasp, MARK) newest first; NOTHING where there were fewer."""

    def clear(self, rows: Tensor) -> None:
        """Clear the grasps of `rows` (row,)."""
        self.descriptors[rows] = NO_GRASP

    def add(self, rows: Tensor, descriptors: Tensor | None) -> None:
        """Add grasps with marks (row, MARK) in `rows`; None, of a planner without candidates, adds nothing."""
        if descriptors is not None:
            self.descriptors[rows] = torch.cat([descriptors[:, None].float(), self.descriptors[rows, :-1]], dim=1)
