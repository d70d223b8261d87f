"""Record videos of finished trials, and `dexgrasp video RUN trial=N`.

A trial is determined by the run's configuration and its number: it is repeated, and the outcome of the repetition is
compared with the recorded one.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from dexgrasp.policies.agents.registry import Agent, make_policy
from dexgrasp.policies.evaluation.config import make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.stored_run import StoredRun
from dexgrasp.sim.envs.trial_film import WIDTH, TrialFilm
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, backend
from dexgrasp.sim.rendering.video import check_name
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.bounds import Bounds, TrialNumber, bounded
from dexgrasp.utils.output import claim_file
from dexgrasp.utils.plugins import refuse_unnamed
from dexgrasp.utils.progress import Progress

DIFFERS = 1
"""Exit status when the repetition ended in another way than the recorded trial."""

log = logging.getLogger("dexgrasp")

Rerun = Callable[[str, int], tuple[GraspTask, Agent]]
"""(disturbance, number of rows) -> task and policy."""


@dataclass(frozen=True)
@bounded
class VideoCfg:
    """Record one stored trial of an evaluation; exit status 1 if it does not end as recorded."""

    run: str = ""
    """Run directory of an evaluation."""
    trial: TrialNumber = 0
    """Number of the trial."""
    disturbance: str = ""
    """Disturbance of the trial; empty = the first of the run."""
    out: str = ""
    """File to write, .mp4, .gif or .webp; empty = an MP4 in RUN/videos."""
    width: Annotated[int, Bounds(96, 1920)] = WIDTH
    """Width of the video [pixel]; its height is two thirds of it. MP4: a multiple of 48."""
    speed: Annotated[float, Bounds(0.1, 10)] = 1.0
    """Speed relative to real time."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated; those of the evaluation must be among them."""

    def __post_init__(self) -> None:
        if self.out:
            check_name(Path(self.out))
        if self.width % 48 and Path(self.out or "a.mp4").suffix == ".mp4":
            raise ValueError(f"width of an .mp4 must be a multiple of 48 pixels, got {self.width}")


def video(cfg: VideoCfg) -> int:
    """Repeat the trial, write the video, print whether it ended as recorded; return the exit status."""
    torch.set_num_threads(1)  # as in the evaluation
    if not cfg.run:
        raise ValueError("video needs the run directory of an evaluation: dexgrasp video RUN trial=N")
    out = claim_file(cfg.out) if cfg.out else None
    run = StoredRun.read(cfg.run)
    if run.cfg.clear_table:
        raise ValueError(f"{run.path} cleared tables: only trials of one wanted object can be repeated as a video")
    refuse_unnamed(run.cfg.plugins, cfg.plugins, str(run.path))
    outcome = run.outcome(cfg.trial, cfg.disturbance or run.cfg.disturbances()[0])
    library = open_library(run.cfg.objects)
    if (name := library.names[outcome.trial % len(library)]) != outcome.object:
        raise ValueError(f"trial {outcome.trial} used '{outcome.object}', now it is '{name}': the objects have changed")
    hand = HandSpec.load(run.cfg.hand, side=run.cfg.side)
    task = make_task(replace(run.cfg, num_threads=1), hand, library, outcome.disturbance, rows=1)
    path = out or run.path / "videos" / file_name(outcome)
    policy, shown = make_policy(run.cfg.policy, task), {path: outcome}
    try:
        [again] = film(shown, run.cfg.attempts, task, policy, width=cfg.width, speed=cfg.speed)
    except RenderUnavailable as error:
        raise OSError(str(error)) from error
    same = same_outcome(outcome, again)
    end = "as recorded" if same else f"but '{outcome.verdict}' was recorded: other code, versions or files than then?"
    print(f"trial {outcome.trial}, {outcome.object}: {again.verdict}, {end}")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0 if same else DIFFERS


