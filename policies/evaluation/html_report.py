"""Write the report of an evaluation as one HTML file without external resources.

Videos beyond a total size are linked, all else is embedded.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.policies.evaluation.clutter import HEAD, neighbour_rows
from dexgrasp.policies.evaluation.conditions import conditions, repeat_command, success_definition
from dexgrasp.policies.evaluation.statistics import FEW, pool, wilson_interval
from dexgrasp.policies.evaluation.summary import code_in_words, warnings
from dexgrasp.policies.run_directory import read_facts
from dexgrasp.sim.objects import ObjectModel, open_library
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.rendering.renderer import render_mesh
from dexgrasp.sim.task.outcomes import SUCCESS, failure_in_words
from dexgrasp.utils.files import write_text
from dexgrasp.utils.text import counted

STOPS = ((0.0, (124, 45, 18)), (0.5, (180, 95, 6)), (0.8, (74, 111, 152)), (1.0, (12, 74, 130)))
"""(rate, RGB): from brown over ochre to blue, which colour-blind readers tell apart; each is at least three times as
dark or light as the white page (WCAG contrast of graphics)."""

LARGEST_CM, THINNEST_CM = (5, 8, 11, 15), (2, 3, 4.5, 7)
"""Bin edges of the charts by size."""

WORST = 8
"""Number of objects with a picture."""

MOST_OBJECTS = 60
"""Number of objects with a bar or row of their own."""

MOST_VIDEO_BYTES = 12 << 20
"""Total size up to which videos are embedded; further ones are linked."""

SUCCESS_COLOUR = "rgb(12, 74, 130)"
FAILURE_COLOURS = {
    "missed": "#8a94a6",
    "pushed_away": "#d18a1b",
    "dropped_in_lift": "#b45f06",
    "dropped_in_hold": "#7c2d12",
    "unstable": "#171717",
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A success rate with its 95 % Wilson interval, to be drawn from 0 to 100 %."""

    label: str
    successes: int
    trials: int

    @property
    def rate(self) -> float:
        """Return the success rate."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval (low, high) of the rate."""
        return wilson_interval(self.successes, self.trials)

    @property
    def colour(self) -> str:
        """Return the colour of the rate as CSS."""
        return rate_colour(self.rate)


@dataclass(frozen=True)
class Share:
    """A part of a whole: its count and colour."""

    label: str
    count: int
    total: int
    colour: str


def rate_colour(rate: float) -> str:
    """Return the colour of a success rate as CSS, `rgb(r, g, b)`, interpolated between STOPS."""
    for (low, first), (high, last) in pairwise(STOPS):
        if rate <= high:
            share = (rate - low) / (high - low)
            return "rgb({}, {}, {})".format(*(round(a + share * (b - a)) for a, b in zip(first, last, strict=True)))
    raise ValueError(f"a rate lies in 0..1, got {rate}")


def shares(parts: Mapping[str, tuple[int, str]]) -> list[Share]:
    """Return {label: (count, colour)} as parts of their sum; zero counts are left out."""
    total = sum(count for count, _ in parts.values())
    return [
        Share(label=label, count=count, total=total, colour=colour) for label, (count, colour) in parts.items() if count
    ]


def split_by_trials(bars: Sequence[Bar]) -> tuple[list[Bar], list[Bar]]:
    """Return the bars of at least FEW trials, and the others."""
    return [bar for bar in bars if bar.trials >= FEW], [bar for bar in bars if bar.trials < FEW]


def write_report(run_dir: str | Path) -> Path:
    """Write RUN/report.html from RUN/result.json, RUN/diagnostics.json and RUN/run.json; return its path."""
    run_dir = Path(run_dir)
    result, notes = (json.loads((run_dir / name).read_text("utf-8")) for name in ("result.json", "diagnostics.json"))
    return write_page(run_dir / "report.html", "report.html.j2", report_content(run_dir, result, notes))


