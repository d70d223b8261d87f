"""The choice among scored pre-grasps: which there are, what they score, what comes next where none will do."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dexgrasp.perception.grasp_planning.candidates import CAMERA_LINE, EDGE, SLANTED, TOP_DOWN, candidates, highest
from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.perception.grasp_planning.planner import (
    REACH_TRIES,
    START_CLEARANCE_M,
    START_HEIGHT_M,
    best_pregrasp,
    move_start_clear,
    plan_pregrasp,
    select_candidate,
)
from dexgrasp.perception.grasp_planning.scoring import ScoreCfg, score_candidates
from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.sim.task.reset import open_hand_keypoints

OVERHEAD = torch.tensor([[0.0, 0.0, 0.7]], dtype=torch.float64)
STILL = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
THUMB, FINGER = [0.1, 0.0, -0.03], [0.1, 0.0, 0.04]
EXACT = 1e-9


def style(**scalars):
    pose = torch.zeros(1, 16, dtype=torch.float64)
    return GraspStyle(pose, pose, **{key: torch.tensor([value], dtype=torch.float64) for key, value in scalars.items()})


PLAIN = style(offset_y_m=0.0, offset_z_m=0.0, gap_m=0.04, floor_m=0.12)


def cloud(*points):
    return torch.tensor([points], dtype=torch.float64)


def table_of(half_x=0.02, half_y=0.05, z=0.04):
    """Four corners of a level rectangle."""
    return cloud(*[[x, y, z] for x in (-half_x, half_x) for y in (-half_y, half_y)])


def hand(*keypoints):
    return torch.tensor([keypoints], dtype=torch.float64)


def along(ways, kind, fingers):
    """Number of the first candidate of that kind whose fingers point in that direction or against it."""
    cosine = (ways.axes_w[0, :, :, 2] @ torch.tensor(fingers, dtype=torch.float64)).abs().round(decimals=9)
    turned = cosine.masked_fill(ways.kind != kind, -1)
    assert float(turned.max()) == pytest.approx(1.0)
    return int(turned.argmax())


def test_every_kind_of_approach_is_there_and_all_frames_are_right_handed():
    ways = candidates(table_of(), OVERHEAD + 0.1, *STILL)
    assert torch.bincount(ways.kind).tolist() == [16, 16, 16, 8]
    square = ways.axes_w.transpose(-1, -2) @ ways.axes_w
    torch.testing.assert_close(square, torch.eye(3, dtype=torch.float64).expand_as(square), rtol=0, atol=EXACT)
    torch.testing.assert_close(torch.linalg.det(ways.axes_w), torch.ones(1, 56).double(), rtol=0, atol=EXACT)


def test_palms_come_from_the_camera_from_above_and_from_aside():
    camera = torch.tensor([[0.3, 0.0, 0.44]], dtype=torch.float64)  # 0.3 beside and 0.4 above the centre
    ways = candidates(table_of(), camera, *STILL)
    normal = ways.axes_w[0, ..., 0]
    towards = {CAMERA_LINE: -0.8, TOP_DOWN: -1.0, EDGE: -1.0, SLANTED: -math.sqrt(0.5)}
    for kind, height in towards.items():
        assert normal[ways.kind == kind, 2].tolist() == pytest.approx([height] * int((ways.kind == kind).sum()))
    assert ways.axes_w[0, ways.kind == SLANTED, 2, 2].abs().max() < EXACT  # the hand is level


def test_edges_are_the_outermost_points_with_thumb_and_fingers_either_side():
    angles = [k * math.pi / 4 for k in range(8)]
    ways = candidates(cloud(*[[0.1 * math.cos(a), 0.1 * math.sin(a), 0.03] for a in angles]), OVERHEAD, *STILL)
    edges = ways.target_w[0, ways.kind == EDGE]
    outwards = torch.tensor([[0.1 * math.cos(a), 0.1 * math.sin(a), 0.03] for a in angles]).double()
    torch.testing.assert_close(edges, outwards.repeat(2, 1), rtol=0, atol=1e-7)
    fingers = ways.axes_w[0, ways.kind == EDGE, :, 2]
    radial = torch.cat([outwards, -outwards])[:, :2] / 0.1
    torch.testing.assert_close(fingers[:, :2], radial, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 40, 101, 256])
def test_the_top_is_the_97th_percentile(count):
    heights = torch.rand(3, count, generator=torch.manual_seed(count)).double()
    torch.testing.assert_close(highest(heights), torch.quantile(heights, 0.97, dim=1), rtol=0, atol=1e-12)


def test_what_the_arm_cannot_take_is_passed_over(allegro):
    points = torch.rand(1, 128, 3, generator=torch.manual_seed(0)).double() * torch.tensor([0.2, 0.03, 0.05]).double()
    plan = partial(
        best_pregrasp, points, OVERHEAD, allegro.power, allegro.pinch, partial(open_hand_keypoints, allegro), *STILL
    )
    best = plan()
    asked = []

    def all_but_the_first(pos_w, quat_w):
        asked.append((pos_w, quat_w))
        return torch.tensor([len(asked) > 1])

    second = plan(reachable=all_but_the_first)
    assert torch.equal(asked[0][0], best.palm_pos_w)
    assert torch.equal(asked[1][0], second.palm_pos_w)
    assert float(second.score) < float(best.score)


def test_the_tilt_of_a_reset_tilts_every_approach():
    tilt = torch.tensor([[0.1, 0.0]], dtype=torch.float64)
    still, moved = (candidates(table_of(), OVERHEAD, STILL[0], t).axes_w[0, :, :, 0] for t in (STILL[1], tilt))
    assert (still * moved).sum(-1).tolist() == pytest.approx([1 / math.hypot(1, 0.1)] * 56)


def scored(points, fingers, share, keypoints=(THUMB, FINGER), kind=TOP_DOWN, taken=PLAIN):
    ways = candidates(points, OVERHEAD, *STILL)
    result = score_candidates(points, ways, taken, share, hand(*keypoints), ScoreCfg())
    number = along(ways, kind, fingers)
    return result, number, float(result.score[0, number])


def test_the_score_of_a_hand_across_the_narrow_side_is_the_sum_of_its_terms():
    # 4 cm high: 0.5 cm low; 4 cm long along the fingers, 3 cm less than 7; 8 of 10 cm across count;
    # the palm would end at 0.04 + 0.04 of 0.12: 4 cm short; nothing is off centre, crushed, blocked or slanted
    common = -9.0 * 0.04 + 48.0 * 0.08 - 15.0 * 0.04
    wide = ([0.1, 0.0, -0.05], [0.1, 0.0, 0.05])
    assert scored(table_of(), [1.0, 0.0, 0.0], 0.0, wide)[2] == pytest.approx(common)
    whole = 0.6 - 94.0 * 0.005 - 31.0 * 0.03
    assert scored(table_of(), [1.0, 0.0, 0.0], 1.0, wide)[2] == pytest.approx(common + whole)
    assert scored(table_of(), [1.0, 0.0, 0.0], 0.5, wide)[2] == pytest.approx(common + whole / 2)


def test_what_is_wider_than_the_fingers_stand_apart_is_crushed():
    # the tips stand 7 cm apart, the points 10 cm: 3 cm; across them 4 cm count
    expected = -9.0 * 0.1 + 48.0 * 0.04 - 41.0 * 0.03 - 15.0 * 0.04
    assert scored(table_of(), [0.0, 1.0, 0.0], 0.0)[2] == pytest.approx(expected)


def test_a_palm_beside_the_centre_is_off_centre_and_a_slanted_one_pays_for_its_angle():
    beside = style(offset_y_m=0.0, offset_z_m=0.01, gap_m=0.04, floor_m=0.0)
    straight = style(offset_y_m=0.0, offset_z_m=0.0, gap_m=0.04, floor_m=0.0)
    wide = ([0.1, 0.0, -0.09], [0.1, 0.0, 0.09])
    points = table_of(0.02, 0.02)
    lone = scored(points, [1.0, 0.0, 0.0], 0.0, wide, taken=straight)[2]
    assert scored(points, [1.0, 0.0, 0.0], 0.0, wide, taken=beside)[2] == pytest.approx(lone)  # the target moved along
    edge = scored(points, [1.0, 0.0, 0.0], 0.0, wide, EDGE, straight)[2]
    assert lone - edge == pytest.approx(36.0 * 0.02)


def test_a_point_in_the_way_of_a_finger_blocks_it_from_there():
    keypoints = ([0.1, 0.0, 0.0], [0.1, 0.0, 0.06])  # the palm ends 4 cm over the points: 6 cm and 2 cm of clearance
    result, number, _ = scored(table_of(0.005, 0.005), [1.0, 0.0, 0.0], 0.0, keypoints)
    assert float(result.blocked_m[0, number]) == pytest.approx(0.08)


def test_a_slanted_palm_keeps_its_lower_side_off_the_table():
    result, number, _ = scored(table_of(), [0.0, -1.0, 0.0], 0.0, ([0.1, 0.05, 0.0], [0.1, -0.05, 0.01]), SLANTED)
    lower = 0.05 * math.sqrt(0.5)  # the side of the hand, 5 cm from its middle, at 45 degrees
    assert float(result.floor_m[0, number]) == pytest.approx(0.8 * 0.12 * math.sqrt(0.5) + lower + 0.012)


SCORES = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
SOME_FREE = torch.tensor([[True, False, True, True]])


@pytest.mark.parametrize(
    ("free", "reached", "taken"),
    [
        (SOME_FREE, None, 2),  # the best free one, though another scores more
        (SOME_FREE, [3], 3),  # the best that is free and reachable
        (SOME_FREE, [1, 3], 3),  # reachable and free before reachable
        (SOME_FREE, [1], 1),  # reachable alone
        (SOME_FREE, [], 2),  # none is reachable: the best free one
        (torch.zeros(1, 4, dtype=torch.bool), None, 1),  # none is free: the least bad
        (torch.zeros(1, 4, dtype=torch.bool), [0], 0),
    ],
)
def test_the_order_of_preference(free, reached, taken):
    reachable = None if reached is None else lambda rows, cand: torch.isin(cand, torch.tensor(reached).long())
    assert select_candidate(SCORES, free, reachable).tolist() == [taken]


def test_reachability_is_asked_for_where_it_is_open_and_not_for_ever():
    asked = []

    def only_the_second_row(rows, cand):
        asked.append(len(cand))
        return rows == 1

    select_candidate(torch.rand(2, 20), torch.ones(2, 20, dtype=torch.bool), only_the_second_row)
    assert asked == [2] + [1] * (REACH_TRIES - 1)


def test_a_long_thing_is_held_across_and_choices_are_deterministic(allegro):
    points = torch.rand(1, 128, 3, generator=torch.manual_seed(0)).double() * torch.tensor([0.2, 0.03, 0.05]).double()
    plan = partial(
        best_pregrasp, points, OVERHEAD, allegro.power, allegro.pinch, partial(open_hand_keypoints, allegro), *STILL
    )
    first, second = plan(), plan()
    assert torch.equal(first.palm_pos_w, second.palm_pos_w)
    fingers = quat_rotate(first.palm_quat_w, torch.tensor([0.0, 0.0, 1.0]).double())
    assert abs(float(fingers[0, 1])) > math.cos(math.pi / 16)
    assert int(plan(kinds=(CAMERA_LINE,)).approach) == CAMERA_LINE


coordinates = st.floats(-0.15, 0.15)
clouds = arrays("float64", st.tuples(st.just(1), st.integers(1, 40), st.just(3)), elements=coordinates)


@settings(max_examples=60, deadline=None)
@given(points=clouds, x=coordinates, y=coordinates, roll=st.floats(0, 2 * math.pi), tilt=coordinates, aside=coordinates)
def test_no_pregrasp_starts_in_the_points_or_below_the_table(allegro, points, x, y, roll, tilt, aside):
    points_w = torch.from_numpy(points).clone()
    points_w[..., 2] += 0.15  # on the table and up to 30 cm over it
    camera = torch.tensor([[4 * x, 4 * y, 0.6]], dtype=torch.float64)
    turn, lean = torch.tensor([roll], dtype=torch.float64), torch.tensor([[tilt, -tilt]], dtype=torch.float64)
    keypoints = partial(open_hand_keypoints, allegro)
    plans = [
        best_pregrasp(points_w, camera, allegro.power, allegro.pinch, keypoints, turn, lean),
        plan_pregrasp(points_w, camera, allegro.power, allegro.pinch, turn, lean),
    ]
    for plan in plans:
        moved = quat_rotate(plan.palm_quat_w, torch.tensor([[0.02, aside / 10, -aside / 10]]).double())
        plan.palm_pos_w.add_(moved)  # the reset noise
        hand_p = keypoints(plan.style.open_pose)
        start = move_start_clear(plan, hand_p, points_w)
        hand_p = torch.cat([hand_p, (hand_p[:, 1:] + hand_p[:, :-1]) / 2], dim=1)
        hand_w = quat_rotate(start.palm_quat_w[:, None], hand_p) + start.palm_pos_w[:, None]
        assert float(hand_w[..., 2].min()) >= START_HEIGHT_M - EXACT
        assert float(torch.cdist(hand_w, points_w).min()) >= START_CLEARANCE_M - EXACT
