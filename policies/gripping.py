"""Whether a hand holds something: by what is felt of its contacts, and by what is seen of the object."""

import torch
from torch import Tensor

from sim.hands import HandSpec

EMPTY = 0.3
"""The hand is empty where the grip is less. Of 953 grasps of validation objects that were to succeed the student felt
4 so weak at the end of the lift, and of 324 that had failed it took 6 for a grip."""
LEFT_SHARE = 1 / 3
"""What rose by less than this share of the lift was left behind. Fingers that press each other feel a grip."""


def grip(contact: Tensor, hand: HandSpec) -> Tensor:
    """How surely (env,) thumb and another finger touch the object, from the chance of each body's (env, body)."""
    thumb, fingers = (
        contact[:, mask.nonzero()[0].tolist()].amax(dim=1) for mask in (hand.thumb_mask, hand.finger_mask)
    )
    return torch.minimum(thumb, fingers)


def base_m(points_w: Tensor) -> Tensor:
    """Mean height (env,) of the lowest quarter of the points (env, point, 3) [m]."""
    count = points_w.shape[1] // 4
    return points_w[..., 2].topk(count, dim=1, largest=False).values.mean(dim=1)
