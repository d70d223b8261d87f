"""Write the report of an evaluation: one HTML file that needs no other file and no network.

Bar charts as inline SVG: no library, no file, no network.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.policies.evaluation.statistics import wilson_interval
from dexgrasp.policies.evaluation.summary import warnings
from dexgrasp.sim.objects import ObjectModel, open_library
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.rendering.renderer import render_mesh
from dexgrasp.utils.files import write_text

WIDTH = 760

ROW = 24

LABEL = 200

COUNT = 120

GOOD, TRACK, WHISKER = "#0d9488", "#e8ecf1", "#0f172a"


@dataclass(frozen=True)
class Bar:
    """One row of a chart of success rates."""

    label: str
    successes: int
    trials: int


def rate_chart(bars: Sequence[Bar], intervals: bool = True) -> str:
    """Return horizontal bars from 0 to 100 %, with 95 % Wilson intervals as whiskers."""
    rows = "".join(_rate_row(bar, i * ROW, intervals) for i, bar in enumerate(bars))
    return _svg(rows, len(bars) * ROW + 22, _axis(len(bars) * ROW))


def share_chart(parts: Mapping[str, tuple[int, str]]) -> str:
    """Return one stacked bar of {label: (count, colour)} with a legend; zero counts are left out."""
    total = sum(count for count, _ in parts.values())
    shown = {label: part for label, part in parts.items() if part[0]}
    pieces, x = [], 0.0
    for label, (count, colour) in shown.items():
        width = WIDTH * count / total
        pieces.append(
            f'<rect x="{x:.1f}" y="0" width="{max(width - 1.5, 0.5):.1f}" height="30" rx="3" fill="{colour}">'
            f"<title>{escape(label)}: {count} of {total}</title></rect>"
        )
        x += width
    keys = "".join(
        f'<li><i style="background:{colour}"></i>{escape(label)} <b>{count}</b> '
        f"<small>{100 * count / total:.1f} %</small></li>"
        for label, (count, colour) in shown.items()
    )
    return f'{_svg("".join(pieces), 30)}<ul class="legend">{keys}</ul>'


def interval_gauge(rate: float, low: float, high: float) -> str:
    """Return the success rate as a point on a line from 0 to 100 %, with its interval as a band."""
    y, span = 16, WIDTH - 40

    def at(share: float) -> str:
        return f"{20 + span * share:.1f}"

    ticks = "".join(
        f'<text x="{at(t / 4)}" y="44" class="tick" text-anchor="middle">{25 * t} %</text>' for t in range(5)
    )
    band = f'<rect x="{at(low)}" y="{y - 7}" width="{span * (high - low):.1f}" height="14" rx="7" fill="#99d5cf"/>'
    return _svg(
        f'<rect x="20" y="{y - 3}" width="{span}" height="6" rx="3" fill="{TRACK}"/>{band}'
        f'<circle cx="{at(rate)}" cy="{y}" r="7" fill="{GOOD}"/>{ticks}',
        50,
    )


def _rate_row(bar: Bar, y: float, intervals: bool) -> str:
    rate, span = bar.successes / bar.trials, WIDTH - LABEL - COUNT
    middle = y + ROW / 2
    label = bar.label if len(bar.label) <= 28 else bar.label[:27] + "…"
    whisker = ""
    if intervals:
        low, high = (LABEL + span * end for end in wilson_interval(bar.successes, bar.trials))
        whisker = (
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8" '
            f'stroke="{WHISKER}" stroke-width="1.3" fill="none"/>'
        )
    return (
        f'<text x="{LABEL - 10}" y="{middle + 4}" text-anchor="end">{escape(label)}'
        f"<title>{escape(bar.label)}</title></text>"
        f'<rect x="{LABEL}" y="{y + 4}" width="{span}" height="{ROW - 8}" rx="3" fill="{TRACK}"/>'
        f'<rect x="{LABEL}" y="{y + 4}" width="{span * rate:.1f}" height="{ROW - 8}" rx="3" fill="{GOOD}"/>{whisker}'
        f'<text x="{WIDTH}" y="{middle + 4}" text-anchor="end" class="count">'
        f"{100 * rate:.0f} %  ·  {bar.successes}/{bar.trials}</text>"
    )


def _axis(height: float) -> str:
    span = WIDTH - LABEL - COUNT
    marks = []
    for tick in range(0, 101, 25):
        x = LABEL + span * tick / 100
        marks.append(
            f'<path d="M{x:.1f} 0V{height}" stroke="#fff" stroke-opacity=".7"/>'
            f'<text x="{x:.1f}" y="{height + 15}" class="tick" text-anchor="middle">{tick}</text>'
        )
    return "".join(marks)


def _svg(content: str, height: float, over: str = "") -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{content}{over}</svg>'


TEMPLATE = Path(__file__).with_name("report.html.j2")

LARGEST_CM, THINNEST_CM = (5, 8, 11, 15), (2, 3, 4.5, 7)
"""Bin edges of the charts by size."""

WORST = 8
"""Number of objects with a picture."""

MOST_BARS = 60
"""Number of objects with a bar of their own."""

MOST_VIDEO_BYTES = 6 << 20
"""Total size up to which videos are embedded; further ones are named only."""

FAILURE_COLOURS = {
    "missed": "#94a3b8",
    "pushed_away": "#f59e0b",
    "dropped_in_lift": "#f87171",
    "dropped_in_hold": "#b91c1c",
    "unstable": "#7c3aed",
}

Json = dict[str, Any]


def write_report(run_dir: str | Path) -> Path:
    """Write RUN/report.html from RUN/result.json and RUN/diagnostics.json; return its path."""
    run_dir = Path(run_dir)
    result, notes = (json.loads((run_dir / name).read_text("utf-8")) for name in ("result.json", "diagnostics.json"))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.get_template(TEMPLATE.name).render(_content(run_dir, result, notes))
    path = run_dir / "report.html"
    write_text(path, page)
    return path


def _content(run_dir: Path, result: Json, notes: Json) -> Json:
    """Return the variables of the template; charts and gauge are SVG, escaped in `charts`, the rest is plain text."""
    charts = {
        "endings": _endings(result),
        "disturbances": _by_disturbance(result),
        "largest_side": _by_side(result, notes, max, LARGEST_CM),
        "thinnest_side": _by_side(result, notes, min, THINNEST_CM),
        "families": _by_family(result, notes),
        "objects": rate_chart(_worst_first(result)[:MOST_BARS], intervals=False),
    }
    count = len(result["per_object"])
    cards, no_cards = _pictures(result, notes)
    return {
        "result": result,
        "config": result["config"],
        "notes": notes,
        "gauge": interval_gauge(result["success_rate"], *result["wilson95"]),
        "chips": _chips(result),
        "warnings": warnings(result["config"], notes),
        "charts": charts,
        "objects_note": f"The {MOST_BARS} worst of {count}; result.json has all." if count > MOST_BARS else "",
        "cards": cards,
        "no_cards": no_cards,
        "videos": _videos(run_dir),
        "physics_rows": _physical(notes),
        "version_rows": _versions(result),
        "config_json": json.dumps(result["config"], indent=2, ensure_ascii=False),
    }


def _chips(result: Json) -> Json:
    config = result["config"]
    return {
        "policy": config["policy"],
        "hand": f"{config['hand']} ({config['side']})",
        "mount": config["mount"],
        "objects": f"{config['objects']} ({len(result['per_object'])})",
        "disturbance": config["disturbance"],
        "attempts": config["attempts"],
        "physics": config["physics"]["name"],
        "seed": result["seed"],
    }


def _endings(result: Json) -> str:
    parts = {"success": (result["successes"], GOOD)}
    parts |= {name.replace("_", " "): (result["failures"][name], colour) for name, colour in FAILURE_COLOURS.items()}
    return share_chart(parts)


def _by_disturbance(result: Json) -> str:
    """Return the chart by disturbance; empty where there is only one."""
    rows = result["per_disturbance"]
    if len(rows) < 2:
        return ""
    return rate_chart([Bar(name, row["successes"], row["trials"]) for name, row in rows.items()])


def _by_side(result: Json, notes: Json, side: Callable[[Sequence[float]], float], edges_cm: Sequence[float]) -> str:
    """Return the chart of objects pooled by the largest or thinnest side of their bounding boxes."""

    def length_cm(name: str) -> float:
        return 100 * side(notes["objects"][name]["extents_m"])

    pools: dict[str, list[str]] = {}
    for name in sorted(result["per_object"], key=length_cm):
        pools.setdefault(_bin_label(length_cm(name), edges_cm), []).append(name)
    return rate_chart(_pooled(result, pools))


def _bin_label(length_cm: float, edges_cm: Sequence[float]) -> str:
    above = [edge for edge in edges_cm if edge <= length_cm]
    below = [edge for edge in edges_cm if edge > length_cm]
    if not above:
        return f"below {below[0]} cm"
    return f"{above[-1]} – {below[0]} cm" if below else f"above {above[-1]} cm"


def _by_family(result: Json, notes: Json) -> str:
    """Return the chart of objects pooled by family, worst first; empty where all are of one family."""
    pools: dict[str, list[str]] = {}
    for name in result["per_object"]:
        pools.setdefault(notes["objects"][name]["family"], []).append(name)
    bars = sorted(_pooled(result, pools), key=lambda bar: bar.successes / bar.trials)
    return rate_chart(bars) if len(bars) > 1 else ""


def _pooled(result: Json, pools: dict[str, list[str]]) -> list[Bar]:
    counts = result["per_object"]
    return [
        Bar(
            label=f"{label} ({len(names)})",
            successes=sum(counts[name]["successes"] for name in names),
            trials=sum(counts[name]["trials"] for name in names),
        )
        for label, names in pools.items()
    ]


def _worst_first(result: Json) -> list[Bar]:
    bars = [Bar(name, row["successes"], row["trials"]) for name, row in result["per_object"].items()]
    return sorted(bars, key=lambda bar: (bar.successes / bar.trials, -bar.trials, bar.label))


def _pictures(result: Json, notes: Json) -> tuple[list[Json], str]:
    """Return cards of the objects that failed most, or no card and the reason."""
    worst = [bar for bar in _worst_first(result) if bar.successes < bar.trials][:WORST]
    if not worst:
        return [], "No object failed."
    try:
        library = open_library(result["config"]["objects"])
        return [_card(bar, library[bar.label], notes["objects"][bar.label]) for bar in worst], ""
    except RenderUnavailable as error:
        return [], f"No pictures: {error}"
    except (FileNotFoundError, KeyError) as error:
        return [], f"No pictures: the objects are not where they were ({error})."


def _card(bar: Bar, model: ObjectModel, facts: Json) -> Json:
    sides = " × ".join(f"{100 * side:.1f}" for side in facts["extents_m"])
    return {
        "name": bar.label,
        "picture": _embed(draw_object(model)),
        "successes": bar.successes,
        "trials": bar.trials,
        "size": f"{sides} cm, {1000 * facts['mass_kg']:.0f} g",
    }


def draw_object(model: ObjectModel, size: int = 240) -> bytes:
    """Return a PNG of the visual mesh in its most probable resting pose."""
    likeliest = torch.from_numpy(model.rest_quat[int(np.argmax(model.rest_prob))])
    vertices = torch.from_numpy(model.vertices.astype(np.float64))
    standing = quat_rotate(likeliest.expand(len(vertices), 4), vertices).numpy().astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(render_mesh((standing, model.faces), size)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _videos(run_dir: Path) -> list[Json]:
    """Return captions of the run's videos, with their content as long as the sum of sizes is small."""
    left, videos = MOST_VIDEO_BYTES, []
    for path in sorted((run_dir / "videos").glob("[!.]*.mp4"), reverse=True):
        left -= path.stat().st_size
        if left >= 0:
            videos.append({"caption": path.stem, "source": _embed(path.read_bytes(), "video/mp4")})
        else:
            videos.append({"caption": f"videos/{path.name}", "source": ""})
    return videos


def _embed(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _physical(notes: Json) -> list[list[str]]:
    names = {
        "penetration_m": "deepest penetration of hand and object [mm]",
        "slip_of_successes_m": "motion in the hand during the hold, successes [mm]",
        "lift_m": "rise of the object at the end [mm]",
    }
    marks = ("median", "p99", "max")
    return [[label, *(_millimetres(notes[key][mark]) for mark in marks)] for key, label in names.items()]


def _millimetres(value_m: float | None) -> str:
    return "–" if value_m is None else f"{1000 * value_m:.1f}"


def _versions(result: Json) -> list[list[str]]:
    git = result["git"] or {"hash": "unknown", "dirty": False}
    rows = [["git", git["hash"] + (" with local changes" if git["dirty"] else "")]]
    return rows + [[name, version] for name, version in result["versions"].items()]
