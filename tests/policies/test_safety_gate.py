"""The safety gate: hand-worked steps, every fault, and no sequence of inputs that gets a command past the limits."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dexgrasp.policies.deploy.contract import HandContract, KinematicsContract
from dexgrasp.policies.deploy.rate_limiter import RateLimiter, RotationRateLimiter, max_stoppable_step
from dexgrasp.policies.deploy.safety_gate import DesiredCommand, MeasuredState, SafetyCfg, SafetyGate
from dexgrasp.utils.rotations import quat_from_rotvec, quat_multiply, rotvec_from_quat

HAND = HandContract(
    name="three joints",
    side="right",
    joint_names=("a", "b", "c"),
    joint_lower_rad=(-1.0, 0.0, -0.2),
    joint_upper_rad=(1.0, 2.0, 1.7),
    effort_limit_nm=(0.7, 0.7, 1.4),
    speed_limit_rad_s=(4.0, 4.0, 7.0),
    kp_nm_rad=(3.5, 3.5, 3.5),
    kd_nms_rad=(0.1, 0.1, 0.1),
    palm_pos_b=(0.0, 0.0, 0.0),
    palm_quat_b=(1.0, 0.0, 0.0, 0.0),
    kinematics=KinematicsContract(
        body_names=(),
        parent=(),
        pos=(),
        quat=(),
        joint_of_body=(),
        axis=(),
        keypoint_names=(),
        keypoint_body=(),
        keypoint_pos=(),
    ),
    conventions="",
)
RATE_HZ = 20.0
STILL = (1.0, 0.0, 0.0, 0.0)
HOME = ([0.0, 0.5, 0.5], [0.0, 0.0, 0.3], STILL)


def gate(**cfg):
    made = SafetyGate(HAND, RATE_HZ, SafetyCfg(**cfg))
    made.reset(*HOME, 0.0)
    return made


def wanted(joints=HOME[0], pos=HOME[1], quat=STILL, stamp_s=0.0):
    return DesiredCommand(joints, pos, quat, stamp_s)


def sensed(joints=HOME[0], pos=HOME[1], quat=STILL, stamp_s=0.0, points_stamp_s=None):
    return MeasuredState(joints, pos, quat, stamp_s, points_stamp_s)


def run(made, goal, ticks, follow=True, **poses):
    """Ticks in which the palm follows, and the joints do (or stay at home); every answer."""
    found, joints, palm = [], HOME[0], HOME[1:]
    for k in range(1, ticks + 1):
        now_s = k / RATE_HZ
        found.append(made(wanted(goal, stamp_s=now_s, **poses), sensed(joints, *palm, stamp_s=now_s), now_s))
        joints = found[-1].joint_target if follow else joints
        palm = found[-1].palm_pos_w, found[-1].palm_quat_w
    return found


def test_braking_distances_worked_by_hand():
    # with d = 1: from 3 the steps 3, 2, 1 cover 6; from 2.5 the steps 2.5, 1.5, 0.5 cover 4.5; below 1 one step
    np.testing.assert_allclose(
        max_stoppable_step(np.array([6.0, 4.5, 1.0, 0.4, 0.0, -1.0]), np.array(1.0)), [3, 2.5, 1, 0.4, 0, 0]
    )


def test_a_value_speeds_up_brakes_and_arrives_without_overshoot():
    limiter = RateLimiter([-100.0], [100.0], max_step=3.0, max_change=1.0)
    limiter.reset(np.zeros(1))
    path = [float(limiter.step_towards(np.array([12.0]))[0]) for _ in range(8)]
    # steps: 1, 2, 3, then what is left, 6, is just what 3, 2, 1 covers
    assert path == pytest.approx([1, 3, 6, 9, 11, 12, 12, 12])


def test_a_goal_that_turns_round_is_met_by_braking_first():
    limiter = RateLimiter([-100.0], [100.0], max_step=3.0, max_change=1.0)
    limiter.reset(np.zeros(1))
    for _ in range(3):
        limiter.step_towards(np.array([50.0]))  # 1, 2, 3 -> at 6 with step 3
    assert [float(limiter.step_towards(np.array([-50.0]))[0]) for _ in range(4)] == pytest.approx([8, 9, 9, 8])


def test_steps_of_a_joint_worked_by_hand():
    # joint 0: speed 4 * 0.5 / 20 = 0.1 per tick; change 16 / 400 = 0.04; lead 0.7 / 3.5 = 0.2
    found = run(gate(joint_acceleration_rad_s2=16.0), [1.0, 0.5, 0.5], 4)
    np.testing.assert_allclose([safe.joint_target[0] for safe in found], [0.04, 0.12, 0.22, 0.32])
    assert all(safe.fault == "" for safe in found)


def test_a_target_leads_a_blocked_joint_by_what_the_effort_is_worth():
    for effort in (1.0, 0.5):
        lead = effort * np.array([0.2, 0.2, 0.4])
        for goal, way in (([1.0, 2.0, 1.5], 1), ([-1.0, 0.0, -0.2], -1)):
            found = run(gate(effort=effort), goal, 20, follow=False)
            np.testing.assert_allclose(found[-1].joint_target, HOME[0] + way * lead, atol=1e-12)
            np.testing.assert_allclose(found[-1].effort_limit_nm, effort * np.array([0.7, 0.7, 1.4]))


def test_targets_keep_the_margin_to_the_joint_limits():
    found = run(gate(joint_margin_rad=0.05), [9.0, -9.0, 9.0], 200)
    np.testing.assert_allclose(found[-1].joint_target, [0.95, 0.05, 1.65])


def test_the_palm_stays_in_its_box_and_above_the_table():
    low = run(gate(), HOME[0], 200, pos=[3.0, -3.0, -1.0])
    np.testing.assert_allclose(low[-1].palm_pos_w, [0.5, -0.5, 0.06])
    assert min(safe.palm_pos_w[2] for safe in low) >= 0.06
    raised = run(gate(table_clearance_m=0.1), HOME[0], 200, pos=[0.0, 0.0, 0.0])
    np.testing.assert_allclose(raised[-1].palm_pos_w, [0, 0, 0.1])


def test_the_palm_turns_no_faster_than_it_may_and_arrives():
    goal = quat_from_rotvec(np.array([0.0, 0.0, 1.0]))
    found = run(gate(), HOME[0], 60, quat=goal)
    quats = pairwise(safe.palm_quat_w for safe in found)
    turns = [rotvec_from_quat(quat_multiply(after, before * (1, -1, -1, -1))) for before, after in quats]
    assert max(np.linalg.norm(turn) for turn in turns) == pytest.approx(0.1)  # 2 rad/s at 20 Hz
    np.testing.assert_allclose(found[-1].palm_quat_w, goal, atol=1e-9)


@pytest.mark.parametrize(
    ("command", "reading", "now_s", "reason"),
    [
        (wanted([0.0, math.nan, 0.5]), sensed(), 0.05, "command: not finite"),
        (wanted([0.0, 0.5]), sensed(), 0.05, "command: not finite, or of the wrong length"),
        (wanted("three"), sensed(), 0.05, "command: not finite"),
        (None, sensed(), 0.05, "command: not finite"),
        (wanted(pos=[0.0, 0.0, math.inf]), sensed(), 0.05, "command: not finite"),
        (wanted(quat=[0.0, 0.0, 0.0, 0.0]), sensed(), 0.05, "command: not finite"),
        (wanted(stamp_s=0.05), sensed([0.0, 0.5]), 0.05, "readings: not finite, or of the wrong length"),
        (wanted(stamp_s=0.05), sensed(quat=[math.nan] * 4), 0.05, "readings: not finite"),
        (wanted(stamp_s=0.2), sensed(stamp_s=0.0), 0.2, r"readings: 0\.200 s old, at most 0\.100 s are allowed"),
        (wanted(stamp_s=0.0), sensed(stamp_s=0.2), 0.2, r"command: 0\.200 s old, at most 0\.100 s are allowed"),
        (wanted(stamp_s=math.nan), sensed(), 0.05, "command: nan s old"),
        (wanted(stamp_s=0.05), sensed(stamp_s=9.0), 0.05, r"readings: -8\.950 s old"),
        (wanted(stamp_s=0.5), sensed(stamp_s=0.5, points_stamp_s=0.1), 0.5, r"points: 0\.400 s old, at most 0\.300 s"),
        (wanted(), sensed(), math.nan, "clock: nan s"),
        (wanted(), sensed(), -1.0, r"clock: -1\.0 s after 0\.0 s"),
    ],
)
def test_what_must_not_happen_is_a_fault_with_its_reason(command, reading, now_s, reason):
    found = gate()(command, reading, now_s)
    assert re.match(reason, found.fault), found.fault


def test_a_fault_brings_the_targets_back_to_the_measured_joints_and_stays():
    made = gate()
    measured = np.array([0.05, 0.45, 0.6])
    run(made, [0.3, 0.7, 0.9], 6, follow=False)
    now_s = 7 / RATE_HZ
    first = made(wanted([math.nan] * 3, stamp_s=now_s), sensed(measured, stamp_s=now_s), now_s)
    assert first.fault.startswith("command")
    for k in range(8, 40):  # good inputs again, other readings: it stays where it was at the fault
        now_s = k / RATE_HZ
        held = made(wanted([0.9, 0.9, 0.9], stamp_s=now_s), sensed(stamp_s=now_s), now_s)
    assert held.fault == first.fault
    np.testing.assert_allclose(held.joint_target, measured, atol=1e-12)
    made.reset(*HOME, now_s)
    assert made(wanted(stamp_s=now_s + 0.05), sensed(stamp_s=now_s + 0.05), now_s + 0.05).fault == ""


def test_an_emergency_stop_holds_and_the_first_reason_is_kept():
    made = gate()
    made.stop("emergency stop")
    made.stop("another")
    assert run(made, [1.0, 1.0, 1.0], 30)[-1].fault == "emergency stop"
    np.testing.assert_allclose(made.joints.value, HOME[0])


def hold_after(made, now_s, **reading):
    """Where the gate holds, 5 s after a command that is no number together with one reading of the present time."""
    made(wanted([math.nan] * 3, stamp_s=now_s), sensed(**({"stamp_s": now_s} | reading)), now_s)
    for k in range(1, 100):
        at_s = now_s + k / RATE_HZ
        safe = made(wanted(stamp_s=at_s), sensed(stamp_s=at_s), at_s)
    assert safe.fault
    return safe


def test_a_reading_that_is_too_old_is_not_where_the_gate_holds():
    made = gate()
    at = run(made, HOME[0], 60, pos=[0.4, 0.4, 0.5])[-1].palm_pos_w
    held = hold_after(made, 61 / RATE_HZ, pos=[0.0, 0.0, 0.3], stamp_s=61 / RATE_HZ - 0.5)
    np.testing.assert_allclose(held.palm_pos_w, at, atol=1e-9)
    np.testing.assert_allclose(held.palm_pos_w, [0.4, 0.4, 0.5], atol=1e-9)


# 0.05 s after a trusted reading at home: palm 0.5 m/s * 0.05 s + 0.15 m = 0.175 m, and 2 rad/s * 0.05 s + 0.7 rad =
# 0.8 rad; joint 0 4 rad/s * 0.05 s + 0.7 / 3.5 rad = 0.4 rad
@pytest.mark.parametrize(
    ("reading", "trusted"),
    [
        ({"pos": [0.17, 0.0, 0.3]}, True),
        ({"pos": [0.18, 0.0, 0.3]}, False),
        ({"pos": [-0.5, -0.5, 0.9]}, False),
        ({"quat": tuple(quat_from_rotvec(np.array([0.0, 0.79, 0.0])))}, True),
        ({"quat": tuple(quat_from_rotvec(np.array([0.0, 0.81, 0.0])))}, False),
        ({"quat": (0.0, 1.0, 0.0, 0.0)}, False),
        ({"quat": (-1.0, 0.0, 0.0, 0.0)}, True),
        ({"joints": [0.39, 0.5, 0.5]}, True),
        ({"joints": [0.41, 0.5, 0.5]}, False),
        ({"joints": [0.1, 0.5, 0.5], "stamp_s": -0.01}, False),  # older than the reset
        ({"pos": [0.1, 0.0, 0.3], "stamp_s": -0.06}, False),
    ],
)
def test_the_gate_holds_at_a_reading_only_if_the_robot_can_have_moved_there(reading, trusted):
    held = hold_after(gate(), 0.05, **reading)
    joints, pos, quat = (reading.get(key, home) for key, home in zip(("joints", "pos", "quat"), HOME, strict=True))
    expected = (joints, pos, quat) if trusted else HOME
    np.testing.assert_allclose(held.joint_target, expected[0], atol=1e-9)
    np.testing.assert_allclose(held.palm_pos_w, expected[1], atol=1e-9)
    assert abs(held.palm_quat_w @ expected[2]) == pytest.approx(1.0, abs=1e-9)


def test_a_gate_that_missed_readings_trusts_what_the_time_since_allows():
    made = gate()
    assert not made(wanted(stamp_s=0.05), sensed(pos=[0.3, 0.0, 0.3], stamp_s=0.05), 0.05).fault  # one wild reading
    held = hold_after(made, 0.4, pos=[0.34, 0.0, 0.3])  # 0.5 m/s * 0.4 s + 0.15 m = 0.35 m from home
    np.testing.assert_allclose(held.palm_pos_w, [0.34, 0.0, 0.3], atol=1e-9)


@pytest.mark.parametrize("back_s", [[1.0], [1.0, 1.0], [0.01], [1.0, 0.5], [1e6], [0.0], [0.0005]])
def test_resets_give_no_time_to_move_in(back_s):
    made = gate()
    joints, pos, now_s = np.array(HOME[0]), np.array(HOME[1]), 100.0
    made.reset(joints, pos, STILL, now_s)
    made(wanted(stamp_s=now_s), sensed(stamp_s=now_s), now_s)
    for _ in range(200):  # 1 kHz, 0.2 s: at 5 m/s^2 from rest a palm moves 5 um in each step of 1 ms
        now_s += 0.001
        for back in back_s:
            made.reset(joints, pos, STILL, now_s - back)
        safe = made(wanted([1.0, 0.5, 0.5], [0.4, 0.0, 0.3], stamp_s=now_s), sensed(joints, pos, stamp_s=now_s), now_s)
        joints, pos = safe.joint_target, safe.palm_pos_w
    assert pos[0] <= 200 * 5e-6 and joints[0] <= 200 * 100.0 * 1e-6


def test_a_gate_follows_on_a_clock_that_began_anew():
    made = gate()
    ask(made, 50.0)
    made.reset(*HOME, 2.0)
    first, second = ask(made, 2.05), ask(made, 2.1)
    assert first.fault == second.fault == ""
    np.testing.assert_allclose(first.palm_pos_w, HOME[1])
    assert 0 < np.linalg.norm(second.palm_pos_w - first.palm_pos_w) <= 5.0 * 0.05**2 + 1e-12


def test_points_that_are_no_longer_given_are_a_fault_until_a_reset_or_their_end():
    def faults(made, given, ticks=20, start=1):
        times = [(k, k / RATE_HZ) for k in range(start, start + ticks)]
        return [
            made(wanted(stamp_s=t), sensed(stamp_s=t, points_stamp_s=t if k in given else None), t) for k, t in times
        ]

    made = gate()
    found = [safe.fault for safe in faults(made, given=(1, 2))]
    assert found[:7] == [""] * 7  # the newest points are of 0.1 s, and 0.3 s are allowed
    assert found[8].startswith("points: 0.3")
    made.reset(*HOME, 1.0)
    assert not any(safe.fault for safe in faults(made, given=(), start=21))
    assert not any(safe.fault for safe in faults(made, given=range(41, 61), start=41))
    made.end_points()
    assert not any(safe.fault for safe in faults(made, given=(), start=61))
    assert faults(made, given=(81,), start=81)[-1].fault.startswith("points")


def ask(made, now_s, goal=(1.0, 1.0, 1.0), pos=(0.4, 0.4, 0.5)):
    """The answer to a far goal at that time, with readings of the same time, or of home's where it is no number."""
    stamp_s = now_s if math.isfinite(now_s) else 0.0
    return made(wanted(goal, pos, stamp_s=stamp_s), sensed(stamp_s=stamp_s), now_s)


