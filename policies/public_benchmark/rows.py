"""Rows of `dexgrasp benchmark`: one JSON object per line, and `dexgrasp benchmark validate FILE`."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.public_benchmark.object_sets import DISTURBANCES, ObjectSet, object_sets
from dexgrasp.utils.readers import DamagedFileError, parse_json, regular_bytes
from dexgrasp.utils.text import counted, shown

FIELDS: dict[str, type] = {
    "benchmark": str,
    "quick": bool,
    "policy": str,
    "hand": str,
    "mount": str,
    "attempts": int,
    "objects": int,
    "refused": int,
    "results": list,
    "protocol_sha256": str,
    "policy_sha256": str,
    "objects_sha256": str,
    "configuration_sha256": str,
    "version": str,
    "commit": str,
    "local_changes": bool,
}
"""Keys of a row and their types."""
COUNTS = {"first_attempt", "success"}
HASHES = ("protocol_sha256", "policy_sha256", "objects_sha256", "configuration_sha256")
IDENTITY = ("benchmark", "quick", "hand", "mount", "protocol_sha256", "policy_sha256", "objects_sha256", "commit")
"""Keys that together occur once in a file."""
TOLERANCE = 1e-9


@dataclass(frozen=True)
class ValidateBenchmarkCfg:
    """Check the rows of a file of benchmark results; nothing is simulated."""

    file: str = ""
    """File with one row of `dexgrasp benchmark` per line."""


def validate(cfg: ValidateBenchmarkCfg) -> None:
    """Print how many rows a file has. Raises ValueError with the line and what is wrong in it."""
    if not cfg.file:
        raise ValueError("benchmark validate needs a file: dexgrasp benchmark validate FILE")
    rows = read_rows(cfg.file)
    print(f"{cfg.file}: {counted(len(rows), 'row')}, all valid")


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a file. Raises ValueError with the first line that is wrong."""
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], int] = {}
    for number, line in enumerate(regular_bytes(path).decode("utf-8", errors="replace").splitlines(), 1):
        where = f"{path}, line {number}"
        try:
            row = parse_json(line, where)
        except DamagedFileError as error:
            raise ValueError(str(error)) from error
        if wrong := check_row(row):
            raise ValueError(f"{where}: {wrong}")
        identity = tuple(row[key] for key in IDENTITY)
        if identity in seen:
            raise ValueError(f"{where}: repeats line {seen[identity]}: benchmark, policy, objects and commit are equal")
        seen[identity] = number
        rows.append(row)
    return rows


def check_row(row: Any) -> str:
    """Return what is wrong with a row, empty where nothing is."""
    if not isinstance(row, dict):
        return f"expected a JSON object, got {shown(row)}"
    if row.keys() != FIELDS.keys():
        differ = sorted(row.keys() ^ FIELDS.keys())
        return f"expected the keys {', '.join(FIELDS)}; missing or unknown: {', '.join(differ)}"
    if wrong := [key for key, kind in FIELDS.items() if type(row[key]) is not kind]:
        return f"{wrong[0]} must be {FIELDS[wrong[0]].__name__}, got {shown(row[wrong[0]])}"
    if row["benchmark"] not in object_sets():
        return f"benchmark must be one of {', '.join(object_sets())}, got {shown(row['benchmark'])}"
    if wrong := [key for key in HASHES if not re.fullmatch(r"[0-9a-f]{64}", row[key])]:
        return f"{wrong[0]} must have 64 hexadecimal digits, got {shown(row[wrong[0]])}"
    return _wrong_origin(row) or _wrong_protocol(row) or _wrong_results(row)


def _wrong_origin(row: Mapping[str, Any]) -> str:
    """Return what is wrong with policy and code of a row."""
    if empty := [key for key in ("policy", "hand", "mount", "version") if not row[key]]:
        return f"{empty[0]} is empty"
    if not re.fullmatch(r"[0-9a-f]{40}|", row["commit"]):
        return f"commit must have 40 hexadecimal digits, or be empty for an installed package, got {row['commit']!r}"
    if row["local_changes"]:
        return "it was measured by code with local changes: commit them and measure again"
    return ""


