"""Compact objects: boxes, tins, balls, sweets, fruit, stones."""

import numpy as np

from dexgrasp.sim.objects import shapes
from dexgrasp.sim.objects.parameter_draws import ParameterSampler
from dexgrasp.sim.objects.shapes import Shape


def box(draw: ParameterSampler) -> Shape:
    """Return a box, most with rounded edges: cartons, wooden blocks, phones."""
    long_m = draw.uniform(0.05, 0.19)
    middle_m = np.clip(long_m * draw.proportion(0.25, 1.0), 0.02, 0.14)
    short_m = np.clip(middle_m * draw.uniform(0.25, 1.0), 0.0155, 0.10)
    return shapes.box(long_m, middle_m, short_m, round_m=draw.choice([0.0, 0.002, 0.005]))


def cylinder(draw: ParameterSampler) -> Shape:
    """Return a cylinder with chamfered edges, sometimes a little conical: tins, candles, pucks."""
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


def capsule(draw: ParameterSampler) -> Shape:
    """Return the hull of two balls of drawn sizes: rounded rods and eggs."""
    radius_m = draw.uniform(0.011, 0.038)
    other_m = radius_m * draw.uniform(0.6, 1.0)
    span_m = min(max(2 * radius_m * draw.proportion(0.3, 5.0), 0.055 - radius_m - other_m), 0.195 - radius_m - other_m)
    ends = np.array([[0, 0, 0], [0, 0, span_m]])
    ball = shapes.sphere_points(1.0, rings=11, around=20)
    return shapes.convex(np.concatenate([ends[0] + radius_m * ball, ends[1] + other_m * ball]))


def superquadric(draw: ParameterSampler) -> Shape:
    """Return a superquadric between box, cylinder, ball and octahedron: soaps, pillows, sweets."""
    long_m = draw.uniform(0.05, 0.17)
    middle_m = max(long_m * draw.proportion(0.3, 1.0), 0.02)
    short_m = max(middle_m * draw.uniform(0.35, 1.0), 0.017)
    return shapes.superquadric(long_m, middle_m, short_m, draw.uniform(0.2, 1.6), draw.uniform(0.2, 1.6))


def ellipsoid(draw: ParameterSampler) -> Shape:
    """Return an ellipsoid, a third of them spheres: balls, eggs, plums, lemons."""
    long_m = draw.uniform(0.05, 0.11)
    middle = draw.proportion(0.55, 1.0)
    if draw.chance(0.35):
        return shapes.ellipsoid(long_m, long_m * (0.97 + 0.03 * middle), long_m)
    return shapes.ellipsoid(
        1.3 * long_m, max(long_m * middle, 0.02), max(long_m * middle * draw.uniform(0.5, 1), 0.018)
    )


def rock(draw: ParameterSampler) -> Shape:
    """Return the hull of random points: stones and crumpled things."""
    corners = shapes.bumpy_points(draw.rng, draw.integer(12, 40), draw.uniform(0.1, 0.5))
    long_m = draw.uniform(0.055, 0.14)
    middle_m = max(long_m * draw.proportion(0.45, 1.0), 0.03)
    return shapes.convex(corners * [long_m / 2, middle_m / 2, max(middle_m * draw.uniform(0.5, 1.0), 0.025) / 2])


def blob(draw: ParameterSampler) -> Shape:
    """Return rocks grown onto one another: concave lumps, ginger, coral."""
    long_m, stretch = draw.uniform(0.03, 0.06), draw.proportion(0.5, 1.3)
    parts, centre = [], np.zeros(3)
    for _ in range(draw.integer(3, 6)):
        size = long_m * draw.uniform(0.5, 1.0) * np.array([stretch, 1.0, draw.uniform(0.6, 1.0)])
        lump = shapes.convex(shapes.bumpy_points(draw.rng, 40, draw.uniform(0.05, 0.35)) * size / 1.4)
        parts.append(lump.moved(*centre))
        away = draw.rng.normal(size=3)
        centre = centre + away / np.linalg.norm(away) * size * draw.uniform(0.55, 0.8)
    return shapes.join(parts)


