"""Record videos of finished trials: a trial is reproduced from its seed and number."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from dexgrasp.policies.agents.registry import Agent
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.trial_film import TrialFilm, verdict
from dexgrasp.sim.rendering.offscreen import backend
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import Outcome

log = logging.getLogger("dexgrasp")

Rerun = Callable[[str, int], tuple[GraspTask, Agent]]
"""(disturbance, number of rows) -> task and policy."""


def record(
    outcomes: Sequence[Outcome], count: int, folder: Path, attempts: int, rerun: Rerun
) -> list[Path]:
    """Record up to `count` successes and `count` failures; raises RenderUnavailable without OpenGL."""
    backend()
    chosen = choose(outcomes, count)
    paths: list[Path] = []
    for disturbance in dict.fromkeys(outcome.disturbance for outcome in chosen):
        wanted = [outcome for outcome in chosen if outcome.disturbance == disturbance]
        missing = [outcome for outcome in wanted if not (folder / file_name(outcome)).exists()]
        if missing:
            film(missing, folder, attempts, *rerun(disturbance, len(missing)))
        paths += [folder / file_name(outcome) for outcome in wanted]
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
    wanted: Sequence[Outcome], folder: Path, attempts: int, task: GraspTask, policy: Agent
) -> None:
    """Run the trials of `wanted` side by side and write one real-time video each."""
    trials, films = [outcome.trial for outcome in wanted], []
    with ExitStack() as stack:

        def watch() -> None:
            if not films:  # the task is reset now
                films.extend(
                    stack.enter_context(TrialFilm(folder / file_name(outcome), outcome, row, task))
                    for row, outcome in enumerate(wanted)
                )
            for one in films:
                one.capture()

        repeated = play(task, policy, trials, attempts, watch)
    for outcome, again in zip(wanted, repeated, strict=True):
        if not same_outcome(outcome, again):
            log.warning("trial %d was '%s' but its video shows '%s'", outcome.trial, verdict(outcome), verdict(again))


def same_outcome(outcome: Outcome, again: Outcome) -> bool:
    """Return whether a repeated trial ended as recorded: success, failure and number of grasps."""
    return all(getattr(outcome, key) == getattr(again, key) for key in ("success", "failure", "attempts"))


def file_name(outcome: Outcome) -> str:
    """Return success_<trial>_<object>.mp4 or failure_...mp4, with the disturbance at the end."""
    disturbance = "" if outcome.disturbance == "none" else f"_{outcome.disturbance}"
    return f"{'success' if outcome.success else 'failure'}_{outcome.trial}_{outcome.object}{disturbance}.mp4"


def _sameness(outcome: Outcome, chosen: Sequence[Outcome]) -> int:
    """Count the failures, disturbances and objects that `outcome` shares with `chosen`."""
    return sum(
        (other.failure == outcome.failure)
        + (other.disturbance == outcome.disturbance)
        + (other.object == outcome.object)
        for other in chosen
    )
