"""Things that hold things: bottles, mugs, bowls."""

import numpy as np

from sim import shapes
from sim.draws import Draw
from sim.shapes import Shape


def bottle(draw: Draw) -> Shape:
    """A closed bottle: body, shoulder, neck, cap; sometimes a waist, sometimes flattened."""
    height_m = draw.uniform(0.11, 0.195)
    radius_m = height_m * draw.proportion(0.13, 0.26)
    neck_m = max(radius_m * draw.uniform(0.3, 0.6), 0.008)
    body, shoulder = draw.uniform(0.45, 0.65), draw.uniform(0.1, 0.2)
    waist = draw.uniform(0.75, 0.92) if draw.chance(0.3) else 1.0
    cap_m = neck_m * draw.uniform(1.0, 1.3)
    cap_z = min(body + shoulder + draw.uniform(0.05, 0.12), 0.93)
    rows = [
        (0.92 * radius_m, 0.0), (radius_m, 0.02), (radius_m, 0.2 * body), (waist * radius_m, 0.55 * body),
        (radius_m, 0.9 * body), (0.98 * radius_m, body), (0.75 * radius_m, body + 0.5 * shoulder),
        (neck_m, body + shoulder), (neck_m, cap_z), (cap_m, cap_z + 0.005), (cap_m, 0.99), (0.9 * cap_m, 1.0),
    ]  # fmt: skip
    profile = np.array(rows) * [1, height_m]
    flat = max(draw.uniform(0.55, 0.9) if draw.chance(0.3) else 1.0, 0.016 / (2 * radius_m))
    return shapes.lathe(profile).scaled(1, min(flat, 1.0), 1)


def mug(draw: Draw) -> Shape:
    """A mug: a cup with a wall, a floor and a handle."""
    height_m = draw.uniform(0.06, 0.11)
    radius_m = min(height_m * draw.proportion(0.35, 0.6), 0.048)
    wall_m = draw.uniform(0.0025, 0.005)
    base = draw.uniform(0.75, 1.0)
    cup = _vessel([(base * radius_m, 0.0), (radius_m, height_m)], wall_m, 1.5 * wall_m, sectors=17)
    return cup + _ear(radius_m * (1 + base) / 2 - 0.5 * wall_m, height_m, draw)


def bowl(draw: Draw) -> Shape:
    """A thin-walled bowl: a curved wall from a small foot to a wide rim."""
    rim_m = draw.uniform(0.045, 0.085)
    height_m = max(2 * rim_m * draw.proportion(0.25, 0.6), 0.025)
    foot_m = rim_m * draw.uniform(0.3, 0.55)
    wall_m = draw.uniform(0.002, 0.0045)
    turn = np.linspace(0, np.pi / 2, 7)
    bulge = draw.uniform(0.8, 1.2)
    radius = foot_m + (rim_m - foot_m) * np.sin(turn) ** bulge
    height = height_m * (1 - np.cos(turn))
    return _vessel(np.column_stack([radius, height]), wall_m, 1.3 * wall_m, sectors=11, rows=(3,))


def _vessel(outer: object, wall_m: float, floor_m: float, sectors: int, rows: tuple[int, ...] = ()) -> Shape:
    """A shell whose wall is `wall_m` thick across, with a floor of `floor_m`; outer (n, 2) rows (radius, z)."""
    outer = np.asarray(outer, float)
    along = np.gradient(outer, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    inner = outer + wall_m * np.column_stack([-along[:, 1], along[:, 0]])
    inner[0] = [max(outer[0, 0] - wall_m, 0.6 * outer[0, 0]), outer[0, 1] + floor_m]
    inner[1:, 1] = np.maximum(inner[1:, 1], inner[0, 1] + 1e-4 * np.arange(1, len(inner)))
    inner[-1, 1] = outer[-1, 1]
    return shapes.shell(outer, inner, sectors, rows)


def _ear(start_m: float, height_m: float, draw: Draw) -> Shape:
    """A handle in the x, z plane from x = start_m outward: an arc of five links."""
    reach_m, span_m = draw.uniform(0.022, 0.034), height_m * draw.uniform(0.25, 0.36)
    turn = np.linspace(-np.pi / 2, np.pi / 2, 6)
    square = draw.uniform(0.5, 1.0)
    x = start_m + reach_m * np.cos(turn) ** square
    path = np.column_stack([x, np.zeros(6), 0.52 * height_m + span_m * np.sin(turn)])
    return shapes.chain(path, draw.uniform(0.0035, 0.0055), stretch=(1, draw.uniform(1.0, 1.8), 1))
