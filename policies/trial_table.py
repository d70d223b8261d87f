"""Trials of an evaluation on many machines, as Parquet: one row per trial, a file per block, written in one step.

RUN/trials/none-000000064.parquet   named by disturbance and first trial; tools read the folder as one table
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dexgrasp.utils.files import remove_partials, write_bytes
from sim.outcomes import Outcome

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
    "seed": "int64",
    "block_s": "double",
    "worker": "string",
    "peak_mib": "double",
}
"""Names and types. rest_pose: index among the object's resting poses. block_s: time of the block that the trial ran in,
models and policy included [s]. worker: host and process. peak_mib: the most memory that it has held until then."""

Row = dict[str, Any]


def append(folder: Path, rows: Sequence[Row]) -> None:
    """Store the rows of a block, all of them or none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    table, sink = pa.Table.from_pylist(list(rows), schema), pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(folder / f"{rows[0]['disturbance']}-{rows[0]['trial']:09d}.parquet", sink.getvalue().to_pybytes())


def read(folder: Path) -> list[Outcome]:
    """Outcomes of all trials stored so far, in no order. Raises ValueError where a trial is there twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    remove_partials(folder)
    outcomes: list[Outcome] = []
    names = [item.name for item in fields(Outcome)]
    for path in sorted(folder.glob("*.parquet")):
        try:
            rows = pq.read_table(path, columns=names).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}): remove it, its trials are then run again") from error
        outcomes += [Outcome(**row) for row in rows]
    if len({(outcome.disturbance, outcome.trial) for outcome in outcomes}) < len(outcomes):
        raise ValueError(f"{folder} holds trials twice: choose another out=")
    return outcomes
