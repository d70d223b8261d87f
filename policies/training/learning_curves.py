"""Learning curves of a training run: RUN/progress.csv, continued over all starts, and its plot."""

import csv
from pathlib import Path

from stable_baselines3.common.logger import CSVOutputFormat

CLOCK = "time/total_timesteps"
PANELS = {
    "success": ("rollout/success", "curriculum/mastery", "validation/success", "curriculum/disturbance"),
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
LABELS = {"rollout/success": "training", "validation/success": "validation"}
"""Labels of curves that differ from the last part of their column's name."""


class ProgressCsv(CSVOutputFormat):
    """CSV writer of Stable-Baselines3 that continues the file of a resumed run."""

    def __init__(self, path: Path, steps: int) -> None:
        """Keep the rows up to `steps` control steps; later ones belong to iterations that a kill undid."""
        header, rows = [], []
        if path.is_file():
            with path.open(newline="") as file:
                header, *rows = list(csv.reader(file)) or [[]]
        super().__init__(str(path))
        if CLOCK in header:  # a kill may have cut it short
            clock = header.index(CLOCK)
            kept = [row for row in rows if len(row) == len(header) and float(row[clock] or 0) <= steps]
            csv.writer(self.file, lineterminator="\n").writerows([header, *kept])
            self.keys = header


def draw_curves(progress: Path, picture: Path) -> None:
    """Plot RUN/progress.csv against the control steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

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
        axis.grid(alpha=0.3)
        if names:
            axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def read_columns(progress: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return control steps and values of every column of a progress.csv, without empty cells."""
    with progress.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name and value:
                steps, values = columns.setdefault(name, ([], []))
                steps.append(float(row[CLOCK]))
                values.append(float(value))
    return {name: column for name, column in columns.items() if column[1]}
