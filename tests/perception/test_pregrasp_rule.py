"""The pre-grasp: where the palm starts, from the points that the camera sees."""

import math

import pytest
import torch

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.perception.grasp_planning.planner import START_CLEARANCE_M, back_off_from_points, plan_pregrasp
from dexgrasp.perception.transforms import matrix_from_quat, plane_basis, quat_rotate, quat_rotate_inverse


def style(**scalars):
    pose = torch.zeros(16, dtype=torch.float64)
    return GraspStyle(pose, pose, **{key: torch.tensor(value, dtype=torch.float64) for key, value in scalars.items()})


STYLE = style(offset_y_m=0.024, offset_z_m=0.008, gap_m=0.04, floor_m=0.12)
EXACT_M = 1e-12
"""All sums are in double precision and of order one."""
OVERHEAD = torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64)
ASIDE = torch.tensor([0.2, -0.15, 0.66], dtype=torch.float64)


def slab(x=0.1, y=0.03, z=0.02):
    """Points of a box of these half sizes about the origin, (1, 232, 3): every corner four times, and pairs within."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3).repeat(4, 1)
    inner = torch.rand(100, 3, generator=torch.manual_seed(0), dtype=torch.float64) * 2 - 1
    return (torch.cat([corners, inner, -inner]) * torch.tensor([x, y, z], dtype=torch.float64))[None]


def plan(points, camera=OVERHEAD, roll=0.0, **options):
    offset = torch.tensor([roll], dtype=torch.float64)
    return plan_pregrasp(points, camera[None], STYLE, STYLE, offset, **options)


def axes(pregrasp):
    """Palm normal, y and finger direction of the only environment."""
    return matrix_from_quat(pregrasp.palm_quat_w)[0].unbind(-1)


@pytest.mark.parametrize("camera", [OVERHEAD, ASIDE])
def test_the_palm_looks_from_the_camera_at_the_points(camera):
    normal, _, _ = axes(plan(slab(), camera))
    torch.testing.assert_close(normal, -camera / camera.norm(), rtol=0, atol=EXACT_M)


@pytest.mark.parametrize("camera", [OVERHEAD, ASIDE])
def test_the_centre_of_the_points_lies_where_the_hand_likes_it(camera):
    palm = plan(slab(), camera)
    centre_p = quat_rotate_inverse(palm.palm_quat_w, -palm.palm_pos_w)[0]
    torch.testing.assert_close(centre_p[1:], torch.tensor([0.024, 0.008], dtype=torch.float64), rtol=0, atol=EXACT_M)
    assert centre_p[0] >= 0.15 - EXACT_M


@pytest.mark.parametrize(("half_x", "half_y", "across"), [(0.1, 0.03, 1), (0.03, 0.1, 0)])
def test_the_fingers_lie_across_an_elongated_object(half_x, half_y, across):
    _, _, fingers = axes(plan(slab(half_x, half_y)))
    assert abs(float(fingers[across])) > math.cos(math.pi / 16)  # within one of the sixteen rolls


@pytest.mark.parametrize("roll", [0.0, 0.1, 1.0, 2.0, 3.0, 4.0, 6.0])
def test_wherever_the_fan_starts_the_fingers_come_within_half_a_roll_of_the_narrow_side(roll):
    _, _, fingers = axes(plan(slab(0.1, 0.005), roll=roll))
    assert abs(float(fingers[1])) > math.cos(math.pi / 32) - 1e-9


def test_half_a_turn_of_the_fan_turns_the_hand_round():
    _, _, fingers = axes(plan(slab(), roll=0.05))
    _, _, opposite = axes(plan(slab(), roll=0.05 + math.pi))
    torch.testing.assert_close(fingers, -opposite, rtol=0, atol=EXACT_M)


def test_the_axes_are_right_handed():
    normal, y, fingers = axes(plan(slab(), ASIDE, roll=0.7))
    torch.testing.assert_close(torch.linalg.cross(normal, y), fingers, rtol=0, atol=EXACT_M)


def test_a_low_object_is_met_from_the_standoff_and_a_high_one_from_above_its_top():
    low, high = plan(slab(z=0.02)), plan(slab(z=0.1))
    assert float(low.palm_pos_w[0, 2]) == pytest.approx(0.15)  # the top is at 0.02, 0.09 of clearance are less
    assert float(high.palm_pos_w[0, 2]) == pytest.approx(0.1 + 0.09)


def test_the_approach_ends_at_the_gap_above_the_top():
    low, high = plan(slab(z=0.02)), plan(slab(z=0.1))
    assert float(low.depth_m) == pytest.approx(0.15 - 0.02 - 0.04)
    assert float(high.depth_m) == pytest.approx(0.09 - 0.04)


def test_a_few_stray_points_do_not_raise_the_top():
    stray = torch.tensor([[[0.0, 0.0, 0.05], [0.0, 0.0, -0.05]]], dtype=torch.float64)
    points = torch.cat([slab(z=0.02), stray], dim=1)
    assert float(plan(points).depth_m) == pytest.approx(0.15 - 0.02 - 0.04)


def test_no_depth_is_left_where_the_gap_exceeds_the_clearance():
    assert float(plan(slab(z=0.1), standoff_m=0.0, clearance_m=0.03).depth_m) == 0.0


@pytest.mark.parametrize("camera", [OVERHEAD, ASIDE])
def test_turning_the_scene_about_the_vertical_turns_the_plan(camera):
    turn = torch.tensor([[math.cos(0.4), 0.0, 0.0, math.sin(0.4)]], dtype=torch.float64)
    turned_points, turned_camera = quat_rotate(turn, slab()), quat_rotate(turn[0], camera)
    still = plan(slab(), camera, roll=0.3)
    moved = plan(turned_points, turned_camera, roll=turned_roll(turn, camera, 0.3))
    torch.testing.assert_close(moved.palm_pos_w, quat_rotate(turn, still.palm_pos_w), rtol=0, atol=EXACT_M)
    torch.testing.assert_close(moved.depth_m, still.depth_m, rtol=0, atol=EXACT_M)
    for now, before in zip(axes(moved), axes(still), strict=True):
        torch.testing.assert_close(now, quat_rotate(turn[0], before), rtol=0, atol=EXACT_M)


def turned_roll(turn, camera, roll):
    """The roll at which the fan starts in the same direction after the turn: the basis of the fan is the world's."""
    side, up = plane_basis(-camera / camera.norm())
    first = quat_rotate(turn[0], math.cos(roll) * side + math.sin(roll) * up)
    side, up = plane_basis(quat_rotate(turn[0], -camera / camera.norm()))
    return math.atan2(float(first @ up), float(first @ side))


