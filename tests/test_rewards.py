"""Reward terms: numbers worked out by hand."""

from dataclasses import fields

import pytest
import torch

from sim import rewards
from sim.rewards import RewardCfg
from sim.task import GraspTask
from sim.task_cfg import TaskCfg

WEIGHTS = torch.tensor([0.0, 1.0, 3.0])


def near(value, *want):
    torch.testing.assert_close(value.double(), torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-6)


def test_reach_is_the_weighted_mean_distance_with_a_cap():
    # (0 * 0.9 + 1 * 0.02 + 3 * 0.06) / 4 = 0.05; far away every keypoint counts 0.15
    near(rewards.reach(torch.tensor([[0.9, 0.02, 0.06], [1.0, 1.0, 1.0]]), WEIGHTS), 0.05, 0.15)


def test_contact_is_the_weighted_share_of_touching_bodies():
    touching = torch.tensor([[True, True, False], [False, True, True], [True, False, False]])
    near(rewards.contact(touching, WEIGHTS), 0.25, 1.0, 0.0)


def test_force_saturates_at_ten_newtons_per_body():
    # row 0: (1 * 0.2 + 3 * 0.4) / 4 = 0.35; row 1: both bodies saturate
    near(rewards.force(torch.tensor([[99.0, 2.0, 4.0], [0.0, 10.0, 500.0]]), WEIGHTS), 0.35, 1.0)


def test_opposition_needs_the_thumb_and_a_finger():
    thumb, fingers = torch.tensor([False, False, True]), torch.tensor([False, True, False])
    touching = torch.tensor([[True, True, True], [True, True, False], [True, False, True], [False, True, True]])
    near(rewards.opposition(touching, thumb, fingers), 1, 0, 0, 1)


def test_table_contact_counts_any_body_once():
    near(rewards.table_contact(torch.tensor([[False, False], [True, False], [True, True]])), 0, 1, 1)


def test_displacement_is_a_distance_over_the_table_with_a_cap():
    near(rewards.displacement(torch.tensor([[0.03, -0.04], [3.0, 4.0]])), 0.05, 0.2)


def test_object_speed_reaches_one_at_a_third_of_a_metre_per_second():
    near(rewards.object_speed(torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.0, 1 / 3], [0.0, 9.0, 0.0]])), 0.09, 1.0, 1.0)


def test_object_spin_is_squared_and_capped_at_ten():
    near(rewards.object_spin(torch.tensor([[1.0, 0.0, 2.0], [4.0, 0.0, 0.0]])), 5.0, 10.0)


def test_palm_speed_costs_ten_times_as_much_when_fast():
    near(rewards.palm_speed(torch.tensor([[0.2, 0.0, 0.0], [0.0, 0.3, 0.0]])), 0.04, 0.9)


def test_lift_is_the_share_of_the_commanded_rise():
    rise = torch.tensor([0.05, 0.2, -0.01, 0.005])
    commanded = torch.tensor([0.1, 0.15, 0.1, 0.0])
    near(rewards.lift(rise, commanded), 0.5, 1.0, 0.0, 0.5)  # the last: 5 mm of at least 10 mm


def test_action_is_its_mean_square():
    near(rewards.action(torch.tensor([[1.0, -2.0, 0.0, 1.0]])), 1.5)


@pytest.mark.parametrize("term", ["reach", "table_contact", "displacement", "object_speed", "palm_speed", "action"])
def test_what_is_to_be_avoided_costs(term):
    assert getattr(RewardCfg(), term) < 0


def test_the_task_gives_every_weight_a_term_and_sums_them(allegro, household, balanced):
    names = {field.name for field in fields(RewardCfg)} - {"floor"}
    weights = RewardCfg(**dict.fromkeys(names, 0.0) | {"reach": -2.0, "action": -0.5})
    task = GraspTask(TaskCfg(reward=weights), allegro, household, balanced, 2, num_threads=1)
    task.reset([0, 1])
    result = task.step(torch.ones(2, 22))
    assert set(result.info["terms"]) == names
    assert result.info["terms"]["action"] == pytest.approx(-0.5)  # actions of one: mean square 1
    assert -2.0 * 0.15 <= result.info["terms"]["reach"] < 0
    assert sum(result.info["terms"].values()) == pytest.approx(float(result.reward.mean()), abs=1e-6)
    silent = [name for name, value in result.info["terms"].items() if value != 0]
    assert sorted(silent) == ["action", "reach"]


def test_no_step_earns_less_than_the_floor(allegro, household, balanced):
    task = GraspTask(
        TaskCfg(reward=RewardCfg(action=-100.0, floor=-1.5)), allegro, household, balanced, 2, num_threads=1
    )
    task.reset([0, 1])
    assert task.step(torch.ones(2, 22)).reward.tolist() == [-1.5, -1.5]
