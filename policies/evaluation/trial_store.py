"""Store the trials of an evaluation on disk, so that a killed run can be resumed.

Trials run in blocks, side by side. A block is stored in one write; if that write was cut, or a start with other blocks
has stored a part of it, it is run again as a whole and its missing trials are added. No stored trial is lost, and a run
gives bit-identical results however often it was stopped.

JsonLinesStore   RUN/trials.jsonl: one line per trial, in order
ParquetStore     RUN/trials/none-000000064.parquet: one file per block, named by disturbance and first trial
BlockLog         RUN/blocks.jsonl: one line per block, with the start of the command that ran it
"""

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.files import append_text, remove_partials, write_bytes, write_text
from dexgrasp.utils.readers import DamagedFileError, parse_json, reading, regular_bytes
from dexgrasp.utils.text import counted, shown

log = logging.getLogger("dexgrasp")

COLUMNS = {
    "object": "string",
    "trial": "int64",
    "rest_pose": "int16",
    "disturbance": "string",
    "success": "bool",
    "failure": "string",
    "lift_m": "double",
    "slip_m": "double",
    "penetration_m": "double",
    "attempts": "int16",
    "opposed_share": "double",
    "contact": "string",
    "neighbours": "int16",
    "neighbours_moved": "int16",
    "neighbours_toppled": "int16",
    "neighbours_fallen": "int16",
    "removed": "int16",
    "seed": "int64",
    "block_s": "double",
    "worker": "string",
    "peak_mib": "double",
}
"""Columns of the Parquet files and their types: the fields of `Outcome` and rest_pose (index of the object's resting
pose), block_s (duration of the trial's block, with models and policy [s]), worker (host and process id), peak_mib
(peak memory of the worker until then)."""

FIELDS = tuple(item.name for item in fields(Outcome))
TYPES = {item.name: item.type for item in fields(Outcome)}
OF_CLUTTER = ("contact", "neighbours", "neighbours_moved", "neighbours_toppled", "neighbours_fallen", "removed")
"""Fields of `Outcome` that are left out of trials whose object stands alone."""
LATER = ("attempts", "opposed_share", *OF_CLUTTER)
"""Fields of `Outcome` that trials of earlier versions lack; only without attempts they are not valid."""
Row = dict[str, Any]
"""One trial: the fields of `Outcome`; for Parquet also other COLUMNS."""


@dataclass(frozen=True)
class TrialBlock:
    """Trials that run side by side; the last block of a disturbance may reach beyond the requested trials."""

    disturbance: str
    trials: range


