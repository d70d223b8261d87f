"""Checks of a hand's description: what would make it fail, and what looks odd.

Each check returns one finding. Lengths are measured on the model in MuJoCo, in the palm frame: +x palm normal, +z
finger direction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.sim.hand_setup.style_space import motor_groups
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import STYLES

Level = Literal["ok", "odd", "wrong"]
Array = NDArray[np.float64]

CLOSING_STEPS = 24
"""Positions of the fingers between the open pose and the limits."""
SELF_CONTACT_M = {"odd": 0.001, "wrong": 0.005}
"""Depth of contacts within the open hand from which it is odd or wrong."""
MEETING_M = {"odd": 0.03, "wrong": 0.08}
"""Least distance of thumb and fingers while closing from which it is odd or wrong: smaller objects are not held."""
APERTURE_M = {"odd": 0.07, "wrong": 0.04}
"""Distance of thumb and fingers in the open pose below which it is odd or wrong: objects are up to 0.1 m wide."""
TIP_FORCE_N = {"odd": 3.0, "wrong": 0.7}
"""Force at a fingertip, its finger stretched, below which it is odd or wrong: objects weigh up to 0.5 kg."""
BELOW_TABLE_M = {"odd": 0.05, "wrong": 0.08}
"""Depth of open fingertips below the table at floor_m; few grasps go down to it with straight fingers."""
CLOSING_S = {"odd": 1.0, "wrong": 3.0}
"""Time from the open pose to the limits at full speed from which it is odd or wrong; a grasp phase lasts 1.8 s."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    level: Level
    what: str
    text: str
    """Measured values; for odd and wrong ones also what to change."""


class HandProbe:
    """Measure a hand at joint positions: fingertips, contacts."""

    def __init__(self, hand: HandSpec) -> None:
        self.hand = hand
        spec = hand.to_mjspec()
        spec.body("palm").add_freejoint()  # MuJoCo takes a palm without joints for the world, which meets its fingers
        self.model = spec.compile()
        self._data = mujoco.MjData(self.model)
        self._qpos = [int(self.model.joint(name).qposadr[0]) for name in hand.joint_names]
        self._dofs = [int(self.model.joint(name).dofadr[0]) for name in hand.joint_names]
        _, thumb = motor_groups(hand)
        finger_of = _fingers(self.model, hand)
        of_thumb = {finger_of[int(self.model.joint(hand.motors.names[i]).bodyid[0])] for i in thumb}
        tips = _tips(self.model, hand, finger_of)
        self.tips = {root: site for root, site in tips.items() if root not in of_thumb}
        """Keypoint at the end of each finger but the thumb, by the first body of the finger."""
        self.thumb_tips = {root: site for root, site in tips.items() if root in of_thumb}
        """Keypoint at the end of the thumb, or thumbs."""
        self._joints_per_motor = hand.motors.moved(np.eye(len(hand.motors.names))).T  # (joint, motor)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, hand.palm_quat_b)
        self.palm_axes = rotation.reshape(3, 3).T
        """(3, 3) rows: axes of the palm frame in the hand base frame."""
        self.thumb_motors = sorted(thumb)

    def pose(self, joint_pos: Array) -> None:
        """Move the hand to joint positions (joint,) [rad]."""
        self._data.qpos[self._qpos] = joint_pos
        mujoco.mj_forward(self.model, self._data)

    def in_palm(self, sites: dict[str, str]) -> Array:
        """Return the positions (tip, 3) of keypoints in the palm frame [m]."""
        points = np.array([self._data.site(site).xpos for site in sites.values()])
        return np.asarray((points - self.hand.palm_pos_b) @ self.palm_axes.T)

    def deepest_contact(self) -> tuple[float, str]:
        """Return the depth of the deepest contact within the hand [m], and the two bodies."""
        deepest, names = 0.0, ""
        for contact in self._data.contact:
            if -contact.dist > deepest:
                bodies = [self.model.body(int(self.model.geom_bodyid[geom])).name for geom in contact.geom]
                deepest, names = float(-contact.dist), " and ".join(bodies)
        return deepest, names

    def levers(self, site: str) -> Array:
        """Return the motion of a keypoint per radian of each motor (motor,) [m], its lever arm."""
        jacobian = np.zeros((3, self.model.nv))
        mujoco.mj_jacSite(self.model, self._data, jacobian, None, self.model.site(site).id)
        return np.asarray(np.linalg.norm(jacobian[:, self._dofs] @ self._joints_per_motor, axis=0))

    def turn(self, site: str, motor_vel: Array) -> Array:
        """Return the angular velocity (3,) of a keypoint at motor velocities (motor,), hand base frame."""
        jacobian = np.zeros((3, self.model.nv))
        mujoco.mj_jacSite(self.model, self._data, None, jacobian, self.model.site(site).id)
        return np.asarray(jacobian[:, self._dofs] @ self._joints_per_motor @ motor_vel)

    def closing(self, style: str) -> Array:
        """Return joint positions (CLOSING_STEPS, joint) from the open pose to the limits [rad]."""
        chosen = getattr(self.hand, style)
        motors, lower, upper = self.hand.motors, self.hand.motor_lower, self.hand.motor_upper
        start, direction = motors.positions(chosen.open_pose.numpy()), chosen.closing.numpy()
        limits = np.where(direction > 0, upper, lower)
        moving = direction != 0
        share = np.linspace(0.0, 1.0, CLOSING_STEPS)[:, None]
        length = np.max((limits - start)[moving] / direction[moving]) if moving.any() else 0.0
        return np.asarray(motors.joint_positions((start + share * length * direction).clip(lower, upper)))


