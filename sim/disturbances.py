"""What goes wrong on purpose: the object is moved or pushed unseen, heavier than it looks, or slippery."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHIFT_TRIGGER_M = 0.07
"""The object is moved when the first keypoint comes this close; method page, section 1.9."""
CLEARANCE_M = 0.02
"""Least distance of the moved object's points from every keypoint: fingers are 12 mm thick."""
FORCE_TURN_S = 1.0
"""The direction of the force changes this often."""


@dataclass(frozen=True)
class Disturbance:
    """One kind of disturbance of the evaluation; zero or one where it does not act."""

    shift_m: float = 0.0
    """Radius of the disc within which the object is moved, once, unseen [m]."""
    force_n: float = 0.0
    """Force on the object's centre of mass from the first two-sided contact on [N]."""
    mass_scale: float = 1.0
    friction: float | None = None


DISTURBANCES = {
    "none": Disturbance(),
    "shift3": Disturbance(shift_m=0.03),
    "shift5": Disturbance(shift_m=0.05),
    "force": Disturbance(force_n=2.5),
    "heavy": Disturbance(mass_scale=2.0),
    "slippery": Disturbance(friction=0.3),
}


def disturbance_named(name: str) -> Disturbance:
    """The disturbance of that name, or an error that lists them."""
    if name not in DISTURBANCES:
        raise ValueError(f"disturbance must be one of {list(DISTURBANCES)}, got '{name}'")
    return DISTURBANCES[name]


def free_shift(tries: Tensor, shift_m: float, points_w: Tensor, keypoints_w: Tensor) -> Tensor:
    """The first of the candidate displacements (row, try, 2) in a unit disc that keeps clear of the hand, times `shift_m`.

    `points_w` (row, point, 3), `keypoints_w` (row, keypoint, 3). Where no candidate is free, the clearest one. (row, 2) [m].
    """
    clearance = torch.stack(
        [_clearance(points_w, keypoints_w, tries[:, k] * shift_m) for k in range(tries.shape[1])], dim=1
    )
    free = clearance > CLEARANCE_M
    pick = torch.where(free.any(dim=1), free.int().argmax(dim=1), clearance.argmax(dim=1))
    return tries[torch.arange(len(tries)), pick] * shift_m


def _clearance(points_w: Tensor, keypoints_w: Tensor, shift_xy: Tensor) -> Tensor:
    """Distance of the nearest keypoint, or midpoint between successive ones, from the moved points (row,) [m]."""
    hand = torch.cat([keypoints_w, (keypoints_w[:, 1:] + keypoints_w[:, :-1]) / 2], dim=1)
    moved = points_w.clone()
    moved[..., :2] += shift_xy[:, None]
    return torch.cdist(hand, moved).amin(dim=(1, 2))
