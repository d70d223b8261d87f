"""Whether a hand holds something: by what is felt of its contacts, and by what is seen of the object."""

import torch
from torch import Tensor

from dexgrasp.sim.robots.hand import HandSpec

UNSEEN_SHARE = 0.1
"""The camera sees nothing of an object that shows less than this share of the pixels of its first view."""
SURE_GRIP = 0.7
"""What is not seen is held where the grip is at least this. After 1,296 lifts of validation objects, everything
randomised, moved or pushed, two students found so 145 of 150 empty hands, and took 21 of 1,146 for empty that had risen
with the object; of 704 that would have held it for three seconds, 2."""
LOST_GRIP = 0.3
"""In the hold the object was lost where the grip is less. So a student noticed 57 of 67 failures in the hold, mostly
under `force`, and took none of 702 grasps of validation objects that succeeded for lost."""
LEFT_SHARE = 1 / 3
"""What rose by less than this share of the lift was left behind. Fingers that press each other feel a grip."""


def is_hand_empty(felt: Tensor, rise_m: Tensor, visible_fraction: Tensor, lift_m: float) -> Tensor:
    """(env,) whether a hand that has risen by `lift_m` [m] holds nothing; all inputs (env,).

    `felt` as `grip` says; `rise_m`: of the object's lowest points as they are known [m]; `visible_fraction`: pixels in
    the last frame, as a share of those in the first view. What is seen to rise is held, however little is felt.
    """
    return (rise_m < LEFT_SHARE * lift_m) | ((visible_fraction < UNSEEN_SHARE) & (felt < SURE_GRIP))


def grip_confidence(contact: Tensor, hand: HandSpec) -> Tensor:
    """How surely (env,) thumb and another finger touch the object, from the chance of each body's (env, body)."""
    thumb, fingers = (
        contact[:, mask.nonzero()[0].tolist()].amax(dim=1) for mask in (hand.thumb_mask, hand.finger_mask)
    )
    return torch.minimum(thumb, fingers)


def lowest_height_m(points_w: Tensor) -> Tensor:
    """Mean height (env,) of the lowest quarter of the points (env, point, 3) [m]."""
    count = points_w.shape[1] // 4
    return points_w[..., 2].topk(count, dim=1, largest=False).values.mean(dim=1)
