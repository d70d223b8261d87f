"""The best of many scored candidates as pre-grasp, and what comes next where none is as it should be.

Order: the best score among the candidates that are free and reachable; else the best of those that are reachable; else,
where none of the first REACH_TRIES is, the best free one; else, where none is free, the least bad. Whatever was chosen
then starts where the open hand is clear of the table and of all visible points (`dexgrasp.perception.grasp_planning.pregrasp.clear`).
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.candidates import candidates
from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle, mix
from dexgrasp.perception.grasp_planning.pregrasp import Pregrasp
from dexgrasp.perception.grasp_planning.scoring import FREE_M, ScoreCfg, ScoredCandidates, score_candidates
from dexgrasp.perception.grasp_planning.tried import grasp_descriptor, repetition_penalty
from dexgrasp.perception.transforms import quat_from_matrix

SHARES = (0.0, 0.5, 1.0)
"""Styles that are tried, from a pinch to the whole hand."""
SCORED_POINTS = 64
"""Scores are made of the first points of each cloud: clouds are in farthest-point order."""
REACH_TRIES = 6
"""Candidates of an environment whose reachability is asked for, best first."""
Hand = Callable[[Tensor], Tensor]
"""Keypoints (env, keypoint, 3) in the palm frame at joint positions (env, joint); the first is the wrist."""
Reachable = Callable[[Tensor, Tensor], Tensor]
"""Mask (pose,) of the palm poses (pose, 3), (pose, 4) in the world that the robot can take."""


def best_pregrasp(
    points_w: Tensor,
    camera_pos_w: Tensor,
    power: GraspStyle,
    pinch: GraspStyle,
    hand: Hand,
    roll_offset_rad: Tensor,
    tilt_rad: Tensor,
    reachable: Reachable | None = None,
    kinds: Sequence[int] | None = None,
    cfg: ScoreCfg | None = None,
    standoff_m: float = 0.15,
    clearance_m: float = 0.09,
    tried: Tensor | None = None,
) -> Pregrasp:
    """The best pre-grasp from visible points (env, point, 3) and the camera (env, 3), world frame.

    `kinds` of approaches (perception/grasp_planning/candidates.py) to choose from; None: all. `tried` (env, grasp, MARK): what took
    hold of nothing (perception/grasp_planning/tried.py). The rest as of `plan_pregrasp`.
    """
    ways = candidates(points_w.float(), camera_pos_w.float(), roll_offset_rad.float(), tilt_rad.float(), kinds)
    few_w = points_w[:, :SCORED_POINTS].float()
    by_style: list[ScoredCandidates] = []
    for share in SHARES:
        style = mix(power, pinch, points_w.new_full(points_w.shape[:1], share))
        hand_p = hand(style.open_pose)[:, 1:].float()
        by_style.append(score_candidates(few_w, ways, _single(style), share, hand_p, cfg or ScoreCfg()))
    joined, number = ScoredCandidates.join(by_style), len(ways.kind)
    start_m = torch.clamp(ways.top_m + clearance_m, min=standoff_m).repeat(1, len(SHARES))  # from the target
    depth_m = (start_m - joined.ahead_m).clamp(min=0.0)

    def pose(rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        axes_w = ways.axes_w[rows, chosen % number].to(points_w.dtype)
        quat_w = quat_from_matrix(axes_w)
        return joined.palm_pos_w[rows, chosen] - axes_w[..., 0] * depth_m[rows, chosen, None], quat_w

    place_m, shares = joined.palm_pos_w - points_w.mean(dim=1, keepdim=True).float(), few_w.new_tensor(SHARES)

    def marks(rows: Tensor, chosen: Tensor) -> Tensor:
        return grasp_descriptor(place_m[rows, chosen], ways.axes_w[rows, chosen % number], shares[chosen // number])

    rows, scores = torch.arange(len(points_w), device=points_w.device), joined.score
    if tried is not None:
        every = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        scores = scores - repetition_penalty(marks(rows[:, None], every), tried)
    ask = None if reachable is None else lambda rows, chosen: reachable(*pose(rows, chosen))
    best = choose(scores, joined.blocked_m <= FREE_M, ask)
    share = torch.tensor(SHARES, dtype=points_w.dtype, device=best.device)[best // number]
    floor_m, depth, score = (v[rows, best].to(points_w.dtype) for v in (joined.floor_m, depth_m, scores))
    style = replace(mix(power, pinch, share), floor_m=floor_m)
    return Pregrasp(*pose(rows, best), depth, style, ways.kind[best % number], score, marks(rows, best))


def _single(style: GraspStyle) -> GraspStyle:
    """The style in single precision: scores need no more."""
    return GraspStyle(**{item.name: getattr(style, item.name).float() for item in fields(GraspStyle)})


def choose(score: Tensor, free: Tensor, reachable: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """Which candidate (env,) to take by score and freedom (env, cand).

    `reachable` tells of rows (some,) and a candidate (some,) of each which can be reached. The REACH_TRIES first are
    asked for, free ones before others; where none is reachable the first is taken.
    """
    rank = torch.argsort(-score, dim=1, stable=True)
    rank = rank.gather(1, torch.argsort((~free).gather(1, rank).int(), dim=1, stable=True))
    best = rank[:, 0].clone()
    rows = torch.arange(len(best), device=best.device)
    for place in range(min(REACH_TRIES, rank.shape[1])):
        if reachable is None or not len(rows):
            break
        good = reachable(rows, rank[rows, place])
        best[rows[good]] = rank[rows[good], place]
        rows = rows[~good]
    return best
