"""Compact things: boxes, tins, balls, sweets, fruit, stones."""

import numpy as np

from sim import shapes
from sim.draws import Draw
from sim.shapes import Shape


def box(draw: Draw) -> Shape:
    """Cartons, wooden blocks, phones: a box, most with rounded edges."""
    long_m = draw.uniform(0.05, 0.19)
    middle_m = np.clip(long_m * draw.proportion(0.25, 1.0), 0.02, 0.14)
    short_m = np.clip(middle_m * draw.uniform(0.25, 1.0), 0.0155, 0.10)
    return shapes.box(long_m, middle_m, short_m, round_m=draw.choice([0.0, 0.002, 0.005]))


def cylinder(draw: Draw) -> Shape:
    """Tins, candles, pucks: a cylinder with chamfered edges, sometimes a little conical."""
    radius_m = draw.uniform(0.012, 0.045)
    height_m = np.clip(2 * radius_m * draw.proportion(0.3, 3.5), 0.016, 0.19)
    if max(2 * radius_m, height_m) < 0.05:
        height_m = 0.055
    top_m = radius_m * (1.0 if draw.chance(0.7) else draw.uniform(0.7, 1.0))
    edge_m = min(draw.uniform(0.0005, 0.004), 0.2 * radius_m, 0.2 * height_m)
    profile = [
        (radius_m - edge_m, 0), (radius_m, edge_m), (top_m, height_m - edge_m), (top_m - edge_m, height_m),
    ]  # fmt: skip
    return shapes.lathe(np.array(profile))


def capsule(draw: Draw) -> Shape:
    """Rounded rods and eggs: two balls of drawn sizes and the hull between them."""
    radius_m = draw.uniform(0.011, 0.038)
    other_m = radius_m * draw.uniform(0.6, 1.0)
    span_m = min(max(2 * radius_m * draw.proportion(0.3, 5.0), 0.055 - radius_m - other_m), 0.195 - radius_m - other_m)
    ends = np.array([[0, 0, 0], [0, 0, span_m]])
    ball = shapes.sphere_points(1.0, rings=11, around=20)
    return shapes.convex(np.concatenate([ends[0] + radius_m * ball, ends[1] + other_m * ball]))


def superquadric(draw: Draw) -> Shape:
    """Soaps, pillows, odd sweets: between box, cylinder, ball and octahedron."""
    long_m = draw.uniform(0.05, 0.17)
    middle_m = max(long_m * draw.proportion(0.3, 1.0), 0.02)
    short_m = max(middle_m * draw.uniform(0.35, 1.0), 0.017)
    return shapes.superquadric(long_m, middle_m, short_m, draw.uniform(0.2, 1.6), draw.uniform(0.2, 1.6))
