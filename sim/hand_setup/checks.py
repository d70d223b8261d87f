"""Checks of a hand's description: what would make it fail, and what looks odd.

Each check returns one finding. Lengths are measured on the model in MuJoCo, in the palm frame: +x palm normal, +z
finger direction. Limits are such that the shipped hands pass and hands that hold next to nothing do not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dexgrasp.sim.hand_setup.grip import SCRIPT, Grip, grips
from dexgrasp.sim.hand_setup.hand_probe import ClosingPath, HandProbe
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import STYLES
from dexgrasp.sim.robots.hand_model import PALM

Level = Literal["ok", "odd", "wrong"]
Array = NDArray[np.float64]
_LEVELS: tuple[Level, ...] = ("ok", "odd", "wrong")

SELF_CONTACT_M = {"odd": 0.001, "wrong": 0.005}
"""Depth of contacts within the open hand from which it is odd or wrong."""
OVERLAP_POSES = 12
"""Random poses that tell parts that always overlap from fingers that meet."""
MEETING_M = {"odd": 0.03, "wrong": 0.08}
"""Least distance of thumb and fingers while closing from which it is odd or wrong: smaller objects are not held."""
APERTURE_M = {"odd": 0.07, "wrong": 0.04}
"""Distance of thumb and fingers in the open pose below which it is odd or wrong: objects are up to 0.1 m wide."""
CLOSES_M = {"odd": 0.03, "wrong": 0.01}
"""Way of a fingertip while closing below which it is odd or wrong: the finger stands still."""
BEGUN_RAD = 0.4
"""Motion of the fastest joint by which thumb and fingers must have come nearer."""
RETURNS_M = 0.01
"""How much nearer than in the open pose thumb and fingers come that parted at first."""
STANDS_STILL = "its motors have closing 0, or start at their limit; change closing or open"
HELD_M = 0.05
"""Width of the object with which offsets and angles are measured."""
ANGLE_RAD = {"odd": np.deg2rad(75), "wrong": np.deg2rad(90)}
"""Angle of the closing motion to the line from thumb to finger from which it is odd or wrong: they pass each other."""
OFFSET_M = {"odd": 0.05, "wrong": 0.06}
"""Distance of the object's place from the middle of thumb and fingers from which it is odd or wrong."""
AHEAD_M = {"odd": 0.01, "wrong": 0.0}
"""Height of the meeting fingertips below the object's top, up to which it is odd or wrong."""
PRESS_N = {"odd": 4.1, "wrong": 1.4}
"""Force with which thumb and fingers press, below which it is odd or wrong: with friction 0.6 it holds 0.5, 0.17 kg."""
GRIPS = {"power": {"odd": 6, "wrong": 2}, "pinch": {"odd": 1, "wrong": -1}}
"""Number of test objects held, of nine, up to which it is odd or wrong."""
TIP_FORCE_N = {"odd": 3.0, "wrong": 0.7}
"""Force at a fingertip, its finger stretched, below which it is odd or wrong: objects weigh up to 0.5 kg."""
BELOW_TABLE_M = {"odd": 0.05, "wrong": 0.08}
"""Depth of open fingertips below the table at floor_m; few grasps go down to it with straight fingers."""
CLOSING_S = {"odd": 1.0, "wrong": 3.0}
"""Time from the open pose to the limits at full speed from which it is odd or wrong; a grasp phase lasts 1.8 s."""
OBJECT_WIDTHS_M = (0.02, 0.12)
"""Widths of objects that are put on the table."""
HELD_SHARE = {"odd": 0.5, "wrong": 0.2}
"""Part of these widths that fits between thumb and fingers, below which it is odd or wrong."""
FINGER_SHARE = 0.3
"""Relative difference of finger_m and measured half thickness from which it is odd: the palm stops too high or low."""
WRIST_TURN_RAD = np.deg2rad(45)
"""Angle of the fingers to z of the hand base from which it is odd: wrists of arms are cleared as if both were one."""
SPREAD_M = {"odd": 0.035, "wrong": 0.02}
"""Standard deviation of the keypoints below which it is odd or wrong: their distances tell little of the object."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    level: Level
    what: str
    text: str
    """Measured values; for odd and wrong ones also what to change."""


def check_hand(hand: HandSpec) -> list[Finding]:
    """Return the findings of all checks, for both grasp styles."""
    probe = HandProbe(hand)
    found = [*_masses(probe), *_keypoints(probe), *_wrist(probe), *_finger(probe)]
    for style in STYLES:
        path = probe.closing(getattr(hand, style))
        found += [*_open_pose(probe, style), *_palm_frame(probe, style, path), *_closing(probe, style, path)]
        found += [
            *_opposition(style, path),
            *_widths(style, path),
            *_offset(probe, style, path),
            *_press(probe, style, path),
        ]
        found += [*_grip(hand, style), *_floor(probe, style), *_speed(probe, style, path)]
    return [*found, *_tip_forces(probe)]


def overlapping_bodies(hand: HandSpec) -> dict[tuple[str, str], float]:
    """Return the depths [m] of pairs of bodies that overlap at rest or open, and in half of all poses."""
    probe, limit = HandProbe(hand), SELF_CONTACT_M["odd"]
    found: dict[tuple[str, str], float] = {}
    for pose in (hand.power.open_pose.numpy(), hand.pinch.open_pose.numpy(), probe.rest_pose()):
        probe.pose(pose)
        for pair, depth in probe.overlaps().items():
            if all(pair) and depth > limit:  # a body without a name cannot be written into hand.yaml
                found[pair] = max(found.get(pair, 0.0), depth)
    times = dict.fromkeys(found, 0)
    random = np.random.default_rng(0)
    for _ in range(OVERLAP_POSES if found else 0):
        probe.pose(hand.motors.joint_positions(random.uniform(hand.motor_lower, hand.motor_upper)))
        now = probe.overlaps()
        times = {pair: count + (now.get(pair, 0.0) > limit) for pair, count in times.items()}
    return {pair: depth for pair, depth in found.items() if 2 * times[pair] >= OVERLAP_POSES}


def _masses(probe: HandProbe) -> Iterator[Finding]:
    hand = probe.hand
    joints, motors = len(hand.joint_names), len(hand.motors.names)
    text = f"{joints} joints, {motors} motors, {hand.mass:.2f} kg, {len(hand.keypoint_names)} keypoints"
    yield Finding("ok", "model", text)


def _open_pose(probe: HandProbe, style: str) -> Iterator[Finding]:
    probe.pose(getattr(probe.hand, style).open_pose.numpy())
    overlaps = probe.overlaps()
    depth = probe.deepest_contact()
    level = _level(depth, SELF_CONTACT_M)
    pairs = [
        "[" + ", ".join(probe.hand.root if body == PALM else body for body in pair) + "]"
        for pair, deep in overlaps.items()
        if deep >= SELF_CONTACT_M["odd"]
    ]
    advice = f"; change open, or state exclude: [{', '.join(pairs)}]" if level != "ok" else ""
    yield Finding(level, f"{style}: self-contact", f"{1000 * depth:.1f} mm in the open pose{advice}")


def _keypoints(probe: HandProbe) -> Iterator[Finding]:
    """Check that each finger has keypoints, and that they are apart from each other."""
    hand = probe.hand
    touching = {probe.finger_of.get(probe.model.body(name).id) for name in hand.contact_bodies} - {None}
    without = sorted(str(finger) for finger in touching - {*probe.tips, *probe.thumb_tips})
    probe.pose(hand.open_pose)
    counted = hand.keypoint_weights > 0
    places = probe.in_palm({name: name for name, counts in zip(hand.keypoint_names, counted, strict=True) if counts})
    spread = float(np.sqrt(places.var(axis=0).sum()))
    level: Level = "wrong" if without else _level(-spread, _negative(SPREAD_M))
    advice = "" if level == "ok" else "; place them at the joints and at the tip of each finger"
    lacking = f", none on {without[0]}" if without else ""
    yield Finding(level, "keypoints", f"{100 * spread:.1f} cm apart (standard deviation){lacking}{advice}")


def _wrist(probe: HandProbe) -> Iterator[Finding]:
    """Check that the fingers point along z of the hand base, as the flange of an arm does."""
    turn = float(np.arccos(np.clip(probe.palm_axes[2, 2], -1.0, 1.0)))
    level: Level = "odd" if turn >= WRIST_TURN_RAD else "ok"
    advice = "" if level == "ok" else "; right for a claw; else correct palm.finger_b, root or frozen wrist joints"
    yield Finding(level, "wrist", f"fingers {np.rad2deg(turn):.0f} deg off z of the hand base{advice}")


def _finger(probe: HandProbe) -> Iterator[Finding]:
    """Check that finger_m is half the thickness of the geoms at the fingertips."""
    stated, measured = probe.hand.finger_m, probe.half_thickness()
    if measured is None:
        yield Finding("odd", "finger_m", "no geom that collides at any fingertip: nothing to compare it with")
        return
    level: Level = "odd" if abs(stated - measured) > FINGER_SHARE * measured else "ok"
    advice = "" if level == "ok" else f"; set grasp.finger_m {measured:.4f}"
    text = f"{1000 * stated:.1f} mm, geoms at the fingertips are {1000 * measured:.1f} mm (half thickness)"
    yield Finding(level, "finger_m", f"{text}{advice}")


def _palm_frame(probe: HandProbe, style: str, path: ClosingPath) -> Iterator[Finding]:
    """Check that fingers point along +z of the palm frame and bend towards +x."""
    chosen = getattr(probe.hand, style)
    probe.pose(chosen.open_pose.numpy())
    ahead = float(probe.in_palm(probe.tips)[:, 2].mean())
    level: Level = "ok" if ahead > 0.02 else "odd" if ahead > 0.0 else "wrong"
    advice = "" if level == "ok" else "; expected ahead of it: turn palm.finger_b, or move palm.pos_b"
    yield Finding(level, f"{style}: finger_b", f"open fingertips {100 * ahead:+.1f} cm along it from the palm{advice}")
    bends = -1.0 if _opens(path) else 1.0
    turns = [bends * probe.turn(site, chosen.closing.numpy()) @ probe.palm_axes[1] for site in probe.tips.values()]
    right = sum(turn >= 0 for turn in turns)
    level = "ok" if right == len(turns) else "odd" if 2 * right > len(turns) else "wrong"
    advice = "" if level == "ok" else ": turn palm.normal_b, or change the signs of closing"
    yield Finding(level, f"{style}: normal_b", f"{right} of {len(turns)} fingers bend towards it{advice}")


def _opens(path: ClosingPath) -> bool:
    """Return whether thumb and fingers part from each other, for good: closing has the wrong sign.

    A thumb that starts beside bent fingers parts from them before it meets them.
    """
    begun = int(np.argmax(np.abs(path.joint_pos - path.joint_pos[0]).max(axis=1) > BEGUN_RAD))
    return bool(path.gaps[begun] > path.gaps[0] + 0.005 and path.gaps[begun:].min() > path.gaps[0] - RETURNS_M)


def _closing(probe: HandProbe, style: str, path: ClosingPath) -> Iterator[Finding]:
    """Check that closing moves thumb and fingers, and towards each other."""
    ways = {
        name: float(np.linalg.norm(np.diff(points[:, i], axis=0), axis=-1).sum())
        for sites, points in ((probe.tips, path.fingers), (probe.thumb_tips, path.thumbs))
        for i, name in enumerate(sites)
    }
    least = min(ways, key=lambda name: ways[name])
    thumb_stands = max(ways[name] for name in probe.thumb_tips) < CLOSES_M["wrong"]
    all_stand = max(ways[name] for name in probe.tips) < CLOSES_M["wrong"]
    moves = f"{least} moves least, by {100 * ways[least]:.1f} cm"
    level: Level = "wrong"
    if thumb_stands or all_stand:
        text = f"{'the thumb stands' if thumb_stands else 'all fingers stand'} still: {STANDS_STILL}"
    elif _opens(path):
        text = "thumb and fingers part from each other: change the signs of closing"
    elif ways[least] < CLOSES_M["odd"]:
        level, text = "odd", f"{moves}: {STANDS_STILL}"
    else:
        level, text = "ok", moves
    yield Finding(level, f"{style}: closing", text)


def _opposition(style: str, path: ClosingPath) -> Iterator[Finding]:
    """Check how wide the hand opens between thumb and fingers, how near they come, and whether they face each other."""
    aperture, nearest = float(path.gaps[0]), float(path.gaps.min())
    level = _level(-aperture, _negative(APERTURE_M))
    advice = "" if level == "ok" else "; objects are up to 10 cm wide: open the hand further"
    yield Finding(level, f"{style}: aperture", f"{100 * aperture:.1f} cm between thumb and nearest fingertip{advice}")
    angle = _meeting_angle(path)
    level = _LEVELS[max(map(_LEVELS.index, (_level(nearest, MEETING_M), _level(angle, ANGLE_RAD))))]
    advice = "" if level == "ok" else "; smaller objects are not held: change the thumb's open pose or closing"
    degrees = f"{np.rad2deg(angle):.0f} deg off the line between them"
    text = f"thumb and fingers come as near as {100 * nearest:.1f} cm, {degrees}"
    yield Finding(level, f"{style}: opposition", f"{text}{advice}")


def _widths(style: str, path: ClosingPath) -> Iterator[Finding]:
    """Check what part of object widths lies between the closest and the open distance of the tips."""
    least, most = OBJECT_WIDTHS_M
    closest, widest = float(path.gaps.min()), float(path.gaps[0])
    share = max(0.0, min(widest, most) - max(closest, least)) / (most - least)
    level = _level(-share, _negative(HELD_SHARE))
    advice = "" if level == "ok" else "; open the hand further, or let thumb and fingers come nearer"
    text = (
        f"{1000 * closest:.0f} to {1000 * widest:.0f} mm between thumb and fingertips, {100 * share:.0f} % of objects"
    )
    yield Finding(level, f"{style}: widths", f"{text} of {1000 * least:.0f} to {1000 * most:.0f} mm{advice}")


def _meeting_angle(path: ClosingPath) -> float:
    """Return the angle of the closing motion, thumb against nearest finger, to the line between them [rad]."""
    step = max(path.at_gap(HELD_M), 1)
    apart = path.fingers[:, :, None] - path.thumbs[:, None]  # (step, finger, thumb, 3)
    finger, thumb = np.unravel_index(np.linalg.norm(apart[step], axis=-1).argmin(), apart.shape[1:3])
    before, line = apart[step - 1, finger, thumb], apart[step, finger, thumb]
    motion = before - line
    length = np.linalg.norm(motion) * np.linalg.norm(line)
    return float(np.arccos(np.clip(motion @ line / length, -1.0, 1.0))) if length > 1e-12 else 0.0


def _offset(probe: HandProbe, style: str, path: ClosingPath) -> Iterator[Finding]:
    """Check that the object's place lies where thumb and fingers meet."""
    chosen = getattr(probe.hand, style)
    x, y, z = (float(value) for value in path.centre(path.at_gap(HELD_M)))
    missed = float(np.hypot(y - float(chosen.offset_y_m), z - float(chosen.offset_z_m)))
    level = _level(missed, OFFSET_M)
    advice = "" if level == "ok" else f"; set offset_y_m {y:.3f}, offset_z_m {z:.3f}, where they meet"
    yield Finding(level, f"{style}: offset", f"{100 * missed:.1f} cm from the middle of thumb and fingers{advice}")
    ahead = x - float(chosen.gap_m)
    level = _level(-ahead, _negative(AHEAD_M))
    below = f"set gap_m below {x - 0.02:.3f}" if x > 0.03 else "turn palm.normal_b, or move palm.pos_b"
    advice = "" if level == "ok" else f"; they close above it: {below}"
    yield Finding(level, f"{style}: gap_m", f"fingers meet {100 * ahead:+.1f} cm below the object's top{advice}")


