"""Things with a handle that do work."""

import numpy as np

from sim import shapes
from sim.draws import Draw
from sim.shapes import Shape


def hammer(draw: Draw) -> Shape:
    """A hammer or mallet: a handle along z, a head across its top."""
    length_m = draw.uniform(0.12, 0.19)
    handle_m = draw.uniform(0.008, 0.013)
    head_m = length_m * draw.proportion(0.3, 0.65)
    thick_m = draw.uniform(0.010, 0.019)
    flat = draw.uniform(0.75, 1.0)
    swell = draw.uniform(1.0, 1.35)
    handle = shapes.lathe(
        np.array([(0.9 * swell, 0), (swell, 0.03), (swell, 0.3), (1.0, 0.5), (0.85, 1.0)])
        * [handle_m, length_m - thick_m]
    ).scaled(1, flat, 1)
    if draw.chance(0.5):
        head = shapes.lathe(_head_profile(draw) * [thick_m, head_m]).turned("y", np.pi / 2)
    else:
        head = shapes.box(head_m, 1.8 * thick_m, 2 * thick_m, round_m=0.002).moved(x=head_m / 2)
    shift = head_m * draw.uniform(0.35, 0.65)
    return handle + head.moved(x=-shift, z=length_m - thick_m)


def _head_profile(draw: Draw) -> np.ndarray:
    waist, peen = draw.uniform(0.65, 1.0), draw.uniform(0.5, 1.0)
    return np.array(
        [(0.95, 0.0), (1.0, 0.03), (1.0, 0.25), (waist, 0.35), (waist, 0.65), (peen, 0.8), (0.8 * peen, 1.0)]
    )
