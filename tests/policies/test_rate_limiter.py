"""Rate limiters: ticks worked by hand, orientations against scipy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dexgrasp.policies.deploy.rate_limiter import RateLimiter, RotationRateLimiter, max_stoppable_step

AXIS = np.array([2.0, -3.0, 6.0]) / 7
START = Rotation.from_rotvec([0.4, 1.1, -0.7])


def wxyz(rotation):
    return rotation.as_quat(scalar_first=True)


def turned(limiter, start=START):
    """The rotation vector in the world frame from the start to where a limiter is."""
    return (Rotation.from_quat(limiter.quat, scalar_first=True) * start.inv()).as_rotvec()


def limiter_at(start=START, max_step=0.3, max_change=0.1):
    made = RotationRateLimiter(max_step, max_change)
    made.reset(wxyz(start))
    return made


@pytest.mark.parametrize("sign", [1.0, -1.0])  # q and -q are one orientation: both are reached the short way
@pytest.mark.parametrize("length", [1.0, 0.25, 3.0])
def test_a_turn_speeds_up_brakes_and_arrives(sign, length):
    made = limiter_at()
    goal = sign * length * wxyz(Rotation.from_rotvec(1.2 * AXIS) * START)
    for angle in (0.1, 0.3, 0.6, 0.9, 1.1, 1.2, 1.2):  # steps of 0.1, 0.2, 0.3, 0.3, 0.2, 0.1: what is left is braked
        returned = made.step_towards(goal)
        np.testing.assert_allclose(turned(made), angle * AXIS, atol=1e-12)
        np.testing.assert_array_equal(returned, made.quat)
        assert np.linalg.norm(returned) == pytest.approx(1.0, abs=1e-15)


def test_a_turn_that_braking_does_not_limit_is_one_step():
    made = limiter_at(max_step=0.5, max_change=0.4)
    made.step_towards(wxyz(Rotation.from_rotvec(0.35 * AXIS) * START))
    np.testing.assert_allclose(turned(made), 0.35 * AXIS, atol=1e-12)
    for _ in range(3):  # from 0.35 rad per tick to none needs no more than one tick of 0.4
        made.step_towards(wxyz(Rotation.from_rotvec(0.35 * AXIS) * START))
        np.testing.assert_allclose(turned(made), 0.35 * AXIS, atol=1e-12)


def test_a_turn_about_another_axis_changes_the_step_by_its_limit():
    """From 0.2 rad per tick about z to 0.15 about x: of the difference (0.15, 0, -0.2) two fifths are allowed."""
    made = limiter_at(Rotation.identity())
    for _ in range(2):
        made.step_towards(wxyz(Rotation.from_rotvec([0, 0, 2.0])))
    here = Rotation.from_quat(made.quat, scalar_first=True)
    np.testing.assert_allclose(here.as_rotvec(), [0, 0, 0.3], atol=1e-12)
    made.step_towards(wxyz(Rotation.from_rotvec([0.2, 0, 0]) * here))
    np.testing.assert_allclose(turned(made, here), [0.06, 0, 0.2 - 0.08], atol=1e-12)


def test_braking_on_either_side_of_another_tick():
    """One tick covers 1, two cover 3 = 2 + 1, three cover 6; a little more needs one more, of D / n + (n - 1) / 2."""
    distance = np.array([0.99, 1.01, 2.99, 3.01, 5.99, 6.01])
    by_hand = [0.99, 0.505 + 0.5, 1.495 + 0.5, 3.01 / 3 + 1, 5.99 / 3 + 1, 6.01 / 4 + 1.5]
    np.testing.assert_allclose(max_stoppable_step(distance, np.array(1.0)), by_hand, rtol=1e-12)
    np.testing.assert_allclose(max_stoppable_step(0.04 * distance, np.array(0.04)), 0.04 * np.array(by_hand))


def test_a_limiter_of_turns_begins_at_rest_at_the_identity():
    made = RotationRateLimiter(0.3, 0.1)
    np.testing.assert_array_equal(made.quat, [1, 0, 0, 0])
    made.step_towards(wxyz(Rotation.from_rotvec(AXIS)))
    np.testing.assert_allclose(turned(made, Rotation.identity()), 0.1 * AXIS, atol=1e-12)


def test_a_reset_stops_a_turn_at_an_orientation_of_any_length():
    made = limiter_at()
    for _ in range(3):
        made.step_towards(wxyz(Rotation.from_rotvec(2 * AXIS) * START))
    made.reset(5 * wxyz(START))
    np.testing.assert_allclose(made.quat, wxyz(START), atol=1e-15)
    made.step_towards(wxyz(Rotation.from_rotvec(-2 * AXIS) * START))
    np.testing.assert_allclose(turned(made), -0.1 * AXIS, atol=1e-12)


def test_values_begin_at_rest_in_the_middle_and_have_limits_of_their_own():
    made = RateLimiter([-1, 0.0, 2.0], [3, 1.0, 2.5], max_step=[0.3, 0.05, 1.0], max_change=[0.2, 1.0, 0.1])
    np.testing.assert_array_equal(made.value, [1.0, 0.5, 2.25])
    path = [made.step_towards(np.array([9.0, -9.0, 2.35])).tolist() for _ in range(2)]
    # speed up by 0.2, then to 0.3; 0.05 at once; 0.1 at once
    np.testing.assert_allclose(path, [[1.2, 0.45, 2.35], [1.5, 0.4, 2.35]], atol=1e-12)


def test_a_reset_stops_the_values():
    made = RateLimiter([-10.0], [10.0], max_step=3.0, max_change=1.0)
    made.reset(np.array([2.0]))
    for _ in range(3):
        made.step_towards(np.array([9.0]))
    made.reset(np.array([-4.0]))
    assert made.value.tolist() == [-4.0]
    assert made.step_towards(np.array([-9.0])).tolist() == [-5.0]


def test_limits_are_not_those_of_an_array_that_the_caller_changes():
    lower, upper, step, change = np.array([-1.0]), np.array([1.0]), np.array([0.5]), np.array([0.5])
    made = RateLimiter(lower, upper, step, change)
    for array in (lower, upper, step, change):
        array[:] = 99.0
    path = [float(made.step_towards(np.array([9.0]))[0]) for _ in range(30)]
    assert path[0] == 0.5 and path[-1] == pytest.approx(1.0) and max(path) <= 1.0


@pytest.mark.parametrize("goal", [7.25, -7.25])
def test_no_bound_is_passed_at_full_speed(goal):
    """Steps of 1, 2, 3, then 2.25 - 1.25 as braking for 1.25 within 7.25 - 6 asks."""
    made = RateLimiter([-7.25], [7.25], max_step=3.0, max_change=1.0)
    path = [abs(float(made.step_towards(np.array([2 * goal]))[0])) for _ in range(30)]
    assert max(path) <= 7.25 and path[-1] == pytest.approx(7.25)
    steps = np.diff([0.0, *path])
    assert max(steps) <= 3.0 and np.abs(np.diff([0.0, *steps])).max() <= 1.0 + 1e-12


def test_a_turn_in_shorter_ticks_speeds_up_by_time():
    """0.8 of a period: 0.1 * 0.64 more with each tick, up to 0.3 * 0.8; braking of 0.064 per tick at the end."""
    made = limiter_at()
    goal = wxyz(Rotation.from_rotvec(3.0 * AXIS) * START)
    angles = []
    for _ in range(6):
        made.step_towards(goal, 0.8)
        angles.append(turned(made) @ AXIS)
    np.testing.assert_allclose(np.diff([0.0, *angles]), [0.064, 0.128, 0.192, 0.24, 0.24, 0.24], atol=1e-12)


@pytest.mark.parametrize("fraction", [0.75, 0.8, 0.9])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_ticks_that_become_shorter_before_a_bound_keep_the_deceleration(fraction, side):
    """At full speed towards a bound: whatever tick is the first short one, speed falls no faster than it may."""
    for full in range(3, 12):
        made = RateLimiter([-20.0 if side > 0 else -7.3], [7.3 if side > 0 else 20.0], max_step=3.0, max_change=1.0)
        made.reset(np.array([-side * 15.0]))
        speed, position = 0.0, -side * 15.0
        for tick in range(80):
            part = 1.0 if tick < full else fraction
            moved = float(made.step_towards(np.array([side * 50.0]), part)[0]) - position
            assert abs(moved / part - speed) <= 1.0 * max(part, 1.0 if tick == full else part) + 1e-9
            speed, position = moved / part, position + moved
        assert position == pytest.approx(side * 7.3, abs=1e-6)
