"""How surely a hand holds something, by what is felt of its contacts."""

import torch
from torch import Tensor

from sim.hands import HandSpec

EMPTY = 0.3
"""The hand is empty where the grip is less. Of 953 grasps of validation objects that were to succeed the student felt
4 so weak at the end of the lift, and of 324 that had failed it took 6 for a grip."""


def grip(contact: Tensor, hand: HandSpec) -> Tensor:
    """How surely (env,) thumb and another finger touch the object, from the chance of each body's (env, body)."""
    thumb, fingers = (
        contact[:, mask.nonzero()[0].tolist()].amax(dim=1) for mask in (hand.thumb_mask, hand.finger_mask)
    )
    return torch.minimum(thumb, fingers)