def check_hand(hand: HandSpec) -> list[Finding]:
    """Return the findings of all checks, for both grasp styles."""
    probe = HandProbe(hand)
    found = [*_masses(probe)]
    for style in STYLES:
        found += [*_open_pose(probe, style), *_palm_frame(probe, style), *_opposition(probe, style)]
        found += [*_floor(probe, style), *_speed(probe, style)]
    return [*found, *_tip_forces(probe)]


def _masses(probe: HandProbe) -> Iterator[Finding]:
    hand = probe.hand
    joints, motors = len(hand.joint_names), len(hand.motors.names)
    text = f"{joints} joints, {motors} motors, {hand.mass:.2f} kg, {len(hand.keypoint_names)} keypoints"
    yield Finding("ok", "model", text)


def _open_pose(probe: HandProbe, style: str) -> Iterator[Finding]:
    probe.pose(getattr(probe.hand, style).open_pose.numpy())
    depth, bodies = probe.deepest_contact()
    level = _level(depth, SELF_CONTACT_M)
    advice = f": {bodies} overlap; change open, or exclude the pair in the model" if level != "ok" else ""
    yield Finding(level, f"{style}: self-contact", f"{1000 * depth:.1f} mm in the open pose{advice}")


def _palm_frame(probe: HandProbe, style: str) -> Iterator[Finding]:
    """Check that fingers point along +z of the palm frame and turn towards +x."""
    chosen = getattr(probe.hand, style)
    probe.pose(chosen.open_pose.numpy())
    ahead = float(probe.in_palm(probe.tips)[:, 2].mean())
    level: Level = "ok" if ahead > 0.02 else "odd" if ahead > 0.0 else "wrong"
    advice = "" if level == "ok" else "; expected ahead of it: turn palm.finger_b, or move palm.pos_b"
    yield Finding(level, f"{style}: finger_b", f"open fingertips {100 * ahead:+.1f} cm along it from the palm{advice}")
    turns = [probe.turn(site, chosen.closing.numpy()) @ probe.palm_axes[1] for site in probe.tips.values()]
    right = sum(turn > 0 for turn in turns)
    level = "ok" if right == len(turns) else "odd" if 2 * right > len(turns) else "wrong"
    advice = "" if level == "ok" else ": turn palm.normal_b, or change the signs of closing"
    yield Finding(level, f"{style}: normal_b", f"{right} of {len(turns)} fingers close towards it{advice}")


