"""`dexgrasp video RUN trial=N`: repeat a stored trial of an evaluation and record it.

A trial is determined by the run's configuration and its number; the outcome of the repetition is compared with the
recorded one.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.stored_run import StoredRun
from dexgrasp.policies.evaluation.trial_film import WIDTH, TrialFilm, verdict
from dexgrasp.policies.evaluation.videos import file_name, same_outcome
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.rendering.video import check_name
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.outcomes import Outcome

DIFFERS = 1
"""Exit status when the repetition ended in another way than the recorded trial."""
ANIMATION_HZ = 12.5
"""Largest number of frames per second of a GIF or WebP."""


@dataclass(frozen=True)
class VideoCfg:
    """Record one stored trial of an evaluation; exit status 1 if it does not end as recorded."""

    run: str = ""
    """Run directory of an evaluation."""
    trial: int = 0
    """Number of the trial."""
    disturbance: str = ""
    """Disturbance of the trial; empty = the first of the run."""
    out: str = ""
    """File to write, .mp4, .gif or .webp; empty = an MP4 in RUN/videos."""
    width: int = WIDTH
    """Width of the video [pixel]; its height is two thirds of it. MP4: a multiple of 48."""
    speed: float = 1.0
    """Speed relative to real time."""

    def __post_init__(self) -> None:
        if self.out:
            check_name(Path(self.out))
        if not 96 <= self.width <= 1920:
            raise ValueError(f"width must lie in 96..1920 pixels, got {self.width}")
        if not 0.1 <= self.speed <= 10:
            raise ValueError(f"speed must lie in 0.1..10, got {self.speed:g}")
        if self.width % 48 and Path(self.out or "a.mp4").suffix == ".mp4":
            raise ValueError(f"width of an .mp4 must be a multiple of 48 pixels, got {self.width}")


def video(cfg: VideoCfg) -> int:
    """Repeat the trial, write the file, say whether the outcome is the recorded one; return the exit status."""
    torch.set_num_threads(1)  # as in the evaluation
    if not cfg.run:
        raise ValueError("video needs the run directory of an evaluation: dexgrasp video RUN trial=N")
    run = StoredRun.read(cfg.run)
    outcome = run.outcome(cfg.trial, cfg.disturbance or run.cfg.disturbances()[0])
    path = Path(cfg.out) if cfg.out else run.path / "videos" / file_name(outcome)
    try:
        again = record_trial(run.cfg, outcome, path, cfg.width, cfg.speed)
    except RenderUnavailable as error:
        raise OSError(str(error)) from error
    same = same_outcome(outcome, again)
    end = "as recorded" if same else f"but '{verdict(outcome)}' was recorded: other code, versions or files than then?"
    print(f"trial {outcome.trial}, {outcome.object}: {verdict(again)}, {end}")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0 if same else DIFFERS


def record_trial(cfg: EvaluateCfg, outcome: Outcome, path: Path, width: int = WIDTH, speed: float = 1.0) -> Outcome:
    """Repeat the trial of `outcome` and record it; return the outcome of the repetition."""
    library = open_library(cfg.objects)
    hand = HandSpec.load(cfg.hand, side=cfg.side)
    task = make_task(replace(cfg, num_threads=1), hand, library, outcome.disturbance, rows=1)
    if (name := library.names[outcome.trial % len(library)]) != outcome.object:
        raise ValueError(f"trial {outcome.trial} used '{outcome.object}', now it is '{name}': the objects have changed")
    every = 1 if path.suffix == ".mp4" else math.ceil(task.cfg.rate_hz * speed / ANIMATION_HZ)
    films: list[TrialFilm] = []

    def watch() -> None:
        if not films:
            films.append(TrialFilm(path, outcome, 0, task, width=width, speed=speed, every=every))
        films[0].capture()

    try:
        again = play(task, make_policy(cfg.policy, task), [outcome.trial], cfg.attempts, watch)[0]
    except BaseException as error:
        for film in films:
            film.__exit__(type(error), error, None)
        raise
    films[0].__exit__(None, None, None)
    return again