def same_targets(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("joint_target", "palm_pos_w", "palm_quat_w")
    )


def test_a_second_call_at_the_same_time_moves_nothing():
    made = gate()
    first = ask(made, 0.05)
    assert same_targets(ask(made, 0.05), first)
    assert not same_targets(ask(made, 0.06), first)


def test_steps_in_less_than_a_period_worked_by_hand():
    # joint 0 at 0.8 of a period: its speed grows by 16 * 0.04 = 0.64 rad/s per tick, up to 2 rad/s
    made, joints, found = gate(joint_acceleration_rad_s2=16.0), HOME[0], []
    for k in (1, 2, 3, 4):
        safe = made(wanted([1.0, 0.5, 0.5], stamp_s=0.04 * k), sensed(joints, stamp_s=0.04 * k), 0.04 * k)
        joints = safe.joint_target
        found.append(joints[0])
    np.testing.assert_allclose(np.diff([0.0, *found]), [0.64 * 0.04, 1.28 * 0.04, 1.92 * 0.04, 2.0 * 0.04])


@pytest.mark.parametrize("factor", [1.25, 1.9, 3.3, 50.0])
def test_limits_hold_per_second_where_the_gate_is_called_faster_than_its_rate(factor):
    made, joints, seen = gate(), np.array(HOME[0]), []
    for k in range(1, int(2 * RATE_HZ * factor)):
        now_s = k / (RATE_HZ * factor)
        safe = made(wanted([1.0, 2.0, 1.5], [0.5, 0.5, 0.8], stamp_s=now_s), sensed(joints, stamp_s=now_s), now_s)
        joints = safe.joint_target
        seen.append((now_s, joints, safe.palm_pos_w))
    for (start_s, q0, p0), (end_s, q1, p1) in (
        (seen[i], seen[j]) for i in range(0, 30, 3) for j in range(i + 1, 60) if j < len(seen)
    ):
        until_s = end_s - start_s
        assert (q1 - q0 <= np.array(HAND.speed_limit_rad_s) * 0.5 * until_s + 1e-9).all()
        assert np.linalg.norm(p1 - p0) <= 0.5 * until_s + 1e-9


