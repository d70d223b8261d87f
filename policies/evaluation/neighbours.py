"""Trials among other objects: success by contact, and what happened to the others, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from dexgrasp.policies.evaluation.statistics import rate_with_interval, success_summary
from dexgrasp.sim.clutter import CONTACT_CLASSES
from dexgrasp.sim.task.outcomes import Outcome

DISTURBED = ("moved", "toppled", "fallen")
"""What is counted of the neighbours; one of them may be counted in each."""
HEAD = (
    "wanted object",
    "trials",
    "first attempt (95 % interval)",
    "success (95 % interval)",
    "neighbours",
    "moved > 5 cm",
    "toppled",
    "fell off",
    "trials without any of these",
)


def count_neighbours(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return counts of all trials and by contact of the wanted object; empty where it always stood alone."""
    among = [outcome for outcome in outcomes if outcome.contact]
    if not among:
        return {}
    by_contact = {name: [one for one in among if one.contact == name] for name in CONTACT_CLASSES}
    return {
        "all": _counts(among),
        "by_contact": {name: _counts(trials) for name, trials in by_contact.items() if trials},
    }


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    disturbed = {key: [getattr(one, f"neighbours_{key}") for one in outcomes] for key in DISTURBED}
    return {
        "trials": len(outcomes),
        "first_attempt": sum(one.success and one.attempts == 1 for one in outcomes),
        "successes": sum(one.success for one in outcomes),
        "neighbours": sum(one.neighbours for one in outcomes),
        **{key: sum(counts) for key, counts in disturbed.items()},
        "undisturbed_trials": sum(not any(counts) for counts in zip(*disturbed.values(), strict=True)),
    }


def neighbour_rows(counts: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows under HEAD: each class of contact, then all."""
    return [_row(name, row) for name, row in counts["by_contact"].items()] + [_row("all", counts["all"])]


def _row(name: str, row: Mapping[str, int]) -> list[str]:
    rates = [success_summary(row[key], row["trials"]) for key in ("first_attempt", "successes")]
    shares = [f"{row[key]} ({row[key] / max(row['neighbours'], 1):.0%})" for key in DISTURBED]
    calm = f"{row['undisturbed_trials']} ({row['undisturbed_trials'] / row['trials']:.0%})"
    return [name, str(row["trials"]), *map(rate_with_interval, rates), str(row["neighbours"]), *shares, calm]
