"""Grasp styles: power grasps of tall objects, pinch grasps of low ones.

A hand has two styles, `power` and `pinch` (hand.yaml); the style for an object is a blend of them by its height.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

STYLE_HEIGHTS_M = (0.06, 0.03)
"""Height of objects from which on they are grasped with the whole hand, and up to which they are pinched."""


@dataclass(frozen=True, eq=False)
class GraspStyle:
    """One style of a hand, or after `blend` one per environment: then every field has a leading (env,)."""

    open_pose: Tensor
    """(joint,) fingers at the pre-grasp [rad]."""
    closing: Tensor
    """(motor,) direction in which the fingers close [rad per unit]."""
    offset_y_m: Tensor
    """() the object's centre in the palm frame at the pre-grasp, along +y."""
    offset_z_m: Tensor
    """() the object's centre in the palm frame at the pre-grasp, along +z, the finger direction."""
    gap_m: Tensor
    """() distance from the palm centre to the object's top where the approach ends."""
    floor_m: Tensor
    """() least height of the palm centre over the table while the fingers are open."""

    def to(self, device: torch.device | str) -> "GraspStyle":
        """Return a copy on another device."""
        return GraspStyle(**{item.name: getattr(self, item.name).to(device) for item in fields(self)})

    def write(self, rows: Tensor, styles: "GraspStyle") -> None:
        """Set the styles of some environments."""
        for item in fields(self):
            getattr(self, item.name)[rows] = getattr(styles, item.name)


def blend(
    power: GraspStyle, pinch: GraspStyle, height_m: Tensor, style_heights_m: tuple[float, float] = STYLE_HEIGHTS_M
) -> GraspStyle:
    """Return the styles for objects with these heights (env,) over the table."""
    return interpolate(power, pinch, power_share(height_m, style_heights_m))


def power_share(height_m: Tensor, style_heights_m: tuple[float, float] = STYLE_HEIGHTS_M) -> Tensor:
    """Return the share of the power grasp for objects with these heights over the table [m], 0 to 1.

    `style_heights_m`: of the hand, (power, pinch).
    """
    power_m, pinch_m = style_heights_m
    return ((height_m - pinch_m) / (power_m - pinch_m)).clamp(0.0, 1.0)


def interpolate(power: GraspStyle, pinch: GraspStyle, share: Tensor) -> GraspStyle:
    """Interpolate between the pinch grasp, `share` (env,) 0, and the power grasp, 1."""

    def between(name: str) -> Tensor:
        low, high = getattr(pinch, name), getattr(power, name)
        return torch.lerp(low, high, share.view(-1, *[1] * low.dim()).to(low.dtype))

    return GraspStyle(**{item.name: between(item.name) for item in fields(GraspStyle)})
