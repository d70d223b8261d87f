"""`dexgrasp evaluate`: success rate of a policy by object and disturbance, and failure causes.

RUN/trials.jsonl        one line per finished trial, in order; the same command resumes an interrupted run
RUN/trials/*.parquet    with cluster=...: one row per finished trial, in no order (`trial_store.COLUMNS`)
RUN/blocks.jsonl        one line per block of trials: the start of the command, in run.json, that ran it
RUN/result.json         the success rates
RUN/diagnostics.json    penetration, slip, lift, objects, speed
RUN/report.html         report with charts; RUN/videos/*.mp4

`demo` is an evaluation in which a hand picks up the shipped objects.
"""

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from dexgrasp import configs
from dexgrasp.policies.agents.registry import POLICIES, Agent, find_policy, make_policy, policy_config
from dexgrasp.policies.evaluation import html_report, ray_backend, videos
from dexgrasp.policies.evaluation.clutter import clear_tables, count_cleared, count_neighbours
from dexgrasp.policies.evaluation.conditions import camera_errors_note
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config, make_task
from dexgrasp.policies.evaluation.episodes import BlockProgress, play
from dexgrasp.policies.evaluation.statistics import count_by, percentile, success_summary
from dexgrasp.policies.evaluation.summary import print_scoreboard
from dexgrasp.policies.evaluation.trial_store import BlockLog, JsonLinesStore, has_trials, log_resumed, starts_of_trials
from dexgrasp.policies.input_identity import identify_inputs
from dexgrasp.policies.run_directory import Run, default_path
from dexgrasp.sim.objects import ObjectLibrary, open_library, shared_objects
from dexgrasp.sim.objects.registry import GENERATED
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import FAILURES, Outcome
from dexgrasp.utils.files import write_json
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import counted

MAY_DIFFER = ("trials", "videos", "out", "num_threads", "cluster")
"""Options that may change when a run is resumed: none of them changes the outcome of a trial."""

log = logging.getLogger("dexgrasp")


def evaluate(cfg: EvaluateCfg) -> dict[str, Any]:
    """Run or resume the trials, write the run directory, print a table; return result.json."""
    torch.set_num_threads(1)  # the batch is small: more threads cost time, and the physics has its own
    if cfg.cluster:
        ray_backend.check_installed()
        ray_backend.find_cluster(cfg.cluster)  # before objects are read
    with Run.claim(cfg.out, EvaluateCfg, resumes=True) as run:
        cfg = apply_policy_config(cfg)
        if has_trials(run.path):
            run.refuse_other_options(cfg, MAY_DIFFER)  # before objects are read
        if exact := camera_errors_note(configs.as_dict(cfg)):
            log.info("camera errors: %s", exact)
        hand, library, inputs = HandSpec.load(cfg.hand, side=cfg.side), open_library(cfg.objects), identify_inputs(cfg)
        run.record(cfg, inputs=inputs, may_differ=MAY_DIFFER if has_trials(run.path) else None)
        log.info("run directory: %s", run.path)
        start_s = time.monotonic()
        if cfg.cluster:
            outcomes, simulated = ray_backend.run_trials(cfg, library, run)
        else:
            outcomes, simulated = run_trials(cfg, hand, library, run)
        code = code_of_trials(run.path, run.facts, outcomes)
        result = summarise(cfg, outcomes, code)
        write_json(run.file("result.json"), result)
        facts = object_facts(outcomes, library, trained_objects(cfg.policy, library))
        notes = diagnostics(outcomes, facts, code) | speed(simulated, time.monotonic() - start_s)
        write_json(run.file("diagnostics.json"), notes)
        print_scoreboard(result, notes)
        log.info("%d of %s succeeded", result["successes"], counted(result["trials"], "trial"))
        if cfg.videos:
            html_report.write_report(run.path)  # before the long part, which may be interrupted
            log.info("rendering videos: up to %d of successes, %d of failures", cfg.videos, cfg.videos)
            record_videos(cfg, hand, library, outcomes, run.path / "videos")
        run.check_place()
        print(f"report: {html_report.write_report(run.path)}")
    return result