@dataclass(frozen=True)
class TrialPlan:
    """Trials of an evaluation: `trials` per disturbance, in blocks of `rows`.

    Trial i uses object i modulo the number of objects.
    """

    disturbances: Sequence[str]
    trials: int
    rows: int
    objects: Sequence[str]

    def object_of(self, trial: int) -> str:
        """Return the name of the object in a trial."""
        return self.objects[trial % len(self.objects)]

    def blocks(self) -> list[TrialBlock]:
        """Return all blocks, in order."""
        starts = range(0, self.trials, self.rows)
        return [TrialBlock(name, range(i, i + self.rows)) for name in self.disturbances for i in starts]

    def requested(self, block: TrialBlock) -> list[tuple[str, int]]:
        """Return (disturbance, trial) of the block's trials that were requested."""
        return [(block.disturbance, trial) for trial in block.trials if trial < self.trials]

    def missing(self, block: TrialBlock, stored: Iterable[Outcome]) -> list[TrialBlock]:
        """Return the parts of a block, each of successive trials, that were requested and are not stored."""
        found = {outcome.trial for outcome in stored if outcome.disturbance == block.disturbance}
        parts: list[TrialBlock] = []
        for _, trial in self.requested(block):
            if trial in found:
                continue
            if parts and parts[-1].trials.stop == trial:
                parts[-1] = TrialBlock(block.disturbance, range(parts[-1].trials.start, trial + 1))
            else:
                parts.append(TrialBlock(block.disturbance, range(trial, trial + 1)))
        return parts

    def remaining(self, stored: Iterable[Outcome]) -> list[TrialBlock]:
        """Return the blocks of which a requested trial is not stored."""
        found = {(outcome.disturbance, outcome.trial) for outcome in stored}
        return [block for block in self.blocks() if not found.issuperset(self.requested(block))]

    def select(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Return the outcomes of the requested trials that are among `outcomes`, in order."""
        return select(outcomes, self.disturbances, self.trials)


def select(outcomes: Iterable[Outcome], disturbances: Sequence[str], trials: int) -> list[Outcome]:
    """Return the outcomes of the first `trials` trials of each disturbance, in order."""
    order = {name: i for i, name in enumerate(disturbances)}
    requested = [one for one in outcomes if one.disturbance in order and one.trial < trials]
    return sorted(requested, key=lambda outcome: (order[outcome.disturbance], outcome.trial))


class TrialStore(Protocol):
    """Protocol of a store of trials, written block by block."""

    def append(self, rows: Sequence[Row]) -> None:
        """Store the trials of a block, all of them or none."""
        ...

    def read(self) -> list[Outcome]:
        """Return the outcomes of all stored trials; raises ValueError where the store is damaged."""
        ...

    def resume(self, plan: TrialPlan) -> list[Outcome]:
        """Return the stored outcomes that stay valid under `plan`; run `plan.remaining` of them next.

        Raises ValueError where the stored trials used other objects.
        """
        ...


class JsonLinesStore:
    """Text file with one JSON object per trial, written by one process, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, rows: Sequence[Row]) -> None:
        """Store the trials of a block; they are on the disk when the function returns.

        Only the fields of `Outcome` are kept.
        """
        append_text(self.path, "".join(_to_line(row) for row in rows))

    def read(self) -> list[Outcome]:
        """Return the outcomes of all stored trials; a last line that was torn by a kill is ignored."""
        if not self.path.exists():
            return []
        lines = regular_bytes(self.path).decode("utf-8", errors="replace").split("\n")
        try:
            rows = [parse_json(line, f"line {i + 1}") for i, line in enumerate(lines[:-1])]
        except DamagedFileError as error:
            raise ValueError(f"{self.path} is damaged before its last line ({error}); choose another out=") from error
        for i, row in enumerate(rows):
            if not isinstance(row, dict) or not row.keys() <= TYPES.keys() or not _fits(row):
                raise ValueError(
                    f"{self.path}: line {i + 1} is no trial of this version: {shown(row)}; choose another out="
                )
        if any("attempts" not in row for row in rows):
            raise ValueError(f"{self.path} is of a version whose trials had one attempt: choose another out=")
        return [Outcome(**_one_nan(row)) for row in rows]

    def resume(self, plan: TrialPlan) -> list[Outcome]:
        """Return the stored outcomes, by disturbance and in order, and delete a torn last line from the file."""
        kept = in_order(self.read(), plan)
        self.rewrite(kept)
        return kept

    def rewrite(self, outcomes: Iterable[Outcome]) -> None:
        """Replace the whole content, atomically."""
        write_text(self.path, "".join(_to_line(asdict(outcome)) for outcome in outcomes))


