"""`dexgrasp benchmark dexgraspbench DIR`: play grasps in its format under its rule."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dexgrasp.policies.dexgraspbench.folder import find_grasps, find_hand_model, verdict_file
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.input_identity import InputFile, content_sha256, model_sha256
from dexgrasp.policies.run_directory import Run, log, read_facts
from dexgrasp.sim.dexgraspbench.grasp_files import read_grasp, read_verdict
from dexgrasp.sim.dexgraspbench.playback import SOLVERS, grasp_scene, play
from dexgrasp.utils.bounds import Bounds, Threads, bounded
from dexgrasp.utils.files import append_text, expand_user, write_text
from dexgrasp.utils.process_pool import TaskFailure, available_cores, run_in_processes
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.readers import parse_json, reading, regular_bytes
from dexgrasp.utils.text import counted, print_table

ROWS = "grasps.jsonl"
"""File of the run directory with one line per grasp that was played, in order of completion."""
NO_CONDITION = ("out", "num_threads", "most", "only_judged")
"""Options with which a run may go on that was begun with others: they change no row."""
MOST_LINES = 10
"""Largest number of grasps that are named because they could not be played."""


@dataclass(frozen=True)
@bounded
class PlayGraspsCfg:
    """Play grasps in the format of DexGraspBench under its rule; prints successes beside its own verdicts."""

    folder: str = ""
    """Folder of DexGraspBench: its repository, or one that `dexgrasp benchmark grasps` wrote."""
    grasps: str = "output/example_shadow"
    """Folder in it whose graspdata holds the grasps; its evaluation may hold DexGraspBench's verdicts."""
    hand: str = ""
    """MJCF of the hand, from FOLDER or the working directory; empty: assets/hand/NAME/right_hand.xml in FOLDER, where
    `grasps` ends in _NAME."""
    physics: Literal["reference", "dexgraspbench"] = "reference"
    """reference: contacts and steps of `dexgrasp evaluate`. dexgraspbench: those of its own evaluation."""
    only_judged: bool = False
    """Play only the grasps of which the evaluation holds a verdict."""
    most: Annotated[int, Bounds(0, 10_000_000)] = 0
    """Largest number of grasps, spread evenly over all; 0: all."""
    num_threads: Threads = 0
    """Number of processes; 0 = all cores."""
    out: str = ""
    """Run directory, whose grasps.jsonl has one line per grasp; empty = a new one under runs/."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One grasp to play, and all that it needs."""

    name: str
    path: Path
    verdict: Path
    root: Path
    hand: Path
    physics: str


def play_grasps(cfg: PlayGraspsCfg) -> None:
    """Play the grasps that the run directory lacks; print successes by scale and equal verdicts.

    A grasp that cannot be played is named and left out. Raises ValueError where none can be played.
    """
    hand = find_hand_model(cfg.folder, cfg.grasps, cfg.hand)
    jobs = _jobs(cfg, hand)
    with Run.claim(cfg.out, PlayGraspsCfg, resumes=True) as run:
        inputs = {"hand_model": InputFile(str(hand), model_sha256(hand))}
        run.record(cfg, inputs=inputs, may_differ=NO_CONDITION if read_facts(run.path) else None)
        played = _stored(run.file(ROWS), jobs)
        if played:
            log.info("goes on: %d of %s were played", len(played), counted(len(jobs), "grasp"))
        failures = []
        for row in _play_all([job for job in jobs if job.name not in played], cfg, run.file(ROWS)):
            if "error" in row:
                failures.append(row["error"])
            else:
                played[row["grasp"]] = row
        for text in failures[:MOST_LINES]:
            print(f"not played: {text}", file=sys.stderr)
        if not played:
            raise ValueError(f"{cfg.folder}: none of {counted(len(failures), 'grasp')} could be played")
        print_table(table(list(played.values())))
        lost = f"; {counted(len(failures), 'grasp')} could not be played" if failures else ""
        print(f"physics={cfg.physics}, hand {hand}{lost}; rows: {run.path / ROWS}")


