"""Containers: closed bottles and jars, thin-walled mugs, cups, bowls, pots, plates and rings."""

import numpy as np

from dexgrasp.sim.objects import shapes
from dexgrasp.sim.objects.parameter_draws import ParameterSampler
from dexgrasp.sim.objects.shapes import Shape


def bottle(draw: ParameterSampler) -> Shape:
    """Return a closed bottle: body, shoulder, neck, cap; sometimes a waist, sometimes flattened."""
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


def jar(draw: ParameterSampler) -> Shape:
    """Return a closed jar or tub: a bellied body under a lid that is wider or narrower than it."""
    height_m = draw.uniform(0.05, 0.14)
    radius_m = np.clip(height_m * draw.proportion(0.25, 0.75), 0.02, 0.05)
    belly, lid = draw.uniform(0.98, 1.12), draw.uniform(0.8, 1.12)
    lid_z = draw.uniform(0.75, 0.88)
    rows = [
        (0.88, 0.0), (0.95, 0.02), (belly, 0.35), (0.97, lid_z - 0.1), (min(0.85, lid), lid_z - 0.03),
        (min(0.85, lid), lid_z), (lid, lid_z + 0.005), (lid, 0.985), (0.95 * lid, 1.0),
    ]  # fmt: skip
    return shapes.lathe(np.array(rows) * [radius_m, height_m])


def mug(draw: ParameterSampler) -> Shape:
    """Return a mug: a cup with a wall, a floor and a handle."""
    height_m = draw.uniform(0.06, 0.11)
    radius_m = min(height_m * draw.proportion(0.35, 0.6), 0.048)
    wall_m = draw.uniform(0.0025, 0.005)
    base = draw.uniform(0.75, 1.0)
    cup = _vessel([(base * radius_m, 0.0), (radius_m, height_m)], wall_m, 1.5 * wall_m, sectors=17)
    return cup + _ear(radius_m * (1 + base) / 2 - 0.5 * wall_m, height_m, draw)


def cup(draw: ParameterSampler) -> Shape:
    """Return a cup, glass, flower pot or pencil holder: a thin wall, straight or flaring, no handle."""
    height_m = draw.uniform(0.05, 0.15)
    radius_m = np.clip(height_m * draw.proportion(0.25, 0.75), 0.022, 0.055)
    wall_m = draw.uniform(0.0012, 0.005)
    base = draw.uniform(0.6, 1.0)
    return _vessel([(base * radius_m, 0.0), (radius_m, height_m)], wall_m, 1.5 * wall_m, sectors=23)


def bowl(draw: ParameterSampler) -> Shape:
    """Return a thin-walled bowl: a curved wall from a small foot to a wide rim."""
    rim_m = draw.uniform(0.045, 0.085)
    height_m = max(2 * rim_m * draw.proportion(0.25, 0.6), 0.025)
    foot_m = rim_m * draw.uniform(0.3, 0.55)
    wall_m = draw.uniform(0.0014, 0.0045)
    turn = np.linspace(draw.uniform(0.3, 0.8), draw.uniform(1.3, np.pi / 2), 7)
    across, up = np.sin(turn) - np.sin(turn[0]), np.cos(turn[0]) - np.cos(turn)
    radius, height = foot_m + (rim_m - foot_m) * across / across[-1], height_m * up / up[-1]
    return _vessel(np.column_stack([radius, height]), wall_m, 1.3 * wall_m, sectors=11, rows=(3,))


def pot(draw: ParameterSampler) -> Shape:
    """Return a cooking pot or sugar bowl: a steep wall and two ears."""
    radius_m = draw.uniform(0.035, 0.065)
    height_m = max(2 * radius_m * draw.proportion(0.4, 1.1), 0.03)
    wall_m = draw.uniform(0.002, 0.004)
    outer = [(draw.uniform(0.8, 1.0) * radius_m, 0.0), (radius_m, height_m)]
    reach_m, half = draw.uniform(0.012, 0.022), draw.uniform(0.3, 0.5)
    turn = np.linspace(-half, half, 4)
    away = radius_m - 0.3 * wall_m + reach_m * np.array([0.0, 1.0, 1.0, 0.0])
    ring = np.column_stack([away * np.cos(turn), away * np.sin(turn), np.full(4, draw.uniform(0.6, 0.85) * height_m)])
    ear = shapes.chain(ring, draw.uniform(0.003, 0.0045))
    return _vessel(outer, wall_m, 1.5 * wall_m, sectors=16) + ear + ear.turned("z", np.pi)


def pan(draw: ParameterSampler) -> Shape:
    """Return a frying pan, ladle or scoop: a low round vessel with one long handle."""
    radius_m = draw.uniform(0.03, 0.055)
    height_m = max(2 * radius_m * draw.proportion(0.18, 0.55), 0.0155)
    wall_m = draw.uniform(0.0010, 0.0035)
    handle_m = draw.uniform(0.8, 1.3) * radius_m + 0.03
    rise_m = draw.uniform(0.0, 0.02)
    path = np.array([[radius_m - wall_m, 0, 0.8 * height_m], [radius_m + 0.5 * handle_m, 0, height_m + 0.5 * rise_m]])
    path = np.concatenate([path, [[radius_m + handle_m, 0, height_m + rise_m]]])
    handle = shapes.chain(path, np.array([0.6, 0.9, 1.0]) * draw.uniform(0.004, 0.007), stretch=(1, 1.5, 1))
    outer = [(draw.uniform(0.75, 0.95) * radius_m, 0.0), (radius_m, height_m)]
    return _vessel(outer, wall_m, 1.4 * wall_m, sectors=20) + handle


