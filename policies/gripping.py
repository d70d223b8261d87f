"""Measure the grip and the height of an object, and hold the thresholds of `hand_state.is_hand_empty`."""

import torch
from torch import Tensor

from sim.hands import HandSpec

UNSEEN_SHARE = 0.1
"""An object counts as not visible below this share of the pixels of its first view."""
SURE_GRIP = 0.7
"""An object that is not visible counts as held from this grip on. In 1,296 lifts of validation objects, everything
randomised, moved or pushed, two students detected 145 of 150 empty hands with it, and took 21 of 1,146 hands for empty
that held the object; of 704 that would have held it for three seconds, 2."""
LOST_GRIP = 0.3
"""In the hold an object counts as lost below this grip. A student detected 57 of 67 failures in the hold with it,
mostly under `force`, and took none of 702 successful grasps of validation objects for lost."""
LEFT_SHARE = 1 / 3
"""An object that rose by less than this share of the lift was left behind: fingers that press each other feel a grip
without any object."""


def grip(contact: Tensor, hand: HandSpec) -> Tensor:
    """Return the confidence (env,) that thumb and a finger touch the object, from contact probabilities (env, body)."""
    thumb, fingers = (
        contact[:, mask.nonzero()[0].tolist()].amax(dim=1) for mask in (hand.thumb_mask, hand.finger_mask)
    )
    return torch.minimum(thumb, fingers)


def base_m(points_w: Tensor) -> Tensor:
    """Return the mean height (env,) of the lowest quarter of points (env, point, 3) [m]."""
    count = points_w.shape[1] // 4
    return points_w[..., 2].topk(count, dim=1, largest=False).values.mean(dim=1)
