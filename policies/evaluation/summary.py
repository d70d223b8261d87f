"""Print the result of an evaluation as tables in the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from dexgrasp.policies.evaluation.clutter import HEAD, cleared_in_words, neighbour_rows
from dexgrasp.policies.evaluation.conditions import camera_errors_note, preset_name, start_noise
from dexgrasp.policies.evaluation.statistics import FEW, pool, rate_with_interval, success_summary
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.utils.text import counted, print_table

HOLD_S = 3.0
"""Hold that a comparable success rate requires [s]."""
WORST = 5
"""Number of worst objects that are named."""


def print_scoreboard(result: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Print success rates with intervals, failures, the worst objects, penetration, and warnings."""
    config = result["config"]
    if cleared := notes.get("cleared"):
        print(f"{config['policy']}, {config['hand']}, {config['objects']}, physics '{_physics(config)}'")
        print(cleared_in_words(cleared))
        return
    table = [("disturbance", "trials", "first attempt (95 % interval)", _with_attempts(config["attempts"]))]
    at_once = notes["at_first_attempt"]
    rows = {name: (row, at_once[name]) for name, row in result["per_disturbance"].items()}
    if len(rows) > 1:
        rows["together"] = result, sum(at_once.values())
    for name, (row, successes) in rows.items():
        first = success_summary(successes, row["trials"])
        table.append((name, str(row["trials"]), rate_with_interval(first), rate_with_interval(row)))
    title = f"{config['policy']}, {config['hand']}, {config['objects']}, physics '{_physics(config)}'"
    print_table(table, f"{title}\nstart noise: {start_noise(config)}")
    if neighbours := notes.get("neighbours"):
        print_table([HEAD, *neighbour_rows(neighbours)])
    _print_families(result, notes)
    for name, text in _facts(result, notes).items():
        print(f"{name:13}  {text}")
    for text in warnings(config, notes):
        print(f"Careful: {text}")


def _with_attempts(attempts: int) -> str:
    """Return the head of the column of successes: "success, up to 3 attempts"."""
    return f"success, up to {counted(attempts, 'attempt')}" if attempts > 1 else "success"


def _print_families(result: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Print one table by family of objects, worst first; nothing where all are of one family.

    Families of few trials are counted, not listed.
    """
    families = pool(result["per_object"], {name: facts["family"] for name, facts in notes["objects"].items()})
    if len(families) < 2:
        return
    table = [("family", "trials", "success (95 % interval)")]
    for family, row in families.items():
        if row["trials"] >= FEW:
            table.append((family, str(row["trials"]), rate_with_interval(success_summary(**row))))
    if len(table) > 1:
        print_table(table)
    if few := sum(row["trials"] < FEW for row in families.values()):
        print(f"{counted(few, 'family', 'families')} with fewer than {FEW} trials each: see the report")


def warnings(config: Mapping[str, Any], notes: Mapping[str, Any]) -> list[str]:
    """Return why the success rate must not be compared with reported ones; empty where it may be."""
    found = []
    if (physics := _physics(config)) != PhysicsCfg().name:
        found.append(f"physics is '{physics}', not 'reference': do not compare this number with reported ones")
    if config["task"]["hold_s"] < HOLD_S:
        found.append(
            f"held for {config['task']['hold_s']:g} s, not {HOLD_S:g} s: do not compare this number with others"
        )
    if notes["trained_on"]:
        count, total = len(notes["trained_on"]), len(notes["objects"])
        found.append(
            f"{count} of {counted(total, 'object')} {'is' if count == 1 else 'are'} of the training split, or the "
            "policy was trained on them: this is no test on unseen objects"
        )
    if len(code := notes.get("code", ())) > 1:
        parts = ", ".join(f"{code_in_words(one)}: {counted(one['trials'], 'trial')}" for one in code)
        found.append(f"the trials were run by {len(code)} versions of the code ({parts})")
    return found


def code_in_words(code: Mapping[str, Any]) -> str:
    """Return the commit of some code, else the version of dexgrasp."""
    git = code["git"]
    if git is None:
        return f"dexgrasp {code['versions'].get('dexgrasp') or 'of an unknown version'}"
    return f"{git['hash'][:12]}{' with local changes' if git['dirty'] else ''}"


def _physics(config: Mapping[str, Any]) -> str:
    return preset_name(config["physics"], "physics", PhysicsCfg)


def percent(successes: int, trials: int) -> str:
    """Return a share as a percentage with one decimal place."""
    return f"{100 * successes / trials:.1f} %"


def _facts(result: Mapping[str, Any], notes: Mapping[str, Any]) -> dict[str, str]:
    failed = {name: count for name, count in result["failures"].items() if count}
    failing = [(name, row) for name, row in result["per_object"].items() if row["successes"] < row["trials"]]
    worst = sorted(failing, key=lambda item: item[1]["successes"] / item[1]["trials"])[:WORST]
    depth_m = notes["penetration_m"]["p99"]
    exact = camera_errors_note(result["config"])
    return ({"camera errors": exact} if exact else {}) | {
        "failures": _listed(f"{name} {count}" for name, count in failed.items()) or "none",
        "worst objects": _listed(f"{name} {row['successes']}/{row['trials']}" for name, row in worst) or "none",
        "penetration": "unknown" if depth_m is None else f"{1000 * depth_m:.2f} mm at the 99th percentile of trials",
        "opposition": _opposition(notes["opposed_share_of_successes"]),
        "speed": f"{notes['trials_per_s']:.1f} trials/s, {notes['wall_s']:.0f} s",
    }


def _opposition(share: Mapping[str, float | None]) -> str:
    mean = share["mean"]
    return "unknown" if mean is None else f"thumb and a finger touch in {100 * mean:.1f} % of the hold of successes"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
