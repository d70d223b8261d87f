"""Pre-grasp planning: selection of the best free and reachable candidate by score.

Candidates are ranked by score, free ones before blocked ones. The first reachable one of the REACH_TRIES best is taken,
the best one if none of them is reachable. The start is then moved until the open hand is clear of the table and of all
visible points (`move_start_clear`).

The start pose of the palm depends only on the object's visible points and the camera position.

Rule of the published method (RobustDexGrasp, appendix), `plan_pregrasp`: the palm faces the object along the line to
the camera, with the roll about that line at which the object is narrowest along the fingers. Two corrections: the
distance is measured from the object's top along the approach, not from its centre, and the object is centred between
this hand's thumb and fingers, not at the palm's centre.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.candidates import candidates
from dexgrasp.perception.grasp_planning.grasp_style import STYLE_HEIGHTS_M, GraspStyle, blend, interpolate
from dexgrasp.perception.grasp_planning.scoring import (
    FINGER_M,
    FREE_M,
    ScoreCfg,
    ScoredCandidates,
    grasp_descriptor,
    repetition_penalty,
    score_candidates,
)
from dexgrasp.perception.transforms import plane_basis, quat_from_matrix, quat_rotate, quat_rotate_inverse

START_CLEARANCE_M = 0.025
"""Clearance at the start: least distance ahead of a keypoint of points this close beside its path."""
START_HEIGHT_M = 0.02
"""Least height of every keypoint over the table when the approach starts."""
STYLE_SHARES = (0.0, 0.5, 1.0)
"""Grasp styles of the candidates: 0 pinch grasp, 1 power grasp."""
SCORED_POINTS = 64
"""Number of points that scores use: the first of each cloud, which is in farthest-point order."""
REACH_TRIES = 20
"""Most candidates of an environment whose reachability is checked, best first."""
OpenHandKeypoints = Callable[[Tensor], Tensor]
"""Returns keypoints (env, keypoint, 3), palm frame, at joint positions (env, joint); the first is the wrist."""
Reachable = Callable[[Tensor, Tensor], Tensor]
"""Returns the mask (pose,) of the palm poses (pose, 3), (pose, 4), world frame, that the robot can reach."""


@dataclass(frozen=True)
class Pregrasp:
    """Palm poses at which the approach starts. Row i belongs to environment i."""

    palm_pos_w: Tensor
    """(env, 3) [m]."""
    palm_quat_w: Tensor
    """(env, 4) wxyz; columns of its matrix: palm normal, y, finger direction."""
    depth_m: Tensor
    """(env,) distance that the approach covers along the palm normal."""
    style: GraspStyle
    """Grasp style for each object."""
    approach: Tensor | None = None
    """(env,) kind of the approach (see candidates.py); None where there were no candidates."""
    score: Tensor | None = None
    """(env,) score of the candidate (see scoring.py)."""
    descriptor: Tensor | None = None
    """(env, DESCRIPTOR_SIZE) descriptor of the grasp (see scoring.py)."""


def plan_pregrasp(
    points_w: Tensor,
    camera_pos_w: Tensor,
    power: GraspStyle,
    pinch: GraspStyle,
    roll_offset_rad: Tensor,
    tilt_rad: Tensor | None = None,
    standoff_m: float = 0.15,
    clearance_m: float = 0.09,
    rolls: int = 16,
    style_heights_m: tuple[float, float] = STYLE_HEIGHTS_M,
) -> Pregrasp:
    """Return the pre-grasp for visible points (env, point, 3) and a camera (env, 3), world frame.

    `roll_offset_rad` (env,) turns the fan of candidate rolls, `tilt_rad` (env, 2) tilts the approach (reset noise).
    The palm starts at the larger of `standoff_m` from the centre and `clearance_m` from the top of the points.
    """
    centre = points_w.mean(dim=1)
    towards_camera = camera_pos_w - centre
    normal = -towards_camera / towards_camera.norm(dim=-1, keepdim=True)
    side, up = plane_basis(normal)
    if tilt_rad is not None:
        normal = normal + side * tilt_rad[:, :1] + up * tilt_rad[:, 1:]
        normal = normal / normal.norm(dim=-1, keepdim=True)
        side, up = plane_basis(normal)
    fingers = _narrowest_roll(points_w - centre[:, None], side, up, roll_offset_rad, rolls)
    y = torch.linalg.cross(fingers, normal)
    top = _top(-((points_w - centre[:, None]) @ normal[..., None]).squeeze(-1))
    distance = torch.clamp(top + clearance_m, min=standoff_m)
    style = blend(power, pinch, _top(points_w[..., 2]), style_heights_m)
    pos = centre - normal * distance[:, None] - y * style.offset_y_m[:, None] - fingers * style.offset_z_m[:, None]
    quat = quat_from_matrix(torch.stack([normal, y, fingers], dim=-1))
    return Pregrasp(
        palm_pos_w=pos, palm_quat_w=quat, depth_m=(distance - top - style.gap_m).clamp(min=0.0), style=style
    )


def move_start_clear(pregrasp: Pregrasp, keypoints_p: Tensor, points_w: Tensor) -> Pregrasp:
    """Move the start of the plan until the open hand is clear of the table z = 0 and the visible points.

    The palm first rises, then steps back along its normal, which must not point upwards: so neither undoes the other.
    """
    hand_w = quat_rotate(pregrasp.palm_quat_w[:, None], _between(keypoints_p)) + pregrasp.palm_pos_w[:, None]
    rise = (START_HEIGHT_M - hand_w[..., 2].amin(dim=1)).clamp(min=0.0)
    raised_w = pregrasp.palm_pos_w.clone()
    raised_w[:, 2] += rise
    return back_off_from_points(replace(pregrasp, palm_pos_w=raised_w), keypoints_p, points_w)


def _between(keypoints_p: Tensor) -> Tensor:
    """Keypoints (env, keypoint, 3) and the middles between neighbours."""
    return torch.cat([keypoints_p, (keypoints_p[:, 1:] + keypoints_p[:, :-1]) / 2], dim=1)


def back_off_from_points(pregrasp: Pregrasp, keypoints_p: Tensor, points_w: Tensor) -> Pregrasp:
    """Move the start back along the normal until the open hand is clear of the visible points.

    `keypoints_p` (env, keypoint, 3): of the open hand, palm frame; `points_w` (env, point, 3). The approach ends where
    it did. The rim of a bowl would else begin inside the thumb.
    """
    hand_p = _between(keypoints_p)
    points_p = quat_rotate_inverse(pregrasp.palm_quat_w[:, None], points_w - pregrasp.palm_pos_w[:, None])
    in_the_way = torch.cdist(hand_p[..., 1:], points_p[..., 1:]) < START_CLEARANCE_M
    lacking = hand_p[:, :, None, 0] + START_CLEARANCE_M - points_p[:, None, :, 0]
    back = torch.where(in_the_way, lacking, 0.0).amax(dim=(1, 2)).clamp(min=0.0)
    normal = quat_rotate(pregrasp.palm_quat_w, points_p.new_tensor([1.0, 0.0, 0.0]))
    return replace(pregrasp, palm_pos_w=pregrasp.palm_pos_w - normal * back[:, None], depth_m=pregrasp.depth_m + back)


def _narrowest_roll(offsets: Tensor, side: Tensor, up: Tensor, start_rad: Tensor, rolls: int) -> Tensor:
    """Finger direction (env, 3) across the approach along which the points extend least.

    The fan covers half a circle: opposite directions extend alike, `start_rad` decides between them.
    """
    step = torch.arange(rolls, device=offsets.device, dtype=offsets.dtype) * (torch.pi / rolls)
    angle = start_rad[:, None] + step  # (env, roll)
    fan = angle.cos()[..., None] * side[:, None] + angle.sin()[..., None] * up[:, None]
    along = offsets @ fan.transpose(1, 2)  # (env, point, roll)
    extent = along.amax(dim=1) - along.amin(dim=1)
    return fan[torch.arange(len(fan), device=fan.device), extent.argmin(dim=1)]


def _top(height_m: Tensor) -> Tensor:
    """Return the 97th percentile (env,) of heights (env, point): the top without outliers."""
    return torch.quantile(height_m, 0.97, dim=1)


def best_pregrasp(
    points_w: Tensor,
    camera_pos_w: Tensor,
    power: GraspStyle,
    pinch: GraspStyle,
    open_hand_keypoints: OpenHandKeypoints,
    roll_offset_rad: Tensor,
    tilt_rad: Tensor,
    reachable: Reachable | None = None,
    kinds: Sequence[int] | None = None,
    cfg: ScoreCfg | None = None,
    standoff_m: float = 0.15,
    clearance_m: float = 0.09,
    failed_grasps: Tensor | None = None,
    finger_m: float = FINGER_M,
) -> Pregrasp:
    """Return the best pre-grasp for visible points (env, point, 3) and a camera (env, 3), world frame.

    `kinds`: kinds of approach (candidates.py); None: all. `failed_grasps` (env, grasp, DESCRIPTOR_SIZE): descriptors of
    grasps to avoid (scoring.py). `finger_m`: half the thickness of a finger. Other arguments: see `plan_pregrasp`.
    """
    found = candidates(points_w.float(), camera_pos_w.float(), roll_offset_rad.float(), tilt_rad.float(), kinds)
    few_w = points_w[:, :SCORED_POINTS].float()
    by_style: list[ScoredCandidates] = []
    for share in STYLE_SHARES:
        style = interpolate(power, pinch, points_w.new_full(points_w.shape[:1], share))
        hand_p = open_hand_keypoints(style.open_pose)[:, 1:].float()
        fit = score_candidates(few_w, found, _single(style), share, hand_p, cfg or ScoreCfg(), finger_m)
        by_style.append(fit)
    joined, number = ScoredCandidates.join(by_style), len(found.kind)
    start_m = torch.clamp(found.top_m + clearance_m, min=standoff_m).repeat(1, len(STYLE_SHARES))  # from the target
    depth_m = (start_m - joined.ahead_m).clamp(min=0.0)

    def pose(rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        axes_w = found.axes_w[rows, chosen % number].to(points_w.dtype)
        quat_w = quat_from_matrix(axes_w)
        return joined.palm_pos_w[rows, chosen] - axes_w[..., 0] * depth_m[rows, chosen, None], quat_w

    place_m, shares = joined.palm_pos_w - points_w.mean(dim=1, keepdim=True).float(), few_w.new_tensor(STYLE_SHARES)

    def descriptors(rows: Tensor, chosen: Tensor) -> Tensor:
        axes_w = found.axes_w[rows, chosen % number]
        return grasp_descriptor(place_m[rows, chosen], axes_w, shares[chosen // number])

    rows, scores = torch.arange(len(points_w), device=points_w.device), joined.score
    if failed_grasps is not None:
        every = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        scores = scores - repetition_penalty(descriptors(rows[:, None], every), failed_grasps)
    can_reach = None if reachable is None else lambda rows, chosen: reachable(*pose(rows, chosen))
    best = select_candidate(scores, joined.blocked_m <= FREE_M, can_reach)
    share = torch.tensor(STYLE_SHARES, dtype=points_w.dtype, device=best.device)[best // number]
    floor_m, depth, score = (v[rows, best].to(points_w.dtype) for v in (joined.floor_m, depth_m, scores))
    palm_pos_w, palm_quat_w = pose(rows, best)
    return Pregrasp(
        palm_pos_w=palm_pos_w,
        palm_quat_w=palm_quat_w,
        depth_m=depth,
        style=replace(interpolate(power, pinch, share), floor_m=floor_m),
        approach=found.kind[best % number],
        score=score,
        descriptor=descriptors(rows, best),
    )


def _single(style: GraspStyle) -> GraspStyle:
    """Return the style in single precision, which suffices for scores."""
    return GraspStyle(**{item.name: getattr(style, item.name).float() for item in fields(GraspStyle)})


def select_candidate(
    score: Tensor, free: Tensor, reachable: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Tensor:
    """Return the best candidate (env,) by `score` (env, cand), those of the mask `free` (env, cand) first.

    `reachable` takes environments (n,) and one candidate of each (n,) and returns the mask (n,) of reachable ones. Of
    the REACH_TRIES best the first reachable one is taken; the best one if none of them is reachable.
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
