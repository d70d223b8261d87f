"""Hand description: geometry (an MJCF or URDF), parameters (hand.yaml), and names resolved to indices.

hand.yaml is the single source of actuation numbers, the model of geometry and inertia. A left hand is the mirror image
of the right one, made in code; joint axes are mirrored too, so that both hands take the same joint values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import mujoco
import numpy as np
import torch

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.perception.kinematics import Kinematics
from dexgrasp.perception.motors import Coupling, Motors
from dexgrasp.sim.robots.coupling import add_equalities, check_ranges, coupled_joints
from dexgrasp.sim.robots.hand_file import SIDES, STYLES, HandFile, JointRow, power_and_pinch, read_hand_file
from dexgrasp.sim.robots.hand_model import (
    MIRROR_POS,
    MIRROR_QUAT,
    PALM,
    centre_on_joints,
    hand_model,
    joints_in_order,
    mirror,
)
from dexgrasp.sim.robots.model_checks import (
    check_hinges,
    check_places,
    check_springs,
    compiled,
)
from dexgrasp.sim.robots.models.model_sources import find_hand, model_path
from dexgrasp.utils.text import demand_known

KEYPOINT_WEIGHT_SUM = 16.0
"""Sum of the keypoint weights of every hand: the scale of the reward `reach`, Zhang et al., RobustDexGrasp (2025)."""


def read_hand(file: Path) -> tuple[dict[str, Any], str]:
    """Return the fields of HandSpec that a hand.yaml states, and the side of the hand that it describes.

    Raises ConfigError with the file, the key, and what is expected.
    """
    hand = read_hand_file(file)
    try:
        path = model_path(hand.model, file.parent)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{file}: model: {error}") from error
    spec = hand_model(path, hand.root, hand.frozen, f"the hand '{hand.name}'")
    rows = {name: hand.joints[name] for name in joints_in_order(spec) if name in hand.joints}
    hand = replace(hand, joints={**rows, **hand.joints})  # in the order of `rows`; an unknown joint comes last
    coupled = coupled_joints(spec, hand, path, file)
    name = {hand.root: PALM}
    contact = np.array(list(hand.contact_bodies.values()))
    weights = np.array([row.weight for row in hand.keypoints.values()])
    stated = {
        "name": hand.name,
        "source": hand.source,
        "xml_path": path,
        "root": hand.root,
        "frozen": hand.frozen,
        "palm_quat_b": hand.palm.quaternion(),
        "palm_pos_b": np.array(hand.palm.pos_b),
        "keypoint_names": tuple(hand.keypoints),
        "keypoint_weights": weights * KEYPOINT_WEIGHT_SUM / weights.sum(),
        "contact_bodies": tuple(name.get(body, body) for body in hand.contact_bodies),
        "contact_weights": contact * len(contact) / contact.sum(),
        "thumb_bodies": tuple(name.get(body, body) for body in hand.thumb_bodies),
        "extra_sites": {
            site: (name.get(row.body, row.body), row.pos)
            for site, row in hand.keypoints.items()
            if row.body is not None
        },
        "style_heights_m": hand.grasp.height_m,
        "finger_m": hand.grasp.finger_m,
        "coupled": coupled,
        "exclude": tuple((name.get(first, first), name.get(second, second)) for first, second in hand.exclude),
        **_joint_columns(hand, coupled, file),
        **_styles(hand, Motors(list(hand.joints), coupled)),
    }
    return stated, hand.side


def _joint_columns(hand: HandFile, coupled: Mapping[str, Coupling], file: Path) -> dict[str, Any]:
    for name, joint in hand.joints.items():
        _check_row(name, joint, coupled.get(name), file)
    ranges = {name: joint.range for name, joint in hand.joints.items() if joint.range is not None}
    for name, line in coupled.items():
        low, high = sorted(line.ratio * end + line.offset for end in ranges[line.follows])
        ranges.setdefault(name, (low, high))
    check_ranges(coupled, ranges, file)
    columns: dict[str, list[float]] = {
        "joint_lower": [ranges[name][0] for name in hand.joints],
        "joint_upper": [ranges[name][1] for name in hand.joints],
    }
    for item in fields(hand.actuation):
        owners = [joint for name, joint in hand.joints.items() if name not in coupled or item.name in OF_JOINT]
        own = [getattr(joint, item.name) for joint in owners]
        columns[item.name] = [getattr(hand.actuation, item.name) if value is None else value for value in own]
    return {"joint_names": tuple(hand.joints), **{key: np.array(column) for key, column in columns.items()}}


OF_JOINT = ("damping", "armature")
"""Actuation numbers of every joint; the others are of motors."""


def _check_row(name: str, joint: JointRow, line: Coupling | None, file: Path) -> None:
    """Raise ValueError for a joint with a motor that lacks a number, and for a coupled one with a motor's."""
    of_motor = ("open", "closing", "effort_limit", "speed_limit", "kp", "kd")
    if line is None:
        if missing := [key for key in ("range", "open", "closing") if getattr(joint, key) is None]:
            raise ValueError(
                f"{file}: joints[{name}] lacks {missing[0]}; expected range, open and closing of a joint with a motor"
            )
    elif given := [key for key in of_motor if getattr(joint, key) is not None]:
        raise ValueError(
            f"{file}: joints[{name}] states {given[0]}, but '{name}' follows '{line.follows}' and has no motor: remove "
            f"{given[0]}, or state `coupled: {{{name}: null}}` for a motor of its own"
        )