@pytest.mark.parametrize("now_s", [math.nan, math.inf, -math.inf, 0.1, 0.03, -5.0])
def test_nothing_moves_while_the_clock_stands_goes_back_or_is_no_number(now_s):
    made = gate()
    for k in (1, 2):
        before = ask(made, 0.05 * k)
    answers = [ask(made, now_s) for _ in range(50)]
    assert all(same_targets(answer, before) for answer in answers)
    assert all(answer.fault.startswith("clock") for answer in answers) == (now_s != 0.1)
    after = ask(made, 0.15)
    assert not same_targets(after, before)  # it brakes, or goes on, once time passes again
    assert np.linalg.norm(after.palm_pos_w - before.palm_pos_w) <= 0.025


def test_a_fault_is_said_at_once_also_to_a_call_that_comes_early():
    made = gate()
    before = ask(made, 0.05)
    made.stop("emergency stop")
    early = ask(made, 0.05)
    assert early.fault == "emergency stop"
    assert same_targets(early, before)


@pytest.mark.parametrize("reason", ["", "   ", None])
def test_a_stop_without_a_reason_is_a_fault_with_a_text(reason):
    made = gate()
    made.stop(reason)
    assert made.fault.strip()
    assert ask(made, 0.05).fault == made.fault


def test_what_a_caller_writes_into_an_answer_or_an_input_changes_nothing():
    made, other = gate(), gate()
    goal, pos = np.array([0.9, 1.9, 1.5]), np.array([0.3, 0.3, 0.5])
    for k in range(1, 30):
        now_s = 0.05 * k
        reading = sensed(pos=made.palm.value.copy(), stamp_s=now_s)
        answer = made(wanted(goal, pos, stamp_s=now_s), reading, now_s)
        twin = other(wanted(goal.copy(), pos.copy(), stamp_s=now_s), reading, now_s)
        assert same_targets(answer, twin)
        for array in (answer.joint_target, answer.palm_pos_w, answer.palm_quat_w, answer.effort_limit_nm):
            array[:] = 99.0
        early = made(wanted(goal, pos, stamp_s=now_s), reading, now_s)
        assert same_targets(early, twin)
        np.testing.assert_array_equal(early.effort_limit_nm, twin.effort_limit_nm)


