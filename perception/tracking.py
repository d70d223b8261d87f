"""Follows a rigid object by registering its first view to the points of each new frame; batched, one object per row.

Each new point pulls the nearest point of the first view: with full force along that point's normal, with little along
the surface, so that a flat face slides into place but nothing is torn by the spacing of samples (point-to-plane ICP
with a point-to-point part; Cauchy weights; Levenberg damping holds what cannot be seen, such as the spin of a ball).
Points that the first view lacks do nothing: they are far from it. Nothing but points is used, so a robot runs the same.
"""

import torch
from torch import Tensor

from perception.geometry import matrix_from_quat, quat_from_rotvec, quat_multiply

MODEL, FRESH = 96, 48
"""So many points of the first view and of a frame are matched."""
NEIGHBOURS = 12
"""Points that decide on a normal."""
SLIDING = 0.1
"""Weight of a pull along the surface against one along the normal."""
SCALES_M = (0.03, 0.01)
"""Gap at which a pair counts half, iteration by iteration."""
AGAIN = 2
"""Rows that fit badly are registered from a second start, so many times over."""
ON_IT_M = 0.008
"""A point this close to the first view lies on the object: three times the noise of a D435 at 0.75 m."""
ENOUGH = 0.6
"""Share of the new points that must lie on the object; else it is lost."""
DAMPING = 0.02
"""Of the mean curvature."""


class Tracker:
    """Poses of the objects relative to their first views; all tensors on one device."""

    def __init__(self, num_envs: int, points: int, device: torch.device | str = "cpu") -> None:
        self._points = torch.zeros(num_envs, points, 3, device=device)  # about the centre of the first view
        self._normals = torch.zeros(num_envs, MODEL, 3, device=device)
        self._pos_w, self._quat = torch.zeros(num_envs, 3, device=device), torch.zeros(num_envs, 4, device=device)
        self._radius = torch.ones(num_envs, device=device)

    def begin(self, rows: Tensor, points_w: Tensor) -> None:
        """Follow the objects whose first views are points_w (row, point, 3) from now on."""
        centre_w = points_w.mean(dim=1)
        points = points_w - centre_w[:, None]
        self._points[rows], self._pos_w[rows] = points, centre_w
        self._normals[rows] = surface_normals(points)[:, :MODEL]
        self._quat[rows] = points.new_tensor([1.0, 0.0, 0.0, 0.0])
        self._radius[rows] = points.square().sum(-1).mean(dim=1).sqrt().clamp(min=0.01)

    def points_w(self, rows: Tensor) -> Tensor:
        """The first views (row, point, 3) where their objects are now, world frame [m]."""
        return _moved(self._pos_w[rows], self._quat[rows], self._points[rows])

    def follow(self, rows: Tensor, fresh_w: Tensor, count: Tensor) -> Tensor:
        """Take in a frame's points (row, point, 3), `count` (row,) of which are distinct; (row,) bool: still on track.

        An object that is lost stays where it was last seen, and the next frame tries again.
        """
        fresh_w = fresh_w[:, :FRESH]
        pos, quat, near = self._register(rows, fresh_w, self._pos_w[rows], self._quat[rows])
        if (bad := near < ENOUGH).any():
            some, points_w = rows[bad], fresh_w[bad]
            shift = points_w.mean(dim=1) - self.points_w(some).mean(dim=1)
            start_pos, start_quat = self._pos_w[some] + shift, self._quat[some]
            for _ in range(AGAIN):
                start_pos, start_quat, better = self._register(some, points_w, start_pos, start_quat)
            pos[bad], quat[bad], near[bad] = start_pos, start_quat, better
        tracked = (near >= ENOUGH) & (count > 0)
        self._pos_w[rows[tracked]], self._quat[rows[tracked]] = pos[tracked], quat[tracked]
        return tracked

    def _register(self, rows: Tensor, fresh_w: Tensor, pos: Tensor, quat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The poses after one round of iterations from these, and the share of points on it (row,) before the last."""
        points, normals, radius = self._points[rows, :MODEL], self._normals[rows], self._radius[rows, None]
        near = torch.zeros_like(pos[:, 0])
        for scale_m in SCALES_M:
            model_w = _moved(pos, quat, points)
            index = _nearest(fresh_w, model_w)[..., None].expand(-1, -1, 3)
            arm = model_w.gather(1, index) - pos[:, None]
            gap = fresh_w - pos[:, None] - arm
            square = gap.square().sum(-1)
            near = (square < ON_IT_M**2).float().mean(dim=1)
            normal = normals.gather(1, index) @ matrix_from_quat(quat).transpose(1, 2)
            step = _step(arm / radius[..., None], normal, gap, 1.0 / (1.0 + square / scale_m**2))
            quat = quat_multiply(quat_from_rotvec(step[:, :3] / radius), quat)
            quat = quat / quat.norm(dim=1, keepdim=True)
            pos = pos + step[:, 3:]
        return pos, quat, near


def _step(arm: Tensor, normal: Tensor, gap: Tensor, weight: Tensor) -> Tensor:
    """Turn [arm] and shift (row, 6) that close the gaps best: one Gauss-Newton step of the weighted least squares.

    `arm`, `normal`, `gap`: (row, pair, 3); a pair at arm r moves by turn x r + shift. Of every pair, its gap along the
    normal counts fully, the whole gap by SLIDING.
    """
    slope = torch.cat([torch.linalg.cross(arm, normal), normal], dim=-1)
    plane = weight * (gap * normal).sum(-1)
    whole = SLIDING * weight[..., None]
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
    curvature += DAMPING * mean[:, None, None] * torch.eye(6, device=arm.device)
    return torch.linalg.solve(curvature, pull)


def surface_normals(points: Tensor) -> Tensor:
    """Unit normals (row, point, 3), of either sign, of points (row, point, 3): across their neighbours' plane."""
    near = torch.cdist(points, points).topk(min(NEIGHBOURS, points.shape[1]), largest=False).indices
    row = torch.arange(len(points), device=points.device)[:, None, None]
    patch = points[row, near]
    patch = patch - patch.mean(dim=2, keepdim=True)
    spread = patch.transpose(2, 3) @ patch
    return torch.linalg.eigh(spread).eigenvectors[..., 0]  # of the least eigenvalue


def _moved(pos: Tensor, quat: Tensor, points: Tensor) -> Tensor:
    """Points (row, point, 3) at poses (row, 3), (row, 4)."""
    return torch.baddbmm(pos[:, None], points, matrix_from_quat(quat).transpose(1, 2))


def _nearest(points: Tensor, among: Tensor) -> Tensor:
    """Index (row, point) into `among` (row, other, 3) of the nearest to each point (row, point, 3)."""
    score = torch.baddbmm(among.square().sum(-1)[:, None], points, among.transpose(1, 2), alpha=-2.0)
    return score.argmin(dim=2)
