"""Outcomes of trials on disk, one JSON line each, written so that a killed run can go on.

Whole blocks only: a block of trials runs side by side, is stored in one write, and is run again as a whole when the
write was cut. So a run that was stopped any number of times gives the very numbers of one that was not.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dexgrasp.utils.files import write_text
from sim.outcomes import Outcome


def to_line(outcome: Outcome) -> str:
    """One line of trials.jsonl; what is not a finite number becomes null."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(outcome).items()
    }
    return json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n"


def append(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Add the outcomes of a block; they are on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(to_line(outcome) for outcome in outcomes))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Outcome]:
    """Outcomes stored so far; a last line that a kill tore apart is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        rows = [json.loads(line) for line in lines[:-1]]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged before its last line ({error}); choose another out=") from error
    if any("attempts" not in row for row in rows):
        raise ValueError(f"{path} is of a version whose trials had one attempt: choose another out=")
    return [Outcome(**_numbers(row)) for row in rows]


def keep_whole_blocks(
    stored: Sequence[Outcome], disturbances: Sequence[str], trials: int, rows: int, names: Sequence[str]
) -> list[Outcome]:
    """The stored outcomes without those of an unfinished block, whose trials are run again together.

    Per disturbance there are `trials`, run in blocks of `rows`; `names` are the objects in turn.
    """
    kept: list[Outcome] = []
    for disturbance in disturbances:
        ran = [outcome for outcome in stored if outcome.disturbance == disturbance]
        for number, outcome in enumerate(ran):
            if (outcome.trial, outcome.object) != (number, names[number % len(names)]):
                raise ValueError(
                    f"stored trial {outcome.trial} with '{outcome.object}' stands where trial {number} with "
                    f"'{names[number % len(names)]}' belongs: the objects have changed; choose another out="
                )
        kept += ran[: len(ran) if len(ran) >= trials else len(ran) // rows * rows]
    return kept


def rewrite(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Store exactly these outcomes."""
    write_text(path, "".join(to_line(outcome) for outcome in outcomes))


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}