def test_a_start_outside_the_limits_returns_by_limited_steps():
    made = SafetyGate(HAND, RATE_HZ)
    joints, place = np.array([1.3, 0.0, 1.7]), np.array([0.9, 0.0, 0.02])
    made.reset(joints, place, STILL, 0.0)
    path = []
    for k in range(1, 100):
        now_s = 0.05 * k
        at = (path[-1].joint_target, path[-1].palm_pos_w) if path else (joints, place)
        path.append(made(wanted(stamp_s=now_s), sensed(*at, stamp_s=now_s), now_s))
    assert 0 < 0.9 - path[0].palm_pos_w[0] <= 0.0125  # 5 m/s^2, from rest
    steps = np.diff([place, *(safe.palm_pos_w for safe in path)], axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= 0.025 + 1e-12
    turned = np.diff([joints, *(safe.joint_target for safe in path)], axis=0)
    assert (np.abs(turned) <= np.array(HAND.speed_limit_rad_s) * 0.5 / RATE_HZ + 1e-12).all()
    np.testing.assert_allclose(path[-1].palm_pos_w, HOME[1], atol=1e-9)
    np.testing.assert_allclose(path[-1].joint_target, HOME[0], atol=1e-9)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, 0.5, 1001.0, math.nan, math.inf])