def _styles(hand: HandFile, motors: Motors) -> dict[str, GraspStyle]:
    """Return the two grasp styles."""
    driven = [hand.joints[name] for name in motors.names]
    keys = {"open_pose": "open", "closing": "closing"}
    columns: dict[str, Any] = {
        name: [power_and_pinch(getattr(joint, key)) for joint in driven] for name, key in keys.items()
    }
    lengths = [item.name for item in fields(GraspStyle) if item.name not in keys]
    columns |= {name: power_and_pinch(getattr(hand.grasp, name)) for name in lengths}
    tables = {key: torch.tensor(value, dtype=torch.float64) for key, value in columns.items()}
    styles = {name: {k: t[..., i] for k, t in tables.items()} for i, name in enumerate(STYLES)}
    return {
        name: GraspStyle(**style | {"open_pose": motors.joint_positions(style["open_pose"])})
        for name, style in styles.items()
    }


@dataclass(frozen=True, eq=False)
class HandSpec:
    """A hand as data. Arrays are per joint, in the order of joint_names, or per motor, and read-only."""

    name: str
    side: str
    joint_names: tuple[str, ...]
    """The order of everything per joint: that of the model, each finger from palm to tip."""
    coupled: Mapping[str, Coupling]
    """Coupling of each joint without a motor, to the joint of a motor."""
    joint_lower: np.ndarray
    """(joint,) [rad]"""
    joint_upper: np.ndarray
    """(joint,) [rad]"""
    effort_limit: np.ndarray
    """(motor,) [N m] Largest torque of the servo."""
    speed_limit: np.ndarray
    """(motor,) [rad/s] Largest speed of the servo; the task keeps to it, the simulator does not know it."""
    kp: np.ndarray
    """(motor,) [N m/rad] Position gain of the servo."""
    kd: np.ndarray
    """(motor,) [N m s/rad] Velocity gain of the servo."""
    damping: np.ndarray
    """(joint,) [N m s/rad] Damping of the joint itself."""
    armature: np.ndarray
    """(joint,) [kg m2] Inertia of the rotor, seen from the joint."""
    palm_pos_b: np.ndarray
    """(3,) [m] Palm centre in the hand base frame."""
    palm_quat_b: np.ndarray
    """(4,) Palm frame in the hand base frame: +x palm normal, +z finger direction, +y = z cross x."""
    keypoint_names: tuple[str, ...]
    """Sites: the wrist, then per finger joint 1, joint 2, joint 3 and tip."""
    keypoint_weights: np.ndarray
    """(keypoint,) Sum is KEYPOINT_WEIGHT_SUM; wrist 0."""
    contact_bodies: tuple[str, ...]
    """Bodies whose contacts are reported: palm, then proximal, medial, distal of each finger."""
    contact_weights: np.ndarray
    """(contact body,) Sum is their number; palm 0."""
    thumb_bodies: tuple[str, ...]
    power: GraspStyle
    """Grasp style for a tall object."""
    pinch: GraspStyle
    """Grasp style for a low object."""
    style_heights_m: tuple[float, float]
    """Height of objects from which on the power grasp is used, and up to which the pinch grasp is."""
    finger_m: float
    """Half the thickness of a finger."""
    source: str
    xml_path: Path
    root: str
    """Name of the root body in the file; to_mjspec() calls it "palm"."""
    frozen: Mapping[str, float]
    """Positions of joints of the file that the hand does not have [rad], [m]."""
    mirrored: bool
    """Whether this hand is the mirror image of the file."""
    extra_sites: Mapping[str, tuple[str, tuple[float, float, float]]]
    """Keypoints that the file lacks: site -> (body, position in it [m])."""
    exclude: tuple[tuple[str, str], ...]
    """Pairs of bodies that do not collide with each other, beside those that the file excludes."""

    @classmethod
    def load(cls, name_or_path: str | Path, side: str = "right") -> Self:
        """Return a hand by name, folder or hand.yaml, as the side `side`.

        Names are those of assets/hands; a folder holds a hand.yaml.
        """
        if side not in SIDES:
            raise ValueError(f"side must be one of {SIDES}, got '{side}'")
        file = find_hand(name_or_path)
        stated, stated_side = read_hand(file)
        hand = cls(**stated, side=side, mirrored=side != stated_side)
        if hand.mirrored:
            object.__setattr__(hand, "palm_pos_b", hand.palm_pos_b * MIRROR_POS + 0.0)
            object.__setattr__(hand, "palm_quat_b", hand.palm_quat_b * MIRROR_QUAT + 0.0)
            for style in ("power", "pinch"):
                right = getattr(hand, style)
                object.__setattr__(hand, style, replace(right, offset_y_m=-right.offset_y_m))
        for item in fields(hand):
            value = getattr(hand, item.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        _check_model(hand, file)
        return hand

    @cached_property
    def motors(self) -> Motors:
        """Return the motors and the joints that they move."""
        return Motors(self.joint_names, self.coupled)

    @property
    def num_actions(self) -> int:
        """Return the length of an action: 6 of the palm and one per motor."""
        return 6 + len(self.motors.names)

    @property
    def palm_axes(self) -> np.ndarray:
        """Return the axes of the palm frame in the hand base frame, (3, 3), one per row."""
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, self.palm_quat_b)
        return rotation.reshape(3, 3).T

    @property
    def motor_lower(self) -> np.ndarray:
        """Return the lower limits (motor,) of the motors' joints [rad]."""
        return self.joint_lower[self.motors.joints]

    @property
    def motor_upper(self) -> np.ndarray:
        """Return the upper limits (motor,) of the motors' joints [rad]."""
        return self.joint_upper[self.motors.joints]

    @property
    def thumb_mask(self) -> np.ndarray:
        """(contact body,) bool: bodies of the thumb."""
        return np.array([body in self.thumb_bodies for body in self.contact_bodies])

    @property
    def finger_mask(self) -> np.ndarray:
        """(contact body,) bool: bodies of the other fingers; the palm, which comes first, is neither."""
        return ~self.thumb_mask & (np.arange(len(self.contact_bodies)) > 0)

    @property
    def open_pose(self) -> np.ndarray:
        """Return the pre-grasp posture (joint,) [rad] for a tall object."""
        return self.power.open_pose.numpy()

    def to_mjspec(self) -> mujoco.MjSpec:
        """Return a new editable model with root body "palm" at the origin.

        Includes the servos of the motors, the couplings and the keypoint sites.
        """
        spec = _strip(hand_model(self.xml_path, self.root, self.frozen, f"the hand '{self.name}'"))
        for site, (body, pos) in self.extra_sites.items():
            spec.body(body).add_site(name=site, pos=pos)
        centre_on_joints(spec)
        if self.mirrored:
            mirror(spec)
        for body in spec.bodies[1:]:
            body.gravcomp = 1.0
        for i, name in enumerate(self.joint_names):
            joint = spec.joint(name)
            unit = np.rad2deg(1.0) if joint.compiler.degree else 1.0  # in which the file states joint ranges
            joint.range = np.array([self.joint_lower[i], self.joint_upper[i]]) * unit
            joint.limited, joint.actfrclimited = mujoco.mjtLimited.mjLIMITED_TRUE, mujoco.mjtLimited.mjLIMITED_FALSE
            joint.damping[0], joint.armature, joint.frictionloss = self.damping[i], self.armature[i], 0.0
        for i, name in enumerate(self.motors.names):
            servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            servo.set_to_position(kp=self.kp[i], kv=self.kd[i])
            servo.forcerange = [-self.effort_limit[i], self.effort_limit[i]]
            servo.ctrlrange = [self.motor_lower[i], self.motor_upper[i]]
        add_equalities(spec, self.coupled)
        for first, second in self.exclude:
            spec.add_exclude(bodyname1=first, bodyname2=second)
        return spec

    @cached_property
    def model(self) -> mujoco.MjModel:
        """Return the compiled model of the hand alone; do not change it."""
        return compiled(self.to_mjspec(), self.xml_path, self.name)

    @property
    def mass(self) -> float:
        """Return the mass of the whole hand [kg]."""
        return float(self.model.body_mass.sum())

    def kinematics(self) -> Kinematics:
        """Return the forward kinematics of this hand in torch, float32; its root is the hand base frame."""
        return kinematics_of(self.model, self.joint_names, self.keypoint_names)


