"""Toys with limbs and wheels."""

import numpy as np

from dexgrasp.sim.objects import shapes
from dexgrasp.sim.objects.parameter_draws import ParameterSampler
from dexgrasp.sim.objects.shapes import Shape


def figure(draw: ParameterSampler) -> Shape:
    """Return a doll or action figure: torso, head, two arms and two legs.

    Standing, striding or with arms raised.
    """
    tall_m = draw.uniform(0.09, 0.19)
    stout = draw.proportion(0.7, 1.6)
    hip_m, chest_m = tall_m * draw.uniform(0.42, 0.52), tall_m * draw.uniform(0.72, 0.8)
    torso_m, limb_m = tall_m * 0.075 * stout, tall_m * draw.uniform(0.032, 0.045) * stout
    body = shapes.chain(np.array([[0, 0, hip_m], [0, 0, chest_m]]), [0.85 * torso_m, torso_m], stretch=(0.8, 1.35, 1))
    head_m = tall_m * draw.uniform(0.07, 0.12)
    head = shapes.ellipsoid(1.9 * head_m, 1.8 * head_m, 2 * head_m).moved(z=tall_m - head_m)
    neck = shapes.chain(np.array([[0, 0, chest_m], [0, 0, tall_m - head_m]]), 0.9 * limb_m)
    parts = [body, head, neck]
    for side in (-1, 1):
        knee = np.array([draw.uniform(-0.06, 0.12) * tall_m, side * 0.08 * tall_m * stout, 0.5 * hip_m])
        foot = np.array([draw.uniform(-0.1, 0.1) * tall_m, side * 0.09 * tall_m * stout, limb_m])
        parts.append(
            shapes.chain(np.array([[0, side * 0.5 * torso_m, hip_m], knee, foot]), limb_m * np.array([1.2, 1.0, 0.9]))
        )
        parts.append(shapes.chain(np.array([foot, foot + np.array([0.05 * tall_m, 0, 0])]), limb_m))
        shoulder = np.array([0, side * 1.3 * torso_m, chest_m])
        raised = draw.uniform(-1.3, 1.0)
        reach = 0.17 * tall_m * np.array([draw.uniform(-0.2, 0.6), side * np.cos(raised), np.sin(raised)])
        hand = shoulder + reach + 0.13 * tall_m * np.array([draw.uniform(0, 1), side * 0.4, draw.uniform(-1, 1)])
        parts.append(shapes.chain(np.array([shoulder, shoulder + reach, hand]), limb_m * np.array([0.9, 0.75, 0.85])))
    return shapes.join(parts)


def animal(draw: ParameterSampler) -> Shape:
    """Return a toy animal: barrel, neck, head with snout, four legs, tail.

    Horse, dog, dinosaur or pig by proportions.
    """
    long_m = draw.uniform(0.07, 0.12)
    stout = draw.proportion(0.16, 0.36)
    belly_m, leg_m = long_m * stout, long_m * draw.uniform(0.25, 0.6)
    back_m = leg_m + belly_m
    spine = np.array([[-0.5 * long_m, 0, back_m], [0, 0, back_m * draw.uniform(0.92, 1.04)], [0.5 * long_m, 0, back_m]])
    body = shapes.chain(
        spine, belly_m * np.array([draw.uniform(0.7, 1.0), 1.0, draw.uniform(0.7, 1.0)]), stretch=(1, 0.85, 1)
    )
    rise = draw.uniform(0.1, 1.2)
    head_at = spine[2] + draw.uniform(0.2, 0.5) * long_m * np.array([np.cos(rise), 0, np.sin(rise)])
    head_m = belly_m * draw.uniform(0.45, 0.8)
    neck = shapes.chain(np.array([spine[2], head_at]), [0.7 * belly_m, 0.7 * head_m])
    snout = head_at + head_m * draw.uniform(0.8, 2.0) * np.array([1, 0, -0.35])
    head = shapes.chain(np.array([head_at, snout]), [head_m, head_m * draw.uniform(0.4, 0.7)])
    parts = [body, neck, head, _tail(draw, spine[0], belly_m, long_m)]
    limb_m = max(belly_m * draw.uniform(0.22, 0.4), 0.0035)
    for end, side in ((0, -1), (0, 1), (2, -1), (2, 1)):
        hip = spine[end] * [0.85, 1, 1] + [0, side * 0.55 * belly_m, -0.3 * belly_m]
        foot = np.array([hip[0] + draw.uniform(-0.12, 0.12) * long_m, side * 0.65 * belly_m, limb_m])
        knee = (hip + foot) / 2 + [draw.uniform(-0.06, 0.06) * long_m, 0, 0]
        parts.append(shapes.chain(np.array([hip, knee, foot]), limb_m * np.array([1.5, 1.0, 1.0])))
    if draw.chance(0.4):
        ear = shapes.chain(
            np.array([head_at, head_at + head_m * np.array([-0.3, 0.6, 1.4])]), [0.4 * head_m, 0.2 * head_m]
        )
        parts += [ear.moved(y=0.5 * head_m), ear.moved(y=-0.5 * head_m)]
    return shapes.join(parts)


