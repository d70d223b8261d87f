"""Links and joints of a URDF, and the pose of every link for joint positions; numpy only."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.rotations import Pose, quat_from_rotvec, quat_multiply
from dexgrasp.utils.text import repeated

Array = NDArray[np.float64]
TURNING = ("revolute", "continuous")
AXES = np.eye(3)
Edge = tuple[str, str, Pose]
"""Parent link, child link, pose of the child in the parent."""


@dataclass(frozen=True, eq=False)
class LinkShape:
    """Sphere or cylinder of a link, in the frame of the link."""

    pose: Pose
    radius_m: float
    length_m: float = 0.0
    """Along z; 0: a sphere."""


@dataclass(frozen=True, eq=False)
class _Joint:
    name: str
    parent: str
    child: str
    origin: Pose
    axis: Array | None
    """Unit vector; None: the joint does not move."""
    mimic: tuple[str, float, float] | None
    """Joint that it follows, multiplier, offset."""

    def at(self, positions: Mapping[str, float]) -> Pose:
        """Return the pose of the child in the parent."""
        if self.axis is None:
            return self.origin
        if self.mimic is None or self.name in positions:
            angle = positions[self.name]
        else:
            angle = self.mimic[1] * positions[self.mimic[0]] + self.mimic[2]
        return self.origin @ Pose(np.zeros(3), quat_from_rotvec(self.axis * angle))


@dataclass(frozen=True, eq=False)
class RobotTree:
    """Kinematic tree of a URDF."""

    root: str
    """Link without a parent."""
    joints: tuple[_Joint, ...]
    shapes: Mapping[str, list[LinkShape]] = field(default_factory=dict)
    """Spheres and cylinders of each link."""

    @classmethod
    def from_urdf(cls, text: str) -> Self:
        """Read a URDF. Raises ValueError for one that is not a tree of hinges and fixed joints."""
        try:
            robot = ET.fromstring(text)
        except ET.ParseError as error:
            raise ValueError(f"the URDF is not XML: {error}") from error
        joints = [_joint(element) for element in robot.findall("joint")]
        links, children = [_name(link) for link in robot.findall("link")], {joint.child for joint in joints}
        for kind, names in (("links", links), ("joints", [joint.name for joint in joints])):
            if twice := repeated(names):
                raise ValueError(f"several {kind} of the URDF are called {twice}: rename all but one")
        known = {joint.name for joint in joints if joint.axis is not None}
        for joint in joints:
            if joint.mimic is not None and joint.mimic[0] not in known:
                raise ValueError(
                    f"joint '{joint.name}' of the URDF mimics '{joint.mimic[0]}', which is no joint that moves"
                )
        roots = [link for link in links if link not in children]
        if len(roots) != 1 or len(children) != len(joints):
            raise ValueError(f"the URDF is not one tree: links without a parent are {roots}")
        ordered, placed = [], {roots[0]}
        while waiting := [joint for joint in joints if joint.child not in placed]:
            ready = [joint for joint in waiting if joint.parent in placed]
            if not ready:
                raise ValueError(f"the URDF is not one tree: {waiting[0].child} does not hang on {roots[0]}")
            ordered += ready
            placed |= {joint.child for joint in ready}
        return cls(roots[0], tuple(ordered), {_name(link): list(_shapes(link)) for link in robot.findall("link")})

    @property
    def joint_names(self) -> list[str]:
        """Joints that move, from root to tips."""
        return [joint.name for joint in self.joints if joint.axis is not None]

    def fixed(self) -> list[Edge]:
        """Return the transforms that never change."""
        return [(joint.parent, joint.child, joint.origin) for joint in self.joints if joint.axis is None]

    def moving(self, positions: Mapping[str, float]) -> list[Edge]:
        """Return the transforms of the joints whose positions [rad] are given, and of those that follow them."""
        return [
            (joint.parent, joint.child, joint.at(positions))
            for joint in self.joints
            if joint.axis is not None and (joint.name in positions or (joint.mimic and joint.mimic[0] in positions))
        ]

    def poses(self, positions: Mapping[str, float], root: Pose | None = None, below: str = "") -> dict[str, Pose]:
        """Return the pose of the link `below` (empty: the root link) and of all that hang on it.

        `root`: its pose; None: the identity. `positions`: of the joints on the way [rad].
        """
        found = {below or self.root: root or Pose(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))}
        for joint in self.joints:
            if joint.parent in found:
                found[joint.child] = found[joint.parent] @ joint.at(positions)
        return found


def _joint(element: ET.Element) -> _Joint:
    name, kind = _name(element), element.get("type")
    if kind not in (*TURNING, "fixed"):
        raise ValueError(f"joint '{name}' of the URDF is {kind}; expected one of {(*TURNING, 'fixed')}")
    axis, mimic = element.find("axis"), element.find("mimic")
    direction = AXES[0] if axis is None else _vector(axis, "xyz", 3)
    follows = None
    if mimic is not None:
        follows = mimic.get("joint", ""), float(mimic.get("multiplier", "1")), float(mimic.get("offset", "0"))
    parent, child = element.find("parent"), element.find("child")
    if parent is None or child is None:
        raise ValueError(f"joint '{name}' of the URDF needs a parent and a child")
    return _Joint(
        name=name,
        parent=parent.get("link", ""),
        child=child.get("link", ""),
        origin=_origin(element),
        axis=None if kind == "fixed" else direction / np.linalg.norm(direction),
        mimic=follows,
    )


def _shapes(link: ET.Element) -> Iterator[LinkShape]:
    for visual in link.iter("visual"):
        pose = _origin(visual)
        for sphere in visual.iter("sphere"):
            yield LinkShape(pose, float(sphere.get("radius", "0")))
        for cylinder in visual.iter("cylinder"):
            yield LinkShape(pose, float(cylinder.get("radius", "0")), float(cylinder.get("length", "0")))


def _name(element: ET.Element) -> str:
    return element.get("name", "")


def _origin(element: ET.Element) -> Pose:
    origin = element.find("origin")
    if origin is None:
        return Pose(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))
    roll, pitch, yaw = (quat_from_rotvec(AXES[i] * angle) for i, angle in enumerate(_vector(origin, "rpy", 3)))
    return Pose(_vector(origin, "xyz", 3), quat_multiply(yaw, quat_multiply(pitch, roll)))


def _vector(element: ET.Element, key: str, size: int) -> Array:
    values = np.array(element.get(key, "0 " * size).split(), dtype=np.float64)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise ValueError(f"the URDF has {key}='{element.get(key)}'; expected {size} finite numbers")
    return values
