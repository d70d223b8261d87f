"""When the grasp node ticks: at 20 Hz on average, right after a cloud, whatever the rate of the camera."""

import numpy as np
import pytest

from dexgrasp_ros.grasping.tick_schedule import TickSchedule

PERIOD_S = 0.05


def ticks(clouds_s, end_s):
    """Times of all ticks, and how many of them were started by a cloud."""
    schedule = TickSchedule(PERIOD_S)
    times, started = [], 0
    due_s, clouds_s = 0.0, list(clouds_s)
    while (now_s := min(due_s, clouds_s[0] if clouds_s else np.inf)) < end_s:
        if clouds_s and now_s == clouds_s[0]:
            clouds_s.pop(0)
            if not schedule.cloud_arrived(now_s):
                continue
            started += 1
        times.append(now_s)
        due_s = now_s + schedule.ticked(now_s)
    return np.array(times), started


@pytest.mark.parametrize("rate_hz", [20.0, 25.0, 30.0, 40.0, 60.0, 90.0])
def test_ticks_follow_clouds_at_the_rate_of_the_policy(rate_hz):
    clouds_s = np.arange(0.013, 60.0, 1 / rate_hz)
    times, started = ticks(clouds_s, 60.0)
    assert len(times) / 60.0 == pytest.approx(20.0, rel=0.01)
    assert started >= len(times) - 2
    assert np.diff(times).min() >= 0.5 * PERIOD_S - 1e-9
    assert np.diff(times).max() <= 1.75 * PERIOD_S + 1e-9


def test_at_30_hz_every_other_interval_is_one_frame():
    times, _ = ticks(np.arange(0.0, 2.0, 1 / 30), 2.0)
    np.testing.assert_allclose(np.diff(times[2:10]) * 30, [2, 1, 2, 1, 2, 1, 2], atol=1e-9)


def test_without_clouds_ticks_are_one_period_apart():
    times, started = ticks([], 1.0)
    np.testing.assert_allclose(np.diff(times), PERIOD_S)
    assert started == 0


def test_a_cloud_that_stays_away_costs_half_a_period_and_then_none():
    clouds_s = np.arange(0.0, 0.5, 0.05)
    times, _ = ticks(clouds_s, 1.5)
    after = np.diff(times[times >= 0.449])
    assert after[0] == pytest.approx(1.5 * PERIOD_S)
    np.testing.assert_allclose(after[3:], PERIOD_S)  # no longer waited for


def test_late_clouds_at_random_neither_starve_nor_flood():
    rng = np.random.default_rng(0)
    clouds_s = np.cumsum(rng.exponential(1 / 30, 3000))
    times, _ = ticks(clouds_s, float(clouds_s[-1]))
    assert 18.0 < len(times) / clouds_s[-1] < 21.0
    assert np.diff(times).min() >= 0.5 * PERIOD_S - 1e-9
    assert np.diff(times).max() <= 1.75 * PERIOD_S + 1e-9


def test_a_clock_that_starts_anew_starts_a_new_schedule():
    schedule = TickSchedule(PERIOD_S)
    for now_s in (100.0, 100.05, 100.1):
        schedule.ticked(now_s)
    assert schedule.ticked(5.0) == pytest.approx(PERIOD_S)
    assert schedule.cloud_arrived(5.04)