def vehicle(draw: ParameterSampler) -> Shape:
    """Return a toy car, truck, bus or train: a body, a cabin and four to six wheels."""
    long_m = draw.uniform(0.07, 0.18)
    wide_m = max(long_m * draw.proportion(0.32, 0.6), 0.025)
    tall_m = max(wide_m * draw.uniform(0.35, 0.6), 0.016)
    wheel_m = max(tall_m * draw.uniform(0.4, 0.65), 0.006)
    body = shapes.box(long_m, 0.9 * wide_m, tall_m, round_m=0.15 * tall_m).moved(z=wheel_m + tall_m / 2)
    cabin_m, roof_m = long_m * draw.uniform(0.25, 0.55), tall_m * draw.uniform(0.5, 1.1)
    slope = draw.uniform(0.55, 1.0)
    foot = shapes.box(cabin_m, 0.82 * wide_m, 0.002).pieces[0]
    roof = shapes.box(slope * cabin_m, 0.7 * wide_m, 0.002).pieces[0] + [0, 0, roof_m]
    at_x = draw.uniform(-0.5, 0.5) * (long_m - cabin_m)
    cabin = shapes.convex(np.concatenate([foot, roof])).moved(x=at_x, z=wheel_m + tall_m - 0.002)
    disc = np.array([(0.9, 0.0), (1.0, 0.15), (1.0, 0.85), (0.9, 1.0)]) * [wheel_m, 0.22 * wide_m]
    wheel = shapes.lathe(disc).turned("x", np.pi / 2)
    axles = np.linspace(-0.32, 0.32, draw.choice([2, 2, 3])) * long_m
    wheels = [wheel.moved(x=x, y=y, z=wheel_m) for x in axles for y in (0.5 * wide_m, -0.28 * wide_m)]
    parts = [body, cabin, *wheels]
    if draw.chance(0.3):  # a funnel, a crane, a water cannon
        mast = shapes.lathe(np.array([(0.8, 0), (0.8, 0.7), (1.1, 0.75), (1.1, 1.0)]) * [0.15 * wide_m, 1.2 * roof_m])
        parts.append(mast.moved(x=-0.8 * at_x + 0.1 * long_m, z=wheel_m + tall_m - 0.002))
    return shapes.join(parts)


def airplane(draw: ParameterSampler) -> Shape:
    """Return a toy aeroplane: fuselage, wings, tail; one pair of wings or two."""
    long_m = draw.uniform(0.09, 0.18)
    span_m = np.clip(long_m * draw.proportion(0.7, 1.2), 0.07, 0.19)
    radius_m = max(long_m * draw.uniform(0.045, 0.09), 0.006)
    path = np.array([[-0.5, 0, 0.02], [0.1, 0, 0], [0.42, 0, 0], [0.5, 0, 0]]) * long_m
    hull = shapes.chain(path, radius_m * np.array([0.35, 1.0, 0.9, 0.5]))
    chord_m, thick_m = long_m * draw.uniform(0.16, 0.28), draw.uniform(0.003, 0.006)
    sweep_m = draw.uniform(0.0, 0.15) * long_m
    wing = _wing(0.5 * span_m, chord_m, thick_m, sweep_m).moved(x=0.1 * long_m, z=draw.uniform(-0.6, 0.6) * radius_m)
    tail = _wing(0.2 * span_m, 0.55 * chord_m, thick_m, 0.3 * sweep_m).moved(x=-0.43 * long_m, z=0.02 * long_m)
    fin = _wing(0.16 * span_m, 0.6 * chord_m, thick_m, 0.5 * chord_m).turned("x", np.pi / 2)
    fin = Shape(fin.solids[:1], fin.pieces[:1]).moved(x=-0.42 * long_m, z=0.02 * long_m)
    parts = [hull, wing, tail, fin]
    if draw.chance(0.3):
        parts.append(_wing(0.5 * span_m, chord_m, thick_m, 0.0).moved(x=0.12 * long_m, z=2.4 * radius_m))
        strut = shapes.box(0.006, 0.004, 2.8 * radius_m).moved(x=0.12 * long_m, z=1.2 * radius_m)
        parts += [strut.moved(y=y) for y in (-0.3 * span_m, 0.3 * span_m)]
    if draw.chance(0.4):
        wheel = shapes.ellipsoid(1.3 * radius_m, 0.7 * radius_m, 1.3 * radius_m).moved(
            x=0.2 * long_m, z=-1.5 * radius_m
        )
        parts += [wheel.moved(y=0.8 * radius_m), wheel.moved(y=-0.8 * radius_m)]
    return shapes.join(parts)


def _tail(draw: ParameterSampler, root: np.ndarray, belly_m: float, long_m: float) -> Shape:
    reach_m, droop = long_m * draw.uniform(0.15, 0.6), draw.uniform(-0.7, 0.5)
    middle = root + reach_m * 0.5 * np.array([-1, 0, 0.6 * droop])
    tip = root + reach_m * np.array([-1, 0, droop])
    thick = draw.uniform(0.3, 0.7)
    return shapes.chain(np.array([root, middle, tip]), belly_m * np.array([thick, 0.55 * thick, 0.25 * thick]))


def _wing(half_m: float, chord_m: float, thick_m: float, sweep_m: float) -> Shape:
    """Return a pair of wings across y, of two tapered halves."""
    root = shapes.oval(0, 0.001, -thick_m / 2, thick_m / 2)
    fore = np.array([0.5 * chord_m, 0, 0])
    edge = np.concatenate([root + fore, root - fore])
    tip = edge * [0.6, 1, 0.7] + [-sweep_m, half_m, 0]
    half = shapes.convex(np.concatenate([edge, tip]))
    other = shapes.convex(np.concatenate([edge, tip * [1, -1, 1]]))
    return half + other
