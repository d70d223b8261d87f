"""Batched ICP registration of first views of rigid objects to the points of new frames.

One object per row.

Point-to-plane ICP with a point-to-point part: every new point pulls the nearest point of the first view, fully along
that point's normal and weakly along the surface, so that a flat face slides into place but the spacing of samples tears
nothing. Cauchy weights suppress points that the first view lacks; Levenberg damping holds what cannot be observed, such
as the spin of a ball. Nothing but points and the hand's pose is used, so a robot runs it unchanged.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Self

import torch
from torch import Tensor

from dexgrasp.perception.occlusion import CameraOcclusion
from dexgrasp.perception.transforms import matrix_from_quat, quat_from_rotvec, quat_multiply
from dexgrasp.utils.bounds import Bounds, Share, bounded
from dexgrasp.utils.rows import Rows

LIKELY_PER_RESTART = 3
"""Candidate shifts per start pose whose hidden points are computed: those that explain the new points best."""
FRAME_POINTS = 48
"""Points at the end of an updated cloud that belong to the newest frame; the others are tracked."""


@dataclass(frozen=True)
@bounded
class IcpCfg:
    """Configure the registration of a first view to new frames."""

    model_points: Annotated[int, Bounds(4, 4096)] = 96
    """Points of the first view that are matched."""
    frame_points: Annotated[int, Bounds(4, 4096)] = FRAME_POINTS
    """Points of a frame that are matched."""
    normal_neighbors: Annotated[int, Bounds(3, 256)] = 12
    """Nearest points of the first view that a surface normal is fitted to."""
    point_weight: Annotated[float, Bounds(0, 100)] = 0.1
    """Weight of the point-to-point distance; the distance along the normal has weight 1."""
    cauchy_scales_m: Annotated[tuple[float, ...], Bounds(0.0001, 1, items=(1, 32))] = (0.02, 0.01)
    """Distance at which a pair's weight is halved, one value per iteration [m]."""
    damping: Annotated[float, Bounds(0, 100)] = 0.02
    """Levenberg damping as a share of the mean curvature."""
    restarts: Annotated[int, Bounds(0, 64)] = 2
    """Further start poses that are registered where the fit is bad: the best of the candidate shifts."""
    rounds_per_restart: Annotated[int, Bounds(1, 64)] = 2
    """Rounds of iterations from each of those start poses."""
    max_shift_m: Annotated[float, Bounds(0, 1)] = 0.065
    """Largest horizontal distance by which an object may have jumped between frames [m]."""
    shift_spacing_m: Annotated[float, Bounds(0.001, 1)] = 0.025
    """Spacing of the candidate shifts, which lie on a hexagonal grid [m]."""
    screening_frame_points: Annotated[int, Bounds(1, 4096)] = 24
    """Points of a frame by which candidate shifts are compared."""
    screening_model_points: Annotated[int, Bounds(1, 4096)] = 32
    """Points of the first view by which candidate shifts are compared."""
    inlier_m: Annotated[float, Bounds(0.0001, 1)] = 0.008
    """Distance within which a new point lies on the object: three times a D435's depth noise at 0.75 m [m]."""
    expected_weight: Annotated[float, Bounds(0, 100)] = 0.5
    """Weight of a first-view point that the hand does not hide, relative to a new point."""
    covered_m: Annotated[float, Bounds(0.0001, 1)] = 0.015
    """Distance within which a new point confirms a first-view point that the hand does not hide [m]."""
    min_expected_points: Annotated[int, Bounds(0, 4096)] = 5
    """With fewer unhidden first-view points, missing confirmation is no evidence."""
    retry_below_fit: Share = 0.7
    """Fit, in [0, 1], below which the further start poses are registered."""
    keep_above_fit: Share = 0.3
    """Least fit, in [0, 1], at which the registered pose replaces the last one."""
    on_track_above_fit: Share = 0.6
    """Least fit, in [0, 1], at which the object counts as tracked; below it is lost until a later frame."""

    @cached_property
    def shifts(self) -> Tensor:
        """Candidate horizontal shifts (shift, 3) [m]."""
        reach = range(-4, 5)
        places = [
            (self.shift_spacing_m * (i + 0.5 * (j % 2)), self.shift_spacing_m * j * math.sqrt(0.75), 0.0)
            for j in reach
            for i in reach
        ]
        return torch.tensor([place for place in places if math.hypot(*place) <= self.max_shift_m])


