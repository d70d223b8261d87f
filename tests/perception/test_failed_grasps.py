"""After a grasp that took hold of nothing another one is planned."""

import math
from functools import partial

import pytest
import torch

from dexgrasp.perception.grasp_planning.planner import best_pregrasp
from dexgrasp.perception.grasp_planning.scoring import (
    AXIS,
    COST,
    MARK,
    PLACE_M,
    SHARE,
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
        (marked(x_m=PLACE_M), 1.0),
        (marked(share=SHARE), 1.0),
        (marked(turn_rad=math.pi / 2), 2 / AXIS**2),  # the fingers' ends are the root of 2 apart
        (marked(x_m=-PLACE_M, share=2 * SHARE), 5.0),
    ],
)
def test_the_less_a_grasp_is_like_one_that_was_tried_the_less_it_loses(other, distance2):
    lost = repetition_penalty(marked().expand(1, 1, MARK), other.expand(1, 1, MARK))
    assert lost.item() == pytest.approx(COST * math.exp(-distance2), abs=1e-6)


def test_losses_of_several_grasps_add_up_and_what_was_not_tried_costs_nothing():
    tried = FailedGrasps(2, kept=3)
    tried.add(torch.tensor([1]), marked()[None])
    tried.add(torch.tensor([1]), marked(x_m=PLACE_M)[None])
    lost = repetition_penalty(marked().expand(2, 1, MARK), tried.marks)
    assert lost[:, 0].tolist() == pytest.approx([0.0, COST * (1 + math.exp(-1))])
    tried.forget(torch.tensor([1]))
    assert repetition_penalty(marked().expand(2, 1, MARK), tried.marks).tolist() == [[0.0], [0.0]]


def test_the_newest_grasps_are_kept():
    tried = FailedGrasps(1, kept=2)
    for x_m in (0.1, 0.2, 0.3):
        tried.add(torch.tensor([0]), marked(x_m=x_m)[None])
    tried.add(torch.tensor([0]), None)
    assert (tried.marks[0, :, 0] * PLACE_M).tolist() == pytest.approx([0.3, 0.2])


def test_three_grasps_of_a_thing_that_lies_still_are_three_different_ones(allegro):
    points = torch.rand(1, 128, 3, generator=torch.manual_seed(0)).double() * torch.tensor([0.2, 0.03, 0.05]).double()
    hand = allegro.power, allegro.pinch, partial(open_hand_keypoints, allegro)
    tried, scores = FailedGrasps(1), []
    for _ in range(3):
        plan = best_pregrasp(points, OVERHEAD, *hand, *STILL, tried=tried.marks)
        tried.add(torch.tensor([0]), plan.mark)
        scores.append(float(plan.score))
    assert scores == sorted(scores, reverse=True)
    apart = torch.cdist(tried.marks[0, :3], tried.marks[0, :3])
    assert apart[~torch.eye(3, dtype=torch.bool)].min() > 0.5