def _press(probe: HandProbe, style: str, path: ClosingPath) -> Iterator[Finding]:
    """Check the force with which closing presses: kp times the lead of the targets, at most effort_limit."""
    hand, closing = probe.hand, getattr(probe.hand, style).closing.numpy()
    torque = np.minimum(hand.effort_limit, hand.kp * SCRIPT.close_rad * np.abs(closing))
    probe.pose(path.joint_pos[path.at_gap(HELD_M)])

    def force(sites: Mapping[str, str]) -> float:
        """Return the sum over fingers of the force of the joint that presses most [N]."""
        levers = [np.maximum(probe.levers(site), 5e-3) for site in sites.values()]
        acts = [lever > 5e-3 for lever in levers]
        return sum(float(np.max(torque / lever * act)) for lever, act in zip(levers, acts, strict=True))

    side, least = min((("thumb", force(probe.thumb_tips)), ("fingers", force(probe.tips))), key=lambda item: item[1])
    level = _level(-least, _negative(PRESS_N))
    advice = "" if level == "ok" else "; objects weigh up to 0.5 kg: raise kp, closing or effort_limit"
    yield Finding(level, f"{style}: press", f"{least:.1f} N by the {side}, the weaker side{advice}")


def _grip(hand: HandSpec, style: str) -> Iterator[Finding]:
    """Check whether the scripted grasp holds simple objects."""
    trials = grips(hand, style, [getattr(hand, style)])[0]
    held = sum(trial.held for trial in trials)
    level = _level(-held, _negative(GRIPS[style]))
    advice = "" if level == "ok" else f": {_why_lost(trials)}"
    yield Finding(level, f"{style}: grip", f"{held} of {len(trials)} test objects held{advice}")


