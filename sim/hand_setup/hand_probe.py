"""Measure a hand in MuJoCo at joint positions: fingertips, contacts, lever arms, closing motion."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.sim.hand_setup.style_space import motor_groups
from dexgrasp.sim.robots.hand import HandSpec

Array = NDArray[np.float64]

CLOSING_STEPS = 120
"""Positions of the fingers between the open pose and the limits."""


@dataclass(frozen=True)
class ClosingPath:
    """Way of the fingertips from the open pose to the limits, palm frame."""

    joint_pos: Array
    """(CLOSING_STEPS, joint) [rad]."""
    fingers: Array
    """(CLOSING_STEPS, finger, 3) [m]."""
    thumbs: Array
    """(CLOSING_STEPS, thumb, 3) [m]."""

    @property
    def gaps(self) -> Array:
        """Return the least distance (CLOSING_STEPS,) of thumb and fingertips [m]."""
        apart = np.linalg.norm(self.fingers[:, :, None] - self.thumbs[:, None], axis=-1)
        return np.asarray(apart.min(axis=(1, 2)))

    def at_gap(self, gap_m: float) -> int:
        """Return the first step at which thumb and fingers are within `gap_m` [m].

        Where they never are, the step of the least distance.
        """
        near = self.gaps <= gap_m
        return int(np.argmax(near)) if near.any() else int(np.argmin(self.gaps))

    def centre(self, step: int) -> Array:
        """Return the middle (3,) between thumb and fingertips [m]."""
        return np.asarray(0.5 * (self.fingers[step].mean(axis=0) + self.thumbs[step].mean(axis=0)))


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
        self.finger_of = finger_of = _fingers(self.model, hand)
        """First moving body of the finger to which each body belongs, by name."""
        of_thumb = {finger_of[int(self.model.joint(hand.motors.names[i]).bodyid[0])] for i in thumb}
        tips = _tips(self.model, hand, finger_of)
        self.tips = {root: site for root, site in tips.items() if root not in of_thumb}
        """Keypoint at the end of each finger but the thumb, by the first body of the finger."""
        self.thumb_tips = {root: site for root, site in tips.items() if root in of_thumb}
        """Keypoint at the end of the thumb, or thumbs."""
        self._joints_per_motor = hand.motors.moved(np.eye(len(hand.motors.names))).T  # (joint, motor)
        self.palm_axes = hand.palm_axes
        """(3, 3) rows: axes of the palm frame in the hand base frame."""
        self.thumb_motors = sorted(thumb)

    def pose(self, joint_pos: Array) -> None:
        """Move the hand to joint positions (joint,) [rad]."""
        self._data.qpos[self._qpos] = joint_pos
        mujoco.mj_fwdPosition(self.model, self._data)

    def in_palm(self, sites: dict[str, str]) -> Array:
        """Return the positions (tip, 3) of keypoints in the palm frame [m]."""
        points = np.array([self._data.site(site).xpos for site in sites.values()])
        return np.asarray((points - self.hand.palm_pos_b) @ self.palm_axes.T)

    def deepest_contact(self) -> float:
        """Return the depth of the deepest contact within the hand [m]."""
        return max(self.overlaps().values(), default=0.0)

    def overlaps(self) -> dict[tuple[str, str], float]:
        """Return the depth of the deepest contact of each two bodies of the hand that overlap [m]."""
        depths: dict[tuple[str, str], float] = {}
        for contact in self._data.contact:
            first, second = sorted(int(self.model.geom_bodyid[geom]) for geom in contact.geom)
            pair = self.model.body(first).name, self.model.body(second).name
            depths[pair] = max(depths.get(pair, 0.0), float(-contact.dist))
        return depths

    def half_thickness(self) -> float | None:
        """Return half the thickness of the fingertips [m], their median; None where no geom collides."""
        tips = map(self.model.site, {**self.tips, **self.thumb_tips}.values())
        found = [half_thickness(self.model, int(site.bodyid[0]), site.pos) for site in tips]
        known = [half for half in found if half is not None]
        return float(np.median(known)) if known else None

    def rest_pose(self) -> Array:
        """Return the joint positions (joint,) nearest to zero [rad], in which models are drawn."""
        motors = self.hand.motors
        return np.asarray(motors.joint_positions(np.clip(0.0, self.hand.motor_lower, self.hand.motor_upper)))

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

    def closing(self, chosen: GraspStyle) -> ClosingPath:
        """Return the way of the fingers from the open pose of a style to the limits."""
        motors, lower, upper = self.hand.motors, self.hand.motor_lower, self.hand.motor_upper
        start, direction = motors.positions(chosen.open_pose.numpy()), chosen.closing.numpy()
        limits = np.where(direction > 0, upper, lower)
        moving = direction != 0
        share = np.linspace(0.0, 1.0, CLOSING_STEPS)[:, None] ** 3  # joints that hardly close reach their limits late
        length = np.max((limits - start)[moving] / direction[moving]) if moving.any() else 0.0
        path = np.asarray(motors.joint_positions((start + share * length * direction).clip(lower, upper)))
        fingers, thumbs = [], []
        for pose in path:
            self.pose(pose)
            fingers.append(self.in_palm(self.tips))
            thumbs.append(self.in_palm(self.thumb_tips))
        return ClosingPath(joint_pos=path, fingers=np.array(fingers), thumbs=np.array(thumbs))


def half_thickness(model: mujoco.MjModel, body: int, point_b: Array) -> float | None:
    """Return half the thickness of a body at a point in its frame [m]; None where no geom collides.

    It is that of the colliding geom nearest to the point: the second longest side of the box around the geom.
    """
    found = []
    for geom in np.flatnonzero((model.geom_bodyid == body) & ((model.geom_contype | model.geom_conaffinity) != 0)):
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
        centre, half = np.split(model.geom_aabb[geom], 2)
        inside = (point_b - model.geom_pos[geom]) @ rotation.reshape(3, 3) - centre
        found.append((float(np.linalg.norm(np.maximum(np.abs(inside) - half, 0.0))), float(np.sort(half)[1])))
    return min(found)[1] if found else None


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
