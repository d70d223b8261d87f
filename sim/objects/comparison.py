"""Comparison of a library's distributions with those of real meshes.

For each quantity: the share of real objects that lie inside the library's range (its 0.5 to 99.5 % quantiles), and
both medians.  Real objects outside of the range are outside of a policy's training distribution.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dexgrasp.sim.objects.library import ObjectEntry, ObjectLibrary
from dexgrasp.utils.files import write_bytes
from dexgrasp.utils.text import terminal_width, text_table

TAIL_FRACTION = 0.005
"""Share of the library cut off at each end before its range is taken."""
WANTED_COVERAGE = 0.95


@dataclass(frozen=True)
class Marginal:
    """One quantity of both sets."""

    name: str
    unit: str
    coverage: float
    """Share of the real objects inside the library's range."""
    library_range: tuple[float, float]
    library_median: float
    real_range: tuple[float, float]
    real_median: float
    outside: list[str]
    """Real objects outside the library's range."""


UNITS = {
    "longest side": "cm",
    "middle side": "cm",
    "shortest side": "cm",
    "middle / longest": "1",
    "shortest / middle": "1",
    "volume / hull": "1",
    "thickness": "mm",
    "mass": "g",
    "convex pieces": "1",
    "resting poses": "1",
}
"""Unit of each compared quantity."""


def quantities(entry: ObjectEntry) -> dict[str, float]:
    """Return the compared quantities of one object, in the units of UNITS."""
    short, middle, long = sorted(entry.extents)
    values = (
        100 * long, 100 * middle, 100 * short, middle / long, short / middle, entry.volume / entry.hull_volume,
        1000 * entry.thickness, 1000 * entry.mass, float(entry.pieces), float(entry.poses),
    )  # fmt: skip
    return dict(zip(UNITS, values, strict=True))


def compare(library: ObjectLibrary, real: ObjectLibrary) -> list[Marginal]:
    """Return the marginals of two libraries, the second one being of real objects."""
    ours, theirs = _table(library), _table(real)
    return [_marginal(name, ours[name], theirs[name], real.names) for name in ours]


def report(marginals: list[Marginal]) -> str:
    """Return the marginals as a table for a person."""
    rows, below = [("quantity", "unit", "coverage", "library (median)", "real (median)")], []
    for m in marginals:
        ours = f"{m.library_range[0]:.3g} .. {m.library_range[1]:.3g} ({m.library_median:.3g})"
        theirs = f"{m.real_range[0]:.3g} .. {m.real_range[1]:.3g} ({m.real_median:.3g})"
        rows.append((m.name, m.unit, f"{100 * m.coverage:.1f} %", ours, theirs))
        if m.coverage < WANTED_COVERAGE:
            below.append(f"{m.name}: below {100 * WANTED_COVERAGE:.0f} %, without {', '.join(m.outside[:4])}")
    return "\n".join([text_table(rows, terminal_width()), *below])


def write_comparison(marginals: list[Marginal], library: ObjectLibrary, real: ObjectLibrary, out: Path) -> None:
    """Write compare.json and compare.png (a histogram for each quantity) into a folder."""
    write_bytes(out / "compare.json", (json.dumps([asdict(m) for m in marginals], indent=1) + "\n").encode())
    ours, theirs = _table(library), _table(real)
    write_bytes(out / "compare.png", _plots(marginals, ours, theirs))


def _table(library: ObjectLibrary) -> dict[str, np.ndarray]:
    rows = [quantities(entry) for entry in library.entries]
    return {name: np.array([row[name] for row in rows]) for name in UNITS}


def _marginal(name: str, ours: np.ndarray, theirs: np.ndarray, names: list[str]) -> Marginal:
    low, high = (float(q) for q in np.quantile(ours, [TAIL_FRACTION, 1 - TAIL_FRACTION]))
    inside = (theirs >= low - 1e-9) & (theirs <= high + 1e-9)
    return Marginal(
        name=name,
        unit=UNITS[name],
        coverage=float(inside.mean()),
        library_range=(low, high),
        library_median=float(np.median(ours)),
        real_range=(float(theirs.min()), float(theirs.max())),
        real_median=float(np.median(theirs)),
        outside=[names[k] for k in np.flatnonzero(~inside)],
    )


def _plots(marginals: list[Marginal], ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bytes:
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, m in zip(figure.subplots(3, 4).flat, marginals, strict=False):
        both = np.concatenate([ours[m.name], theirs[m.name]])
        bins = np.linspace(both.min(), both.max() + 1e-9, 25).tolist()
        for values, label, colour in ((ours[m.name], "library", "#4878a8"), (theirs[m.name], "real", "#d08040")):
            axes.hist(
                values, bins=bins, weights=np.full(len(values), 1 / len(values)), alpha=0.6, label=label, color=colour
            )
        axes.set_title(f"{m.name} [{m.unit}]: {100 * m.coverage:.0f} % covered", fontsize=9)
        axes.tick_params(labelsize=8)
    figure.axes[0].legend(fontsize=8)
    for axes in figure.axes[len(marginals) :]:
        axes.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