def banana(draw: ParameterSampler) -> Shape:
    """Return a bent tapered tube: bananas, cucumbers, croissants."""
    length_m, bend = draw.uniform(0.09, 0.19), draw.proportion(0.1, 2.4)
    thick_m = max(length_m * draw.uniform(0.07, 0.13), 0.009)
    turn = np.linspace(-bend / 2, bend / 2, 8)
    radius = length_m / bend
    path = np.column_stack([radius * np.sin(turn), np.zeros(8), radius * (1 - np.cos(turn))])
    taper = 1 - draw.uniform(0.3, 0.75) * np.abs(np.linspace(-1, 1, 8)) ** draw.uniform(2.0, 4.0)
    return shapes.chain(path, np.maximum(thick_m * taper, 0.003))


def toy_brick(draw: ParameterSampler) -> Shape:
    """Return a box with studs on top, sometimes a second one stacked across it: building bricks."""
    pitch_m = draw.uniform(0.016, 0.026)
    along, across = draw.integer(2, 4), draw.integer(1, 2)
    height_m = pitch_m * draw.proportion(0.55, 1.6)
    brick = _brick(along, across, pitch_m, height_m)
    if draw.chance(0.35) and along >= 2:
        top = _brick(2, across, pitch_m, height_m)
        brick = brick + top.moved(x=pitch_m * draw.integer(-1, 1) * 0.5, z=height_m)
    return brick


def angle(draw: ParameterSampler) -> Shape:
    """Return an L, T, U or Z shape: brackets, angle irons, letters, blocks of a puzzle."""
    long_m, thick_m = draw.uniform(0.08, 0.18), draw.uniform(0.012, 0.03)
    arm_m = max(long_m * draw.proportion(0.25, 0.9), 1.4 * thick_m)
    deep_m = max(draw.uniform(0.8, 2.0) * thick_m, 0.0155)
    beam = shapes.box(long_m, thick_m, deep_m)
    arm = shapes.box(thick_m, arm_m, deep_m).moved(y=(arm_m - thick_m) / 2)
    end = (long_m - thick_m) / 2
    if (kind := draw.choice("LTUZ")) == "L":
        return beam + arm.moved(x=end)
    if kind == "T":
        return beam + arm.moved(x=end * draw.uniform(-0.4, 0.4))
    other = arm if kind == "U" else arm.turned("z", np.pi)
    return beam + arm.moved(x=end) + other.moved(x=-end)


def dumbbell(draw: ParameterSampler) -> Shape:
    """Return two weights on a bar: dumb-bells, bones, spools, bolts."""
    length_m = draw.uniform(0.07, 0.19)
    head_m = max(length_m * draw.proportion(0.10, 0.24), 0.0095)
    bar_m = head_m * draw.uniform(0.3, 0.75)
    other_m = head_m * (1.0 if draw.chance(0.6) else draw.uniform(0.6, 1.0))
    thick = draw.uniform(0.12, 0.3)
    bar = _disc(bar_m, length_m)
    if draw.chance(0.3):
        ends = [shapes.ellipsoid(*[2.2 * r] * 3).moved(z=z) for r, z in ((head_m, 0.15), (other_m, length_m - 0.15))]
        return bar + ends[0].moved(z=-0.15 + head_m) + ends[1].moved(z=0.15 - other_m)
    low = _disc(head_m, thick * length_m)
    high = _disc(other_m, thick * length_m).moved(z=(1 - thick) * length_m)
    return bar + low + high


def _brick(along: int, across: int, pitch_m: float, height_m: float) -> Shape:
    body = shapes.box(along * pitch_m, across * pitch_m, height_m).moved(z=height_m / 2)
    stud = _disc(0.31 * pitch_m, 0.22 * pitch_m)
    spots = [(i - (along - 1) / 2, j - (across - 1) / 2) for i in range(along) for j in range(across)]
    return shapes.join([body, *(stud.moved(x * pitch_m, y * pitch_m, 0.99 * height_m) for x, y in spots)])


def _disc(radius_m: float, height_m: float) -> Shape:
    edge_m = min(0.1 * radius_m, 0.1 * height_m)
    rows = [(radius_m - edge_m, 0), (radius_m, edge_m), (radius_m, height_m - edge_m), (radius_m - edge_m, height_m)]
    return shapes.lathe(np.array(rows))
