"""Tools: slender things, and things with a handle."""

import numpy as np

from dexgrasp.sim.objects import shapes
from dexgrasp.sim.objects.parameter_draws import ParameterSampler
from dexgrasp.sim.objects.shapes import Shape


def hammer(draw: ParameterSampler) -> Shape:
    """Return a hammer or mallet: a handle along z, a head across its top."""
    length_m = draw.uniform(0.12, 0.19)
    handle_m = draw.uniform(0.008, 0.013)
    head_m = length_m * draw.proportion(0.3, 0.65)
    thick_m = draw.uniform(0.010, 0.019)
    flat, swell = draw.uniform(0.75, 1.0), draw.uniform(1.0, 1.35)
    grip = np.array([(0.9 * swell, 0), (swell, 0.03), (swell, 0.3), (1.0, 0.5), (0.85, 1.0)])
    handle = shapes.lathe(grip * [handle_m, length_m - thick_m]).scaled(1, flat, 1)
    if draw.chance(0.5):
        head = shapes.lathe(_head_profile(draw) * [thick_m, head_m]).turned("y", np.pi / 2)
    else:
        head = shapes.box(head_m, 1.8 * thick_m, 2 * thick_m, round_m=0.002).moved(x=head_m / 2)
    shift = head_m * draw.uniform(0.35, 0.65)
    return handle + head.moved(x=-shift, z=length_m - thick_m)


def screwdriver(draw: ParameterSampler) -> Shape:
    """Return a screwdriver, chisel or brush: a thick grip and a thin shaft, sometimes with a flat end."""
    length_m = draw.uniform(0.11, 0.195)
    grip = draw.proportion(0.35, 0.65)
    radius_m = draw.uniform(0.009, 0.016)
    shaft_m = draw.uniform(0.0025, 0.005)
    rows = [(0.75, 0.0), (1.0, 0.1), (0.92, 0.5), (1.0, 0.8), (0.7, 1.0)]
    handle = shapes.lathe(np.array(rows) * [radius_m, grip * length_m])
    shaft = shapes.lathe(np.array([(shaft_m, 0.95 * grip), (shaft_m, 0.99), (0.6 * shaft_m, 1.0)]) * [1, length_m])
    if draw.chance(0.3):
        blade = shapes.box(2.5 * radius_m, 0.006, 0.25 * length_m).moved(z=0.87 * length_m)
        return handle + shaft + blade
    return handle + shaft


def pen(draw: ParameterSampler) -> Shape:
    """Return a pen, marker, stick, candle or toothbrush case: long and thin, round or six-sided."""
    radius_m = draw.uniform(0.0078, 0.012)
    length_m = np.clip(2 * radius_m * draw.proportion(4.5, 11.0), 0.085, 0.19)
    tip, cap = draw.uniform(0.3, 1.0), draw.uniform(0.85, 1.0)
    if draw.chance(0.35):
        sides = draw.choice([4, 6])
        turn = (np.arange(sides) + 0.5) * 2 * np.pi / sides
        outline = radius_m / np.cos(np.pi / sides) * np.column_stack([np.cos(turn), np.sin(turn)])
        return shapes.prism(outline, length_m)
    rows = [(tip, 0.0), (1.0, 0.08), (1.0, 0.6), (cap, 0.62), (cap, 0.98), (0.8 * cap, 1.0)]
    return shapes.lathe(np.array(rows) * [radius_m, length_m])


def clamp(draw: ParameterSampler) -> Shape:
    """Return a C-clamp or caliper: a frame of three bars, a screw and its toggle."""
    tall_m = draw.uniform(0.09, 0.18)
    reach_m = tall_m * draw.proportion(0.4, 0.85)
    bar_m, deep_m = draw.uniform(0.009, 0.016), draw.uniform(0.0155, 0.024)
    back = shapes.box(bar_m, deep_m, tall_m)
    arm = shapes.box(reach_m, deep_m, bar_m).moved(x=(reach_m - bar_m) / 2)
    frame = back + arm.moved(z=(tall_m - bar_m) / 2) + arm.moved(z=(bar_m - tall_m) / 2)
    tip_x = reach_m - 1.2 * bar_m
    out_m = min(draw.uniform(0.1, 0.3) * tall_m, 0.198 - tall_m)
    drive_m = draw.uniform(0.3, 0.6) * tall_m + out_m
    screw = shapes.lathe(np.array([(1.6, 0), (1.6, 0.08), (1.0, 0.1), (1.0, 1.0)]) * [0.35 * bar_m, drive_m])
    screw = screw.moved(x=tip_x, z=tall_m / 2 + out_m - drive_m)
    toggle = shapes.box(0.35 * bar_m, 2.4 * deep_m, 0.35 * bar_m).moved(x=tip_x, z=tall_m / 2 + out_m - 0.2 * bar_m)
    return frame + screw + toggle


