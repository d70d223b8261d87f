"""The scripted grasp: its numbers worked out by hand."""

from dataclasses import replace

import pytest
import torch

from dexgrasp import configs
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.scripted_grasp import ScriptedGraspCfg, follow_step, scripted_grasp_of, scripted_grasp_step

CFG = ScriptedGraspCfg(
    approach_fraction=0.5, close_rad=0.1, sink_gain_hz=4.0, sink_speed_m_s=0.2, keypoint_floor_m=0.01, sink_m=0.03
)
STEP_S, GRASP_S = 0.1, 2.0
CLOSING = torch.tensor([0.0, 1.0, 0.6], dtype=torch.float64)


def advance(cfg=CFG, phase_s=0.0, travelled=0.0, depth=0.1, height=0.5, down=1.0, keypoints=(0.2, 0.3), grip=0.0):
    """One step of one environment: palm advance [m] and finger offsets [rad]."""

    def one(value):
        return torch.tensor([value], dtype=torch.float64)

    step = scripted_grasp_step(
        cfg,
        closing=CLOSING,
        floor_m=0.12,
        step_s=STEP_S,
        phase_s=one(phase_s),
        grasp_s=GRASP_S,
        travelled_m=one(travelled),
        depth_m=one(depth),
        palm_height_m=one(height),
        palm_down=one(down),
        keypoint_height_m=torch.tensor([keypoints], dtype=torch.float64),
        grip=one(grip),
    )
    return float(step.palm_m), step.finger_rad[0].tolist()


def test_the_approach_spreads_what_is_left_over_the_time_that_is_left():
    assert advance()[0] == pytest.approx(0.1 * 0.1 / 1.0)  # 0.1 m in one second, 0.1 s per step
    assert advance(phase_s=0.6, travelled=0.04)[0] == pytest.approx(0.06 * 0.1 / 0.4)


def test_the_approach_covers_its_depth_exactly():
    travelled = 0.0
    for step in range(10):
        travelled += advance(phase_s=step * STEP_S, travelled=travelled)[0]
    assert travelled == pytest.approx(0.1)


def test_the_approach_never_retreats():
    assert advance(travelled=0.15)[0] == 0.0


def test_fingers_stay_until_the_approach_is_over_and_then_close():
    assert advance(phase_s=0.9)[1] == [0.0, 0.0, 0.0]
    assert advance(phase_s=1.0)[1] == pytest.approx([0.0, 0.1, 0.06])
    assert advance(phase_s=7.0)[1] == pytest.approx([0.0, 0.1, 0.06])  # also while lifting and holding


def test_fingers_that_feel_a_grip_close_while_the_palm_still_comes():
    early = advance(phase_s=0.6, travelled=0.05, grip=0.6)
    assert early[0] == pytest.approx(0.05 * 0.1 / 0.4)
    assert early[1] == pytest.approx([0.0, 0.1, 0.06])
    open_still = [0.0, 0.0, 0.0]
    assert advance(phase_s=0.6, travelled=0.05, grip=0.5)[1] == open_still
    assert advance(phase_s=0.6, travelled=0.04, grip=1.0)[1] == open_still  # 6 cm are left
    assert advance(replace(CFG, close_at_grip=1.0), phase_s=0.6, travelled=0.05, grip=1.0)[1] == open_still


def test_the_palm_stops_at_its_floor():
    assert advance(height=0.124)[0] == pytest.approx(0.004)  # 4 mm above it, palm facing straight down
    assert advance(height=0.10)[0] == 0.0


def test_a_tilted_palm_may_go_further_before_it_meets_the_floor():
    assert advance(height=0.124, down=0.5)[0] == pytest.approx(0.008)
    assert advance(height=0.121, down=0.0)[0] == pytest.approx(0.001 / 0.2)  # sideways: at most five times as far


def test_while_closing_the_palm_follows_the_lowest_keypoint_to_its_height():
    # 4 per second * 0.1 s * (0.03 - 0.01) m; the higher keypoint plays no part
    assert advance(phase_s=1.2, keypoints=(0.03, 0.3))[0] == pytest.approx(0.008)
    assert advance(phase_s=1.2, keypoints=(0.01, 0.3))[0] == pytest.approx(0.0)
    assert advance(phase_s=1.2, keypoints=(0.005, 0.3))[0] == pytest.approx(-0.002)


def test_sinking_and_rising_are_limited_in_speed():
    assert advance(phase_s=1.2, keypoints=(0.9, 0.9))[0] == pytest.approx(0.02)  # 0.2 m/s for 0.1 s
    assert advance(phase_s=1.2, keypoints=(-0.9, 0.9))[0] == pytest.approx(-0.02)


def test_sinking_ends_a_little_beyond_the_approach():
    assert advance(phase_s=1.2, travelled=0.125)[0] == pytest.approx(0.005)  # 0.1 + 0.03 m in all
    assert advance(phase_s=1.2, travelled=0.14)[0] == pytest.approx(-0.01)


def test_after_the_grasp_phase_the_palm_is_left_alone():
    assert advance(phase_s=GRASP_S)[0] == 0.0
    assert advance(phase_s=GRASP_S + 3.0, keypoints=(-0.5, 0.0))[0] == 0.0


