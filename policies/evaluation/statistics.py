"""Compute success rates, their confidence intervals, percentiles, and paired comparisons of trials."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from dexgrasp.sim.task.outcomes import Outcome

FEW = 10
"""Fewer trials than this give no rate worth a line of its own: reports collapse such groups."""


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


def rate_with_interval(row: Mapping[str, Any]) -> str:
    """Return the success rate and its 95 % interval of a `success_summary`: "96.0 % (92.3 – 98.0)"."""
    low, high = row["wilson95"]
    return f"{100 * row['success_rate']:.1f} % ({100 * low:.1f} – {100 * high:.1f})"


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


@dataclass(frozen=True)
class Paired:
    """Outcomes of two policies on identical trials."""

    both: int
    gained: list[Outcome]
    """Outcomes of B in the trials where only B succeeds."""
    lost: list[Outcome]
    """Outcomes of B in the trials where only A succeeds."""
    neither: int

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.both + self.neither + len(self.gained) + len(self.lost)

    @property
    def difference(self) -> float:
        """Success rate of B minus that of A."""
        return (len(self.gained) - len(self.lost)) / self.trials

    def p_value(self, alternative: str = "two-sided") -> float:
        """Return the p-value of McNemar's exact test: gains among the trials that differ, both equally likely."""
        differing = len(self.gained) + len(self.lost)
        return float(binomtest(len(self.gained), differing, 0.5, alternative).pvalue) if differing else 1.0


def pair(a: Sequence[Outcome], b: Sequence[Outcome]) -> Paired:
    """Pair the outcomes of A and B trial by trial; raises ValueError where the trials differ."""
    keys = [[(outcome.disturbance, outcome.trial, outcome.object) for outcome in side] for side in (a, b)]
    if keys[0] != keys[1]:
        raise ValueError(f"the two evaluations are not about the same trials: {len(a)} and {len(b)} of them")
    both = list(zip(a, b, strict=True))
    return Paired(
        both=sum(x.success and y.success for x, y in both),
        gained=[y for x, y in both if y.success and not x.success],
        lost=[y for x, y in both if x.success and not y.success],
        neither=sum(not x.success and not y.success for x, y in both),
    )