def record(outcomes: Sequence[Outcome], count: int, folder: Path, attempts: int, rerun: Rerun) -> list[Path]:
    """Record up to `count` successes and `count` failures; raises RenderUnavailable without OpenGL."""
    backend()
    chosen = choose(outcomes, count)
    paths: list[Path] = []
    for disturbance in dict.fromkeys(outcome.disturbance for outcome in chosen):
        wanted = {folder / file_name(outcome): outcome for outcome in chosen if outcome.disturbance == disturbance}
        missing = {path: outcome for path, outcome in wanted.items() if not path.exists()}
        if missing:
            repeated = film(missing, attempts, *rerun(disturbance, len(missing)))
            _warn_of_differences(list(missing.values()), repeated)
        paths += wanted
    return paths


def choose(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """Return `count` successes and failures that differ most in object, disturbance and failure.

    Ties are resolved in the order of the trials.
    """
    chosen: list[Outcome] = []
    for success in (True, False):
        pool = [outcome for outcome in outcomes if outcome.success is success]
        for _ in range(min(count, len(pool))):
            best = min(pool, key=lambda outcome: _sameness(outcome, chosen))
            pool.remove(best)
            chosen.append(best)
    return chosen


def film(
    wanted: dict[Path, Outcome],
    attempts: int,
    task: GraspTask,
    policy: Agent,
    width: int = WIDTH,
    speed: float = 1.0,
) -> list[Outcome]:
    """Repeat trials side by side and write a video of each; return the outcomes of the repetitions.

    `wanted`: trial to repeat by the path of its video, one per environment. `speed`: relative to real time.
    """
    films: list[TrialFilm] = []
    filmed = 0
    earlier = torch.tensor([outcome.attempts for outcome in wanted.values()]) - 1  # attempts before the last one
    total = int((earlier + 1).sum()) * task.episode_steps
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(total, "video"))  # its steps: control steps of all trials

        def watch() -> None:
            nonlocal filmed
            if not films:  # the task is reset now
                for row, (path, outcome) in enumerate(wanted.items()):
                    films.append(stack.enter_context(TrialFilm(path, outcome, row, task, width=width, speed=speed)))
            for one in films:
                one.capture()
            attempts, steps = task.outcome_tracker.attempts.cpu(), task.steps_since_pregrasp.cpu()
            done = steps_done(attempts, earlier, steps, task.episode_steps)
            filmed += 1
            back = ", on the way to another grasp" if (steps < 0).any() else ""  # counts for no attempt
            progress.advance(max(done - progress.done, 0), f"control step {filmed}{back}")

        repeated = play(task, policy, [outcome.trial for outcome in wanted.values()], attempts, watch)
        progress.advance(total - progress.done)
        return repeated


def steps_done(attempts: Tensor, earlier: Tensor, steps: Tensor, episode_steps: int) -> int:
    """Return the control steps done of all trials, where each attempt counts as a whole episode.

    `attempts` (env,): number of the current attempt, from 1. `earlier` (env,): attempts before the last one.
    `steps` (env,): since the pre-grasp, negative on the way back to it, and beyond the end once a trial has ended.
    """
    before = torch.minimum(attempts - 1, earlier) * episode_steps
    return int((before + steps.clamp(0, episode_steps)).sum())


def same_outcome(outcome: Outcome, again: Outcome) -> bool:
    """Return whether a repeated trial ended as recorded: success, failure and number of grasps."""
    return all(getattr(outcome, key) == getattr(again, key) for key in ("success", "failure", "attempts"))


def file_name(outcome: Outcome) -> str:
    """Return success_<trial>_<object>.mp4 or failure_...mp4, with the disturbance at the end."""
    disturbance = "" if outcome.disturbance == "none" else f"_{outcome.disturbance}"
    return f"{'success' if outcome.success else 'failure'}_{outcome.trial}_{outcome.object}{disturbance}.mp4"


def _warn_of_differences(recorded: Sequence[Outcome], repeated: Sequence[Outcome]) -> None:
    for outcome, again in zip(recorded, repeated, strict=True):
        if not same_outcome(outcome, again):
            log.warning("trial %d was '%s' but its video shows '%s'", outcome.trial, outcome.verdict, again.verdict)


def _sameness(outcome: Outcome, chosen: Sequence[Outcome]) -> int:
    """Count the failures, disturbances and objects that `outcome` shares with `chosen`."""
    return sum(
        (other.failure == outcome.failure)
        + (other.disturbance == outcome.disturbance)
        + (other.object == outcome.object)
        for other in chosen
    )