class ParquetStore:
    """Folder of Parquet files, one per block; tools read it as one table.

    Needs the extra `ray` (pyarrow).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, rows: Sequence[Row]) -> None:
        """Store the trials of a block, all of them or none."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
        table, sink = pa.Table.from_pylist(list(rows), schema), pa.BufferOutputStream()
        pq.write_table(table, sink)
        name = f"{rows[0]['disturbance']}-{rows[0]['trial']:09d}.parquet"
        write_bytes(self.folder / name, sink.getvalue().to_pybytes())

    def read(self) -> list[Outcome]:
        """Return the outcomes of all stored trials, in no order.

        Raises ValueError if a trial is stored twice.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        remove_partials(self.folder)
        outcomes: list[Outcome] = []
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                known = set(pq.read_schema(path).names) | set(FIELDS) - {"opposed_share", *OF_CLUTTER}
                rows = pq.read_table(path, columns=[name for name in FIELDS if name in known]).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{path} is damaged ({error}): remove it, its trials are then run again") from error
            outcomes += [Outcome(**_one_nan(row)) for row in rows]
        if len({(outcome.disturbance, outcome.trial) for outcome in outcomes}) < len(outcomes):
            raise ValueError(f"{self.folder} holds trials twice: choose another out=")
        return outcomes

    def resume(self, plan: TrialPlan) -> list[Outcome]:
        """Return the stored outcomes; files are written whole, so that none has to be deleted."""
        outcomes = self.read()
        for outcome in outcomes:
            if outcome.object != plan.object_of(outcome.trial):
                raise ValueError(
                    f"{self.folder} has trial {outcome.trial} with '{outcome.object}', not with "
                    f"'{plan.object_of(outcome.trial)}': the objects have changed; choose another out="
                )
        return outcomes


class BlockLog:
    """Text file with one line per block of trials: its disturbance and trials, and the start that ran it.

    A block is entered before its trials are stored; of several lines the last one counts.
    """

    def __init__(self, path: Path, start: int) -> None:
        """`start`: index of the present start in `starts` of run.json."""
        self.path, self._start = path, start

    def append(self, blocks: Sequence[TrialBlock]) -> None:
        """Enter blocks, or parts of one, that were run now."""
        for one in blocks:
            row = {"disturbance": one.disturbance, "first": one.trials.start, "trials": len(one.trials)}
            append_text(self.path, json.dumps(row | {"start": self._start}) + "\n")

    def resume(self) -> None:
        """Delete a last line that was torn by a kill."""
        if self.path.exists() and not (text := self.path.read_text(encoding="utf-8")).endswith("\n"):
            write_text(self.path, text[: text.rfind("\n") + 1])


def starts_of_trials(path: Path) -> dict[tuple[str, int], int]:
    """Return the index of the start that ran a trial, by (disturbance, trial); empty without blocks.jsonl."""
    if not path.exists():
        return {}
    with reading(path, "list of blocks"):
        rows = [parse_json(line, path) for line in path.read_bytes().split(b"\n")[:-1]]
        return {
            (row["disturbance"], trial): row["start"]
            for row in rows
            for trial in range(row["first"], row["first"] + row["trials"])
        }


def has_trials(run: Path) -> bool:
    """Return whether a run directory contains stored trials, of either kind."""
    files = [run / "trials.jsonl", *(run / "trials").glob("*.parquet")]
    return any(path.is_file() and path.stat().st_size > 0 for path in files)


def in_order(stored: Sequence[Outcome], plan: TrialPlan) -> list[Outcome]:
    """Return the outcomes by disturbance and trial; the trials of a disturbance are 0, 1, 2 ...

    Raises ValueError if a trial is missing between others or used another object.
    """
    kept: list[Outcome] = []
    for disturbance in plan.disturbances:
        outcomes = [outcome for outcome in stored if outcome.disturbance == disturbance]
        for number, outcome in enumerate(outcomes):
            if (outcome.trial, outcome.object) != (number, plan.object_of(number)):
                raise ValueError(
                    f"stored trial {outcome.trial} with '{outcome.object}' stands where trial {number} with "
                    f"'{plan.object_of(number)}' belongs: the objects have changed; choose another out="
                )
        kept += outcomes
    return kept


def _fits(row: Row) -> bool:
    """Return whether a row has every field of `Outcome` but LATER, each of its type; null is a float."""
    numbers = (int, float, type(None))
    return all(
        isinstance(value, numbers) if TYPES[name] is float else type(value) is TYPES[name]
        for name, value in row.items()
    ) and TYPES.keys() <= {*row, *LATER}


def _one_nan(row: Row) -> Row:
    """Return the row with `math.nan` for null and NaN: outcomes are equal where their NaN is one object."""
    return {key: math.nan if value is None or value != value else value for key, value in row.items()}


def _to_line(row: Row) -> str:
    """Return one line of trials.jsonl; numbers that are not finite become null."""
    keys = FIELDS if row["contact"] else [key for key in FIELDS if key not in OF_CLUTTER]
    plain = {key: None if isinstance(row[key], float) and not math.isfinite(row[key]) else row[key] for key in keys}
    return json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n"


def log_resumed(done: int, total: int) -> None:
    """Log that a run goes on, and how many of its trials were finished before."""
    if done:
        log.info("goes on: %d of %s were finished", done, counted(total, "trial"))
