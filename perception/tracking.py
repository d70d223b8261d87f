"""Follows a rigid object by registering its first view to the points of each new frame; batched, one object per row.

Each new point pulls the nearest point of the first view: with full force along that point's normal, with little along
the surface, so that a flat face slides into place but nothing is torn by the spacing of samples (point-to-plane ICP
with a point-to-point part; Cauchy weights; Levenberg damping holds what cannot be seen, such as the spin of a ball).
Points that the first view lacks do nothing: they are far from it. Nothing but points is used, so a robot runs the same.
"""

import math

import torch
from torch import Tensor

from perception.geometry import matrix_from_quat, quat_from_rotvec, quat_multiply, quat_rotate
from perception.hand_shape import Sight

MODEL, FRESH = 96, 48
"""So many points of the first view and of a frame are matched."""
NEIGHBOURS = 12
"""Points that decide on a normal."""
SQUARINGS = 6
"""After them an eigenvalue twice the least has 2^-64 of its share."""
SLIDING = 0.1
"""Weight of a pull along the surface against one along the normal."""
SCALES_M = (0.02, 0.01)
"""Gap at which a pair counts half, iteration by iteration."""
AGAIN = 2
"""Rows that fit badly are registered from other starts, so many times over from each."""
STARTS = 2
"""So many of them: those of the JUMPS that explain the new points best."""
JUMP_M, JUMP_STEP_M = 0.065, 0.025
"""An object on the table may have jumped so far; other starts are so far apart."""
FEW_FRESH, FEW_MODEL = 24, 32
"""Points that starts are compared by."""
ON_IT_M = 0.008
"""A point this close to the first view lies on the object: three times the noise of a D435 at 0.75 m."""
GOOD = 0.7
"""Rows that fit worse are tried again."""
EXPECTED = 0.5
"""Weight of a point that should be seen, against one that is."""
COVERED_M = 0.015
"""A point that should be seen has a fresh one so near."""
TOLD = 5
"""With fewer points that should be seen nothing follows from their absence."""
USABLE = 0.3
"""Of a worse fit nothing is taken over."""
ENOUGH = 0.6
"""Share of the new points that must lie on the object; else it is lost."""
DAMPING = 0.02
"""Of the mean curvature."""


def _jump_grid() -> Tensor:
    """Level shifts (shift, 3) [m] on a hexagonal grid."""
    rows, columns = range(-4, 5), range(-4, 5)
    places = [
        (JUMP_STEP_M * (i + 0.5 * (j % 2)), JUMP_STEP_M * j * math.sqrt(0.75), 0.0) for j in rows for i in columns
    ]
    return torch.tensor([place for place in places if math.hypot(*place) <= JUMP_M])


