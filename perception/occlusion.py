"""Occlusion of object points by the hand, modelled by capsules that move with the joints."""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from dexgrasp.perception.kinematics import Kinematics
from dexgrasp.perception.transforms import compose, quat_rotate


@dataclass(frozen=True, eq=False)
class HandCapsules:
    """Model a hand by capsules, each fixed to a body."""

    kinematics: Kinematics
    body: tuple[int, ...]
    """Index of each capsule's body in the kinematics."""
    start: Tensor
    """(capsule, 3) one end of the axis, frame of the body [m]."""
    end: Tensor
    """(capsule, 3) other end of the axis, frame of the body [m]."""
    radius_m: Tensor
    """(capsule,) [m]."""
    _body: Tensor = field(init=False, repr=False)

    def pose(self, base_pos_w: Tensor, base_quat_w: Tensor, joint_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Return both ends of the axes (env, capsule, 3) in the world, from base pose and joints."""
        pos, quat = self.kinematics.forward(base_pos_w, base_quat_w, joint_pos)
        pos, quat = pos.index_select(1, self._body), quat.index_select(1, self._body)
        return pos + quat_rotate(quat, self.start), pos + quat_rotate(quat, self.end)

    def __post_init__(self) -> None:
        """Send `body` to the device, once."""
        object.__setattr__(self, "_body", torch.tensor(self.body, device=self.start.device))

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("start", "end", "radius_m")}
        return replace(self, kinematics=self.kinematics.to(device=device), **moved)


@dataclass(frozen=True, eq=False)
class HandOcclusion:
    """Compute the occlusion by a hand from joint and palm readings."""

    shape: HandCapsules
    base_in_palm: tuple[Tensor, Tensor]
    """Pose of the hand's base in the palm frame, (3,) [m] and (4,)."""
    margin_m: float
    """Margin by which the hand hides more than its shape [m]."""
    radii_m: Tensor = field(init=False)
    """(capsule,) radii with the margin [m]."""

    def __post_init__(self) -> None:
        """Add the margin, once."""
        object.__setattr__(self, "radii_m", self.shape.radius_m + self.margin_m)

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on another device."""
        pos, quat = self.base_in_palm
        return replace(self, shape=self.shape.to(device), base_in_palm=(pos.to(device), quat.to(device)))

    def for_camera(
        self, camera_w: Tensor, palm_pos_w: Tensor, palm_quat_w: Tensor, joint_pos: Tensor
    ) -> "CameraOcclusion":
        """Return the occlusion for a camera at camera_w (row, 3) [m].

        Pose of the hand: `palm_pos_w` (row, 3) [m], `palm_quat_w` (row, 4), `joint_pos` (row, joint) [rad].
        """
        base = compose(palm_pos_w, palm_quat_w, *self.base_in_palm)
        ends = self.shape.pose(base[0].float(), base[1].float(), joint_pos.float())
        return CameraOcclusion(torch.cat([camera_w[:, None].float(), *ends], dim=1), self.radii_m)

    def empty(self, rows: int, device: torch.device | str) -> "CameraOcclusion":
        """Allocate the occlusions of `rows` rows."""
        return CameraOcclusion(torch.zeros(rows, 1 + 2 * len(self.radii_m), 3, device=device), self.radii_m)


@dataclass(frozen=True, eq=False)
class CameraOcclusion:
    """Hold the camera and hand poses of some frames, to tell which points the hand hides."""

    places_w: Tensor
    """(row, 1 + 2 capsules, 3) position of the camera, first ends and second ends of the capsules' axes [m]."""
    radii_m: Tensor
    """(capsule,) radii [m]."""

    def __getitem__(self, rows: Tensor) -> "CameraOcclusion":
        """Return a copy of some rows."""
        return CameraOcclusion(self.places_w[rows], self.radii_m)

    def visible(self, points_w: Tensor) -> Tensor:
        """Return the mask (row, point) of the points_w (row, point, 3) that the hand does not hide."""
        starts_w, ends_w = self.places_w[:, 1:].chunk(2, dim=1)
        return ~hidden(points_w, self.places_w[:, 0], starts_w, ends_w, self.radii_m)


GROUP_ELEMENTS = 1 << 15
"""Numbers (row x capsule x point) per operation of `hidden`: few enough for the processor's cache, and all capsules at
once for a few rows."""


def hidden(points_w: Tensor, camera_w: Tensor, starts_w: Tensor, ends_w: Tensor, radii_m: Tensor) -> Tensor:
    """Return the mask (env, point) of points whose line of sight meets a capsule.

    `camera_w` (env, 3); `starts_w`, `ends_w` (env, capsule, 3): ends of the capsules' axes; `radii_m` (capsule,).

    Exact: uses the point of each axis nearest to the line of sight.
    """
    line = points_w - camera_w[:, None]
    length = line.norm(dim=-1)
    line = line / length[..., None]
    axes = ends_w - starts_w
    reach = axes.norm(dim=-1).clamp(min=1e-6)
    axes = axes / reach[..., None]
    offset = camera_w[:, None] - starts_w
    cosine = torch.bmm(axes, line.transpose(1, 2))  # (env, capsule, point): line and axis
    ahead = torch.bmm(offset, line.transpose(1, 2))
    beside, square = (offset * axes).sum(-1, keepdim=True), offset.square().sum(-1, keepdim=True)
    reach, radius_square = reach[..., None], radii_m.double().square().float()[:, None]
    covered, length = torch.zeros_like(length, dtype=torch.bool), length[:, None]
    size = max(1, GROUP_ELEMENTS // max(1, length.numel()))
    for first in range(0, len(radii_m), size):
        some = slice(first, first + size)
        c, f, e = cosine[:, some], ahead[:, some], beside[:, some]
        t = (e - c * f).div_((1.0 - c * c).clamp_(min=1e-9)).clamp_(min=0.0)
        t = torch.minimum(t, reach[:, some])
        s = torch.addcmul(-f, c, t)  # distance along the line of sight of its point nearest to that point of the axis
        gap = torch.addcmul(square[:, some] - s * s, t, t - 2.0 * e)
        covered |= ((gap < radius_square[some]) & (s < length) & (s > 0)).any(dim=1)
    return covered