def plate(draw: ParameterSampler) -> Shape:
    """Return a plate, saucer or lid: a flat disc whose rim rises a little."""
    rim_m = draw.uniform(0.05, 0.095)
    height_m = np.clip(2 * rim_m * draw.proportion(0.08, 0.25), 0.0155, 0.035)
    wall_m = draw.uniform(0.0025, 0.005)
    flat = draw.uniform(0.55, 0.75)
    outer = np.array([(flat * rim_m, 0.0), (rim_m, height_m)])
    return _vessel(outer, wall_m, wall_m, sectors=23)


def tray(draw: ParameterSampler) -> Shape:
    """Return an open box: a carton without its lid, a tray, a drawer insert, a soap dish."""
    long_m = draw.uniform(0.07, 0.18)
    across_m = max(long_m * draw.proportion(0.4, 1.0), 0.04)
    height_m = np.clip(across_m * draw.uniform(0.2, 0.7), 0.0155, 0.09)
    wall_m = draw.uniform(0.002, 0.005)
    floor = shapes.box(long_m, across_m, wall_m).moved(z=wall_m / 2)
    end = shapes.box(wall_m, across_m, height_m).moved(x=(long_m - wall_m) / 2, z=height_m / 2)
    side = shapes.box(long_m, wall_m, height_m).moved(y=(across_m - wall_m) / 2, z=height_m / 2)
    walls = [end, end.turned("z", np.pi), side, side.turned("z", np.pi)]
    if draw.chance(0.4):
        walls.append(shapes.box(wall_m, across_m, height_m).moved(x=long_m * draw.uniform(-0.2, 0.2), z=height_m / 2))
    return shapes.join([floor, *walls])


def wine_glass(draw: ParameterSampler) -> Shape:
    """Return a wine glass or goblet: foot, stem and a thin bowl."""
    height_m = draw.uniform(0.11, 0.19)
    bowl_m = height_m * draw.proportion(0.16, 0.3)
    stem, foot = draw.uniform(0.35, 0.55), draw.uniform(0.75, 1.0)
    wall_m = draw.uniform(0.0018, 0.003)
    stem_m = draw.uniform(0.0035, 0.006)
    base_m = foot * bowl_m
    stand = shapes.lathe(
        np.array([(base_m, 0.0), (base_m, 0.015), (stem_m, 0.06), (stem_m, stem), (2.2 * stem_m, stem + 0.03)])
        * [1, height_m]
    )
    level = np.linspace(0, 1, 5)
    belly = 0.42 + 0.58 * np.sin(level * draw.uniform(1.5, 2.1)) ** 0.8
    outer = np.column_stack([bowl_m * belly / belly.max(), height_m * (stem + 0.015 + (0.985 - stem) * level)])
    return stand + _vessel(outer, wall_m, 1.5 * wall_m, sectors=9, rows=(2,))


def ring(draw: ParameterSampler) -> Shape:
    """Return a ring, bracelet, roll of tape or napkin ring: round, square or flat in section."""
    radius_m = draw.uniform(0.027, 0.075)
    high_m = np.clip(2 * radius_m * draw.proportion(0.12, 0.6), 0.0155, 0.06)
    deep_m = min(draw.uniform(0.005, 0.02), 0.6 * radius_m)
    if draw.chance(0.4):  # a torus
        high_m = max(min(high_m, 0.024), 0.0155)
        turn = np.arange(8) * np.pi / 4 + np.pi / 8
        section = np.column_stack([np.cos(turn) * deep_m / 2, np.sin(turn) * high_m / 2]) / np.cos(np.pi / 8)
    else:
        section = np.array([(-deep_m / 2, -high_m / 2), (deep_m / 2, -high_m / 2), (deep_m / 2, high_m / 2)])
        section = np.concatenate([section, [(-deep_m / 2, high_m / 2)]])
    return shapes.ring(section + np.array([radius_m - deep_m / 2, 0.0]), sectors=24)


def _vessel(outer: object, wall_m: float, floor_m: float, sectors: int, rows: tuple[int, ...] = ()) -> Shape:
    """Return a shell of wall thickness `wall_m` and floor thickness `floor_m`.

    `outer` (n, 2): rows (radius, z).
    """
    outer = np.asarray(outer, float)
    along = np.gradient(outer, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    inner = outer + wall_m * np.column_stack([-along[:, 1], along[:, 0]])
    inner[0] = [max(outer[0, 0] - wall_m, 0.6 * outer[0, 0]), outer[0, 1] + floor_m]
    inner[1:, 1] = np.maximum(inner[1:, 1], inner[0, 1] + 1e-4 * np.arange(1, len(inner)))
    inner[-1, 1] = outer[-1, 1]
    return shapes.shell(outer, inner, sectors, rows)


def _ear(start_m: float, height_m: float, draw: ParameterSampler) -> Shape:
    """Return a handle in the x, z plane from x = start_m outward: an arc of five links."""
    reach_m, span_m = draw.uniform(0.022, 0.034), height_m * draw.uniform(0.25, 0.36)
    turn = np.linspace(-np.pi / 2, np.pi / 2, 6)
    square = draw.uniform(0.5, 1.0)
    x = start_m + reach_m * np.cos(turn) ** square
    path = np.column_stack([x, np.zeros(6), 0.52 * height_m + span_m * np.sin(turn)])
    return shapes.chain(path, draw.uniform(0.0035, 0.0055), stretch=(1, draw.uniform(1.0, 1.8), 1))
