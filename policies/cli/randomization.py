"""`dexgrasp randomization show`: ranges, their sources, one draw, and histograms of many."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp import configs
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg, ResetCfg, draw_episode
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.utils.bounds import Bounds, Seed, TrialNumber, bounded
from dexgrasp.utils.files import atomic_path
from dexgrasp.utils.text import counted, print_table

matplotlib.use("Agg")
JOINTS = 16
COLUMNS = 5


UNIT_OF_DRAW = {
    **dict.fromkeys(("object_xy", "camera_offset", "approach_offset", "standoff", "palm_offset", "com_offset"), "m"),
    **dict.fromkeys(("yaw", "tilt", "roll", "finger_offset", "joint_bias"), "rad"),
    **dict.fromkeys(("action_delay", "observation_delay"), "control steps"),
    "gravity": "m/s²",
}
"""Unit of a draw; the others are factors, shares or directions, or are scaled later."""


@dataclass(frozen=True)
@bounded
class ShowRandomizationCfg:
    """Print the values that a randomisation draws, and plot the distributions of many resets."""

    n: Annotated[int, Bounds(1, 1_000_000)] = 10_000
    """Number of resets in the histograms."""
    trial: TrialNumber = 0
    """Number of the trial whose values are printed."""
    seed: Seed = 0
    """Seed of the random numbers."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    reset: ResetCfg = field(default_factory=ResetCfg)
    """Ranges of the initial state of an episode."""
    randomization: RandomizationCfg = field(default_factory=RandomizationCfg)
    """Ranges of the domain randomisation: off, paper or train."""


def show_randomization(cfg: ShowRandomizationCfg) -> None:
    """Print the table, write RUN/histograms.png."""
    domain = cfg.randomization
    with Run.open(cfg.out, cfg) as run:
        _print(domain, sources(configs.ROOT / "randomization" / f"{domain.name}.yaml"))
        _print_draw(_drawn(cfg, torch.tensor([cfg.trial])), cfg.trial)
        path = run.file("histograms.png")
        _plot(_drawn(cfg, torch.arange(cfg.n)), path)
        print(f"histograms of {counted(cfg.n, 'reset')}: {path}")


def _drawn(cfg: ShowRandomizationCfg, trials: Tensor) -> dict[str, NDArray[np.float64]]:
    """Return the drawn values of the trials by name, (trial, ...)."""
    random = TrialRandom.of_trials(torch.full_like(trials, cfg.seed), trials)
    draws = draw_episode(random, cfg.reset, cfg.randomization, JOINTS)
    return {item.name: getattr(draws, item.name).numpy() for item in fields(EpisodeDraws) if item.name != "key"}


def sources(path: Path) -> dict[str, str]:
    """Return the comment behind each key of a YAML file: the source of its range."""
    lines = (re.match(r"(\w+):[^#]*#\s*(.+)", line) for line in path.read_text(encoding="utf-8").splitlines())
    return {match[1]: match[2] for match in lines if match}


def _print(domain: RandomizationCfg, source: dict[str, str]) -> None:
    rows = [("quantity", "range", "off", "source")]
    for item in fields(domain)[1:]:  # the name is no range
        value, off = getattr(domain, item.name), item.default
        rows.append((item.name, _text(value), _text(off), source.get(item.name, "not randomised")))
    print_table(rows, f"randomization={domain.name}")


def _print_draw(draw: dict[str, NDArray[np.float64]], trial: int) -> None:
    rows = [("draw", "value")]
    for name, value in draw.items():
        flat = np.ravel(value)
        rows.append((name, " ".join(f"{x:.4g}" for x in flat[:6]) + (" ..." if len(flat) > 6 else "")))
    print_table(rows, f"trial {trial}")


def _text(value: Any) -> str:
    return " .. ".join(f"{x:g}" for x in value) if isinstance(value, tuple) else f"{value:g}"


def _plot(draws: dict[str, NDArray[np.float64]], path: Path) -> None:
    import matplotlib.pyplot as plt

    rows = -(-len(draws) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(3.0 * COLUMNS, 1.9 * rows), layout="constrained")
    for axis, (name, values) in zip(axes.flat, draws.items(), strict=False):
        axis.hist(values.ravel(), bins=50, color="#4878a8")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(UNIT_OF_DRAW.get(name, ""), fontsize=7, labelpad=1)
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(draws) :]:
        axis.axis("off")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=90)
    plt.close(figure)
