"""`dexgrasp benchmark dexgraspbench DIR`: play grasps in its format under its rule."""

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dexgrasp.policies.dexgraspbench.folder import find_grasps, find_hand_model, verdict_file
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.sim.dexgraspbench.grasp_files import read_grasp, read_verdict
from dexgrasp.sim.dexgraspbench.playback import SOLVERS, grasp_scene, play
from dexgrasp.utils.bounds import Bounds, Threads, bounded
from dexgrasp.utils.files import append_text, expand_user, write_text
from dexgrasp.utils.output import FILE_MARK, claim_file
from dexgrasp.utils.process_pool import TaskFailure, available_cores, run_in_processes
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import counted, print_table


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
    """JSON Lines file, one line per grasp in order of completion; empty: none."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One grasp to play, and all that it needs."""

    path: Path
    grasps: Path
    root: Path
    hand: Path
    physics: str


def play_grasps(cfg: PlayGraspsCfg) -> None:
    """Play the grasps; print successes by object scale, and the agreement with DexGraspBench's verdicts."""
    root, grasps = expand_user(cfg.folder), expand_user(cfg.folder) / cfg.grasps
    files = find_grasps(cfg.folder, cfg.grasps, cfg.most, only_judged=cfg.only_judged)
    hand = find_hand_model(cfg.folder, cfg.grasps, cfg.hand)
    out = claim_file(cfg.out) if cfg.out else None
    jobs = [_Job(path=path, grasps=grasps, root=root, hand=hand, physics=cfg.physics) for path in files]
    rows: list[dict[str, Any]] = []
    if out is not None:
        head = {"about": FILE_MARK.decode(), "grasps": cfg.grasps, "hand": str(hand), "physics": cfg.physics}
        write_text(out, json.dumps(head) + "\n")
    workers = cfg.num_threads or available_cores()
    with Progress(len(jobs), "play") as progress, closing(run_in_processes(_play, jobs, workers)) as results:
        for job, row in results:
            if isinstance(row, TaskFailure):
                raise ChildProcessError(f"{job.path}: {row.reason}")
            rows.append(row)
            if out is not None:  # at once: an interrupted run leaves what it has played
                append_text(out, json.dumps(row) + "\n")
            progress.advance(1, counted(sum(one["success"] for one in rows), "success", "successes"))
    print_table(table(rows))
    print(f"physics={cfg.physics}, hand {hand}")


def _play(job: _Job) -> dict[str, Any]:
    """Play one grasp; return its row."""
    grasp = read_grasp(job.path)
    model = grasp_scene(job.hand, job.root / grasp.obj_path, grasp.obj_scale, SOLVERS[job.physics])
    try:
        played = play(model, grasp)
    except ValueError as error:
        raise ValueError(f"{job.path}: {error}") from error
    verdict = read_verdict(verdict_file(job.path, job.grasps))
    name = job.path.relative_to(job.grasps / "graspdata").as_posix()
    return {"grasp": name, "scale": grasp.obj_scale, **asdict(played), "dexgraspbench": verdict}


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