def kinematics_of(m: mujoco.MjModel, joint_names: Sequence[str], keypoint_names: Sequence[str]) -> Kinematics:
    """Return the forward kinematics of a model whose bodies form one tree.

    The root is body 1, whatever its pose in the world. Raises ValueError for joints that are no hinges at the origin of
    a body of their own.
    """
    check_hinges(m)
    joint_of_body = [-1] * (m.nbody - 1)
    axis = np.zeros((m.nbody - 1, 3))
    for i, name in enumerate(joint_names):
        joint = m.joint(name)
        joint_of_body[joint.bodyid[0] - 1] = i
        axis[joint.bodyid[0] - 1] = joint.axis
    sites = [m.site(name) for name in keypoint_names]
    return Kinematics(
        body_names=tuple(m.body(i).name for i in range(1, m.nbody)),
        parent=tuple(int(p) - 1 for p in m.body_parentid[1:]),
        pos=torch.tensor(m.body_pos[1:], dtype=torch.float32),
        quat=torch.tensor(quats_at_zero(m)[1:], dtype=torch.float32),
        joint_of_body=tuple(joint_of_body),
        axis=torch.tensor(axis, dtype=torch.float32),
        keypoint_names=tuple(keypoint_names),
        keypoint_body=tuple(int(s.bodyid[0]) - 1 for s in sites),
        keypoint_pos=torch.tensor(np.stack([s.pos for s in sites]), dtype=torch.float32),
    )


