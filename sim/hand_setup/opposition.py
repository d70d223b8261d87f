"""Search the thumb's open pose and closing direction by which it meets the fingers.

Random poses are compared by forward kinematics; the best are checked for contacts within the hand.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.sim.hand_setup.checks import BELOW_TABLE_M, SELF_CONTACT_M, HandProbe
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import STYLES

TRIES, CHECKED, STEPS = 3000, 40, 12
"""Random thumbs, those checked for contacts, and steps of their closing."""
MEETING_M, APERTURE_M, FRONT_M = 0.012, {"power": 0.10, "pinch": 0.07}, 0.05
"""Wanted distance of thumb and fingertips where they meet, least aperture, least height of both over the palm."""
CLOSING_RAD = 1.3
"""Motion of the joints that close farthest [rad]."""
FACING_M = 0.02
"""Cost of a thumb that moves across the motion of the fingers where they meet."""
Array = NDArray[np.float64]


def opposed_styles(hand: HandSpec, seed: int = 0) -> dict[str, GraspStyle]:
    """Return both grasp styles with a thumb that opposes the fingers; the fingers stay as they are."""
    probe = HandProbe(hand)
    return {name: _opposed(probe, name, np.random.default_rng(seed)) for name in STYLES}


def _opposed(probe: HandProbe, name: str, random: np.random.Generator) -> GraspStyle:
    hand, style = probe.hand, getattr(probe.hand, name)
    thumb, motors = probe.thumb_motors, hand.motors
    low, high = hand.motor_lower[thumb], hand.motor_upper[thumb]
    opened = np.tile(motors.positions(style.open_pose.numpy()), (TRIES, 1))
    opened[:, thumb] = random.uniform(low, high, (TRIES, len(thumb)))
    closing = np.tile(style.closing.numpy(), (TRIES, 1))
    closing[:, thumb[:-2]] = 0.0  # the joints near the palm place the thumb, the last ones close it
    cost = _cost(probe, name, opened, closing)
    order = np.argsort(cost)[:CHECKED]
    depth = []
    for i in order:
        probe.pose(motors.joint_positions(opened[i]))
        depth.append(probe.deepest_contact()[0])
    best = order[np.argmin(cost[order] + 10.0 * np.maximum(np.array(depth) - SELF_CONTACT_M["odd"], 0.0))]
    probe.pose(motors.joint_positions(opened[best]))
    fingers, thumbs = probe.in_palm(probe.tips), probe.in_palm(probe.thumb_tips)
    reach = max(float(tips[:, 0].max()) for tips in (fingers, thumbs))
    middle = 0.5 * (fingers.mean(axis=0) + thumbs.mean(axis=0))
    return replace(
        style,
        open_pose=torch.from_numpy(motors.joint_positions(opened[best])),
        closing=torch.from_numpy(closing[best]),
        offset_y_m=torch.tensor(middle[1], dtype=torch.float64),  # the object comes between thumb and fingers
        offset_z_m=torch.tensor(middle[2], dtype=torch.float64),
        floor_m=torch.tensor(max(reach - BELOW_TABLE_M["odd"] / 2, 0.01), dtype=torch.float64),
    )


def _cost(probe: HandProbe, name: str, opened: Array, closing: Array) -> Array:
    """Return the cost (try,) of open poses and closing directions (try, motor) [m]."""
    hand = probe.hand
    share = np.linspace(0.0, CLOSING_RAD, STEPS)[:, None, None] / np.abs(closing).max(axis=1, keepdims=True)
    path = hand.motors.joint_positions(np.clip(opened + share * closing, hand.motor_lower, hand.motor_upper))
    tips = _tips(probe, torch.from_numpy(path), list(probe.tips.values())).numpy()
    thumb = _tips(probe, torch.from_numpy(path), list(probe.thumb_tips.values())).numpy()
    gap = np.linalg.norm(tips - thumb, axis=-1)  # (step, try, finger)
    meeting = np.sort(gap, axis=-1)[..., : min(2, gap.shape[-1])].mean(axis=-1)
    when = meeting.argmin(axis=0)
    rows = np.arange(len(opened))
    front = np.minimum(thumb[when, rows, 0, 0], thumb[0, :, 0, 0])
    cost = np.abs(meeting[when, rows] - MEETING_M)
    cost += np.maximum(APERTURE_M[name] - gap[0].min(axis=-1), 0.0)
    cost += np.maximum(FRONT_M - front, 0.0)
    first = np.maximum(when - 1, 0)
    towards = (thumb[when, rows] - thumb[first, rows])[:, 0], (tips[when, rows] - tips[first, rows]).mean(axis=1)
    lengths = np.prod([np.linalg.norm(part, axis=-1) for part in towards], axis=0)
    facing = (towards[0] * towards[1]).sum(axis=-1) / np.maximum(lengths, 1e-9)
    cost += FACING_M * (1.0 + facing)  # the thumb presses against the fingers, not along with them
    return np.asarray(cost + 0.01 * (1.0 - when / (STEPS - 1)))  # a late meeting closes on small objects too


def _tips(probe: HandProbe, joint_pos: Tensor, sites: list[str]) -> Tensor:
    """Return keypoints (..., tip, 3) in the palm frame [m] at joint positions (..., joint)."""
    hand = probe.hand
    root = (
        joint_pos.new_zeros(*joint_pos.shape[:-1], 3),
        joint_pos.new_tensor([1.0, 0, 0, 0]).expand(*joint_pos.shape[:-1], 4),
    )
    points = hand.kinematics().to(torch.float64, joint_pos.device).keypoints(*root, joint_pos)
    chosen = points[..., [hand.keypoint_names.index(site) for site in sites], :]
    return (chosen - torch.from_numpy(hand.palm_pos_b.copy())) @ torch.from_numpy(probe.palm_axes.T.copy())