def _jobs(cfg: PlayGraspsCfg, hand: Path) -> list[_Job]:
    root, grasps = expand_user(cfg.folder), expand_user(cfg.folder) / cfg.grasps
    return [
        _Job(
            name=path.relative_to(grasps / "graspdata").as_posix(),
            path=path,
            verdict=verdict_file(path, grasps),
            root=root,
            hand=hand,
            physics=cfg.physics,
        )
        for path in find_grasps(cfg.folder, cfg.grasps, cfg.most, only_judged=cfg.only_judged)
    ]


def _play_all(jobs: Sequence[_Job], cfg: PlayGraspsCfg, file: Path) -> Iterator[dict[str, Any]]:
    """Play grasps; store the rows of those that could be played, yield all."""
    done = 0
    with (
        Progress(len(jobs), "play") as progress,
        closing(run_in_processes(_play, jobs, cfg.num_threads or available_cores())) as results,
    ):
        for job, found in results:
            row: dict[str, Any] = {"error": f"{job.path}: {found.reason}"} if isinstance(found, TaskFailure) else found
            if "error" not in row:  # at once: an interrupted run goes on after what it has played
                append_text(file, json.dumps(row) + "\n")
            done += row.get("success", False)
            progress.advance(1, counted(done, "success", "successes"))
            yield row


def _stored(file: Path, jobs: Sequence[_Job]) -> dict[str, dict[str, Any]]:
    """Return the stored rows by grasp, of grasps among `jobs` whose files are as they were; drop a torn last line."""
    if not file.is_file():
        return {}
    lines = regular_bytes(file).decode("utf-8", errors="replace").split("\n")[:-1]
    with reading(file, "list of played grasps"):
        rows = {row["grasp"]: row for row in (parse_json(line, file) for line in lines)}
        hashes = {name: row["sha256"] for name, row in rows.items()}
        if rows:
            table(list(rows.values()))  # needs all that a row holds
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows.values()))
    return {job.name: rows[job.name] for job in jobs if job.name in rows and hashes[job.name] == _sha256(job)}


def _sha256(job: _Job) -> str:
    """Return the SHA-256 of a grasp file and of the files of its object; empty where one cannot be read."""
    try:
        folder = job.root / read_grasp(job.path).obj_path
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return content_sha256(regular_bytes(path) for path in (job.path, *files))
    except (ValueError, OSError):
        return ""


def _play(job: _Job) -> dict[str, Any]:
    """Play one grasp; return its row, or the error in one line."""
    try:
        grasp = read_grasp(job.path)
        model = grasp_scene(job.hand, job.root / grasp.obj_path, grasp.obj_scale, SOLVERS[job.physics])
        played, verdict = play(model, grasp), read_verdict(job.verdict)
    except (ValueError, OSError) as error:
        text = str(error)
        return {"error": text if str(job.path) in text else f"{job.path}: {text}"}
    row = {"grasp": job.name, "sha256": _sha256(job), "scale": grasp.obj_scale, "dexgraspbench": verdict}
    return row | asdict(played)


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the table of rows by scale and of all: successes here, by DexGraspBench, and equal verdicts."""
    by_scale: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_scale[f"{row['scale']:.3g}"].append(row)
    lines = [["scale", "grasps", "success", "95 %", "DexGraspBench", "equal verdicts"]]
    for name, group in [*sorted(by_scale.items()), ("all", list(rows))]:
        here = success_summary(sum(row["success"] for row in group), len(group))
        judged = [row for row in group if row["dexgraspbench"] is not None]
        low, high = (100 * end for end in here["wilson95"])
        theirs, equal = (
            f"{sum(map(count, judged))} of {len(judged)}" if judged else "-"
            for count in (lambda row: row["dexgraspbench"], lambda row: row["dexgraspbench"] == row["success"])
        )
        rate = f"{here['successes']} ({100 * here['success_rate']:.1f} %)"
        lines.append([name, str(len(group)), rate, f"{low:.1f} - {high:.1f}", theirs, equal])
    return lines