JUMPS = _jump_grid()


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

    def carry(self, rows: Tensor, shift: Tensor, turn: Tensor) -> None:
        """What holds the objects of `rows` moved by `shift` (row, 3) [m] and `turn` (row, 4): x -> turn x + shift."""
        self._pos_w[rows] = quat_rotate(turn, self._pos_w[rows]) + shift
        self._quat[rows] = quat_multiply(turn, self._quat[rows])

    def points_w(self, rows: Tensor) -> Tensor:
        """The first views (row, point, 3) where their objects are now, world frame [m]."""
        return _moved(self._pos_w[rows], self._quat[rows], self._points[rows])

    def follow(self, rows: Tensor, fresh_w: Tensor, count: Tensor, sight: Sight) -> Tensor:
        """Take in a frame's points (row, point, 3), `count` (row,) of which are distinct; (row,) bool: still on track.

        `sight`, of the rows: what the hand does not hide should be in the frame.

        An object that is lost stays where it was last seen, and the next frame tries again.
        """
        fresh_w = fresh_w[:, :FRESH]
        pos, quat, fit = self._register(rows, fresh_w, sight, self._pos_w[rows], self._quat[rows])
        bad = (fit < GOOD).nonzero().squeeze(1)
        if len(bad):
            some = rows[bad], fresh_w[bad], sight[bad]
            for jump in self._jumps(*some).unbind(1):
                tried_pos, tried_quat, better = self._pos_w[rows[bad]] + jump, self._quat[rows[bad]], fit[bad]
                for _ in range(AGAIN):
                    tried_pos, tried_quat, better = self._register(*some, tried_pos, tried_quat)
                improved = better > fit[bad]
                which = bad[improved]
                pos[which], quat[which], fit[which] = tried_pos[improved], tried_quat[improved], better[improved]
        use = (fit >= USABLE) & (count > 0)
        self._pos_w[rows[use]], self._quat[rows[use]] = pos[use], quat[use]
        return (fit >= ENOUGH) & (count > 0)

    def _jumps(self, rows: Tensor, fresh_w: Tensor, sight: Sight) -> Tensor:
        """The shifts (row, STARTS, 3) [m] after which the first view explains the new points best.

        Tried: level ones all around, and the one from the middle of what should be seen to that of what is.
        """
        model_w = _moved(self._pos_w[rows], self._quat[rows], self._points[rows, :MODEL])
        middle = _middle(fresh_w) - _middle(model_w, sight.sees(model_w))
        level = JUMPS.to(fresh_w).expand(len(rows), -1, -1)
        shifts = torch.cat([middle[:, None], level], dim=1)
        moved_w = (model_w[:, None, :FEW_MODEL] + shifts[:, :, None]).flatten(1, 2)
        expected = sight.sees(moved_w).unflatten(1, (-1, FEW_MODEL)).float()
        square = _squares(fresh_w[:, :FEW_FRESH], moved_w).unflatten(2, (-1, FEW_MODEL))  # (row, fresh, shift, model)
        explained = (1.0 / (1.0 + square.amin(dim=3) / SCALES_M[-1] ** 2)).mean(dim=1)
        covered = (expected / (1.0 + square.amin(dim=1) / COVERED_M**2)).sum(dim=2)
        told = expected.sum(dim=2)
        covered = torch.where(told < TOLD, 0.5, covered / told.clamp(min=1))
        best = torch.minimum(explained, covered).topk(STARTS, dim=1).indices
        return shifts.gather(1, best[..., None].expand(-1, -1, 3))

    def _register(
        self, rows: Tensor, fresh_w: Tensor, sight: Sight, pos: Tensor, quat: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The poses after one round of iterations from these, and how well they fit (row,), before the last."""
        points, normals, radius = self._points[rows, :MODEL], self._normals[rows], self._radius[rows, None]
        fit, known = torch.zeros_like(pos[:, 0]), sight.sees(_moved(pos, quat, points)).float()
        for scale_m in SCALES_M:
            R = matrix_from_quat(quat).transpose(1, 2)
            arms, turned = points @ R, normals @ R
            model_w = arms + pos[:, None]
            square = _squares(fresh_w, model_w)
            near, index = square.min(dim=2)
            back, other = square.min(dim=1)
            index, other = (i[..., None].expand(-1, -1, 3) for i in (index, other))
            arm = torch.cat([arms.gather(1, index), arms], dim=1)
            normal = torch.cat([turned.gather(1, index), turned], dim=1)
            gap = torch.cat([fresh_w, fresh_w.gather(1, other)], dim=1) - pos[:, None] - arm
            weight = torch.cat([1.0 / (1.0 + near / scale_m**2), EXPECTED * known / (1.0 + back / scale_m**2)], dim=1)
            covered = ((back < COVERED_M**2) * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
            covered = torch.where(known.sum(dim=1) < TOLD, 1.0, covered)
            fit = torch.minimum((near < ON_IT_M**2).float().mean(dim=1), covered)
            step = _step(arm / radius[..., None], normal, gap, weight)
            quat = quat_multiply(quat_from_rotvec(step[:, :3] / radius), quat)
            quat = quat / quat.norm(dim=1, keepdim=True)
            pos = pos + step[:, 3:]
        return pos, quat, fit


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
    return least_axis(patch.transpose(2, 3) @ patch)


def least_axis(spread: Tensor) -> Tensor:
    """Unit eigenvectors (..., 3), of either sign, of the least eigenvalue of spreads (..., 3, 3); of a line, 0.

    The adjugate has the same eigenvectors and, as eigenvalues, the products of the other two: the least becomes the
    greatest. Each squaring doubles the power by which the others fall behind. `torch.linalg.eigh` wants a quarter of a
    megabyte per matrix on a GPU.
    """
    scale = spread.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-12)
    a, b, c = (spread / scale).unbind(-2)
    power = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-2)
    for _ in range(SQUARINGS):
        power = power / power.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
        power = power @ power
    largest = power.square().sum(-2).argmax(-1)  # of the columns, which are all parallel
    axis = power.gather(-1, largest[..., None, None].expand(*power.shape[:-1], 1)).squeeze(-1)
    return axis / axis.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _moved(pos: Tensor, quat: Tensor, points: Tensor) -> Tensor:
    """Points (row, point, 3) at poses (row, 3), (row, 4)."""
    return torch.baddbmm(pos[:, None], points, matrix_from_quat(quat).transpose(1, 2))


def _middle(points: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean (row, 3) of the points (row, point, 3) of the mask (row, point); of all where it is empty."""
    if mask is None:
        return points.mean(dim=1)
    weight = mask.float() + 1e-6
    return (points * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)


def _squares(points: Tensor, others: Tensor) -> Tensor:
    """Squared distances (row, point, other) of points (row, point, 3) and others (row, other, 3) [m^2]."""
    centre = others.mean(dim=1, keepdim=True)
    a, b = points - centre, others - centre
    total = a.square().sum(-1)[..., None] + b.square().sum(-1)[:, None]
    return torch.baddbmm(total, a, b.transpose(1, 2), alpha=-2.0).clamp_(min=0.0)


def middle_xy(points_w: Tensor) -> Tensor:
    """Level place (row, 2) of the objects [m], float64, by the tracked among the points (row, point, 3) of a view."""
    return points_w[:, :-FRESH, :2].double().mean(dim=1)


def corrected(followed_w: Tensor, fresh_w: Tensor) -> Tensor:
    """The followed points (row, point, 3), the last of them replaced by those fresh ones that they do not explain."""
    few = fresh_w[:, :FRESH]
    odd = _squares(few, followed_w).amin(dim=2) > ON_IT_M**2
    united = followed_w.clone()
    united[:, -FRESH:] = torch.where(odd[..., None], few, followed_w[:, -FRESH:])
    return united