def _why_lost(trials: list[Grip]) -> str:
    """Return what the contacts of failed trials have in common, and what to change."""
    lost = [trial for trial in trials if not trial.held]
    thumb, fingers = sum(trial.thumb_n > 0.05 for trial in lost), sum(trial.fingers_n > 0.05 for trial in lost)
    if max(thumb, fingers) < len(lost) / 2:
        return "most are missed or pushed away; correct offset_y_m, offset_z_m, gap_m and open, or run hands tune"
    for side, count in (("thumb", thumb), ("fingers", fingers)):
        if count < len(lost) / 2:
            return f"most are not touched by the {side}; change its open pose and closing, or run hands tune"
    return "they slip; raise kp and effort_limit if the servos allow it, or run hands tune"


def _floor(probe: HandProbe, style: str) -> Iterator[Finding]:
    """Check that the keypoints of the open hand stay above the table at the least height of a level palm."""
    chosen = getattr(probe.hand, style)
    probe.pose(chosen.open_pose.numpy())
    names = probe.hand.keypoint_names
    heights = probe.in_palm({name: name for name in names})[:, 0]
    reach, lowest = float(heights.max()), names[int(heights.argmax())]
    clear = float(chosen.floor_m) - reach
    level = _level(-clear, BELOW_TABLE_M)
    advice = "" if level == "ok" else f"; it hits the table first: raise floor_m to {reach:.3f}"
    place = f"{100 * clear:.1f} cm over the table"
    if clear < 0:
        fine = f" (fine up to {100 * BELOW_TABLE_M['odd']:g} cm: fingers yield)" if level == "ok" else ""
        place = f"{-100 * clear:.1f} cm below the table's surface{fine}"
    yield Finding(level, f"{style}: floor_m", f"{lowest} {place}, palm level{advice}")


