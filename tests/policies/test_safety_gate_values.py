"""The safety gate to the last number: steps, limits on either side, names of what is wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dexgrasp.policies.deploy.safety_gate import INVALID, SafetyCfg, SafetyGate
from dexgrasp.utils.rotations import Pose, quat_from_rotvec, rotvec_from_quat
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
    assert str(caught.value) == f"the safety gate cannot be reset: {named} are {INVALID}"
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
    assert found.fault == ("" if valid else f"command: {INVALID}")


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


PLACES = [  # box -0.5..0.5, -0.5..0.5, 0.06..0.8 m; joint c -0.2..1.7 rad
    ({"pos": [1.5, 0.0, 0.3]}, ""),
    ({"pos": [1.51, 0.0, 0.3]}, "readings: the palm at (1.51, 0, 0.3) m is more than 1 m outside its box"),
    ({"pos": [0.0, 0.0, -0.95]}, "readings: the palm at (0, 0, -0.95) m is more than 1 m outside its box"),
    ({"pos": [1e5, 0.0, 0.3]}, "readings: the palm at (1e+05, 0, 0.3) m is more than 1 m outside its box"),
    ({"joints": [0.0, 0.5, 2.2]}, ""),
    ({"joints": [0.0, 0.5, 2.21]}, "readings: joint c at 2.21 rad is more than 0.5 rad outside its range"),
    ({"joints": [0.0, -0.51, 0.5]}, "readings: joint b at -0.51 rad is more than 0.5 rad outside its range"),
    ({"joints": [5e5, 0.5, 0.5]}, "readings: joint a at 5e+05 rad is more than 0.5 rad outside its range"),
]


@pytest.mark.parametrize(("reading", "fault"), PLACES)
def test_a_reading_that_the_robot_cannot_have_is_a_fault_and_no_place_to_hold(reading, fault):
    made = gate()
    assert made(wanted(stamp_s=PERIOD_S), sensed(**reading, stamp_s=PERIOD_S), PERIOD_S).fault == fault
    for k in range(2, 60):
        held = made(wanted(stamp_s=k * PERIOD_S), sensed(**reading, stamp_s=k * PERIOD_S), k * PERIOD_S)
    if fault:  # it holds the last plausible state
        np.testing.assert_allclose(held.palm_pos_w, HOME[1])
        np.testing.assert_allclose(held.joint_target, HOME[0])
        with pytest.raises(ValueError) as caught:
            made.reset(reading.get("joints", HOME[0]), reading.get("pos", HOME[1]), STILL, 9.0)
        assert str(caught.value) == f"the safety gate cannot be reset: {fault}"


def follow(made, palm, ticks, goal, start=1):
    """Answers to `ticks` commands for the palm with its measured place `palm(answer before, tick)`."""
    found, at = [], (HOME[1], STILL)
    for k in range(start, start + ticks):
        now_s = k * PERIOD_S
        reading = sensed(HOME[0], *palm(at, k), stamp_s=now_s)
        found.append(made(wanted(HOME[0], *goal, stamp_s=now_s), reading, now_s))
        at = found[-1].palm_pos_w, found[-1].palm_quat_w
    return found


def test_a_palm_that_does_not_follow_is_a_fault_after_its_time():
    # along x the target moves 0.0125 / sqrt(3), then 0.025 / sqrt(3) = 0.01443 m a tick: 0.1515 m after tick 11, so
    # that the palm is too far from tick 12 on, 0.6 s; 0.5 s later it is still no fault, a tick later it is
    faults = [safe.fault for safe in follow(gate(), lambda at, k: (HOME[1], STILL), 30, ([0.45, 0.0, 0.3], STILL))]
    assert faults[:22] == [""] * 22
    assert faults[22] == (
        "tracking: for 0.55 s the palm is further from its target than 0.15 m or 0.7 rad: now 0.310 m and 0.00 rad"
    )


def test_a_palm_that_stays_far_away_from_a_target_at_rest_is_a_fault():
    faults = [safe.fault for safe in follow(gate(), lambda at, k: ([0.4, 0.4, 0.7], STILL), 20, HOME[1:])]
    assert faults[:11] == [""] * 11 and faults[11].startswith("tracking: for 0.55 s")  # sqrt(0.48) = 0.69 m


def test_a_palm_that_does_not_turn_is_a_fault():
    turned = quat_from_rotvec(np.array([0.0, 0.0, 1.2]))
    faults = [safe.fault for safe in follow(gate(), lambda at, k: (HOME[1], STILL), 30, (HOME[1], turned))]
    assert faults[-1].startswith("tracking") and "0.000 m and" in faults[-1]


def test_a_lag_that_is_reached_and_not_exceeded_is_no_fault():
    turned = quat_from_rotvec(np.array([0.0, 0.0, 0.4]))
    away = [HOME[1][0], HOME[1][1], HOME[1][2] + 0.25]
    reached_m = Pose(np.array(HOME[1]), np.array(STILL)).distance_m(Pose.of(np.array(away), np.array(STILL)))
    reached_rad = Pose(np.array(HOME[1]), np.array(STILL)).angle_rad(Pose.of(np.array(HOME[1]), np.array(turned)))
    assert (reached_m, reached_rad) == pytest.approx((0.25, 0.4))
    for palm, limits in (
        ((away, STILL), {"palm_lag_m": reached_m}),
        ((HOME[1], turned), {"palm_lag_rad": reached_rad}),
    ):
        for factor, faults in ((1.0, False), (1 - 1e-9, True)):
            made = gate(**{key: factor * value for key, value in limits.items()})
            found = follow(made, lambda at, k, palm=palm: palm, 20, HOME[1:])
            assert any(safe.fault for safe in found) == faults


def test_a_palm_that_follows_late_or_catches_up_in_time_is_no_fault():
    places = [(HOME[1], STILL)]

    def delayed(at, k):  # by 0.25 s
        places.append(at)
        return places[max(0, len(places) - 6)]

    assert all(not safe.fault for safe in follow(gate(), delayed, 80, ([0.45, -0.45, 0.75], STILL)))

    def stops_sometimes(at, k):  # 0.5 s too far, then there, again and again
        return at if k % 11 == 0 else ([0.4, 0.4, 0.7], STILL)

    assert all(not safe.fault for safe in follow(gate(), stops_sometimes, 80, HOME[1:]))


def test_a_palm_need_not_follow_targets_that_are_not_sent():
    made = SafetyGate(HAND, RATE_HZ, palm_follows=False)
    made.reset(*HOME, 0.0)
    assert all(not a.fault for a in follow(made, lambda at, k: (HOME[1], STILL), 60, ([0.45, 0.0, 0.3], STILL)))


def test_a_reset_forgets_how_long_the_palm_lagged():
    made = gate()
    follow(made, lambda at, k: ([0.4, 0.4, 0.7], STILL), 9, HOME[1:])
    made.reset(*HOME, 9 * PERIOD_S)
    assert not any(a.fault for a in follow(made, lambda at, k: ([0.4, 0.4, 0.7], STILL), 9, HOME[1:], start=10))


def test_a_reset_at_the_time_of_the_last_call_lets_the_next_call_move():
    made = gate()
    made(wanted(stamp_s=PERIOD_S), sensed(stamp_s=PERIOD_S), PERIOD_S)
    made.reset(*HOME, PERIOD_S)
    now_s = 2 * PERIOD_S
    safe = made(wanted([0.5, 0.5, 0.5], stamp_s=now_s), sensed(stamp_s=now_s), now_s)
    assert safe.fault == "" and safe.joint_target[0] == pytest.approx(0.1)  # 4 rad/s * 0.5 / 20 Hz


def test_a_reading_of_the_time_of_the_reset_is_the_place_to_hold():
    """Nearer than the lead of a target, 0.2 rad, no time need have passed between two readings."""
    made = gate()
    made(wanted(stamp_s=PERIOD_S), sensed([0.15, 0.5, 0.5], stamp_s=0.0), PERIOD_S)
    made.stop("emergency stop")
    for tick in range(2, 8):
        safe = made(wanted(stamp_s=tick * PERIOD_S), sensed(stamp_s=tick * PERIOD_S), tick * PERIOD_S)
    np.testing.assert_allclose(safe.joint_target, [0.15, 0.5, 0.5], atol=1e-12)


@pytest.mark.parametrize(
    ("stamp_s", "age"),
    [(-1e9, "1000000000.000"), (-2e9, "2e+09"), (2e9, "-2e+09"), (-1e300, "1e+300"), (1e300, "-1e+300")],
)
def test_ages_of_readings_with_another_clock_are_short_to_read(stamp_s, age):
    made = gate()
    made.reset(*HOME, 0.0)
    assert made(wanted(), sensed(stamp_s=stamp_s), 0.0).fault == f"readings: {age} s old, at most 0.100 s are allowed"


class Odd:
    """An object whose conversions and attributes raise."""

    def __array__(self, *_, **__):
        raise RuntimeError("no array")

    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")

    def __str__(self):
        raise RuntimeError("no text")

    def __float__(self):
        return 0.5


NO_NUMBERS = [
    np.ma.array([0.0, 0.5, 0.5], mask=[False, True, False]),
    [0.0, np.ma.masked, 0.5],
    [0.0, np.ma.array(0.5, mask=True), 0.5],
    ["0.0", "0.5", "0.5"],
    np.array(["0.0", "0.5", "0.5"]),
    np.array([b"0.0", b"0.5", b"0.5"]),
    [0.0, "0.5", 0.5],
    np.array([0.0, 0.5, 0.5], dtype=object),
    np.array([0.0, None, 0.5], dtype=object),
    np.array([0.0, 0.5, 0.5], dtype=complex),
    np.array([False, True, True]),
    np.array([0, 1, 1], dtype="timedelta64[s]"),
    np.array([(0.0,), (0.5,), (0.5,)], dtype=[("x", float)]),
    [[0.0, 0.5, 0.5]],
    np.zeros((3, 1)),
    np.zeros(0),
    {"a": 0.0, "b": 0.5, "c": 0.5},
    {0.0, 0.5, 0.6},
    (x for x in (0.0, 0.5, 0.5)),
    b"123",
    Odd(),
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("field", ["joints", "pos"])
def test_what_is_no_array_of_numbers_is_a_fault_and_no_start(value, field):
    good, bad = {"stamp_s": PERIOD_S}, {field: value, "stamp_s": PERIOD_S}
    assert gate()(wanted(**bad), sensed(**good), PERIOD_S).fault == f"command: {INVALID}"
    assert gate()(wanted(**good), sensed(**bad), PERIOD_S).fault == f"readings: {INVALID}"
    start = [value if field == "joints" else HOME[0], value if field == "pos" else HOME[1], STILL]
    with pytest.raises(ValueError, match="the safety gate cannot be reset"):
        SafetyGate(HAND, RATE_HZ).reset(*start, 0.0)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, list, tuple])
def test_numbers_of_every_size_are_taken(kind):
    joints = kind([0.0, 0.5, 0.5]) if kind in (list, tuple) else np.array([0.0, 0.5, 0.5], dtype=kind)
    assert gate()(wanted(joints, stamp_s=PERIOD_S), sensed(joints, stamp_s=PERIOD_S), PERIOD_S).fault == ""
    assert gate()(wanted([0, 1, 1], stamp_s=0), sensed([0, 1, 1], stamp_s=0), np.float32(PERIOD_S)).fault == ""


NO_TIMES = [None, "0.05", b"1", True, [0.05], np.zeros(1), np.ma.masked, np.ma.array(0.05, mask=True), 1j, Odd(), {}]


@pytest.mark.parametrize("value", NO_TIMES, ids=lambda value: type(value).__name__)
def test_a_time_that_is_no_number_is_refused_or_a_fault(value):
    with pytest.raises(ValueError, match=r"cannot be reset: now_s must be (one number|finite), got "):
        gate().reset(*HOME, value)
    good = {"stamp_s": PERIOD_S}
    assert gate()(wanted(**good), sensed(**good), value).fault.startswith("clock: nan s")
    assert gate()(wanted(stamp_s=value), sensed(**good), PERIOD_S).fault.startswith("command: nan s old")
    assert gate()(wanted(**good), sensed(stamp_s=value), PERIOD_S).fault.startswith("readings: nan s old")
    points = gate()(wanted(**good), sensed(points_stamp_s=value, **good), PERIOD_S).fault
    assert points.startswith("points: nan s old") if value is not None else points == ""
    with pytest.raises(ValueError, match=r"1\.\.1000 Hz"):
        SafetyGate(HAND, value)


def test_objects_that_raise_on_every_touch_are_faults():
    assert gate()(Odd(), sensed(stamp_s=PERIOD_S), PERIOD_S).fault == f"command: {INVALID}"
    assert gate()(wanted(stamp_s=PERIOD_S), Odd(), PERIOD_S).fault == f"readings: {INVALID}"
    made = gate()
    made.stop(Odd())
    assert made.fault == "stopped, no reason was given"