def test_a_rate_that_makes_no_sense_is_refused(rate_hz):
    with pytest.raises(ValueError, match=r"1\.\.1000 Hz"):
        SafetyGate(HAND, rate_hz)


def test_a_gate_that_does_not_know_where_the_robot_is_says_so():
    with pytest.raises(RuntimeError, match="reset"):
        SafetyGate(HAND, RATE_HZ)(wanted(), sensed(), 0.0)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"effort": 1.5}, r"effort must lie in 0\.001\.\.1, got 1\.5"),
        ({"joint_speed": 0.0}, r"joint_speed must lie in 0\.001\.\.1"),
        ({"palm_speed_m_s": math.nan}, "palm_speed_m_s must lie in"),
        ({"palm_speed_m_s": 1e9}, "palm_speed_m_s must lie in"),
        ({"joints_timeout_s": math.inf}, "joints_timeout_s must lie in"),
        ({"box_upper_m": (0.5, 0.5, 1e9)}, "box_upper_m must lie in"),
        ({"box_lower_m": (0.6, 0.0, 0.0)}, "box is empty"),
        ({"joint_margin_rad": 1.0}, "leaves a joint no room"),
    ],
)
def test_limits_that_make_no_sense_are_refused(given, error):
    with pytest.raises(ValueError, match=error):
        gate(**given)


