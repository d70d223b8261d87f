"""The safety gate: hand-worked steps, every fault, and no sequence of inputs that gets a command past the limits."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    """Ticks in which the joints follow (or stay at home); every answer."""
    found, joints = [], HOME[0]
    for k in range(1, ticks + 1):
        now_s = k / RATE_HZ
        found.append(made(wanted(goal, stamp_s=now_s, **poses), sensed(joints, stamp_s=now_s), now_s))
        joints = found[-1].joint_target if follow else joints
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
        found = run(gate(effort=effort), [1.0, 2.0, 1.5], 20, follow=False)
        lead = effort * np.array([0.2, 0.2, 0.4])
        np.testing.assert_allclose(found[-1].joint_target, HOME[0] + lead, atol=1e-12)
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


def test_a_call_that_comes_too_early_repeats_the_last_answer():
    made = gate()
    first = made(wanted([1.0, 1.0, 1.0], stamp_s=0.05), sensed(stamp_s=0.05), 0.05)
    assert made(wanted([1.0, 1.0, 1.0], stamp_s=0.06), sensed(stamp_s=0.06), 0.06) is first


def test_a_gate_that_does_not_know_where_the_robot_is_says_so():
    with pytest.raises(RuntimeError, match="reset"):
        SafetyGate(HAND, RATE_HZ)(wanted(), sensed(), 0.0)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"effort": 1.5}, "effort must lie in 0.001..1, got 1.5"),
        ({"joint_speed": 0.0}, "joint_speed must lie in 0.001..1, got 0.0"),
        ({"palm_speed_m_s": math.nan}, "palm_speed_m_s must lie in 0.001..10, got nan"),
        ({"box_lower_m": (0.6, 0.0, 0.0)}, "box is empty"),
        ({"joint_margin_rad": 1.0}, "leaves a joint no room"),
    ],
)
def test_limits_that_make_no_sense_are_refused(given, error):
    with pytest.raises(ValueError, match=error):
        gate(**given)


def test_a_gate_does_not_begin_blind():
    with pytest.raises(ValueError, match=r"\['joint_pos'\] are not finite or of the wrong length"):
        SafetyGate(HAND, RATE_HZ).reset([0.0, math.nan, 0.0], *HOME[1:], 0.0)


NUMBER = st.floats(width=64) | st.floats(-4, 4)
TIME = st.floats(0, 3) | st.sampled_from([math.nan, math.inf, -math.inf, -1.0])
ROW = st.lists(NUMBER, min_size=3, max_size=3) | st.lists(NUMBER, max_size=5) | st.none()
QUAT = st.lists(st.floats(-1, 1), min_size=4, max_size=4) | st.sampled_from([STILL, (0.0, 0.0, 1.0, 0.0)]) | ROW
TICK = st.tuples(ROW, ROW, QUAT, TIME, ROW, ROW, QUAT, TIME, st.none() | TIME, st.floats(0, 0.2) | TIME)
SANE = st.lists(st.floats(-4, 4), min_size=3, max_size=3)


def keeps_its_limits(made, answers):
    """Position, speed and acceleration of everything that was sent, from where it stood when it began."""
    dt, cfg = 1 / RATE_HZ, made.cfg
    joints = np.array([HOME[0], *(safe.joint_target for safe in answers)])
    palm = np.array([HOME[1], *(safe.palm_pos_w for safe in answers)])
    quats = [np.array(STILL), *(safe.palm_quat_w for safe in answers)]
    assert np.isfinite(joints).all()
    assert np.isfinite(palm).all()
    lower, upper = np.array(HAND.joint_lower_rad), np.array(HAND.joint_upper_rad)
    assert (joints >= lower + cfg.joint_margin_rad).all()
    assert (joints <= upper - cfg.joint_margin_rad).all()
    assert (palm >= cfg.lower_m).all()
    assert (palm <= cfg.box_upper_m).all()
    steps = np.diff(np.vstack([joints[:1], joints]), axis=0)  # the first one, at rest, included
    assert (np.abs(steps) <= np.array(HAND.speed_limit_rad_s) * cfg.joint_speed * dt + 1e-9).all()
    assert (np.abs(np.diff(steps, axis=0)) <= cfg.joint_acceleration_rad_s2 * dt**2 + 1e-9).all()
    moves = np.diff(np.vstack([palm[:1], palm]), axis=0)
    assert (np.linalg.norm(moves, axis=1) <= cfg.palm_speed_m_s * dt + 1e-9).all()
    assert (np.linalg.norm(np.diff(moves, axis=0), axis=1) <= cfg.palm_acceleration_m_s2 * dt**2 + 1e-9).all()
    for before, after in pairwise(quats):
        assert np.linalg.norm(after) == pytest.approx(1.0, abs=1e-9)
        angle = np.linalg.norm(rotvec_from_quat(quat_multiply(after, before * (1, -1, -1, -1))))
        assert angle <= cfg.palm_speed_rad_s * dt + 1e-6


@settings(max_examples=150, deadline=None)
@given(ticks=st.lists(TICK, max_size=25), slow=st.sampled_from([4.0, 30.0, 100.0]))
def test_no_sequence_of_inputs_gets_a_command_past_the_limits(ticks, slow):
    made = gate(joint_acceleration_rad_s2=slow)
    answers = [
        made(DesiredCommand(joints, pos, quat, at), MeasuredState(seen, place, turn, read, points), now_s)
        for joints, pos, quat, at, seen, place, turn, read, points, now_s in ticks
    ]
    # what is asked for too early is the last answer, no command of a period of its own
    keeps_its_limits(made, [answer for last, answer in pairwise([None, *answers]) if answer is not last])


@settings(max_examples=150, deadline=None)
@given(ticks=st.lists(st.tuples(SANE, SANE, SANE), max_size=40), slow=st.sampled_from([4.0, 30.0, 100.0]))
def test_no_wild_command_gets_past_the_limits_while_nothing_is_at_fault(ticks, slow):
    made, joints, answers = gate(joint_acceleration_rad_s2=slow), HOME[0], []
    for k, (goal, place, turn) in enumerate(ticks, 1):
        now_s, quat = k / RATE_HZ, quat_from_rotvec(np.array(turn))
        answers.append(made(wanted(goal, place, quat, now_s), sensed(joints, stamp_s=now_s), now_s))
        joints = answers[-1].joint_target
    assert all(safe.fault == "" for safe in answers)
    keeps_its_limits(made, answers)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0.01, 0.2), st.floats(0.005, 0.1))
def test_a_turn_never_exceeds_its_acceleration(turn, step, change):
    limiter = RotationRateLimiter(step, change)
    limiter.reset(np.array(STILL))
    before = limiter.step
    for _ in range(30):
        limiter.step_towards(quat_from_rotvec(3 * np.array(turn)))
        assert np.linalg.norm(limiter.step - before) <= change + 1e-12
        before = limiter.step
