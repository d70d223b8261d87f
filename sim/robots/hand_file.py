"""Content of hand.yaml as typed dataclasses with the range of every number."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from dexgrasp.configs.loader import read_plain
from dexgrasp.configs.schema import build, current_name
from dexgrasp.perception.grasp_planning.grasp_style import STYLE_HEIGHTS_M
from dexgrasp.perception.grasp_planning.scoring import FINGER_M
from dexgrasp.perception.motors import Coupling
from dexgrasp.perception.transforms import quat_from_matrix
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.text import safe_name, shown

log = logging.getLogger("dexgrasp")

SIDES = ("right", "left")
STYLES = ("power", "pinch")
MOST_ITEMS = (1, 256)
"""Least and largest number of joints, keypoints and bodies."""

Point = Annotated[tuple[float, float, float], Bounds(-2.0, 2.0)]
"""Position in a hand [m]."""
Direction = Annotated[tuple[float, float, float], Bounds(-1e3, 1e3)]
"""Vector of any length but zero."""
Weight = Annotated[float, Bounds(0.0, 1e3)]
"""Relative weight."""
Torque = Annotated[float, Bounds(1e-4, 50.0)]
"""Torque [N m]."""
Speed = Annotated[float, Bounds(1e-2, 1e3)]
"""Joint speed [rad/s]."""
Stiffness = Annotated[float, Bounds(1e-4, 1e4)]
"""Gain of a servo or damping of a joint [N m / rad], [N m s / rad]."""
Armature = Annotated[float, Bounds(1e-9, 1.0)]
"""Inertia of a rotor [kg m^2]."""


@dataclass(frozen=True)
@bounded
class PalmRows:
    """Palm frame in the hand base frame."""

    pos_b: Point
    """Palm centre [m]."""
    normal_b: Direction
    """Palm normal, +x of the palm frame."""
    finger_b: Direction
    """Direction of the fingers, +z of the palm frame."""

    def __post_init__(self) -> None:
        for key in ("normal_b", "finger_b"):
            if np.linalg.norm(getattr(self, key)) < 1e-6:
                raise ValueError(f"{key} must not be zero")
        x, z = (np.array(vector) / np.linalg.norm(vector) for vector in (self.normal_b, self.finger_b))
        if abs(x @ z) > 1e-6:
            raise ValueError(f"normal_b and finger_b must be at right angles, got {self.normal_b} and {self.finger_b}")

    def quaternion(self) -> np.ndarray:
        """Return the orientation (4,) wxyz of the palm frame in the hand base frame."""
        x, z = (np.array(vector, dtype=float) for vector in (self.normal_b, self.finger_b))
        x, z = x / np.linalg.norm(x), z / np.linalg.norm(z)
        return quat_from_matrix(torch.tensor(np.stack([x, np.cross(z, x), z], axis=1))).numpy()


@dataclass(frozen=True)
@bounded
class ActuationRows:
    """Servos and friction of all joints."""

    effort_limit: Torque
    speed_limit: Speed
    kp: Stiffness
    kd: Stiffness
    damping: Stiffness
    armature: Armature


Angle = Annotated[float, Bounds(-6.3, 6.3)]
"""Joint position [rad]."""
StylePosition = Annotated[float | tuple[float, float], Bounds(-6.3, 6.3)]
"""Joint position [rad], one for both styles or (power, pinch)."""
StyleClosing = Annotated[float | tuple[float, float], Bounds(-20.0, 20.0)]
"""Closing of a joint [rad per unit], one for both styles or (power, pinch)."""
StyleLength = Annotated[float | tuple[float, float], Bounds(-1.0, 1.0)]
"""Length [m], one for both styles or (power, pinch)."""


@dataclass(frozen=True)
@bounded
class JointRow:
    """One joint; actuation that it does not state is that of all joints.

    A coupled joint follows in range, open pose and closing, and has no servo; its range may be stated.
    """

    range: Annotated[tuple[float, float], Bounds(-6.3, 6.3)] | None = None
    """Limits [rad]; of a coupled joint those that its motor reaches."""
    open: StylePosition | None = None
    """Position at the pre-grasp."""
    closing: StyleClosing | None = None
    """Direction of closing."""
    effort_limit: Torque | None = None
    speed_limit: Speed | None = None
    kp: Stiffness | None = None
    kd: Stiffness | None = None
    damping: Stiffness | None = None
    armature: Armature | None = None

    def __post_init__(self) -> None:
        if self.range is None:
            return
        lower, upper = self.range
        if not lower < upper:
            raise ValueError(f"range must satisfy lower < upper, got {list(self.range)}")
        positions = () if self.open is None else power_and_pinch(self.open)
        if not all(lower <= position <= upper for position in positions):
            raise ValueError(f"open must lie in range, got {self.open}, {list(self.range)}")


@dataclass(frozen=True)
@bounded
class KeypointRow:
    """One keypoint; with body and pos it is added to the model."""

    weight: Weight
    """Weight of its distance."""
    body: str | None = None
    """Body that carries it."""
    pos: Point | None = None
    """Position in that body [m]."""

    def __post_init__(self) -> None:
        if (self.body is None) != (self.pos is None):
            raise ValueError("body and pos belong together: give both, or none where the model has the site")


@dataclass(frozen=True)
@bounded
class GraspRows:
    """Numbers of the two grasp styles, in the palm frame."""

    offset_y_m: StyleLength
    """Object centre at the pre-grasp, along +y."""
    offset_z_m: StyleLength
    """Object centre at the pre-grasp, along +z."""
    gap_m: StyleLength
    """Distance from the palm centre to the object's top at the end of the approach."""
    floor_m: StyleLength
    """Least height of the palm centre above the table while the fingers are open."""
    height_m: Annotated[tuple[float, float], Bounds(0.001, 1.0)] = STYLE_HEIGHTS_M
    """Height of objects from which on the power grasp is used, and up to which the pinch grasp is."""
    finger_m: Annotated[float, Bounds(0.001, 0.05)] = FINGER_M
    """Half the thickness of a finger at its end."""

    def __post_init__(self) -> None:
        if self.height_m[0] <= self.height_m[1]:
            raise ValueError(f"height_m expects [power grasp, pinch grasp], the first one larger, got {self.height_m}")