def test_each_environment_is_in_its_own_phase():
    phase = torch.tensor([0.0, 1.2, 2.5], dtype=torch.float64)
    same = torch.full((3,), 0.1, dtype=torch.float64)
    keypoints = torch.full((3, 2), 0.03, dtype=torch.float64)
    heights = 5 * same, 10 * same, keypoints
    step = scripted_grasp_step(CFG, CLOSING, 0.12, STEP_S, phase, GRASP_S, 0 * same, same, *heights, 0 * same)
    assert step.palm_m.tolist() == pytest.approx([0.01, 0.008, 0.0])
    assert step.finger_rad[:, 1].tolist() == pytest.approx([0.0, 0.1, 0.1])


@pytest.mark.parametrize(
    "change",
    [
        {"approach_fraction": 0.0},
        {"approach_fraction": 1.0},
        {"close_rad": 0.0},
        {"close_at_grip": 0.0},
        {"close_within_m": -0.1},
    ],
)
def test_impossible_settings_are_refused_by_name(change):
    with pytest.raises(ValueError, match=f"ScriptedGraspCfg.{next(iter(change))} must lie in"):
        replace(CFG, **change)


@pytest.mark.parametrize(
    ("moved", "followed", "phase_s", "wanted"),
    [
        ((0.01, 0.0), (0.0, 0.0), 0.0, (0.0, 0.0)),  # less than follow_from_m: trackers drift
        ((0.02, 0.0), (0.0, 0.0), 0.0, (0.01, 0.0)),  # half way between the two: half of the 20 mm
        ((0.03, 0.04), (0.0, 0.0), 0.0, (0.009, 0.012)),  # 50 mm in full, at 0.3 m/s for 50 ms: 15 mm along (3, 4) / 5
        ((0.03, 0.04), (0.03, 0.035), 0.0, (0.0, 0.005)),  # what is left is less than that
        ((0.0, 0.0), (0.03, 0.0), 0.0, (-0.015, 0.0)),  # and back again
        ((0.03, 0.04), (0.0, 0.0), 0.8, (0.0, 0.0)),  # the approach ends after 0.43 of 1.8 s
    ],
)
def test_the_approach_follows_an_object_that_moved(moved, followed, phase_s, wanted):
    def pair(value):
        return torch.tensor([value], dtype=torch.float64)

    step = follow_step(ScriptedGraspCfg(), pair(moved), pair(followed), 0.05, torch.tensor([phase_s]), 1.8)
    torch.testing.assert_close(step, pair(wanted))


def test_the_approach_follows_nothing_where_that_is_off_and_impossible_ranges_are_refused():
    moved = torch.tensor([[0.05, 0.0]])
    still = follow_step(ScriptedGraspCfg(follow_m_s=0.0), moved, torch.zeros(1, 2), 0.05, torch.tensor([0.0]), 1.8)
    assert not still.any()
    with pytest.raises(ValueError, match="follow_from_m must be less than follow_fully_m"):
        ScriptedGraspCfg(follow_from_m=0.03)


@pytest.mark.parametrize(("finger_m", "floor_m"), [(0.012, 0.0105), (0.008, 0.007)])
def test_the_height_of_closing_keypoints_is_that_of_the_hands_fingers(finger_m, floor_m):
    assert scripted_grasp_of(finger_m, ScriptedGraspCfg()).keypoint_floor_m == pytest.approx(floor_m, abs=1e-12)
    for stated_m in (0.0, floor_m, 0.0105, 0.02):  # a number that is stated holds, whichever it is
        assert scripted_grasp_of(finger_m, ScriptedGraspCfg(keypoint_floor_m=stated_m)).keypoint_floor_m == stated_m
    half = scripted_grasp_of(finger_m, ScriptedGraspCfg(keypoint_floor_fingers=0.5))
    assert half.keypoint_floor_m == pytest.approx(finger_m / 2, abs=1e-12)


def test_the_default_height_of_an_earlier_saved_configuration_stays_the_default():
    """It was saved as the number 0.0105, which counted as the default; later ones say whether it was stated."""
    saved = configs.as_dict(TaskCfg())
    for stated_m in (None, 0.0105, 0.02):
        saved["scripted_grasp"]["keypoint_floor_m"] = stated_m
        assert configs.from_dict(TaskCfg, saved, "new").scripted_grasp.keypoint_floor_m == stated_m
    del saved["scripted_grasp"]["keypoint_floor_fingers"]
    for number_m, read_m in ((0.0105, None), (0.02, 0.02)):
        saved["scripted_grasp"]["keypoint_floor_m"] = number_m
        assert configs.from_dict(TaskCfg, saved, "earlier").scripted_grasp.keypoint_floor_m == read_m
        train = configs.upgrade(TrainCfg, {"task": saved}, "earlier")
        assert train["task"]["scripted_grasp"]["keypoint_floor_m"] == read_m
    alone = configs.from_dict(TaskCfg, {"scripted_grasp": {"keypoint_floor_m": 0.0105}}, "typed")
    assert alone.scripted_grasp.keypoint_floor_m == 0.0105


def test_shipped_hands_keep_the_numbers_that_were_constants():
    for name in ("allegro", "leap"):
        hand = HandSpec.load(name)
        assert (hand.finger_m, hand.style_heights_m) == (0.012, (0.06, 0.03))
        assert scripted_grasp_of(hand.finger_m, ScriptedGraspCfg()) == ScriptedGraspCfg(keypoint_floor_m=0.0105)
