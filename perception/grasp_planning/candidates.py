"""Candidate palm orientations and targets of a grasp, computed from the visible points.

Approaches: along the line of sight, from above, at edges, slanted.

A candidate has an approach direction, a roll about it, and a target: the place of the object that belongs
between thumb and fingers. The palm position depends on the hand (scoring.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp.perception.transforms import plane_basis

CAMERA_LINE, TOP_DOWN, EDGE, SLANTED = range(4)
"""Kinds of approach: from the camera at the middle; straight down at the middle; straight down at an edge, thumb on one
side of it and fingers on the other; from above and aside at the middle, the hand level."""
ROLLS, DIRECTIONS = 16, 8
"""Rolls over half a circle of the first two kinds; directions around the vertical of the other two."""
EDGE_M = 0.012
"""Points this near to the outermost in a direction are the edge on that side."""
LOCAL_M = 0.03
"""Points this near to the line of approach to an edge decide how high it is."""
SLANT_RAD = math.pi / 4
"""Angle of a slanted approach from the vertical."""


@dataclass(frozen=True)
class Candidates:
    """Candidates of all environments; every environment has the same kinds in the same order."""

    kind: Tensor
    """(cand,)."""
    target_w: Tensor
    """(env, cand, 3) place of the object that belongs between thumb and fingers [m]."""
    axes_w: Tensor
    """(env, cand, 3, 3) columns: palm normal, y, finger direction."""
    top_m: Tensor
    """(env, cand) how far the object stands out from the target against the approach."""


def candidates(
    points_w: Tensor, camera_pos_w: Tensor, roll_rad: Tensor, tilt_rad: Tensor, kinds: Sequence[int] | None = None
) -> Candidates:
    """Return the candidates for visible points (env, point, 3) and a camera (env, 3), world frame.

    `roll_rad` (env,) turns all fans of directions, `tilt_rad` (env, 2) tilts every approach: the reset noise.
    """
    centre = points_w.mean(dim=1)
    line = centre - camera_pos_w
    down = torch.zeros_like(centre)
    down[:, 2] = -1.0
    around = _around(roll_rad)
    edge = _edges(points_w, around)
    level = torch.linalg.cross(around, down[:, None].expand_as(around))
    slant = math.cos(SLANT_RAD) * down[:, None] - math.sin(SLANT_RAD) * around
    middle = centre[:, None].expand(-1, ROLLS, -1)
    groups = {
        CAMERA_LINE: (middle, *_fan(line / line.norm(dim=-1, keepdim=True), roll_rad, tilt_rad)),
        TOP_DOWN: (middle, *_fan(down, roll_rad, tilt_rad)),
        EDGE: (edge.repeat(1, 2, 1), *_across(down[:, None], torch.cat([around, -around], dim=1), tilt_rad)),
        SLANTED: (centre[:, None].expand_as(around), *_across(slant, level, tilt_rad)),
    }
    chosen = list(kinds or groups)
    kind = torch.cat([torch.full(groups[kind][0].shape[1:2], kind, device=centre.device) for kind in chosen])
    target, normal, fingers = (torch.cat([groups[kind][i] for kind in chosen], dim=1) for i in range(3))
    axes = torch.stack([normal, torch.linalg.cross(fingers, normal), fingers], dim=-1)
    return Candidates(kind=kind, target_w=target, axes_w=axes, top_m=_tops(points_w, target, axes, kind == EDGE))


def _around(start_rad: Tensor) -> Tensor:
    """Return level unit vectors (env, direction, 3) evenly around the vertical."""
    step = torch.arange(DIRECTIONS, device=start_rad.device, dtype=start_rad.dtype) * (2 * math.pi / DIRECTIONS)
    angle = start_rad[:, None] + step
    return torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)


def _fan(normal: Tensor, start_rad: Tensor, tilt_rad: Tensor) -> tuple[Tensor, Tensor]:
    """Return normals and finger directions (env, roll, 3) over half a circle about an approach (env, 3)."""
    normal = tilted(normal, tilt_rad)
    side, up = plane_basis(normal)
    step = torch.arange(ROLLS, device=normal.device, dtype=normal.dtype) * (math.pi / ROLLS)
    angle = start_rad[:, None] + step
    fingers = angle.cos()[..., None] * side[:, None] + angle.sin()[..., None] * up[:, None]
    return normal[:, None].expand_as(fingers), fingers


def _across(normal: Tensor, fingers: Tensor, tilt_rad: Tensor) -> tuple[Tensor, Tensor]:
    """Return tilted normals and the finger directions orthogonal to them, (env, cand, 3) each."""
    normal = tilted(normal, tilt_rad[:, None]).expand_as(fingers)
    fingers = fingers - (fingers * normal).sum(-1, keepdim=True) * normal
    return normal, fingers / fingers.norm(dim=-1, keepdim=True)


def tilted(normal: Tensor, tilt_rad: Tensor) -> Tensor:
    """Tilt unit vectors (..., 3) by small angles (..., 2) about two orthogonal axes."""
    side, up = plane_basis(normal)
    normal = normal + side * tilt_rad[..., :1] + up * tilt_rad[..., 1:]
    return normal / normal.norm(dim=-1, keepdim=True)


def _edges(points_w: Tensor, around: Tensor) -> Tensor:
    """Return the centres (env, direction, 3) of the outermost points in each direction."""
    along = points_w @ around.transpose(1, 2)
    outermost = (along > torch.quantile(along, 0.98, dim=1, keepdim=True) - EDGE_M).to(points_w.dtype)
    return (outermost.transpose(1, 2) @ points_w) / outermost.sum(dim=1)[..., None]


def _tops(points_w: Tensor, target_w: Tensor, axes_w: Tensor, local: Tensor) -> Tensor:
    """Return the 97th percentile (env, cand) of the points' heights over the targets.

    Where `local`, the height of the highest point near the target.
    """
    offset = points_w[:, None] - target_w[:, :, None]
    height = -(offset @ axes_w[..., :1]).squeeze(-1)
    top = highest(height)
    aside = offset.square().sum(-1) - height.square()
    here = torch.where(aside < LOCAL_M**2, height, -torch.inf).amax(dim=-1)
    return torch.where(local & here.isfinite(), torch.minimum(here, top), top)


def highest(height_m: Tensor) -> Tensor:
    """Return the interpolated 97th percentile (...) of heights (..., point): the top without outliers.

    `torch.quantile` is slower, because it sorts.
    """
    place = 0.97 * (height_m.shape[-1] - 1)
    below = math.floor(place)
    top = height_m.topk(height_m.shape[-1] - below, dim=-1).values
    return torch.lerp(top[..., -1], top[..., -2], place - below) if place > below else top[..., -1]
