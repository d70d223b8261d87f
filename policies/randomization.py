"""`dexgrasp randomization show`: ranges, their sources, one draw, and histograms of many."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

import configs
from policies.runs import Run
from sim.randomize import RandomizeCfg, ResetCfg, draw_episode, trial_generator

matplotlib.use("Agg")
JOINTS = 16
COLUMNS = 5


@dataclass(frozen=True)
class ShowRandomizationCfg:
    """Print what a randomisation draws, and plot the distributions of many resets."""

    n: int = 10_000
    """Number of resets in the histograms."""
    trial: int = 0
    """The trial whose draws are printed."""
    seed: int = 0
    """Seed of the draws."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    reset: ResetCfg = field(default_factory=ResetCfg)
    """Where episodes start."""
    randomize: RandomizeCfg = field(default_factory=RandomizeCfg)
    """Which randomisation: off, paper or train."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")


def show_randomization(cfg: ShowRandomizationCfg) -> None:
    """Print the table, write RUN/histograms.png."""
    domain = cfg.randomize
    with Run.open(cfg.out, cfg) as run:
        draw = draw_episode(trial_generator(cfg.seed, cfg.trial), cfg.reset, domain, JOINTS)
        _print(domain, sources(configs.ROOT / "randomize" / f"{domain.name}.yaml"))
        _print_draw(draw, cfg.trial)
        path = run.file("histograms.png")
        _plot([draw_episode(trial_generator(cfg.seed, i), cfg.reset, domain, JOINTS) for i in range(cfg.n)], path)
        print(f"histograms of {cfg.n} resets: {path}")


def sources(path: Path) -> dict[str, str]:
    """The comment behind each key of a YAML file: where its range comes from."""
    lines = (re.match(r"(\w+):[^#]*#\s*(.+)", line) for line in path.read_text(encoding="utf-8").splitlines())
    return {match[1]: match[2] for match in lines if match}


def _print(domain: RandomizeCfg, source: dict[str, str]) -> None:
    table = Table("quantity", "range", "off", "source", title=f"randomize={domain.name}")
    for item in fields(domain)[1:]:  # the name is no range
        value, off = getattr(domain, item.name), item.default
        style = "dim" if value == off else ""
        table.add_row(item.name, _text(value), _text(off), source.get(item.name, "not randomised"), style=style)
    Console(width=120).print(table)


def _print_draw(draw: dict[str, Any], trial: int) -> None:
    table = Table("draw", "value", title=f"trial {trial}")
    for name, value in draw.items():
        flat = np.ravel(value)
        table.add_row(name, " ".join(f"{x:.4g}" for x in flat[:6]) + (" ..." if len(flat) > 6 else ""))
    Console(width=120).print(table)


def _text(value: Any) -> str:
    return " .. ".join(f"{x:g}" for x in value) if isinstance(value, tuple) else f"{value:g}"


def _plot(draws: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    names = list(draws[0])
    rows = -(-len(names) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(3.0 * COLUMNS, 1.9 * rows), layout="constrained")
    for axis, name in zip(axes.flat, names, strict=False):
        axis.hist(np.ravel([draw[name] for draw in draws]), bins=50, color="#4878a8")
        axis.set_title(name, fontsize=9)
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    figure.savefig(path, dpi=90)
    plt.close(figure)
