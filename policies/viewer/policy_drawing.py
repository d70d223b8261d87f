"""Conversion of the policy preset to drawing primitives: merged meshes, arrows, plots, panel values."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.evaluation.statistics import wilson_interval
from dexgrasp.policies.viewer.drawing import Rgb, box_html, table_html, verdict_html
from dexgrasp.policies.viewer.env_status import EnvStatus
from dexgrasp.policies.viewer.rollout import REWARD, Result, TrialHistory
from dexgrasp.sim.rendering.env_state import EnvState
from dexgrasp.sim.rendering.geom_meshes import GeomMesh

TABLE: Rgb = (214, 208, 198)
TABLE_LINES: Rgb = (176, 170, 160)
OBJECT: Rgb = (240, 130, 40)
PIECES: Rgb = (40, 40, 45)
CONTACT: Rgb = (214, 30, 70)
SUPPORT: Rgb = (60, 110, 200)
EXTERNAL: Rgb = (150, 40, 200)
TABLE_HALF_M, TABLE_THICKNESS_M, TABLE_PITCH_M = 0.4, 0.02, 0.1
ARROW_MAX_M = 0.25
"""Longest arrow; a longer one would leave the picture."""
EXTERNAL_SCALE, EXTERNAL_FORCE = 4, "external force, 4 × longer"
"""Length of external force arrows relative to the others, and the name of their layer."""
LEAST_FORCE_N = 0.02
"""Smaller forces have no arrow."""
GRAPH_COLORS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#393b79", "#e7ba52", "#843c39",
)  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """Describe one plot over time: its title, and each line's quantity and label."""

    title: str
    lines: tuple[tuple[str, str], ...]

    def uplot(self) -> dict[str, Any]:
        """Return the options of viser's plot, but for the data."""
        colors = GRAPH_COLORS * (1 + len(self.lines) // len(GRAPH_COLORS))
        lines = [
            {"label": label, "stroke": color, "width": 2} for (_, label), color in zip(self.lines, colors, strict=False)
        ]
        return {
            "series": ({"label": "t [s]"}, *lines),
            "scales": {"x": {"time": False}},
            "title": self.title,
            "height": 190,
        }

    def data(self, history: TrialHistory, row: int) -> tuple[NDArray[np.float64], ...]:
        """Return time and lines of one environment, each (step,)."""
        return history.series([name for name, _ in self.lines], row)


def graphs(recorded: Sequence[str]) -> tuple[Graph, ...]:
    """Return the plots of the `recorded` quantities.

    A policy without grip confidence has the line of the true contact alone.
    """
    terms = [(name, name.removeprefix(REWARD).replace("_", " ")) for name in recorded if name.startswith(REWARD)]
    grip = [("grip", "policy's estimate")] if "grip" in recorded else []
    return (
        Graph("reward per step", (("reward", "total"), *terms)),
        Graph("grip", (*grip, ("touch", "true thumb-finger contact"))),
        Graph("height [cm]", (("rise", "rise of the object"), ("palm", "palm above the table"))),
        Graph("contact force [N]", (("force", "sum over the hand's bodies"),)),
    )


def merge_meshes(meshes: Sequence[GeomMesh]) -> list[GeomMesh]:
    """Return one mesh per body and colour, in the order of their first geoms."""
    groups: dict[tuple[int, Rgb], list[GeomMesh]] = {}
    for mesh in meshes:
        groups.setdefault((mesh.body, mesh.rgb), []).append(mesh)
    return [joined(group) for group in groups.values()]


def joined(group: Sequence[GeomMesh]) -> GeomMesh:
    """Return the meshes of one body as a single mesh, with name and colour of the first."""
    starts = np.cumsum([0, *(len(mesh.vertices_b) for mesh in group[:-1])])
    return GeomMesh(
        name=group[0].name,
        body=group[0].body,
        vertices_b=np.concatenate([mesh.vertices_b for mesh in group]),
        faces=np.concatenate([mesh.faces + start for mesh, start in zip(group, starts, strict=True)]).astype(np.int32),
        rgb=group[0].rgb,
    )


def grid_offsets(num_envs: int, spacing_m: float) -> NDArray[np.float64]:
    """Return the place of each environment (env, 3): a square grid about the origin, row by row."""
    columns = int(np.ceil(np.sqrt(num_envs)))
    lines = int(np.ceil(num_envs / columns))
    number = np.arange(num_envs)
    x, y = number % columns - (columns - 1) / 2, (lines - 1) / 2 - number // columns
    return np.stack([spacing_m * x, spacing_m * y, np.zeros(num_envs)], axis=1).astype(np.float64)


def table_lines() -> NDArray[np.float32]:
    """Return the lines (line, 2, 3) on a table, TABLE_PITCH_M apart."""
    half, height = TABLE_HALF_M, 5e-4
    places = np.arange(-half, half + 1e-9, TABLE_PITCH_M)
    along_x = [[(-half, place, height), (half, place, height)] for place in places]
    along_y = [[(place, -half, height), (place, half, height)] for place in places]
    return np.array(along_x + along_y, np.float32)


def force_arrows(
    envs: Sequence[EnvState], offsets_m: NDArray[np.float64], radii_m: Sequence[float], scale_m_n: float
) -> dict[str, NDArray[np.float32]]:
    """Return the arrows (arrow, 2, 3) of contact, table and external forces by layer.

    `radii_m`: of the objects; `scale_m_n`: metres per newton. Contact forces act on the hand: their arrows leave the
    fingers. The others act on the object; the arrow of the small external force is EXTERNAL_SCALE times as long.
    """
    kinds: dict[str, list[NDArray[np.float64]]] = {"contact forces": [], "table force": [], EXTERNAL_FORCE: []}
    for env, offset_m, radius_m in zip(envs, offsets_m, radii_m, strict=True):
        force_w = env.external_force_w[None]
        surface_w = env.bodies_pos_w[-1:] + radius_m * force_w / max(float(np.linalg.norm(force_w)), LEAST_FORCE_N)
        kinds["contact forces"].append(_arrows(env.contact_pos_w + offset_m, env.contact_force_w, scale_m_n))
        kinds["table force"].append(_arrows(env.table_pos_w + offset_m, env.table_force_w, scale_m_n))
        kinds[EXTERNAL_FORCE].append(_arrows(surface_w + offset_m, force_w, EXTERNAL_SCALE * scale_m_n))
    return {name: np.concatenate(arrows).astype(np.float32) for name, arrows in kinds.items()}


def _arrows(start_w: NDArray[np.float64], force_w: NDArray[np.float64], scale_m_n: float) -> NDArray[np.float64]:
    size_n = np.linalg.norm(force_w, axis=1)
    some = size_n > LEAST_FORCE_N
    start_w, force_w, size_n = start_w[some], force_w[some], size_n[some, None]
    length_m = np.minimum(scale_m_n * size_n, ARROW_MAX_M)
    return np.stack([start_w, start_w + length_m * force_w / size_n], axis=1)


def status_html(
    status: EnvStatus, history: TrialHistory, row: int, results: Sequence[Result], speeds: tuple[float, float]
) -> str:
    """Return the numbers of one environment as HTML.

    `speeds`: reached and asked for, in multiples of real time.
    """
    time_s = history.time_s[-1] if history.time_s else 0.0
    attempt = f" · grasp {status.attempt}" if status.attempt > 1 else ""
    caption = f"trial {status.trial} · {status.object} · {status.phase}{attempt} · {time_s:.2f} s"
    rows = [
        ("rise of the object", _number(history.last("rise", row), "{:.1f} cm")),
        ("contact force", _number(history.last("force", row), "{:.1f} N")),
        ("grip of the policy", _number(history.last("grip", row), "{:.2f}")),
        ("reward", _number(history.last("reward", row), "{:+.2f}")),
        ("object", f"{1e3 * status.mass_kg:.0f} g, friction {status.friction:.2f}"),
        ("speed", f"{speeds[0]:.2f} of {speeds[1]:g} × real time"),
    ]
    return box_html(f"<b>{escape(caption)}</b>{verdict_html(status.verdict)}{table_html(rows)}{results_html(results)}")


def results_html(results: Sequence[Result]) -> str:
    """Return the counts of trials as an HTML table, one row per policy and disturbance."""
    lines = "".join(
        f"<tr><td>{escape(row.policy)}, {escape(row.disturbance)}</td>"
        f'<td style="text-align:right">{row.successes} / {row.trials}</td>'
        f'<td style="text-align:right">{row.first_attempt}</td>'
        f'<td style="text-align:right">{_rate(row)}</td></tr>'
        for row in results
    )
    by_hand = sum(row.by_hand for row in results)
    note = f"<br>not counted, pushed or moved by hand: {by_hand}" if by_hand else ""
    head = "".join(f'<th style="text-align:right">{name}</th>' for name in ("successes", "at first", "95 % interval"))
    return (
        f'<table style="width:100%;margin-top:0.6em"><tr><th style="text-align:left">trials</th>{head}</tr>'
        f"{lines}</table>{note}"
    )


def _rate(row: Result) -> str:
    if not row.trials:
        return "–"
    low, high = wilson_interval(row.successes, row.trials)
    return f"{100 * low:.0f}–{100 * high:.0f} %"


def _number(value: float, pattern: str) -> str:
    return "–" if np.isnan(value) else pattern.format(value)
