"""An evaluation for the eye: a table on the screen and one HTML file that needs nothing beside it."""

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dexgrasp.utils.files import write_text
from perception.geometry import quat_rotate
from policies.charts import GOOD, Bar, interval_gauge, rate_chart, share_chart
from policies.scoreboard import warnings
from sim.objects import ObjectModel, open_library
from sim.render import RenderUnavailable, render_mesh

LARGEST_CM, THINNEST_CM = (5, 8, 11, 15), (2, 3, 4.5, 7)
"""Edges between the bars of the charts by size."""
WORST = 8
"""Objects with a picture."""
MOST_BARS = 60
"""Objects with a bar of their own."""
MOST_VIDEO_BYTES = 6 << 20
"""Videos beyond this sum are named, not embedded."""
FAILURE_COLOURS = {
    "missed": "#94a3b8",
    "pushed_away": "#f59e0b",
    "dropped_in_lift": "#f87171",
    "dropped_in_hold": "#b91c1c",
    "unstable": "#7c3aed",
}

Json = dict[str, Any]


def write_report(run_dir: str | Path) -> Path:
    """RUN/report.html from RUN/result.json and RUN/diagnostics.json; returns its path."""
    run_dir = Path(run_dir)
    result, notes = (json.loads((run_dir / name).read_text("utf-8")) for name in ("result.json", "diagnostics.json"))
    title = f"{result['config']['policy']} on {result['config']['hand']}: {100 * result['success_rate']:.1f} %"
    sections = [
        _headline(result, notes),
        _section("How trials ended", _endings(result)),
        _section("By disturbance", _by_disturbance(result)) if len(result["per_disturbance"]) > 1 else "",
        _section("By largest side", _by_side(result, notes, max, LARGEST_CM)),
        _section("By thinnest side", _by_side(result, notes, min, THINNEST_CM)),
        _section("By family", _by_family(result, notes)),
        _section("Worst objects", _pictures(result, notes)),
        _section("By object, worst first", *_by_object(result)),
        _section("Videos", _videos(run_dir)),
        _section("Physical plausibility", _physical(notes)),
        _section("Configuration", _configuration(result)),
    ]
    page = _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(sections))
    path = run_dir / "report.html"
    write_text(path, page)
    return path


def _headline(result: Json, notes: Json) -> str:
    config, (low, high) = result["config"], result["wilson95"]
    chips = {
        "policy": config["policy"],
        "hand": f"{config['hand']} ({config['side']})",
        "mount": config["mount"],
        "objects": f"{config['objects']} ({len(result['per_object'])})",
        "disturbance": config["disturbance"],
        "attempts": config["attempts"],
        "physics": config["physics"]["name"],
        "seed": result["seed"],
    }
    spelled = "".join(f"<span><small>{name}</small>{escape(str(value))}</span>" for name, value in chips.items())
    return (
        f'<header><p class="kicker">dexgrasp evaluation</p><div class="big"><b>{100 * result["success_rate"]:.1f}'
        f"<i>%</i></b><div><p>{result['successes']} of {result['trials']} trials succeeded</p>"
        f"<p>95 % interval {100 * low:.1f} – {100 * high:.1f} % (Wilson); "
        f"{sum(notes['at_first_attempt'].values())} at the first attempt</p></div></div>"
        f'{interval_gauge(result["success_rate"], low, high)}<div class="chips">{spelled}</div>'
        + "".join(f'<p class="warning">{escape(text)}</p>' for text in warnings(config, notes))
        + "</header>"
    )


def _endings(result: Json) -> str:
    parts = {"success": (result["successes"], GOOD)}
    parts |= {name.replace("_", " "): (result["failures"][name], colour) for name, colour in FAILURE_COLOURS.items()}
    return share_chart(parts)


def _by_disturbance(result: Json) -> str:
    rows = result["per_disturbance"]
    return rate_chart([Bar(name, row["successes"], row["trials"]) for name, row in rows.items()])


def _by_side(result: Json, notes: Json, side: Callable[[Sequence[float]], float], edges_cm: Sequence[float]) -> str:
    """Objects pooled by the largest or the thinnest side of their boxes."""

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
    """Objects pooled by family, worst first; nothing where all are of one."""
    pools: dict[str, list[str]] = {}
    for name in result["per_object"]:
        pools.setdefault(notes["objects"][name]["family"], []).append(name)
    bars = sorted(_pooled(result, pools), key=lambda bar: bar.successes / bar.trials)
    return rate_chart(bars) if len(bars) > 1 else ""


def _pooled(result: Json, pools: dict[str, list[str]]) -> list[Bar]:
    counts = result["per_object"]
    return [
        Bar(f"{label} ({len(names)})", *(sum(counts[name][key] for name in names) for key in ("successes", "trials")))
        for label, names in pools.items()
    ]


def _worst_first(result: Json) -> list[Bar]:
    bars = [Bar(name, row["successes"], row["trials"]) for name, row in result["per_object"].items()]
    return sorted(bars, key=lambda bar: (bar.successes / bar.trials, -bar.trials, bar.label))


def _by_object(result: Json) -> tuple[str, str]:
    bars = _worst_first(result)
    rest = len(bars) - MOST_BARS
    note = f"The {MOST_BARS} worst of {len(bars)}; result.json has all." if rest > 0 else ""
    return rate_chart(bars[:MOST_BARS], intervals=False), note