@dataclass(frozen=True)
@bounded
class HandFile:
    """Content of hand.yaml."""

    name: str
    """Name of the hand."""
    side: Literal["right", "left"]
    """Side of the hand."""
    model: str
    """MJCF or URDF: a path relative to hand.yaml, menagerie:NAME or robot_descriptions:NAME."""
    root: str
    """Body from which downwards the model is the hand; its frame is the hand base frame. `world`: all bodies."""
    source: str
    """Origin of the numbers."""
    palm: PalmRows
    """Palm frame."""
    actuation: ActuationRows
    """Actuation of all joints."""
    joints: Mapping[str, JointRow]
    """Joints, in the order of everything per joint."""
    keypoints: Mapping[str, KeypointRow]
    """Keypoints; a number in the file stands for the weight alone."""
    contact_bodies: Annotated[Mapping[str, float], Bounds(0.0, 1e3, items=MOST_ITEMS)]
    """Weights of the bodies whose contacts are reported; the palm comes first."""
    thumb_bodies: tuple[str, ...]
    """Contact bodies of the thumb."""
    grasp: GraspRows
    """Grasp styles."""
    coupled: Mapping[str, Coupling | None] = field(default_factory=dict)
    """Joints without a motor of their own, beside those that the model couples; null: the joint has one after all."""
    frozen: Annotated[Mapping[str, float], Bounds(-6.3, 6.3)] = field(default_factory=dict)
    """Joints of the model that the hand does not have, such as those of a wrist, with their positions [rad], [m]."""

    exclude: tuple[tuple[str, str], ...] = ()
    """Pairs of bodies that do not collide with each other, beside those that the model excludes."""

    def __post_init__(self) -> None:
        safe_name(self.name, "name")
        for first, second in self.exclude:
            if first == second:
                raise ValueError(f"exclude takes pairs of different bodies, got {shown(first)} twice")
        for item in fields(self):
            value = getattr(self, item.name)
            names = [value] if isinstance(value, str) else value if isinstance(value, (Mapping, tuple)) else ()
            names = [body for pair in self.exclude for body in pair] if item.name == "exclude" else names
            if item.name != "source" and not all(1 <= len(name) <= 255 and name.isprintable() for name in names):
                raise ValueError(f"{item.name} expects names of 1 to 255 printable characters, got {shown(names)}")
        for key, given in (("joints", self.joints), ("keypoints", self.keypoints)):
            if not MOST_ITEMS[0] <= len(given) <= MOST_ITEMS[1]:
                raise ValueError(f"{key} takes {MOST_ITEMS[0]} to {MOST_ITEMS[1]} entries, got {len(given)}")
        if both := [name for name in self.frozen if name in self.joints]:
            raise ValueError(f"frozen: '{both[0]}' stands in joints as well; a joint of the hand is not frozen")
        keypoints = [row.weight for row in self.keypoints.values()]
        for key, weights in (("keypoints", keypoints), ("contact_bodies", list(self.contact_bodies.values()))):
            if sum(weights) <= 0:
                raise ValueError(f"{key}: weights must not be negative, nor all zero, got {weights}")


def read_hand_file(file: Path) -> HandFile:
    """Return the content of a hand.yaml. Raises ConfigError with the file, the key, and what is expected."""
    return build(HandFile, with_weights(current_keys(read_plain(file), file)), str(file))


def current_keys(tree: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the content of hand.yaml with keys of earlier versions renamed, and log them once."""
    renamed = {key: current_name(HandFile, key, None)[0] for key in tree}
    for old, new in renamed.items():
        if old != new and new not in tree:
            _tell_renamed(file, old, new)
    return {key if renamed[key] in tree else renamed[key]: value for key, value in tree.items()}


@cache
def _tell_renamed(file: Path, old: str, new: str) -> None:
    log.info(f"{file}: key of an earlier version: {old} -> {new}")


def with_weights(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of hand.yaml with keypoints that are numbers written as {weight: number}."""
    keypoints = tree.get("keypoints")
    if not isinstance(keypoints, Mapping):
        return dict(tree)
    rows = {site: row if isinstance(row, Mapping) else {"weight": row} for site, row in keypoints.items()}
    return {**tree, "keypoints": rows}


def power_and_pinch(value: float | tuple[float, float]) -> tuple[float, float]:
    """Return the values of both styles; a single number serves both."""
    return value if isinstance(value, tuple) else (value, value)
