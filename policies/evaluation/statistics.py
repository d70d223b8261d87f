"""Compute success rates, their confidence intervals, and percentiles of trials."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % confidence interval (low, high) of the success rate of `successes` out of `trials`.

    E. B. Wilson, JASA 22 (1927) 209-212. Unlike p ± z·sqrt(p(1-p)/n) it stays inside [0, 1] and does not shrink to a
    point at 0 or all successes.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"wilson_interval needs 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def success_summary(successes: int, trials: int) -> dict[str, Any]:
    """Return success_rate, successes, trials and wilson95 [low, high], the keys of result.json."""
    return {
        "success_rate": successes / trials,
        "successes": successes,
        "trials": trials,
        "wilson95": list(wilson_interval(successes, trials)),
    }


def count_by(names: Iterable[str], flags: Iterable[bool]) -> dict[str, dict[str, int]]:
    """Return {name: {successes, trials}}, sorted by name, from one name and one success flag per trial."""
    counts: dict[str, dict[str, int]] = {}
    for name, flag in zip(names, flags, strict=True):
        entry = counts.setdefault(name, {"successes": 0, "trials": 0})
        entry["successes"] += bool(flag)
        entry["trials"] += 1
    return dict(sorted(counts.items()))


def pool(counts: Mapping[str, Mapping[str, int]], group_of: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return {group: {successes, trials}}, worst rate first.

    Input: counts by name, and the group of each name.
    """
    pools: dict[str, dict[str, int]] = {}
    for name, row in counts.items():
        entry = pools.setdefault(group_of[name], {"successes": 0, "trials": 0})
        entry["successes"] += row["successes"]
        entry["trials"] += row["trials"]
    return dict(sorted(pools.items(), key=lambda item: item[1]["successes"] / item[1]["trials"]))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` % of the values do not exceed (nearest rank)."""
    if not len(values):
        raise ValueError("percentile of no values: give at least one")
    return float(np.percentile(values, percent, method="inverted_cdf"))
