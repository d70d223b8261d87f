"""After a grasp that took hold of nothing another one is planned."""

import math
from functools import partial

import pytest
import torch

from dexgrasp.perception.grasp_planning.planner import best_pregrasp
from dexgrasp.perception.grasp_planning.scoring import (
    DESCRIPTOR_AXIS,
    DESCRIPTOR_POSITION_M,
    DESCRIPTOR_SIZE,
    DESCRIPTOR_STYLE,
    REPETITION_COST,
    FailedGrasps,
    grasp_descriptor,
    repetition_penalty,
)
from dexgrasp.sim.task.reset import open_hand_keypoints
from tests.perception.test_pregrasp_planner import OVERHEAD, STILL


def marked(x_m=0.0, turn_rad=0.0, share=0.0):
    """A palm above the middle that points down, beside it along x, turned about the vertical."""
    c, s = math.cos(turn_rad), math.sin(turn_rad)
    axes = torch.tensor([[0.0, s, c], [0.0, -c, s], [-1.0, 0.0, 0.0]])  # columns: normal, y, fingers
    return grasp_descriptor(torch.tensor([x_m, 0.0, 0.1]), axes, torch.tensor(share))


@pytest.mark.parametrize(
    ("other", "distance2"),
    [
        (marked(), 0.0),
        (marked(x_m=DESCRIPTOR_POSITION_M), 1.0),
        (marked(share=DESCRIPTOR_STYLE), 1.0),
        (marked(turn_rad=math.pi / 2), 2 / DESCRIPTOR_AXIS**2),  # the fingers' ends are the root of 2 apart
        (marked(x_m=-DESCRIPTOR_POSITION_M, share=2 * DESCRIPTOR_STYLE), 5.0),
    ],
)
def test_the_less_a_grasp_is_like_one_that_was_tried_the_less_it_loses(other, distance2):
    lost = repetition_penalty(marked().expand(1, 1, DESCRIPTOR_SIZE), other.expand(1, 1, DESCRIPTOR_SIZE))
    assert lost.item() == pytest.approx(REPETITION_COST * math.exp(-distance2), abs=1e-6)


def test_losses_of_several_grasps_add_up_and_what_was_not_tried_costs_nothing():
    tried = FailedGrasps(2, kept=3)
    tried.add(torch.tensor([1]), marked()[None])
    tried.add(torch.tensor([1]), marked(x_m=DESCRIPTOR_POSITION_M)[None])
    lost = repetition_penalty(marked().expand(2, 1, DESCRIPTOR_SIZE), tried.descriptors)
    assert lost[:, 0].tolist() == pytest.approx([0.0, REPETITION_COST * (1 + math.exp(-1))])
    tried.clear(torch.tensor([1]))
    assert repetition_penalty(marked().expand(2, 1, DESCRIPTOR_SIZE), tried.descriptors).tolist() == [[0.0], [0.0]]


def test_the_newest_grasps_are_kept():
    tried = FailedGrasps(1, kept=2)
    for x_m in (0.1, 0.2, 0.3):
        tried.add(torch.tensor([0]), marked(x_m=x_m)[None])
    tried.add(torch.tensor([0]), None)
    assert (tried.descriptors[0, :, 0] * DESCRIPTOR_POSITION_M).tolist() == pytest.approx([0.3, 0.2])


def test_three_grasps_of_a_thing_that_lies_still_are_three_different_ones(allegro):
    points = torch.rand(1, 128, 3, generator=torch.manual_seed(0)).double() * torch.tensor([0.2, 0.03, 0.05]).double()
    hand = allegro.power, allegro.pinch, partial(open_hand_keypoints, allegro)
    tried, scores = FailedGrasps(1), []
    for _ in range(3):
        plan = best_pregrasp(points, OVERHEAD, *hand, *STILL, failed_grasps=tried.descriptors)
        tried.add(torch.tensor([0]), plan.descriptor)
        scores.append(float(plan.score))
    assert scores == sorted(scores, reverse=True)
    apart = torch.cdist(tried.descriptors[0, :3], tried.descriptors[0, :3])
    assert apart[~torch.eye(3, dtype=torch.bool)].min() > 0.5