def test_a_gate_does_not_begin_blind():
    with pytest.raises(ValueError, match=r"\['joint_pos'\] are not finite, or of the wrong length"):
        SafetyGate(HAND, RATE_HZ).reset([0.0, math.nan, 0.0], *HOME[1:], 0.0)


class Watch:
    """Limits of a gate, checked from its answers and the times of the calls alone."""

    def __init__(self, made, now_s):
        self.cfg, self.dt = made.cfg, made.period_s
        lower, upper = np.array(HAND.joint_lower_rad), np.array(HAND.joint_upper_rad)
        margin = self.cfg.joint_margin_rad
        self.joint_range, self.box = (lower + margin, upper - margin), (self.cfg.lower_m, self.cfg.box_upper_m)
        self.speeds = (
            np.minimum(np.array(HAND.speed_limit_rad_s) * self.cfg.joint_speed, self.cfg.joint_step_rad / self.dt),
            self.cfg.palm_speed_m_s,
            self.cfg.palm_speed_rad_s,
        )
        self.accelerations = (
            self.cfg.joint_acceleration_rad_s2,
            self.cfg.palm_acceleration_m_s2,
            self.cfg.palm_acceleration_rad_s2,
        )
        self.restart(made, now_s)

    def restart(self, made, now_s):
        self.latest_s, self.unsure_s = now_s, 0.0
        self.last = made.joints.value.copy(), made.palm.value.copy(), made.turn.quat.copy()
        self.velocity = [np.zeros(3)] * 3
        self.fault = ""

    def answer(self, safe, now_s):
        """Check an answer against the one before."""
        new = safe.joint_target.copy(), safe.palm_pos_w.copy(), safe.palm_quat_w.copy()
        assert all(np.isfinite(value).all() for value in new)
        assert np.linalg.norm(new[2]) == pytest.approx(1.0, abs=1e-9)
        self._stays_inside(new[0], self.last[0], *self.joint_range)
        self._stays_inside(new[1], self.last[1], *self.box)
        turn = rotvec_from_quat(quat_multiply(new[2], self.last[2] * (1, -1, -1, -1)))
        steps = new[0] - self.last[0], new[1] - self.last[1], turn
        elapsed_s = now_s - self.latest_s if math.isfinite(now_s) and now_s > self.latest_s else 0.0
        if elapsed_s < 1e-5 * self.dt:
            assert max(np.abs(step).max() for step in steps) <= 1e-5, "it moved although no time passed"
            self.unsure_s = 1e-5 * self.dt  # the gate may have counted this time or not
            return
        self._keeps_to_time(steps, elapsed_s)
        self.latest_s = now_s
        self.last = new

    def _keeps_to_time(self, steps, elapsed_s):
        tick_s = min(elapsed_s, self.dt)
        for step, speed, acceleration, i in zip(steps, self.speeds, self.accelerations, range(3), strict=True):
            size = np.abs if i == 0 else np.linalg.norm  # joints have their own limits
            assert np.all(size(step) <= speed * (tick_s + self.unsure_s) + 1e-9)
            change = step / tick_s - self.velocity[i]
            unsure = (acceleration + speed / tick_s) * self.unsure_s
            assert np.all(size(change) <= acceleration * tick_s + unsure + 1e-6)
            self.velocity[i] = step / tick_s
        self.velocity = list(self.velocity)

    @staticmethod
    def _stays_inside(new, last, lower, upper):
        """Within the range, or on the way back into it."""
        assert (new >= np.minimum(lower, last) - 1e-12).all()
        assert (new <= np.maximum(upper, last) + 1e-12).all()


