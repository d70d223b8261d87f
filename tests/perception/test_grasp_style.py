"""Power and pinch: what a hand does with an object of a given height."""

import torch

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle, blend, power_share
from dexgrasp.perception.grasp_planning.planner import plan_pregrasp
from dexgrasp.sim.robots.hand import HandSpec


def style(value: float) -> GraspStyle:
    """Everything is `value`, two joints."""
    joints, scalar = torch.full((2,), value), torch.tensor(value)
    return GraspStyle(joints, joints, scalar, scalar, scalar, scalar)


def test_low_objects_are_pinched_tall_ones_grasped_and_between_the_styles_mix():
    mixed = blend(power=style(1.0), pinch=style(0.0), height_m=torch.tensor([0.02, 0.03, 0.045, 0.06, 0.2]))
    expected = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0])  # 4.5 cm lies half-way from 3 to 6 cm
    torch.testing.assert_close(mixed.gap_m, expected)
    torch.testing.assert_close(mixed.closing, expected[:, None].expand(-1, 2))


def test_a_hand_states_from_which_heights_on_objects_are_pinched_and_grasped():
    share = power_share(torch.tensor([0.01, 0.02, 0.03, 0.05]), (0.04, 0.02))
    torch.testing.assert_close(share, torch.tensor([0.0, 0.0, 0.5, 1.0]))


def test_writing_styles_touches_only_the_given_environments():
    styles = blend(style(1.0), style(0.0), torch.tensor([0.2, 0.2, 0.2]))
    styles.write(torch.tensor([1]), blend(style(1.0), style(0.0), torch.tensor([0.01])))
    assert styles.floor_m.tolist() == [1.0, 0.0, 1.0]
    assert styles.open_pose.tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]


def test_the_plan_takes_the_style_from_the_height_of_the_visible_points():
    hand = HandSpec.load("allegro")
    low, tall = torch.rand(2, 50, 3, generator=torch.manual_seed(0), dtype=torch.float64) * 0.05
    low[:, 2], tall[:, 2] = 0.02, 0.12
    camera = torch.tensor([[0.0, 0.0, 0.7]] * 2, dtype=torch.float64)
    plan = plan_pregrasp(torch.stack([low, tall]), camera, hand.power, hand.pinch, torch.zeros(2))
    torch.testing.assert_close(plan.style.closing[0], hand.pinch.closing)
    torch.testing.assert_close(plan.style.closing[1], hand.power.closing)


def test_a_left_hand_has_the_styles_of_the_right_one_with_y_turned_round():
    right, left = HandSpec.load("leap"), HandSpec.load("leap", side="left")
    for name in ("power", "pinch"):
        assert getattr(left, name).offset_y_m == -getattr(right, name).offset_y_m
        torch.testing.assert_close(getattr(left, name).closing, getattr(right, name).closing)
