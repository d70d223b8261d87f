"""Success rates with their uncertainty."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Interval (low, high) that holds the true success rate of `successes` out of `trials`, 95 % by default.

    E. B. Wilson, JASA 22 (1927) 209-212. Unlike p ± z·sqrt(p(1-p)/n) it stays inside [0, 1] and does not shrink to a
    point at 0 or all successes.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"wilson_interval needs 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def success_summary(successes: int, trials: int) -> dict[str, Any]:
    """success_rate, successes, trials and wilson95 [low, high], as they stand in result.json."""
    return {
        "success_rate": successes / trials,
        "successes": successes,
        "trials": trials,
        "wilson95": list(wilson_interval(successes, trials)),
    }


def count_by(names: Iterable[str], flags: Iterable[bool]) -> dict[str, dict[str, int]]:
    """{name: {successes, trials}}, names sorted, from one name and one flag per trial."""
    counts: dict[str, dict[str, int]] = {}
    for name, flag in zip(names, flags, strict=True):
        entry = counts.setdefault(name, {"successes": 0, "trials": 0})
        entry["successes"] += bool(flag)
        entry["trials"] += 1
    return dict(sorted(counts.items()))


def pool(counts: Mapping[str, Mapping[str, int]], group_of: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """{group: {successes, trials}}, worst first, from {name: {successes, trials}} and the group of each name."""
    pools: dict[str, dict[str, int]] = {}
    for name, row in counts.items():
        entry = pools.setdefault(group_of[name], {"successes": 0, "trials": 0})
        entry["successes"] += row["successes"]
        entry["trials"] += row["trials"]
    return dict(sorted(pools.items(), key=lambda item: item[1]["successes"] / item[1]["trials"]))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("percentile of no values")
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]
