"""Success rates and their intervals, against numbers worked by hand."""

import pytest

from dexgrasp.policies.evaluation.statistics import count_by, percentile, pool, success_summary, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # z^2 = 3.8415: (0.8 + 0.19207 -+ 1.95996 sqrt(0.016 + 0.0096036)) / 1.38415
        (8, 10, 0.4902, 0.9433),
        # at no success the interval is [0, z^2 / (n + z^2)] = [0, 3.8415 / 13.8415]
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        # at one half it is 0.5 -+ 1.95996 / (2 sqrt(n + z^2))
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_the_wilson_interval_of_hand_worked_cases(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_the_wilson_interval_solves_its_defining_equation():
    # its ends are the rates p at which |k/n - p| = z sqrt(p (1 - p) / n)
    for p in wilson_interval(57, 300):
        assert abs(57 / 300 - p) == pytest.approx(1.959963984540054 * (p * (1 - p) / 300) ** 0.5, rel=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused_with_the_numbers(successes, trials):
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson_interval(successes, trials)


def test_a_summary_holds_rate_counts_and_interval():
    assert success_summary(8, 10) == {
        "success_rate": 0.8,
        "successes": 8,
        "trials": 10,
        "wilson95": pytest.approx([0.4902, 0.9433], abs=5e-5),
    }


def test_counts_are_sorted_by_name():
    counts = count_by(["mug", "box", "mug"], [True, False, False])
    assert counts == {"box": {"successes": 0, "trials": 1}, "mug": {"successes": 1, "trials": 2}}
    assert list(counts) == ["box", "mug"]


def test_a_percentile_is_one_of_the_values():
    values = [float(i) for i in range(1, 201)]
    assert percentile(values, 99) == 198.0  # 198 of 200 values do not exceed it
    assert percentile(values, 50) == 100.0
    assert percentile([3.0, 1.0, 2.0], 100) == 3.0
    assert percentile([5.0], 0) == 5.0
    assert percentile([4.0, 3.0, 2.0, 1.0], 25) == 1.0  # one of four does not exceed 1
    assert percentile([4.0, 3.0, 2.0, 1.0], 25.1) == 2.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_pooling_adds_up_groups_and_puts_the_worst_first():
    counts = {name: {"successes": won, "trials": 4} for name, won in (("mug_1", 4), ("mug_2", 3), ("pen_1", 1))}
    pooled = pool(counts, {"mug_1": "mug", "mug_2": "mug", "pen_1": "pen"})
    assert list(pooled.items()) == [("pen", {"successes": 1, "trials": 4}), ("mug", {"successes": 7, "trials": 8})]
