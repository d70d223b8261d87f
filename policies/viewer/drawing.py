"""Conversion of a snapshot to drawing primitives: colours, depth image, poses, panel values."""

from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.segmentation.table_plane import Plane
from dexgrasp.perception.transforms import plane_basis, quat_from_matrix
from dexgrasp.policies.viewer.snapshot import HandPose, Snapshot
from dexgrasp.sim.task.outcomes import SUCCESS

Rgb = tuple[int, int, int]

SCENE: Rgb = (150, 160, 175)
OBJECT: Rgb = (240, 110, 20)
KNOWN: Rgb = (20, 20, 30)
VECTORS: Rgb = (200, 0, 140)
PLANE: Rgb = (40, 150, 90)
WORKSPACE: Rgb = (60, 110, 200)
APPROACH: Rgb = (220, 40, 40)
TRUTH: Rgb = (250, 200, 150)
HOLE: Rgb = (40, 40, 45)
RAMP: tuple[Rgb, ...] = ((165, 0, 38), (244, 109, 67), (254, 224, 139), (102, 194, 165), (50, 105, 189), (60, 40, 120))
"""Depth from near to far."""
GOOD, BAD = "#1b7f3b", "#b3261e"
"""Colours of a success, and of failures and warnings."""
PICTURE_COLUMNS = 320
"""Approximate number of columns of the subsampled depth image."""
LEGEND = (
    (OBJECT, "object, as segmented"),
    (KNOWN, "points that the policy goes by"),
    (VECTORS, "vectors: keypoint to nearest point"),
    (APPROACH, "planned approach of the palm"),
    (PLANE, "table, as found; 5 cm cells"),
    (WORKSPACE, "workspace"),
    (SCENE, "everything else"),
)


def depth_picture(depth_m: NDArray[np.float32], range_m: tuple[float, float]) -> NDArray[np.uint8]:
    """Return depth (rows, columns) as a subsampled RGB image: red near, violet far."""
    stride = max(1, round(depth_m.shape[1] / PICTURE_COLUMNS))
    thin = depth_m[::stride, ::stride]
    place = (thin - range_m[0]) / (range_m[1] - range_m[0]) * (len(RAMP) - 1)
    channels = [np.interp(place, range(len(RAMP)), [color[i] for color in RAMP]) for i in range(3)]
    picture = np.stack(channels, axis=-1).astype(np.uint8)
    picture[thin <= 0] = HOLE
    return picture


def depth_span(depth_m: NDArray[np.float32]) -> tuple[float, float]:
    """Return nearest and farthest depth of an image without the farthest percent; 0 and 1 without depth."""
    some = depth_m[depth_m > 0][::7]
    if not len(some):
        return 0.0, 1.0
    near, far = (float(value) for value in np.percentile(some, (0.5, 99)))
    return near, max(far, near + 0.01)