def _opposition(probe: HandProbe, style: str) -> Iterator[Finding]:
    """Check how wide the hand opens between thumb and fingers, and how near they come."""
    path = probe.closing(style)
    fingers, thumbs = [], []
    for pose in path:
        probe.pose(pose)
        fingers.append(probe.in_palm(probe.tips))
        thumbs.append(probe.in_palm(probe.thumb_tips))
    gaps = np.linalg.norm(np.array(fingers)[:, None, :, None] - np.array(thumbs)[None, :, None], axis=-1)
    aperture, nearest = float(gaps[0, 0].min()), float(gaps.min())
    level = _level(-aperture, {name: -limit for name, limit in APERTURE_M.items()})
    advice = "" if level == "ok" else "; objects are up to 10 cm wide: open the hand further"
    yield Finding(level, f"{style}: aperture", f"{100 * aperture:.1f} cm between thumb and nearest fingertip{advice}")
    level = _level(nearest, MEETING_M)
    advice = "" if level == "ok" else "; smaller objects are not held: change the thumb's open pose or closing"
    yield Finding(level, f"{style}: opposition", f"thumb and fingers come as near as {100 * nearest:.1f} cm{advice}")


def _floor(probe: HandProbe, style: str) -> Iterator[Finding]:
    """Check that the open fingers stay above the table at the least height of a palm that faces down."""
    chosen = getattr(probe.hand, style)
    probe.pose(chosen.open_pose.numpy())
    reach = float(np.concatenate([probe.in_palm(probe.tips), probe.in_palm(probe.thumb_tips)])[:, 0].max())
    clear = float(chosen.floor_m) - reach
    level = _level(-clear, BELOW_TABLE_M)
    advice = "" if level == "ok" else f"; they hit the table first: raise floor_m to {reach:.3f}"
    yield Finding(level, f"{style}: floor_m", f"open fingertips {100 * clear:+.1f} cm over the table{advice}")


def _speed(probe: HandProbe, style: str) -> Iterator[Finding]:
    path = probe.closing(style)
    time_s = float(np.max(np.abs(probe.hand.motors.positions(path[-1] - path[0])) / probe.hand.speed_limit))
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
    level = _level(-forces[weakest], {name: -limit for name, limit in TIP_FORCE_N.items()})
    advice = "" if level == "ok" else "; check effort_limit against the real servos [N m]"
    yield Finding(level, "tip force", f"{forces[weakest]:.1f} N at the tip of {weakest}, stretched{advice}")


def _level(value: float, limits: dict[str, float]) -> Level:
    """Return odd or wrong from the limits on."""
    return "wrong" if value >= limits["wrong"] else "odd" if value >= limits["odd"] else "ok"


def _fingers(model: mujoco.MjModel, hand: HandSpec) -> dict[int, str]:
    """Return the first moving body of the finger to which each body belongs, by name."""
    moving = {int(model.joint(name).bodyid[0]) for name in hand.joint_names}
    found: dict[int, str] = {}
    for body in range(1, model.nbody):
        above = int(model.body_parentid[body])
        if above in found:
            found[body] = found[above]
        elif body in moving:
            found[body] = model.body(body).name
    return found


def _tips(model: mujoco.MjModel, hand: HandSpec, finger_of: dict[int, str]) -> dict[str, str]:
    """Return the keypoint that is deepest in the tree of each finger, by the finger's first body."""
    found: dict[str, str] = {}
    for site in hand.keypoint_names:  # later ones of a finger are nearer its end
        body = int(model.site(site).bodyid[0])
        if body in finger_of:
            found[finger_of[body]] = site
    return found