def wrench(draw: ParameterSampler) -> Shape:
    """Return a wrench, can opener or pair of tongs: a flat bar with an open jaw at one or both ends."""
    length_m, deep_m = draw.uniform(0.12, 0.19), draw.uniform(0.0155, 0.02)
    jaw_m = length_m * draw.proportion(0.12, 0.24)
    bar_m = jaw_m * draw.uniform(0.45, 0.8)
    bar = shapes.box(length_m - 1.2 * jaw_m, bar_m, deep_m * draw.uniform(0.6, 1.0), round_m=0.002)
    jaw = _jaw(jaw_m, deep_m).moved(x=length_m / 2 - jaw_m)
    if draw.chance(0.5):
        return bar + jaw + jaw.turned("z", np.pi)
    grip = shapes.lathe(np.array([(1.0, 0), (1.1, 0.5), (1.0, 1.0)]) * [0.55 * bar_m, 0.3 * length_m])
    return bar + jaw + grip.turned("y", np.pi / 2).moved(x=-length_m / 2)


def spoon(draw: ParameterSampler) -> Shape:
    """Return a big spoon, ladle or spoon rest: a shallow oval bowl on a bent handle."""
    length_m = draw.uniform(0.12, 0.19)
    bowl_m = length_m * draw.proportion(0.14, 0.24)
    wall_m = draw.uniform(0.002, 0.004)
    deep_m = max(draw.uniform(0.35, 0.6) * bowl_m, 0.011)
    outer = np.array([(0.5 * bowl_m, 0.0), (0.85 * bowl_m, 0.4 * deep_m), (bowl_m, deep_m)])
    inner = outer - [[wall_m, -wall_m], [wall_m, -0.7 * wall_m], [wall_m, 0.0]]
    bowl = shapes.shell(outer, inner, sectors=18).scaled(draw.uniform(1.0, 1.3), 1.0, 1.0)
    at = np.linspace(0.0, 1.0, 5)
    reach_m = length_m - 2 * bowl_m
    rise_m = draw.uniform(0.1, 0.35) * reach_m
    path = np.column_stack(
        [bowl_m - 0.5 * wall_m + reach_m * at, 0 * at, deep_m - 0.002 + rise_m * np.sin(np.pi * at / 1.5)]
    )
    return bowl + shapes.chain(path, draw.uniform(0.0025, 0.004), stretch=(1, draw.uniform(1.5, 2.5), 1))


def drill(draw: ParameterSampler) -> Shape:
    """Return a power drill, glue gun or spray gun: a barrel with a grip beneath it, and a foot."""
    long_m = draw.uniform(0.10, 0.18)
    tall_m = long_m * draw.proportion(0.65, 1.05)
    barrel_m = draw.uniform(0.1, 0.15) * long_m
    rows = [(0.8, 0.0), (1.0, 0.06), (1.0, 0.6), (0.7, 0.7), (0.55, 0.85), (0.35, 1.0)]
    barrel = shapes.lathe(np.array(rows) * [max(barrel_m, 0.011), long_m]).turned("y", np.pi / 2)
    lean = draw.uniform(-0.25, 0.1)
    thick_m = max(draw.uniform(0.5, 0.75) * barrel_m, 0.008)
    top, low = np.array([0.25 * long_m, 0, 0]), np.array([0.25 * long_m + lean * tall_m * 0.5, 0, barrel_m - tall_m])
    parts = barrel + shapes.chain(np.array([top, low]), thick_m, stretch=(1.3, 1.0, 1.0))
    if draw.chance(0.6):
        foot = shapes.box(3.6 * thick_m, 2.6 * thick_m, 1.6 * thick_m, round_m=0.003)
        parts = parts + foot.moved(*low)
    return parts


def torch(draw: ParameterSampler) -> Shape:
    """Return a torch, microphone, whisk or pepper mill: a grip that widens into a head."""
    length_m = draw.uniform(0.09, 0.19)
    head_m = max(length_m * draw.proportion(0.11, 0.24), 0.013)
    grip_m = max(head_m * draw.uniform(0.4, 0.75), 0.0078)
    neck = draw.uniform(0.55, 0.75)
    round_head = draw.chance(0.4)
    end = [(0.8 * head_m, 0.92), (0.4 * head_m, 1.0)] if round_head else [(head_m, 0.97), (0.95 * head_m, 1.0)]
    rows = [(0.9 * grip_m, 0), (grip_m, 0.03), (grip_m, neck), (head_m, neck + 0.17), *end]
    return shapes.lathe(np.array(rows) * [1, length_m])


def _head_profile(draw: ParameterSampler) -> np.ndarray:
    waist, peen = draw.uniform(0.65, 1.0), draw.uniform(0.5, 1.0)
    front = [(0.95, 0.0), (1.0, 0.03), (1.0, 0.25), (waist, 0.35)]
    return np.array([*front, (waist, 0.65), (peen, 0.8), (0.8 * peen, 1.0)])


def _jaw(size_m: float, deep_m: float) -> Shape:
    """Return an open jaw towards +x: a root and two prongs."""
    root = shapes.box(0.6 * size_m, 1.4 * size_m, deep_m, round_m=0.002)
    prong = shapes.box(0.8 * size_m, 0.42 * size_m, deep_m, round_m=0.002).moved(x=0.55 * size_m)
    return root + prong.moved(y=0.49 * size_m) + prong.moved(y=-0.49 * size_m)
