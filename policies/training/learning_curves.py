"""Learning curves of a training run: RUN/progress.csv, continued over all starts, and its plot."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from dexgrasp.utils.files import append_text, atomic_path, write_text

CLOCK = "time/total_timesteps"
PANELS = {
    "success rate": ("rollout/success", "curriculum/mastery", "validation/success"),
    "level of the curriculum (0..1)": ("curriculum/disturbance",),
    "reward per episode": (
        "reward/lift",
        "reward/contact",
        "reward/reach",
        "reward/table_contact",
        "reward/displacement",
    ),
    "update": ("train/kl", "train/std", "train/value"),
    "imitation": ("train/imitation", "train/reconstruction", "train/rho"),
}
"""Columns of progress.csv by panel; columns that a run lacks are left out."""
RATES = ("success rate", "level of the curriculum (0..1)")
"""Panels whose values lie between 0 and 1."""
LABELS = {
    "rollout/success": "training",
    "validation/success": "validation",
    "curriculum/mastery": "mean over the objects of training",
    "train/kl": "KL divergence",
    "train/std": "standard deviation of actions",
    "train/value": "value loss",
}
"""Labels of curves that differ from the last part of their column's name."""


class ProgressCsv(KVWriter):
    """Writer of progress.csv, which continues the file of a resumed run.

    A row is appended to the file, or the whole file is replaced in one step: a kill never loses an earlier row.
    """

    def __init__(self, path: Path, steps: int) -> None:
        """Keep the rows up to `steps` control steps; later ones belong to iterations that a kill undid."""
        self._path = path
        rows = read_rows(path) if path.is_file() else []
        self._rows = [row for row in rows if row.get(CLOCK) and float(row[CLOCK]) <= steps]
        self._keys = list(rows[0]) if rows else []
        if path.is_file():
            self._write_all()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Write the row of one iteration."""
        values = filter_excluded_keys(key_values, key_excluded, "csv")
        row = {key: str(value) for key, value in values.items()}
        self._rows.append(row)
        if new := [key for key in row if key not in self._keys]:
            self._keys += new
            self._write_all()
        else:
            append_text(self._path, self._text([row]))

    def close(self) -> None:
        """Do nothing: the file is closed after every row."""

    def _write_all(self) -> None:
        write_text(self._path, self._text([{key: key for key in self._keys}, *self._rows]))

    def _text(self, rows: list[dict[str, str]]) -> str:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._keys, lineterminator="\n").writerows(rows)
        return buffer.getvalue()


def read_rows(progress: Path) -> list[dict[str, str]]:
    """Return the rows of a progress.csv by column, without a last line that was torn by a kill."""
    whole, newline, _ = progress.read_text(encoding="utf-8").rpartition("\n")
    return list(csv.DictReader(io.StringIO(whole + newline)))


def draw_curves(progress: Path, picture: Path) -> None:
    """Plot RUN/progress.csv against the control steps."""
    import matplotlib

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells of its cache

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    columns = read_columns(progress)
    panels = {title: [name for name in names if name in columns] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names} or {"nothing yet": []}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.6), squeeze=False)
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            steps, values = columns[name]
            axis.plot(
                [1e-6 * step for step in steps], values, label=LABELS.get(name, name.partition("/")[2]), linewidth=1.2
            )
        axis.set(title=title, xlabel="million control steps")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(alpha=0.3)
        if title in RATES:
            axis.set_ylim(-0.02, 1.02)
        if names:
            axis.legend(fontsize=8)
    figure.tight_layout()
    with atomic_path(picture) as partial:
        figure.savefig(partial, dpi=110)
    pyplot.close(figure)


def read_columns(progress: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return control steps and values of every column of a progress.csv, without empty cells."""
    rows = read_rows(progress)
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name and value:
                steps, values = columns.setdefault(name, ([], []))
                steps.append(float(row[CLOCK]))
                values.append(float(value))
    return {name: column for name, column in columns.items() if column[1]}