def quats_at_zero(m: mujoco.MjModel) -> np.ndarray:
    """Return the orientation of each body in its parent at joint position 0, which `ref` of a hinge turns."""
    quats, turn = m.body_quat.copy(), np.empty(4)
    for i in np.flatnonzero(m.qpos0[m.jnt_qposadr]):
        mujoco.mju_axisAngle2Quat(turn, m.jnt_axis[i], -m.qpos0[m.jnt_qposadr[i]])
        body = m.jnt_bodyid[i]
        mujoco.mju_mulQuat(quats[body], m.body_quat[body], turn)
    return quats


def _check_model(hand: HandSpec, file: Path) -> None:
    """Check that hand.yaml and the MJCF name each other's joints, sites and bodies, and that the model is a hand's.

    Every name in hand.yaml must exist in the MJCF; every joint of the MJCF must be in hand.yaml.
    """
    spec = hand_model(hand.xml_path, hand.root, hand.frozen, f"the hand '{hand.name}'")
    bodies, joints, sites = ([e.name for e in kind if e.name] for kind in (spec.bodies[1:], spec.joints, spec.sites))
    on_bodies = tuple(body for body, _ in hand.extra_sites.values())
    used = {"contact_bodies": hand.contact_bodies, "thumb_bodies": hand.thumb_bodies, "keypoints": on_bodies}
    used["exclude"] = tuple(body for pair in hand.exclude for body in pair)
    for key, wanted in used.items():
        demand_known(wanted, bodies, f"{file}: {key}: body")
    demand_known(hand.joint_names, joints, f"{file}: joints: joint")
    for name in joints:
        if name not in hand.joint_names:
            raise ValueError(
                f"{file}: joints: joint '{name}' of {hand.xml_path} is missing; give it a row, or a position in "
                f"`frozen` if the hand does not have it"
            )
    demand_known([k for k in hand.keypoint_names if k not in hand.extra_sites], sites, f"{file}: keypoints: site")
    if not (hand.thumb_mask.any() and hand.finger_mask.any()):
        raise ValueError(
            f"{file}: contact_bodies must name the palm first, then bodies of fingers and of the thumb (thumb_bodies); "
            f"got contact_bodies {list(hand.contact_bodies)}, thumb_bodies {list(hand.thumb_bodies)}"
        )
    try:
        hand.kinematics()
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(hand.xml_path) in text else f"{hand.xml_path}: {text}") from error
    effort_at_joints = hand.motors.spread(hand.effort_limit) / np.abs(hand.motors.ratio)
    check_springs(hand.model, hand.joint_names, effort_at_joints, hand.xml_path)
    check_places(hand.model, hand.open_pose, hand.palm_pos_b, hand.keypoint_names, file)


def _strip(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Remove what a scene owns or hand.yaml states.

    Scene: sensors, keyframes, lights, cameras; hand.yaml: actuators, couplings.
    """
    for kind in (spec.actuators, spec.sensors, spec.keys, spec.tendons, spec.equalities, spec.lights, spec.cameras):
        for element in list(kind):
            spec.delete(element)
    return spec