def _speed(probe: HandProbe, style: str, path: ClosingPath) -> Iterator[Finding]:
    way = probe.hand.motors.positions(path.joint_pos[-1]) - probe.hand.motors.positions(path.joint_pos[0])
    time_s = float(np.max(np.abs(way) / probe.hand.speed_limit))
    level = _level(time_s, CLOSING_S)
    advice = "" if level == "ok" else "; a grasp phase lasts 1.8 s: check speed_limit, or raise task.grasp_s"
    yield Finding(level, f"{style}: closing time", f"{time_s:.2f} s from open to the limits at full speed{advice}")


def _tip_forces(probe: HandProbe) -> Iterator[Finding]:
    """Check the force that a stretched finger's torques allow at its tip."""
    probe.pose(np.clip(0.0, probe.hand.joint_lower, probe.hand.joint_upper))
    forces = {}
    for root, site in {**probe.tips, **probe.thumb_tips}.items():
        lever = probe.levers(site)
        acts = lever > 1e-3
        forces[root] = float(np.min(probe.hand.effort_limit[acts] / lever[acts])) if acts.any() else 0.0
    weakest = min(forces, key=lambda root: forces[root])
    level = _level(-forces[weakest], _negative(TIP_FORCE_N))
    advice = "" if level == "ok" else "; check effort_limit against the real servos [N m]"
    yield Finding(level, "tip force", f"{forces[weakest]:.1f} N at the tip of {weakest}, stretched{advice}")


def _level(value: float, limits: Mapping[str, float]) -> Level:
    """Return odd or wrong from the limits on."""
    return "wrong" if value >= limits["wrong"] else "odd" if value >= limits["odd"] else "ok"


def _negative(limits: Mapping[str, float]) -> dict[str, float]:
    """Return limits for a negative value: odd or wrong from them downwards."""
    return {name: -limit for name, limit in limits.items()}