def _wrong_protocol(row: Mapping[str, Any]) -> str:
    """Return how the conditions of a row differ from those of its benchmark."""
    chosen, quick = object_sets()[row["benchmark"]], row["quick"]
    if row["protocol_sha256"] != (now := chosen.protocol_sha256(quick)):
        return f"the protocol is not that of this version: {row['protocol_sha256'][:12]}, expected {now[:12]}"
    if row["attempts"] != 3:
        return f"attempts must be 3, got {row['attempts']}"
    if min(row["objects"] - 1, row["refused"]) < 0 or row["objects"] + row["refused"] != chosen.count(quick):
        return f"objects and refused must be {chosen.count(quick)} together, got {row['objects']} and {row['refused']}"
    return ""


def _wrong_results(row: Mapping[str, Any]) -> str:
    """Return what is wrong with the counts of a row: parts, ranges, rates and intervals."""
    chosen, quick = object_sets()[row["benchmark"]], row["quick"]
    expected = [part_name(scale, name) for scale, name in parts(chosen, quick)]
    found = [_part_of(one) for one in row["results"]]
    if found != expected:
        return f"results must be of {', '.join(expected)}; got {shown(found)}"
    trials = row["objects"] * chosen.protocol(quick)["trials_per_object"]
    for name, one in zip(expected, row["results"], strict=True):
        if wrong := _wrong_part(one, trials):
            return f"results of {name}: {wrong}"
    return ""


def _part_of(one: Any) -> str:
    """Return the name of a part, or its wrong content in words."""
    good = isinstance(one, dict) and one.keys() == {"scale", "disturbance", *COUNTS}
    return part_name(one["scale"], one["disturbance"]) if good else shown(one)


def _wrong_part(one: Mapping[str, Any], trials: int) -> str:
    """Return what is wrong with the counts at one scale and disturbance."""
    for key in sorted(COUNTS):
        row = one[key]
        if not isinstance(row, dict) or row.keys() != success_summary(0, 1).keys():
            return f"{key} must have {', '.join(success_summary(0, 1))}, got {shown(row)}"
        if type(row["successes"]) is not int or row["trials"] != trials or not 0 <= row["successes"] <= trials:
            return f"{key} must have 0 to {trials} successes of {trials} trials, got {shown(row)}"
        wanted = success_summary(row["successes"], trials)
        numbers, right = ([row_["success_rate"], *row_["wilson95"]] for row_ in (row, wanted))
        if len(numbers) != 3 or not all(type(n) is float and math.isclose(n, m, abs_tol=TOLERANCE)
                                        for n, m in zip(numbers, right, strict=True)):  # fmt: skip
            return f"rate and interval of {key} must be {right} from its counts, got {shown(numbers)}"
    if one["first_attempt"]["successes"] > one["success"]["successes"]:
        return "more successes at the first attempt than with all attempts"
    return ""


def parts(chosen: ObjectSet, quick: bool) -> list[tuple[float, str]]:
    """Return scale and disturbance of each part of a run, in order."""
    return [(scale, name) for scale in chosen.measured_scales(quick) for name in DISTURBANCES[quick]]


def part_name(scale: object, disturbance: object) -> str:
    """Return the name of a part, that of its folder."""
    return f"{scale}-{disturbance}"


def to_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, allow_nan=False, ensure_ascii=False)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the Markdown table of rows: one for each part."""
    lines = [
        "| benchmark | policy | scale | disturbance | trials | first attempt | up to 3 attempts | version |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row['benchmark']}, quick" if row["quick"] else row["benchmark"]
        code = f"{row['version']}, {row['commit'][:12]}" if row["commit"] else row["version"]
        policy = f"{row['policy']} ({row['hand']})"
        for one in row["results"]:
            cells = (
                *(name, policy, f"{one['scale']:g}", one["disturbance"], str(one["success"]["trials"])),
                *(_in_words(one["first_attempt"]), _in_words(one["success"]), code),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _in_words(row: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in row["wilson95"])
    return f"{100 * row['success_rate']:.1f} % ({low:.1f} – {high:.1f})"
