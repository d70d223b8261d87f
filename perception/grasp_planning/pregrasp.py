"""Where the palm starts: a pose computed from the object's visible points and the camera position alone.

The method's rule (RobustDexGrasp, appendix): the palm faces the object along the line to the camera, and among rolls
about that line the one is taken in whose finger direction the object is narrow. Two corrections that measuring asked
for: the distance is kept from the object's top as seen along the approach, not from its centre, and the object is
centred where this hand's thumb and fingers meet, which is not the palm's centre.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle, blend
from dexgrasp.perception.transforms import plane_basis, quat_from_matrix, quat_rotate, quat_rotate_inverse

CLEAR_M = 0.025
"""What lies this close beside the way of a keypoint is at least this far ahead of it when the approach starts."""
TABLE_M = 0.02
"""Least height of every keypoint over the table when the approach starts."""


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
    """How the hand takes hold of each object."""
    approach: Tensor | None = None
    """(env,) kind of the approach (perception/grasp_planning/candidates.py); None where there was nothing to choose from."""
    score: Tensor | None = None
    """(env,) its score, see perception/grasp_planning/scoring.py."""
    mark: Tensor | None = None
    """(env, MARK) what tells it from others, see perception/grasp_planning/tried.py."""


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
) -> Pregrasp:
    """Palm pose from visible points (env, point, 3) and camera position (env, 3), world frame.

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
    style = blend(power, pinch, _top(points_w[..., 2]))
    pos = centre - normal * distance[:, None] - y * style.offset_y_m[:, None] - fingers * style.offset_z_m[:, None]
    quat = quat_from_matrix(torch.stack([normal, y, fingers], dim=-1))
    return Pregrasp(pos, quat, (distance - top - style.gap_m).clamp(min=0.0), style)


def move_start_clear(pregrasp: Pregrasp, keypoints_p: Tensor, points_w: Tensor) -> Pregrasp:
    """The plan started where the open hand is clear of the table z = 0 and of the visible points; see `step_back`.

    The palm first rises, then steps back along its normal, which must not point upwards: so neither undoes the other.
    """
    hand_w = quat_rotate(pregrasp.palm_quat_w[:, None], _between(keypoints_p)) + pregrasp.palm_pos_w[:, None]
    rise = (TABLE_M - hand_w[..., 2].amin(dim=1)).clamp(min=0.0)
    raised_w = pregrasp.palm_pos_w.clone()
    raised_w[:, 2] += rise
    return back_off_from_points(replace(pregrasp, palm_pos_w=raised_w), keypoints_p, points_w)


def _between(keypoints_p: Tensor) -> Tensor:
    """Keypoints (env, keypoint, 3) and the middles between neighbours."""
    return torch.cat([keypoints_p, (keypoints_p[:, 1:] + keypoints_p[:, :-1]) / 2], dim=1)


def back_off_from_points(pregrasp: Pregrasp, keypoints_p: Tensor, points_w: Tensor) -> Pregrasp:
    """The plan with its start moved back along the normal until the open hand is clear of the visible points.

    `keypoints_p` (env, keypoint, 3): of the open hand, palm frame; `points_w` (env, point, 3). The approach ends where
    it did. The rim of a bowl would else begin inside the thumb.
    """
    hand_p = _between(keypoints_p)
    points_p = quat_rotate_inverse(pregrasp.palm_quat_w[:, None], points_w - pregrasp.palm_pos_w[:, None])
    in_the_way = torch.cdist(hand_p[..., 1:], points_p[..., 1:]) < CLEAR_M
    lacking = hand_p[:, :, None, 0] + CLEAR_M - points_p[:, None, :, 0]
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
    """97th percentile of the points' heights (env, point) along some direction (env,): the top without outliers."""
    return torch.quantile(height_m, 0.97, dim=1)