def test_moving_the_scene_moves_the_plan():
    shift = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    still, moved = plan(slab(), ASIDE), plan(slab() + shift, ASIDE + shift)
    torch.testing.assert_close(moved.palm_pos_w, still.palm_pos_w + shift, rtol=0, atol=EXACT_M)
    torch.testing.assert_close(moved.palm_quat_w, still.palm_quat_w, rtol=0, atol=EXACT_M)


def test_the_tilt_turns_the_approach_and_keeps_the_object_ahead():
    normal, _, _ = axes(plan(slab(), tilt_rad=torch.tensor([[0.1, 0.0]], dtype=torch.float64)))
    assert float(normal[2]) == pytest.approx(-1 / math.hypot(1, 0.1))  # tan of the tilt is 0.1
    palm = plan(slab(), tilt_rad=torch.tensor([[0.1, -0.2]], dtype=torch.float64))
    centre_p = quat_rotate_inverse(palm.palm_quat_w, -palm.palm_pos_w)[0]
    assert centre_p[1:].tolist() == pytest.approx([0.024, 0.008])


def test_environments_are_planned_apart():
    points = torch.cat([slab(0.1, 0.03), slab(0.03, 0.1, z=0.08)])
    cameras, rolls = torch.stack([OVERHEAD, ASIDE]), torch.tensor([0.2, 1.1], dtype=torch.float64)
    both = plan_pregrasp(points, cameras, STYLE, STYLE, rolls)
    for env in range(2):
        alone = plan(points[env : env + 1], cameras[env], roll=float(rolls[env]))
        torch.testing.assert_close(both.palm_pos_w[env : env + 1], alone.palm_pos_w, rtol=0, atol=EXACT_M)
        torch.testing.assert_close(both.palm_quat_w[env : env + 1], alone.palm_quat_w, rtol=0, atol=EXACT_M)


def hand_and_points(palm, keypoints_p, points_p):
    """Keypoints of an open hand, and points given in the palm frame, in the world."""
    points_p = torch.tensor([points_p], dtype=torch.float64)
    return torch.tensor([keypoints_p], dtype=torch.float64), palm.palm_pos_w + quat_rotate(palm.palm_quat_w, points_p)


def test_the_start_steps_back_until_the_open_hand_is_clear_of_what_it_would_begin_in():
    palm = plan(slab(), ASIDE)
    thumb, rim = [0.13, 0.04, 0.0], [0.1, 0.05, 0.0]  # 1 cm beside the thumb's way and 3 cm short of its tip
    back = back_off_from_points(palm, *hand_and_points(palm, [thumb, thumb], [rim, [0.2, 0.0, 0.0]]))
    assert float(back.depth_m - palm.depth_m) == pytest.approx(0.03 + START_CLEARANCE_M)
    normal, _, _ = axes(palm)
    torch.testing.assert_close(
        back.palm_pos_w[0], palm.palm_pos_w[0] - (0.03 + START_CLEARANCE_M) * normal, rtol=0, atol=EXACT_M
    )
    assert torch.equal(back.palm_quat_w, palm.palm_quat_w)


@pytest.mark.parametrize("point", [[0.13 + 0.026, 0.04, 0.0], [0.1, 0.04, 0.026], [0.1, -0.04, 0.0]])
def test_the_start_stays_where_points_are_far_ahead_or_aside(point):
    palm = plan(slab(), ASIDE)
    thumb = [0.13, 0.04, 0.0]
    back = back_off_from_points(palm, *hand_and_points(palm, [thumb, thumb], [point]))
    assert torch.equal(back.palm_pos_w, palm.palm_pos_w)
    assert torch.equal(back.depth_m, palm.depth_m)


def test_points_between_two_keypoints_are_in_the_way_too():
    palm = plan(slab(), ASIDE)
    keypoints = [[0.1, -0.03, 0.0], [0.1, 0.03, 0.0]]
    back = back_off_from_points(palm, *hand_and_points(palm, keypoints, [[0.1, 0.0, 0.0]]))
    assert float(back.depth_m - palm.depth_m) == pytest.approx(START_CLEARANCE_M)
