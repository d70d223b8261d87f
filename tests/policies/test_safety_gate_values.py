"""The safety gate to the last number: steps, limits on either side, names of what is wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dexgrasp.policies.deploy.safety_gate import SafetyCfg, SafetyGate
from dexgrasp.utils.rotations import quat_from_rotvec, rotvec_from_quat
from tests.policies.test_safety_gate import HAND, HOME, RATE_HZ, STILL, gate, run, sensed, wanted

PERIOD_S = 1 / RATE_HZ


def test_the_palm_speeds_up_by_its_share_of_each_axis():
    # 5 m/s^2 and 0.5 m/s over three axes: 0.0125 / sqrt(3) more each tick, up to 0.025 / sqrt(3)
    found = run(gate(), HOME[0], 5, pos=[0.45, -0.45, 0.75])
    per_axis = np.diff([HOME[1], *(safe.palm_pos_w for safe in found)], axis=0) * [1, -1, 1] * math.sqrt(3)
    expected = [[0.0125] * 3, *[[0.025] * 3] * 4]
    np.testing.assert_allclose(per_axis, expected, rtol=1e-12)


def test_the_palm_turns_faster_by_its_acceleration():
    # 20 rad/s^2 and 2 rad/s at 20 Hz: 0.05, then 0.1 per tick
    found = run(gate(), HOME[0], 4, quat=quat_from_rotvec(np.array([0.0, 2.0, 0.0])))
    turned = [rotvec_from_quat(safe.palm_quat_w)[1] for safe in found]
    np.testing.assert_allclose(turned, [0.05, 0.15, 0.25, 0.35], rtol=1e-12)


def test_an_opposite_quaternion_turns_the_palm_the_short_way():
    goal = quat_from_rotvec(np.array([0.0, 0.3, 0.0]))
    for same in (goal, -goal):
        found = run(gate(), HOME[0], 12, quat=same)
        turned = [rotvec_from_quat(safe.palm_quat_w)[1] for safe in found]
        assert turned == sorted(turned) and turned[-1] == pytest.approx(0.3)


def test_a_joint_moves_by_speed_or_by_the_largest_step_whichever_is_less():
    # joint c: 7 rad/s * 0.5 / 20 = 0.175; with joint_step_rad=0.06: 0.06
    for largest, step in ((0.5, 0.175), (0.06, 0.06)):
        found = run(gate(joint_step_rad=largest), [0.0, 0.5, 1.6], 4)
        np.testing.assert_allclose(np.diff([0.5, *(safe.joint_target[2] for safe in found)]), step, rtol=1e-12)


@pytest.mark.parametrize(
    ("joints", "pos", "quat", "named"),
    [
        ([0.0, math.nan, 0.5], HOME[1], STILL, "['joint_pos']"),
        (HOME[0], [0.0, 0.3], STILL, "['palm_pos_w']"),
        (HOME[0], HOME[1], [0.0, 0.0, 0.0, 0.0], "['palm_quat_w']"),
        (None, "there", None, "['joint_pos', 'palm_pos_w', 'palm_quat_w']"),
    ],
)
def test_a_reset_names_what_is_wrong_and_keeps_the_gate_as_it_was(joints, pos, quat, named):
    made = gate()
    before = made(wanted(stamp_s=0.05), sensed(stamp_s=0.05), 0.05)
    made.stop("emergency stop")
    with pytest.raises(ValueError) as caught:
        made.reset(joints, pos, quat, 0.1)
    assert str(caught.value) == f"the safety gate cannot be reset: {named} are not finite or of the wrong length"
    after = made(wanted([1.0, 1.0, 1.0], stamp_s=0.1), sensed(stamp_s=0.1), 0.1)
    assert after.fault == "emergency stop"
    np.testing.assert_array_equal(after.joint_target, before.joint_target)


@pytest.mark.parametrize("now_s", [math.nan, math.inf])
def test_a_reset_at_no_time_is_refused(now_s):
    with pytest.raises(ValueError, match=f"now_s must be finite, got {now_s}"):
        gate().reset(*HOME, now_s)


def test_a_gate_has_no_fault_before_its_reset_and_none_after():
    made = SafetyGate(HAND, RATE_HZ)
    assert made.fault == ""
    made.stop("emergency stop")
    made.reset(*HOME, 1.0)
    assert made.fault == ""
    assert made(wanted(stamp_s=1.05), sensed(stamp_s=1.05), 1.05).fault == ""


def test_a_joint_without_room_between_its_margins_is_refused():
    narrow = replace(HAND, joint_lower_rad=(-1.0, 0.0, 0.25), joint_upper_rad=(1.0, 2.0, 0.75))
    with pytest.raises(ValueError, match=r"joint_margin_rad=0\.25 leaves a joint no room"):
        SafetyGate(narrow, RATE_HZ, SafetyCfg(joint_margin_rad=0.25))
    SafetyGate(narrow, RATE_HZ, SafetyCfg(joint_margin_rad=0.24))


@pytest.mark.parametrize("value", [1e6, -1e6, 1.1e6, 1e300])
def test_numbers_beyond_a_million_are_no_readings_and_no_commands(value):
    now_s = PERIOD_S
    good, bad = {"stamp_s": now_s}, {"pos": [0.0, 0.0, value], "stamp_s": now_s}
    assert gate()(wanted(**bad), sensed(**good), now_s).fault.startswith("command: not finite")
    assert gate()(wanted(**good), sensed(**bad), now_s).fault.startswith("readings: not finite")
    assert gate()(wanted([0.0, value * 0.999999, 0.0], **good), sensed(**good), now_s).fault == "" or abs(value) > 1e6


@pytest.mark.parametrize(("length", "valid"), [(0.9, False), (0.91, True), (1.09, True), (1.1, False), (1.2, False)])
def test_quaternions_of_about_unit_length_are_taken(length, valid):
    now_s, quat = PERIOD_S, [0.0, 0.0, length, 0.0]
    found = gate()(wanted(quat=quat, stamp_s=now_s), sensed(stamp_s=now_s), now_s)
    assert found.fault == ("" if valid else "command: not finite, or of the wrong length")


@pytest.mark.parametrize(
    ("now_s", "command_s", "readings_s", "points_s", "fault"),
    [
        (0.1, 0.1, 0.0, None, ""),  # readings may be 0.1 s old
        (0.1, 0.0, 0.1, None, ""),  # commands two periods
        (0.3, 0.3, 0.3, 0.0, ""),  # points 0.3 s
        (0.1, 0.1, -0.001, None, "readings: 0.101 s old, at most 0.100 s are allowed"),
        (0.1, -0.001, 0.1, None, "command: 0.101 s old, at most 0.100 s are allowed"),
        (0.3, 0.3, 0.3, -0.001, "points: 0.301 s old, at most 0.300 s are allowed"),
        (0.05, 0.1, 0.05, None, ""),  # a clock that is ahead by a period
        (0.05, 0.05, 0.101, None, "readings: -0.051 s old, at most 0.100 s are allowed"),
        (0.05, 0.05, 0.05, math.nan, "points: nan s old, at most 0.300 s are allowed"),
        (0.0, 0.0, 0.0, None, ""),  # the time of the reset
        (-0.001, 0.0, 0.0, None, "clock: -0.001 s after 0.0 s"),
    ],
)
def test_ages_on_either_side_of_their_limits(now_s, command_s, readings_s, points_s, fault):
    found = gate()(wanted(stamp_s=command_s), sensed(stamp_s=readings_s, points_stamp_s=points_s), now_s)
    assert found.fault == fault


@pytest.mark.parametrize("rate_hz", [1.0, 1000.0])
def test_the_slowest_and_the_fastest_rate_are_taken(rate_hz):
    assert SafetyGate(HAND, rate_hz).period_s == 1 / rate_hz


@pytest.mark.parametrize("box", [{"box_upper_m": (0.5, 0.5, 10.1)}, {"box_lower_m": (-10.1, -0.5, 0.0)}])
def test_a_box_of_the_palm_ends_within_ten_metres(box):
    with pytest.raises(ValueError, match=next(iter(box))):
        SafetyCfg(**box)
    SafetyCfg(box_lower_m=(-10.0, -0.5, 0.0), box_upper_m=(0.5, 0.5, 10.0))