NUMBER = st.floats(width=64) | st.floats(-4, 4)
ROW = st.lists(NUMBER, min_size=3, max_size=3) | st.lists(NUMBER, max_size=5) | st.sampled_from([None, "x", 1e300])
SANE = st.lists(st.floats(-4, 4), min_size=3, max_size=3)
NEAR = st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3)
PERIODS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.74, 0.76, 0.9, 1.0, 1.0, 1.0, 1.4, 3.0, -1.0, -0.1]) | st.floats(0, 2)
BROKEN = st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300])


def plausible(joints, place):
    """Joints and palm next to these from which a gate with default limits may start."""
    lower, upper = np.array(HAND.joint_lower_rad), np.array(HAND.joint_upper_rad)
    return np.clip(joints, lower - 0.49, upper + 0.49), np.clip(place, (-1.49, -1.49, -0.93), (1.49, 1.49, 1.79))


class GateMachine(RuleBasedStateMachine):
    """Any sequence of calls, faults, stops and resets."""

    @initialize(
        cfg=st.fixed_dictionaries(
            {"joint_acceleration_rad_s2": st.sampled_from([4.0, 30.0, 100.0]), "palm_speed_m_s": st.floats(0.05, 1.0)}
        ),
        rate_hz=st.sampled_from([10.0, 20.0, 50.0, 200.0]),
        now_s=st.sampled_from([0.0, 12.5, -3.0, 1e6]),
        start=SANE,
    )
    def begin(self, cfg, rate_hz, now_s, start):
        self.made, self.now_s = SafetyGate(HAND, rate_hz, SafetyCfg(**cfg)), now_s
        self.made.reset(*plausible(start, np.array(start) / 4), STILL, now_s)
        self.watch = Watch(self.made, now_s)

    def call(self, periods, goal, place, quat, measured=None, now_s=None, palm=None):
        """A call with readings of its own time."""
        self.now_s += periods * self.made.period_s
        now_s = self.now_s if now_s is None else now_s
        joints = self.made.joints.value + np.array(measured if measured else [0.0] * 3)
        palm = self.made.palm.value if palm is None else palm
        reading = MeasuredState(joints, palm, self.made.turn.quat, self.now_s)
        safe = self.made(DesiredCommand(goal, place, quat, self.now_s), reading, now_s)
        assert safe.fault.strip() if self.watch.fault else True
        self.watch.fault = safe.fault
        self.watch.answer(safe, now_s)
        for array in (safe.joint_target, safe.palm_pos_w, safe.palm_quat_w):
            array[:] = math.nan

    def recover(self):
        """Start again where the targets are, after a fault."""
        if self.watch.fault and abs(self.now_s) < 1e15:
            made = self.made
            made.reset(*plausible(made.joints.value, made.palm.value), made.turn.quat, self.now_s)
            self.watch.restart(made, self.now_s)

    @rule(goal=SANE, place=SANE, turn=SANE, measured=NEAR, calls=st.integers(1, 6), again=st.booleans())
    def follow(self, goal, place, turn, measured, calls, again):
        if again:
            self.recover()
        for _ in range(calls):
            self.call(1.0, goal, place, quat_from_rotvec(np.array(turn)), measured)

    @rule(goal=SANE, place=SANE, turn=SANE, periods=st.lists(PERIODS, min_size=1, max_size=6), again=st.booleans())
    def call_at_other_times(self, goal, place, turn, periods, again):
        if again:
            self.recover()
        for part in periods:
            self.call(part, goal, place, quat_from_rotvec(np.array(turn)))

    @rule(goal=ROW, place=ROW, quat=ROW)
    def give_nonsense(self, goal, place, quat):
        self.call(1.0, goal, place, quat)

    @rule(place=SANE, palm=ROW | SANE, calls=st.integers(1, 25))
    def leave_the_palm_elsewhere(self, place, palm, calls):
        for _ in range(calls):
            self.call(1.0, [0.0] * 3, place, STILL, palm=palm if palm is not None else "nowhere")

    @rule(now_s=BROKEN, calls=st.integers(1, 3))
    def break_the_clock(self, now_s, calls):
        for _ in range(calls):
            self.call(0.0, [0.0] * 3, [0.0] * 3, STILL, now_s=now_s)
        if math.isfinite(now_s):
            self.now_s = max(self.now_s, now_s)

    @rule(reason=st.sampled_from(["", "emergency stop"]))
    def stop(self, reason):
        self.made.stop(reason)
        self.call(0.2, [1.0] * 3, [0.1] * 3, STILL)
        assert self.watch.fault

    @rule(joints=SANE, place=SANE, quat=st.lists(st.floats(-1, 1), min_size=4, max_size=4))
    def reset(self, joints, place, quat):
        size = np.linalg.norm(quat)
        if size > 0.1 and abs(self.now_s) < 1e15:
            self.made.reset(*plausible(joints, place), np.array(quat) / size, self.now_s)
            self.watch.restart(self.made, self.now_s)


class LongGateMachine(GateMachine):
    """Far more of them."""


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestGateLong = pytest.mark.slow(LongGateMachine.TestCase)
TestGateLong.settings = settings(max_examples=700, stateful_step_count=80, deadline=None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0.01, 0.2), st.floats(0.005, 0.1))
def test_a_turn_never_exceeds_its_acceleration(turn, step, change):
    limiter = RotationRateLimiter(step, change)
    limiter.reset(np.array(STILL))
    before = limiter.velocity
    for _ in range(30):
        limiter.step_towards(quat_from_rotvec(3 * np.array(turn)))
        assert np.linalg.norm(limiter.velocity - before) <= change + 1e-12
        before = limiter.velocity


@pytest.mark.parametrize(("box_z", "clearance", "lowest"), [(0.0, 0.06, 0.06), (0.1, 0.06, 0.1), (-0.5, 0.0, 0.0)])
def test_the_palm_stays_above_both_the_box_and_the_table(box_z, clearance, lowest):
    cfg = SafetyCfg(box_lower_m=(-0.4, -0.3, box_z), table_clearance_m=clearance)
    assert cfg.lower_m == (-0.4, -0.3, lowest)