def record_videos(
    cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, outcomes: Sequence[Outcome], folder: Path
) -> list[Path]:
    """Record videos of some trials; return their paths.

    Without OpenGL log a warning with the package to install, and return none.
    """

    def rerun(disturbance: str, rows: int) -> tuple[GraspTask, Agent]:
        task = make_task(cfg, hand, library, disturbance, rows)
        return task, make_policy(cfg.policy, task)

    try:
        return videos.record(outcomes, cfg.videos, folder, cfg.attempts, rerun)
    except RenderUnavailable as error:
        log.warning("no videos: %s", error)
        return []


def run_trials(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, run: Run) -> tuple[list[Outcome], int]:
    """Run the trials that the run lacks; return all outcomes, in order, and the number of trials run."""
    plan, store = cfg.plan(library), JsonLinesStore(run.file("trials.jsonl"))
    stored, log_of_blocks = store.resume(plan), BlockLog(run.file("blocks.jsonl"), run.start)
    log_of_blocks.resume()
    simulated = 0
    total = cfg.trials * len(cfg.disturbances())
    log_resumed(len(plan.select(stored)), total)
    with Progress(total, "evaluate", done=len(plan.select(stored))) as progress:
        for disturbance, blocks in groupby(plan.remaining(stored), attrgetter("disturbance")):
            log.info(
                "disturbance %s: trials 0 to %d on %s", disturbance, cfg.trials - 1, counted(len(library), "object")
            )
            task = make_task(cfg, hand, library, disturbance, cfg.rows())
            task.nan_guard.dump_dir = run.path
            policy = make_policy(cfg.policy, task)
            run.check_inputs()  # the policy was read again
            for block in blocks:
                watch = BlockProgress(task, progress.tell_sometimes)
                if cfg.clear_table:
                    played = clear_tables(task, policy, block.trials, watch)
                else:
                    played = play(task, policy, block.trials, cfg.attempts, watch)
                outcomes = played[: len(plan.requested(block))]
                run.check_place()
                simulated += len(outcomes)
                missing = plan.missing(block, stored)
                log_of_blocks.append(missing)
                fresh = [outcome for outcome in outcomes if any(outcome.trial in part.trials for part in missing)]
                store.append([asdict(outcome) for outcome in fresh])
                stored += fresh
                won = sum(outcome.success for outcome in plan.select(stored))
                progress.advance(len(fresh), counted(won, "success", "successes"))
    return plan.select(stored), simulated