def _pictures(result: Json, notes: Json) -> str:
    """Pictures of the objects that failed most, or a sentence about why there are none."""
    worst = [bar for bar in _worst_first(result) if bar.successes < bar.trials][:WORST]
    if not worst:
        return "<p>No object failed.</p>"
    try:
        library = open_library(result["config"]["objects"])
        cards = [_card(bar, library[bar.label], notes["objects"][bar.label]) for bar in worst]
    except RenderUnavailable as error:
        return f"<p>No pictures: {escape(str(error))}</p>"
    except (FileNotFoundError, KeyError) as error:
        return f"<p>No pictures: the objects are not where they were ({escape(str(error))}).</p>"
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(bar: Bar, model: ObjectModel, facts: Json) -> str:
    sides = " × ".join(f"{100 * side:.1f}" for side in facts["extents_m"])
    return (
        f'<figure><img alt="{escape(bar.label)}" src="{_embed(draw_object(model))}"><figcaption><b>{escape(bar.label)}'
        f"</b><br>{bar.successes} of {bar.trials}<br><small>{sides} cm, {1000 * facts['mass_kg']:.0f} g</small>"
        f"</figcaption></figure>"
    )


def draw_object(model: ObjectModel, size: int = 240) -> bytes:
    """PNG of the visual mesh in its likeliest resting pose."""
    likeliest = torch.from_numpy(model.rest_quat[int(np.argmax(model.rest_prob))])
    vertices = torch.from_numpy(model.vertices.astype(np.float64))
    standing = quat_rotate(likeliest.expand(len(vertices), 4), vertices).numpy().astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(render_mesh((standing, model.faces), size)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _videos(run_dir: Path) -> str:
    """The run's videos, playable inside the page as long as they are small."""
    paths = sorted((run_dir / "videos").glob("[!.]*.mp4"), reverse=True)
    left, cards = MOST_VIDEO_BYTES, []
    for path in paths:
        left -= path.stat().st_size
        if left >= 0:
            source = _embed(path.read_bytes(), "video/mp4")
            cards.append(f'<figure><video controls muted loop src="{source}"></video>{_caption(path.stem)}</figure>')
        else:
            cards.append(f"<figure>{_caption(f'videos/{path.name}')}</figure>")
    return f'<div class="films">{"".join(cards)}</div>' if cards else ""


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>"


def _embed(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _physical(notes: Json) -> str:
    names = {
        "penetration_m": "deepest penetration of hand and object [mm]",
        "slip_of_successes_m": "motion in the hand during the hold, successes [mm]",
        "lift_m": "rise of the object at the end [mm]",
    }
    marks = ("median", "p99", "max")
    rows = [[label, *(_millimetres(notes[key][mark]) for mark in marks)] for key, label in names.items()]
    unstable = notes["unstable_resets"]
    return _table(["over all trials", "median", "99 %", "max"], rows) + f"<p>Unstable simulations: {unstable}.</p>"


def _millimetres(value_m: float | None) -> str:
    return "–" if value_m is None else f"{1000 * value_m:.1f}"


def _configuration(result: Json) -> str:
    git = result["git"] or {"hash": "unknown", "dirty": False}
    rows = [["git", git["hash"] + (" with local changes" if git["dirty"] else "")]]
    rows += [[name, version] for name, version in result["versions"].items()]
    text = json.dumps(result["config"], indent=2, ensure_ascii=False)
    return f"{_table([], rows)}<details><summary>Resolved configuration</summary><pre>{escape(text)}</pre></details>"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _section(title: str, content: str, note: str = "") -> str:
    under = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{content}{under}</section>" if content else ""


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f9; color: #0f172a; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 32px 20px 64px; }
header, section { background: #fff; border-radius: 14px; padding: 26px 30px; margin-bottom: 18px;
  box-shadow: 0 1px 3px rgb(15 23 42 / .08); }
h2 { font-size: 17px; margin: 0 0 16px; }
p { margin: 0; }
small, .note, .kicker { color: #64748b; }
.note { margin-top: 10px; font-size: 13px; }
.kicker { text-transform: uppercase; letter-spacing: .08em; font-size: 12px; }
.big { display: flex; align-items: center; gap: 28px; margin: 4px 0 18px; }
.big b { font-size: 76px; line-height: 1.1; letter-spacing: -.03em; font-variant-numeric: tabular-nums; }
.big i { font-style: normal; font-size: 38px; color: #64748b; margin-left: 6px; }
.chips { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 14px; }
.chips span { background: #f1f5f9; border-radius: 8px; padding: 5px 12px; overflow-wrap: anywhere; }
.chips small { display: block; font-size: 11px; }
.warning { margin-top: 14px; padding: 10px 14px; border-left: 4px solid #f59e0b; background: #fffbeb;
  border-radius: 4px; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, "Segoe UI", Roboto, sans-serif; fill: #0f172a; }
svg .tick { font-size: 11px; fill: #94a3b8; }
svg .count { fill: #475569; font-variant-numeric: tabular-nums; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 14px 0 0; padding: 0; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 16px; }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 16px; }
figure { margin: 0; }
figure img, figure video { width: 100%; border-radius: 10px; display: block; background: #eef1f5; }
figcaption { margin-top: 6px; font-size: 13px; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid #eef1f5; overflow-wrap: anywhere; }
th { font-size: 12px; color: #64748b; font-weight: 500; }
details { margin-top: 16px; }
pre { background: #f8fafc; padding: 14px; border-radius: 8px; overflow-x: auto; font-size: 12px; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