def write_page(path: Path, template: str, content: Json) -> Path:
    """Fill a template of this folder and write the page; return its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    write_text(path, environment.get_template(template).render(content))
    return path


def report_content(run_dir: Path, result: Json, notes: Json, more_warnings: Sequence[str] = ()) -> Json:
    """Return the variables of report.html.j2."""
    families, small_families = split_by_trials(_by_family(result, notes))
    cards, no_cards = _pictures(result, notes)
    objects = _worst_first(result)
    count = len(objects)
    named = f"{count}" if count <= MOST_OBJECTS else f"{MOST_OBJECTS} of {count}; result.json has all"
    return {
        "result": result,
        "config": result["config"],
        "notes": notes,
        "rates": rates(result, notes),
        "success": success_definition(result["config"]),
        "conditions": conditions(result["config"], len(result["per_object"])) | origin(run_dir, result),
        "command": repeat_command(result["config"]),
        "warnings": [*warnings(result["config"], notes), *more_warnings],
        "videos": _videos(run_dir),
        "endings": _endings(result),
        "disturbances": _by_disturbance(result),
        "first_attempts": _by_disturbance(result, notes["at_first_attempt"]),
        "neighbour_head": HEAD,
        "neighbour_rows": neighbour_rows(notes["neighbours"]) if "neighbours" in notes else [],
        "cards": cards,
        "no_cards": no_cards,
        "objects": objects[:MOST_OBJECTS],
        "objects_summary": f"Objects, worst first ({named})",
        "families": families,
        "small_families": small_families,
        "few": FEW,
        "largest_side": _by_side(result, notes, max, LARGEST_CM),
        "thinnest_side": _by_side(result, notes, min, THINNEST_CM),
        "physics_rows": _physical(notes),
        "opposed": notes.get("opposed_share_of_successes", {}),
        "version_rows": _versions(result),
        "config_json": json.dumps(result["config"], indent=2, ensure_ascii=False),
    }


def rates(result: Json, notes: Json) -> list[Bar]:
    """Return success at the first attempt, and success, of all trials."""
    if cleared := notes.get("cleared"):
        return [
            Bar("objects removed", cleared["removed"], cleared["objects"]),
            Bar("tables that are empty in the end", result["successes"], result["trials"]),
        ]
    at_once = sum(notes["at_first_attempt"].values())
    return [
        Bar("success at the first attempt", at_once, result["trials"]),
        Bar(
            f"success with up to {counted(result['config']['attempts'], 'attempt')}",
            result["successes"],
            result["trials"],
        ),
    ]


def origin(run_dir: Path, result: Json) -> dict[str, str]:
    """Return date and commit of a run."""
    starts = read_facts(run_dir).get("starts", [])
    last = starts[-1] if starts else "unknown"
    date = (last if isinstance(last, str) else last["time"]).replace("T", " ").replace("Z", " UTC")
    commit = code_in_words(result) if result["git"] else "unknown"
    return {"date": date, "commit": commit}


def _endings(result: Json) -> list[Share]:
    parts = {SUCCESS: (result["successes"], SUCCESS_COLOUR)}
    parts |= {failure_in_words(name): (result["failures"][name], colour) for name, colour in FAILURE_COLOURS.items()}
    return shares(parts)


def _by_disturbance(result: Json, successes: Json | None = None) -> list[Bar]:
    """Return the bars by disturbance; none where there is only one. `successes`: other counts by disturbance."""
    rows = result["per_disturbance"]
    if len(rows) < 2:
        return []
    counts = {name: row["successes"] for name, row in rows.items()} if successes is None else successes
    return [Bar(name, counts[name], row["trials"]) for name, row in rows.items()]


def _by_side(
    result: Json, notes: Json, side: Callable[[Sequence[float]], float], edges_cm: Sequence[float]
) -> list[Bar]:
    """Return the bars of objects pooled by the largest or thinnest side of their bounding boxes."""
    lengths_cm = {name: 100 * side(notes["objects"][name]["extents_m"]) for name in result["per_object"]}
    labels = {name: _bin_label(length_cm, edges_cm) for name, length_cm in lengths_cm.items()}
    bars = {bar.label: bar for bar in _pooled(result, labels)}
    return [bars[label] for label in dict.fromkeys(labels[name] for name in sorted(labels, key=lengths_cm.__getitem__))]


def _bin_label(length_cm: float, edges_cm: Sequence[float]) -> str:
    above = [edge for edge in edges_cm if edge <= length_cm]
    below = [edge for edge in edges_cm if edge > length_cm]
    if not above:
        return f"below {below[0]} cm"
    return f"{above[-1]} – {below[0]} cm" if below else f"above {above[-1]} cm"


def _by_family(result: Json, notes: Json) -> list[Bar]:
    """Return the bars of objects pooled by family, worst first; none where all are of one family."""
    bars = _pooled(result, {name: notes["objects"][name]["family"] for name in result["per_object"]})
    return bars if len(bars) > 1 else []


def _pooled(result: Json, group_of: dict[str, str]) -> list[Bar]:
    return [Bar(label, **counts) for label, counts in pool(result["per_object"], group_of).items()]


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
    """Return captions and sources of the run's videos, successes first.

    They are embedded as long as the sum of sizes is small, and linked beyond.
    """
    left, videos = MOST_VIDEO_BYTES, []
    for path in sorted((run_dir / "videos").glob("[!.]*.mp4"), reverse=True):
        left -= path.stat().st_size
        source = _embed(path.read_bytes(), "video/mp4") if left >= 0 else quote(f"videos/{path.name}")
        kind, trial, name = [*path.stem.split("_", 2), "", ""][:3]
        videos.append({"caption": f"{kind}: trial {trial}, {name}" if name else path.stem, "source": source})
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
