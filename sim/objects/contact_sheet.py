"""Contact sheet of a library: every object at one scale, in its likeliest resting pose.

The surface is splatted as shaded points with a depth buffer: fast, and free of any graphics library.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from dexgrasp.sim.objects.library import ObjectEntry, ObjectLibrary, ObjectModel
from dexgrasp.sim.objects.model_builder import scatter
from dexgrasp.utils.files import write_bytes
from dexgrasp.utils.output import png_with_mark

TILE_PX = 170
LABEL_PX = 26
SPAN_M = 0.21
"""Width of the world in one tile."""
SPLATS = 40000
DEPTHS = 64
"""Layers in which the points are written, far to near."""
GOLDEN = 0.618034
"""Step on the circle of hues from piece to piece."""
_BACKGROUND = (250, 250, 248)
_LIGHT = np.array([-0.45, -0.5, 0.74])
_VIEW_YAW, _VIEW_PITCH = np.deg2rad(-35), np.deg2rad(-62)


def show(library: ObjectLibrary, png: str | Path, most: int = 144, pieces: bool = False) -> Path:
    """Write a sheet of up to `most` objects, or of their convex pieces, spread over the families."""
    entries = spread_over_families(library.entries, most)
    columns = min(len(entries), max(4, round(np.sqrt(len(entries) * 1.4))))
    rows = -(-len(entries) // columns)
    sheet = Image.new("RGB", (columns * TILE_PX, rows * (TILE_PX + LABEL_PX)), _BACKGROUND)
    write = ImageDraw.Draw(sheet)
    for k, entry in enumerate(entries):
        x, y = (k % columns) * TILE_PX, (k // columns) * (TILE_PX + LABEL_PX)
        sheet.paste(Image.fromarray(draw(library[entry.name], pieces)), (x, y))
        title = entry.family if entry.family != "mesh" else entry.name
        write.text((x + 6, y + TILE_PX), title[:26], fill=(30, 30, 30))
        write.text(
            (x + 6, y + TILE_PX + 12), f"{size_label(entry.extents)}, {1000 * entry.mass:.0f} g", fill=(120, 120, 120)
        )
    write_bytes(Path(png), png_with_mark(sheet))
    return Path(png)


def draw(model: ObjectModel, pieces: bool = False) -> np.ndarray:
    """Return an image (170, 170, 3) uint8 of a model in its likeliest resting pose.

    `pieces`: draw the convex pieces instead, each in a colour of its own.
    """
    if pieces:
        points, normals, colours = _scatter_pieces(model)
    else:
        points, normals = scatter(model.vertices, model.faces, SPLATS, np.random.default_rng(0))
        colours = np.array(_hue_colour(zlib.crc32(model.family.encode()) % 997 / 997))
    best = int(np.argmax(model.rest_prob))
    view = _view() @ Rotation.from_quat(model.rest_quat[best], scalar_first=True).as_matrix()
    seen, facing = points @ view.T, normals @ view.T
    shade = 0.42 + 0.58 * np.clip(facing @ (_view() @ _LIGHT), 0, 1)
    colour = colours * shade[:, None]
    middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
    pixel = np.round((seen[:, :2] - middle[:2]) * [1, -1] / SPAN_M * TILE_PX + TILE_PX / 2).astype(int)
    picture = np.full((TILE_PX, TILE_PX, 3), _BACKGROUND, np.uint8)
    inside = ((pixel >= 1) & (pixel < TILE_PX)).all(axis=1) & (facing[:, 2] > -0.05)
    order = np.flatnonzero(inside)[np.argsort(seen[inside, 2])]  # the nearest is written last
    for at in np.array_split(order, DEPTHS):  # each point covers four pixels, so that no holes remain
        for dx, dy in ((-1, -1), (-1, 0), (0, -1), (0, 0)):
            picture[pixel[at, 1] + dy, pixel[at, 0] + dx] = np.clip(colour[at], 0, 255)
    return picture


def size_label(extents_m: Sequence[float]) -> str:
    """Return the sides of a box, longest first, in cm; in mm where one is below 2 cm."""
    unit, factor = ("mm", 1000) if min(extents_m) < 0.02 else ("cm", 100)
    return " x ".join(f"{factor * side:.0f}" for side in sorted(extents_m, reverse=True)) + f" {unit}"


def spread_over_families(entries: Sequence[ObjectEntry], most: int) -> list[ObjectEntry]:
    """Return at most `most` entries, as many of each family as fit, families together."""
    families = sorted({e.family for e in entries})
    each = max(1, most // len(families))
    return [e for family in families for e in [e for e in entries if e.family == family][:each]][:most]


def _view() -> np.ndarray:
    """Return the rotation (3, 3) from the world to the picture: x right, y up, z towards the viewer."""
    return Rotation.from_euler("zx", [_VIEW_YAW, _VIEW_PITCH]).as_matrix()


def _hue_colour(share: float, contrast: float = 55) -> tuple[float, float, float]:
    """Return the colour at a share (0..1) of the circle of hues."""
    red, green, blue = (185 + contrast * np.cos(2 * np.pi * share + shift) for shift in (0, 2.09, 4.19))
    return red, green, blue


def _scatter_pieces(model: ObjectModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points, normals and colours (n, 3) of the convex pieces; neighbours in the list differ most in hue."""
    from scipy.spatial import ConvexHull

    areas = np.array([ConvexHull(piece.astype(float)).area for piece in model.pieces])
    counts = np.maximum(SPLATS * areas / areas.sum(), 1).astype(int)
    parts = []
    for k, (piece, count) in enumerate(zip(model.pieces, counts, strict=True)):
        hull = ConvexHull(piece.astype(float))
        corners = piece[hull.simplices].astype(float)
        inward = np.einsum(
            "ni,ni->n", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), hull.equations[:, :3]
        )
        simplices = np.where(inward[:, None] < 0, hull.simplices[:, ::-1], hull.simplices)
        points, normals = scatter(piece, simplices, int(count), np.random.default_rng(0))
        parts.append((points, normals, np.tile(_hue_colour(k * GOLDEN % 1, 70), (len(points), 1))))
    points, normals, colours = map(np.concatenate, zip(*parts, strict=True))
    return points, normals, colours
