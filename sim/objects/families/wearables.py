"""Wearables: shoes and headphones."""

import numpy as np

from dexgrasp.sim.objects import shapes
from dexgrasp.sim.objects.parameter_draws import ParameterSampler
from dexgrasp.sim.objects.shapes import Shape


def shoe(draw: ParameterSampler) -> Shape:
    """Return a shoe, sneaker or boot with an open shaft.

    Sole, toe cap, instep, and a thin wall round the ankle.
    """
    long_m = draw.uniform(0.10, 0.18)
    wide_m = long_m * draw.proportion(0.3, 0.45)
    sole_m, toe_m = draw.uniform(0.06, 0.11) * long_m, draw.uniform(0.16, 0.26) * long_m
    shaft_m = long_m * (draw.uniform(0.3, 0.45) if draw.chance(0.5) else draw.uniform(0.6, 0.85))
    heel, ball = -0.5 * long_m, 0.18 * long_m
    sole = shapes.loft(
        [
            shapes.oval(heel, 0.45 * wide_m, 0, sole_m, 0.4),
            shapes.oval(heel + 0.12 * long_m, 0.75 * wide_m, 0, sole_m, 0.4),
            shapes.oval(-0.1 * long_m, 0.7 * wide_m, 0.1 * sole_m, sole_m, 0.4),
            shapes.oval(ball, wide_m, 0, sole_m, 0.4),
            shapes.oval(0.5 * long_m, 0.4 * wide_m, 0.2 * sole_m, sole_m, 0.4),
        ]
    )
    low = 0.7 * sole_m
    upper = shapes.loft(
        [
            shapes.oval(-0.06 * long_m, 0.62 * wide_m, low, min(0.9 * shaft_m, 1.9 * toe_m)),
            shapes.oval(ball, 0.9 * wide_m, low, 1.1 * toe_m),
            shapes.oval(0.46 * long_m, 0.4 * wide_m, low, 0.5 * toe_m),
        ]
    )
    return sole + upper + _shaft(draw, long_m, wide_m, low, shaft_m)


def headphones(draw: ParameterSampler) -> Shape:
    """Return headphones, ear muffs or a hair band with pads: a bow and two cushions."""
    wide_m = draw.uniform(0.08, 0.16)
    tall_m = wide_m * draw.proportion(0.75, 1.1)
    band_m, deep = draw.uniform(0.003, 0.006), draw.uniform(1.5, 2.6)
    turn = np.linspace(0, np.pi, 9)
    path = np.column_stack([np.zeros(9), 0.5 * wide_m * np.cos(turn), (tall_m - 0.02) * np.sin(turn) ** 0.8])
    bow = shapes.chain(path, band_m, stretch=(deep, 1, 1))
    pad_m, thick_m = draw.uniform(0.2, 0.32) * wide_m, draw.uniform(0.1, 0.22) * wide_m
    rows = np.array([(0.85, 0.0), (1.0, 0.2), (1.0, 0.7), (0.8, 1.0)]) * [pad_m, thick_m]
    pad = shapes.lathe(rows).turned("x", np.pi / 2).moved(y=0.5 * wide_m + 0.3 * thick_m)
    return bow + pad + pad.turned("z", np.pi)


def _shaft(draw: ParameterSampler, long_m: float, wide_m: float, low: float, high: float) -> Shape:
    """Return the wall round the ankle: an oval ring, thin, a little narrower at its top."""
    wall_m = draw.uniform(0.003, 0.006)
    half = 0.36 * wide_m
    lean = draw.uniform(0.85, 1.1)
    section = np.array([(half - wall_m, low), (half, low), (lean * half, high), (lean * half - wall_m, high)])
    stretch = 0.22 * long_m / half
    return shapes.ring(section, sectors=12).scaled(stretch, 1, 1).moved(x=-0.24 * long_m)