def code_of_trials(path: Path, facts: dict[str, Any], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return commit, versions and number of trials of each version of the code that ran trials.

    `path`: run directory; `facts`: content of its run.json. Ordered by the last start of each version.
    """
    starts = [one if isinstance(one, dict) and {"git", "versions"} <= set(one) else {} for one in facts["starts"]]
    unknown = {"git": None, "versions": {}} if any(starts) else {key: facts[key] for key in ("git", "versions")}
    ran = starts_of_trials(path / "blocks.jsonl")
    by_start = Counter(ran.get((one.disturbance, one.trial), -1) for one in outcomes)
    code: dict[str, dict[str, Any]] = {}
    for start, trials in sorted(by_start.items()):
        ran_by = (0 <= start < len(starts) and starts[start]) or unknown
        one = {key: value for key, value in ran_by.items() if key in unknown}
        found = code.pop(json.dumps(one), one | {"trials": 0})
        code[json.dumps(one)] = found | {"trials": found["trials"] + trials}
    return list(code.values())


def trained_objects(policy: str, library: ObjectLibrary) -> list[str]:
    """Return the objects of the library on which a policy was trained, by name or by mesh.

    Training objects that are not on this machine are not found; generated ones state their split themselves.
    """
    if policy in POLICIES:
        return []
    spec = str(policy_config(find_policy(policy)).get("objects", ""))
    if not spec or GENERATED.fullmatch(spec):
        return []
    try:
        return shared_objects(open_library(spec), library)
    except (OSError, ValueError):
        return []


def summarise(cfg: EvaluateCfg, outcomes: Sequence[Outcome], code: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of result.json.

    With several disturbances the counts are those of all their trials. `code`: that of `code_of_trials`.
    """
    success = [outcome.success for outcome in outcomes]
    by_disturbance = count_by([outcome.disturbance for outcome in outcomes], success)
    failed = Counter(outcome.failure for outcome in outcomes if not outcome.success)
    if unknown := sorted(set(failed) - set(FAILURES)):
        raise ValueError(f"the task reports failures {unknown}; known: {list(FAILURES)}")
    return success_summary(sum(success), len(success)) | {
        "per_object": count_by([outcome.object for outcome in outcomes], success),
        "per_disturbance": {
            name: success_summary(**by_disturbance[name]) for name in cfg.disturbances() if name in by_disturbance
        },
        "failures": {name: failed[name] for name in FAILURES},
        "config": configs.as_dict(cfg),
        "versions": code[-1]["versions"],
        "git": code[-1]["git"],
        "code": list(code),
        "seed": cfg.seed,
    }


def object_facts(
    outcomes: Sequence[Outcome], library: ObjectLibrary, trained: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return family, split, side lengths [m] and mass [kg] of the objects of the trials, by name.

    `trained`: names of objects on which the policy was trained.
    """
    seen = {outcome.object for outcome in outcomes}
    return {
        entry.name: {
            "family": entry.family,
            "split": entry.split,
            "extents_m": list(entry.extents),
            "mass_kg": entry.mass,
            "trained_on": entry.split == "train" or entry.name in trained,
        }
        for entry in library.entries
        if entry.name in seen
    }


def diagnostics(
    outcomes: Sequence[Outcome], objects: Mapping[str, Mapping[str, Any]], code: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return the content of diagnostics.json except the speed.

    Statistics over all trials [m], the objects, those of `object_facts`, and the code, that of `code_of_trials`.
    """
    at_once = Counter(outcome.disturbance for outcome in outcomes if outcome.success and outcome.attempts == 1)
    of_clutter = {"neighbours": count_neighbours(outcomes), "cleared": count_cleared(outcomes)}
    return {
        **{key: counts for key, counts in of_clutter.items() if counts},
        "at_first_attempt": {
            name: at_once[name] for name in dict.fromkeys(outcome.disturbance for outcome in outcomes)
        },
        "penetration_m": summarize_distribution([outcome.penetration_m for outcome in outcomes]),
        "slip_of_successes_m": summarize_distribution([outcome.slip_m for outcome in outcomes if outcome.success]),
        "lift_m": summarize_distribution([outcome.lift_m for outcome in outcomes]),
        "opposed_share_of_successes": opposed_share([outcome for outcome in outcomes if outcome.success]),
        "unstable_resets": sum(outcome.failure == "unstable" for outcome in outcomes),
        "trained_on": [name for name, facts in objects.items() if facts.get("trained_on", facts["split"] == "train")],
        "objects": objects,
        "code": list(code),
    }


def opposed_share(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Return mean, 1st percentile and minimum of `Outcome.opposed_share`.

    None where no trial has it: those of earlier versions.
    """
    found = [outcome.opposed_share for outcome in outcomes if math.isfinite(outcome.opposed_share)]
    if not found:
        return dict.fromkeys(("mean", "p1", "min"))
    return {"mean": sum(found) / len(found), "p1": percentile(found, 1.0), "min": min(found)}


def summarize_distribution(values: Sequence[float]) -> dict[str, float | None]:
    """Return median, 99th percentile and maximum of the finite values; None without any."""
    finite = [value for value in values if math.isfinite(value)]
    marks = {"median": 50.0, "p99": 99.0, "max": 100.0}
    return {name: percentile(finite, mark) if finite else None for name, mark in marks.items()}


def speed(simulated: int, wall_s: float) -> dict[str, float | int]:
    """Return the number of trials that this start of the run simulated, and their rate."""
    return {
        "trials_simulated": simulated,
        "wall_s": wall_s,
        "trials_per_s": simulated / wall_s,
    }


def demo(cfg: EvaluateCfg) -> dict[str, Any]:
    """Run the evaluation of configs/demo.yaml.

    The last three lines are the success rate, a video and the report.
    """
    out = Path(cfg.out) if cfg.out else default_path("demo")
    result = evaluate(replace(cfg, out=str(out)))
    low, high = (100 * end for end in result["wilson95"])
    count = f"{result['successes']} of {counted(result['trials'], 'trial')}"
    print(f"success rate  {100 * result['success_rate']:.1f} % ({count}; 95 % interval {low:.1f} – {high:.1f} %)")
    missing = "none (see the warning above)" if cfg.videos else "none (videos=0)"
    print(f"video         {best_video(out / 'videos') or missing}")
    print(f"report        {out / 'report.html'}")
    return result


def best_video(folder: Path) -> Path | None:
    """Return the video of a success, else of a failure, else None."""
    return next(iter(sorted(folder.glob("success_*.mp4")) + sorted(folder.glob("failure_*.mp4"))), None)