def plane_pose(plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pose of a frame with z along the plane's normal.

    Position (3,) above or below the world origin, orientation (4,).
    """
    normal = torch.from_numpy(plane.normal_w)
    side, up = plane_basis(normal)
    quat = quat_from_matrix(torch.stack([-up, side, normal], dim=1))
    return np.array([0.0, 0.0, plane.offset_m / plane.normal_w[2]]), quat.numpy()


def box_edges(lower_m: tuple[float, ...], upper_m: tuple[float, ...]) -> NDArray[np.float32]:
    """Return the twelve edges (12, 2, 3) of a box."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8) if abs(corners[i] - corners[j]).sum() == 1]
    lower, upper = np.array(lower_m), np.array(upper_m)
    return (lower + corners[np.array(pairs)] * (upper - lower)).astype(np.float32)


def vector_segments(hand: HandPose) -> NDArray[np.float32]:
    """Return the vectors as line segments (keypoint, 2, 3), from the keypoint to the point."""
    return np.stack([hand.keypoints_w, hand.keypoints_w + hand.vectors_w], axis=1)


def approach_segment(hand: HandPose) -> NDArray[np.float32]:
    """Return the planned approach of the palm centre as a line segment (1, 2, 3)."""
    (w, x, y, z), start = hand.plan[1], hand.plan[0]
    normal = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
    return np.array([[start, start + hand.depth_m * normal]], np.float32)


def legend_html() -> str:
    """Return the legend of the colours as HTML."""
    square = '<span style="display:inline-block;width:0.8em;height:0.8em;margin-right:0.5em;background:rgb{}"></span>{}'
    return box_html("<br>".join(square.format(color, text) for color, text in LEGEND))


def panel_html(snapshot: Snapshot, speed: float) -> str:
    """Return the numbers of a snapshot as HTML; `speed` in multiples of real time."""
    seen = snapshot.seen
    notes = f"<b>{escape(snapshot.caption)}</b>"
    notes += verdict_html(snapshot.verdict)
    if seen.warning:
        notes += note_html(seen.warning, BAD)
    rows = [*_points(snapshot), *_heights(snapshot)]
    if seen.stages_ms:
        slowest = sorted(seen.stages_ms.items(), key=lambda item: -item[1])[:3]
        rows.append(("pipeline", f"{sum(seen.stages_ms.values()):.1f} ms"))
        rows += [(f"&ensp;{escape(stage)}", f"{ms:.1f} ms") for stage, ms in slowest]
    rows.append(("speed", f"{speed:.2f} × real time"))
    return box_html(notes + table_html(rows))


def _points(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return the numbers of points after each stage."""
    counts = snapshot.seen.counts
    stages = ("in range", "in workspace", "above the table")
    rows = [(f"points {stage}", f"{counts[stage]:,}") for stage in stages if stage in counts]
    rows.append(("points of the object", f"{len(snapshot.seen.object_w):,}"))
    return [*rows, ("points of the policy", f"{len(snapshot.known_w):,}")]


def _heights(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return heights above the detected table and the distance of the hand."""
    rows, plane, hand = [], snapshot.seen.plane, snapshot.hand
    if plane is not None:
        rows.append(("tilt of the table", f"{np.degrees(plane.tilt_rad):.1f}°"))
        rows.append(("roughness of the table", f"{1e3 * plane.roughness_m:.1f} mm"))
        if len(snapshot.seen.object_w):
            rows.append(("top of the object", f"{1e3 * float(plane.height(snapshot.seen.object_w.T).max()):.0f} mm"))
        if hand is not None:
            rows.append(("palm", f"{1e3 * float(plane.height(hand.palm[0])):.0f} mm"))
            rows.append(("lowest keypoint", f"{1e3 * float(plane.height(hand.keypoints_w.T).min()):.0f} mm"))
    if hand is not None:
        length_m = np.linalg.norm(hand.vectors_w, axis=1)
        rows.append(("shortest, longest vector", f"{1e3 * length_m.min():.0f}, {1e3 * length_m.max():.0f} mm"))
    return rows


def table_html(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows of a name and a value as an HTML table."""
    cells = "".join(f'<tr><td>{name}</td><td style="text-align:right">{value}</td></tr>' for name, value in rows)
    return f'<table style="width:100%;margin-top:0.4em">{cells}</table>'


def box_html(content: str) -> str:
    """Return the frame of texts in the panel."""
    return f'<div style="font-size:0.8em;line-height:1.35;padding:0.2em 0.9em">{content}</div>'


def verdict_html(verdict: str) -> str:
    """Return the outcome of a trial as a note; empty before its end."""
    return note_html(verdict, GOOD if verdict == SUCCESS else BAD) if verdict else ""


def note_html(text: str, color: str) -> str:
    """Return a note on a coloured ground."""
    style = f"margin-top:0.4em;padding:0.3em 0.6em;border-radius:4px;color:white;background:{color}"
    return f'<div style="{style}">{escape(text)}</div>'