DEFAULT = IcpCfg()


@dataclass(frozen=True, eq=False)
class Reference:
    """Hold first views as surfaces to register, each about its own centre; first dimension: row."""

    points: Tensor
    """(row, point, 3) [m]."""
    normals: Tensor
    """(row, point, 3) unit normals of either sign."""
    radius_m: Tensor
    """(row,) root mean square distance of the points from the centre."""

    def __getitem__(self, rows: Tensor) -> Self:
        """Return the references of some rows."""
        return type(self)(self.points[rows], self.normals[rows], self.radius_m[rows])


def register(
    cfg: IcpCfg,
    reference: Reference,
    pos_w: Tensor,
    quat: Tensor,
    frame_w: Tensor,
    occlusion: CameraOcclusion,
    may_restart: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return poses (row, 3), (row, 4) of the references in a frame, and their fits (row,) in [0, 1].

    `pos_w`, `quat`: last poses. `frame_w` (row, point, 3): points of the frame, world frame [m]. `occlusion`: camera
    and hand of the frame; first-view points that the hand does not hide should be confirmed. `may_restart` (row,) bool:
    rows in which a bad fit is followed by registrations from shifted start poses; None: all.
    """
    frame_w = frame_w[:, : cfg.frame_points]
    last_pos_w, last_quat = pos_w, quat
    pos_w, quat, fit = _iterate(cfg, reference, pos_w, quat, frame_w, occlusion)
    is_bad = fit < cfg.retry_below_fit
    retried = Rows.where(is_bad if may_restart is None else is_bad & may_restart)
    if not (len(retried) and cfg.restarts):
        return pos_w, quat, fit
    bad = retried.index
    tried = _restart(cfg, reference[bad], last_pos_w[bad], last_quat[bad], frame_w[bad], occlusion[bad])
    improved = tried[2] > fit[bad]
    for best, new in zip((pos_w, quat, fit), tried, strict=True):
        retried.write(best, new, improved)
    return pos_w, quat, fit


def _restart(
    cfg: IcpCfg, reference: Reference, pos_w: Tensor, quat: Tensor, frame_w: Tensor, occlusion: CameraOcclusion
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the poses (row, 3), (row, 4) and fits (row,) of the best registration from shifted start poses."""
    shifts = _best_shifts(cfg, reference, pos_w, quat, frame_w, occlusion)
    rows = torch.arange(len(pos_w), device=pos_w.device)
    each = rows.repeat_interleave(shifts.shape[1])  # all start poses of all rows at once
    reference, frame_w, occlusion = reference[each], frame_w[each], occlusion[each]
    pos_w, quat, fit = pos_w[each] + shifts.flatten(0, 1), quat[each], shifts.new_zeros(len(each))
    for _ in range(cfg.rounds_per_restart):
        pos_w, quat, fit = _iterate(cfg, reference, pos_w, quat, frame_w, occlusion)
    fit, best = fit.unflatten(0, shifts.shape[:2]).max(dim=1)
    best = best + rows * shifts.shape[1]
    return pos_w[best], quat[best], fit


@cache
def shifts_on(cfg: IcpCfg, device: torch.device) -> Tensor:
    """Return the candidate shifts (shift, 3) on a device, to which they are sent by the first call [m]."""
    return cfg.shifts.to(device)


def _best_shifts(
    cfg: IcpCfg, reference: Reference, pos_w: Tensor, quat: Tensor, frame_w: Tensor, occlusion: CameraOcclusion
) -> Tensor:
    """Return the shifts (row, restarts, 3) [m] after which the first view explains the new points best.

    Candidates are the horizontal shifts of `cfg`, and the one from the centroid of the unhidden first-view points to
    that of the new points. What the hand hides is computed for the most likely ones alone.
    """
    few_frame, few_model = cfg.screening_frame_points, cfg.screening_model_points
    model_w = transform(pos_w, quat, reference.points)
    centroids = _centroid(frame_w) - _centroid(model_w, occlusion.visible(model_w))
    grid = shifts_on(cfg, frame_w.device).expand(len(pos_w), -1, -1)
    shifts = torch.cat([centroids[:, None], grid], dim=1)
    moved_w = model_w[:, None, :few_model] + shifts[:, :, None]  # (row, shift, model, 3)
    square = _squares(frame_w[:, :few_frame], moved_w.flatten(1, 2)).unflatten(2, moved_w.shape[1:3])
    explained = (1.0 / (1.0 + square.amin(dim=3) / cfg.cauchy_scales_m[-1] ** 2)).mean(dim=1)
    explained, likely = explained.topk(min(LIKELY_PER_RESTART * cfg.restarts, shifts.shape[1]), dim=1)
    shifts, back = (_chosen(values, likely) for values in (shifts, square.amin(dim=1)))
    expected = occlusion.visible(_chosen(moved_w, likely).flatten(1, 2)).view(back.shape).float()
    confirmed = (expected / (1.0 + back / cfg.covered_m**2)).sum(dim=2)
    count = expected.sum(dim=2)
    confirmed = torch.where(count < cfg.min_expected_points, 0.5, confirmed / count.clamp(min=1))
    best = torch.minimum(explained, confirmed).topk(min(cfg.restarts, shifts.shape[1]), dim=1).indices
    return _chosen(shifts, best)


def _chosen(values: Tensor, numbers: Tensor) -> Tensor:
    """Return the values (row, number, ...) of (row, candidate, ...) that `numbers` (row, number) choose."""
    return values[torch.arange(len(values), device=values.device)[:, None], numbers]


def _iterate(
    cfg: IcpCfg, reference: Reference, pos: Tensor, quat: Tensor, frame_w: Tensor, occlusion: CameraOcclusion
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the poses after one round of iterations, and the fits (row,) before the last of them."""
    points, normals, radius = reference.points, reference.normals, reference.radius_m[:, None]
    fit, expected = torch.zeros_like(pos[:, 0]), occlusion.visible(transform(pos, quat, points)).float()
    for scale_m in cfg.cauchy_scales_m:
        R = matrix_from_quat(quat).transpose(1, 2)
        arms, turned = points @ R, normals @ R
        model_w = arms + pos[:, None]
        square = _squares(frame_w, model_w)
        near, index = _least(square)
        back, other = square.min(dim=1)
        index, other = (i[..., None].expand(-1, -1, 3) for i in (index, other))
        arm = torch.cat([arms.gather(1, index), arms], dim=1)
        normal = torch.cat([turned.gather(1, index), turned], dim=1)
        gap = torch.cat([frame_w, frame_w.gather(1, other)], dim=1) - pos[:, None] - arm
        pulled = 1.0 / (1.0 + near / scale_m**2)
        weight = torch.cat([pulled, cfg.expected_weight * expected / (1.0 + back / scale_m**2)], dim=1)
        count = expected.sum(dim=1)
        confirmed = ((back < cfg.covered_m**2) * expected).sum(dim=1) / count.clamp(min=1)
        confirmed = torch.where(count < cfg.min_expected_points, 1.0, confirmed)
        fit = torch.minimum((near < cfg.inlier_m**2).float().mean(dim=1), confirmed)
        step = _step(cfg, arm / radius[..., None], normal, gap, weight)
        quat = quat_multiply(quat_from_rotvec(step[:, :3] / radius), quat)
        quat = quat / quat.norm(dim=1, keepdim=True)
        pos = pos + step[:, 3:]
    return pos, quat, fit


def _step(cfg: IcpCfg, arm: Tensor, normal: Tensor, gap: Tensor, weight: Tensor) -> Tensor:
    """Return turn [arm] and shift (row, 6) that close the gaps: one Gauss-Newton step of weighted least squares.

    `arm`, `normal`, `gap`: (row, pair, 3); a pair at arm r moves by turn x r + shift. The gap along the normal has
    weight 1, the whole gap `cfg.point_weight`, both times `weight` (row, pair).
    """
    slope = torch.cat([torch.linalg.cross(arm, normal), normal], dim=-1)
    plane = weight * (gap * normal).sum(-1)
    whole = cfg.point_weight * weight[..., None]
    curvature = slope.transpose(1, 2) @ (slope * weight[..., None])
    moment, total = (whole * arm).sum(dim=1), whole.sum(dim=(1, 2))
    outer = arm.transpose(1, 2) @ (whole * arm)
    eye = torch.eye(3, device=arm.device)
    turning = outer.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] * eye - outer
    mixed = torch.linalg.cross(moment[:, None].expand(-1, 3, -1), eye.expand(len(arm), 3, 3)).transpose(1, 2)
    curvature[:, :3, :3] += turning
    curvature[:, :3, 3:] += mixed
    curvature[:, 3:, :3] += mixed.transpose(1, 2)
    curvature[:, 3:, 3:] += total[:, None, None] * eye
    pull = (slope * plane[..., None]).sum(dim=1)
    pull = pull + torch.cat([torch.linalg.cross(arm, whole * gap).sum(dim=1), (whole * gap).sum(dim=1)], dim=1)
    mean = curvature.diagonal(dim1=1, dim2=2).mean(dim=1) + 1e-9
    curvature += cfg.damping * mean[:, None, None] * torch.eye(6, device=arm.device)
    return torch.linalg.solve_ex(curvature, pull).result  # without the check, for which a GPU would be waited for


def surface_normals(points: Tensor, neighbors: int = DEFAULT.normal_neighbors) -> Tensor:
    """Return unit normals, of either sign, of the surface at points (row, point, 3).

    Each normal belongs to a plane through the nearest neighbors of its point.
    """
    near = torch.cdist(points, points).topk(min(neighbors, points.shape[1]), largest=False).indices
    row = torch.arange(len(points), device=points.device)[:, None, None]
    patch = points[row, near]
    patch = patch - patch.mean(dim=2, keepdim=True)
    return least_axis(patch.transpose(2, 3) @ patch)


def least_axis(spread: Tensor, squarings: int = 6) -> Tensor:
    """Return unit eigenvectors (..., 3) of the least eigenvalue of spreads (..., 3, 3).

    The result is 0 where all points lie on a line.

    The adjugate has the same eigenvectors and, as eigenvalues, the products of the other two: the least becomes the
    greatest. Each squaring doubles the power by which the others fall behind: after six, an eigenvalue twice the least
    has 2^-64 of its share. `torch.linalg.eigh` allocates a quarter of a megabyte per matrix on a GPU.
    """
    scale = spread.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-12)
    a, b, c = (spread / scale).unbind(-2)
    power = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-2)
    for _ in range(squarings):
        power = power / power.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
        power = power @ power
    largest = power.square().sum(-2).argmax(-1)  # of the columns, which are all parallel
    axis = power.gather(-1, largest[..., None, None].expand(*power.shape[:-1], 1)).squeeze(-1)
    return axis / axis.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def transform(pos: Tensor, quat: Tensor, points: Tensor) -> Tensor:
    """Return points (row, point, 3) moved to poses (row, 3), (row, 4)."""
    return torch.baddbmm(pos[:, None], points, matrix_from_quat(quat).transpose(1, 2))


def _centroid(points: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean (row, 3) of the points (row, point, 3) in the mask (row, point); of all where it is empty."""
    if mask is None:
        return points.mean(dim=1)
    weight = mask.float() + 1e-6
    return (points * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)


def _squares(points: Tensor, others: Tensor) -> Tensor:
    """Return squared distances (row, point, other) of points (row, point, 3) and others (row, other, 3) [m^2]."""
    centre = others.mean(dim=1, keepdim=True)
    a, b = points - centre, others - centre
    total = a.square().sum(-1)[..., None] + b.square().sum(-1)[:, None]
    return torch.baddbmm(total, a, b.transpose(1, 2), alpha=-2.0).clamp_(min=0.0)


def _least(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least values (row, point) of (row, point, other) and their numbers among the others.

    On the CPU NumPy finds the numbers, five times as fast as torch.
    """
    if values.device.type != "cpu":
        return values.min(dim=2)
    return values.amin(dim=2), torch.from_numpy(values.numpy().argmin(axis=2))


def centroid_xy(points_w: Tensor) -> Tensor:
    """Return the horizontal centroids (row, 2), float64, of a cloud's (row, point, 3) tracked points [m]."""
    return points_w[:, :-FRAME_POINTS, :2].double().mean(dim=1)


def add_unexplained_points(followed_w: Tensor, fresh_w: Tensor, cfg: IcpCfg = DEFAULT) -> Tensor:
    """Replace the last tracked points (row, point, 3) by unexplained new points (row, new, 3).

    New points are unexplained if they are off the tracked object.
    """
    few = fresh_w[:, :FRAME_POINTS]
    unexplained = _squares(few, followed_w).amin(dim=2) > cfg.inlier_m**2
    united = followed_w.clone()
    united[:, -FRAME_POINTS:] = torch.where(unexplained[..., None], few, followed_w[:, -FRAME_POINTS:])
    return united
