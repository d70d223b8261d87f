"""URDF and xacro of a hand, alone or on an arm, with capsules as visual and collision bodies.

    python -m dexgrasp.sim.robots.urdf allegro ur5e out=runs/allegro_on_ur5e.urdf
    python -m dexgrasp.sim.robots.urdf leap out=runs/leap.xacro      a macro to attach the hand to a link of one's own

Links have the names of the bodies, joints those of the model. Further links:

    world       frame of poses, z up, the table at z = 0; with an arm only
    base        first body of the arm
    tool        flange of the arm, at the hand base frame
    hand_base   hand base frame (body "palm" of the model)
    palm        palm frame: x along the palm normal, z along the fingers
"""

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.sim.robots.arm import ArmSpec
from dexgrasp.sim.robots.capsules import visible_geoms
from dexgrasp.sim.robots.hand import HandSpec, quats_at_zero
from dexgrasp.sim.robots.mount import attach
from dexgrasp.sim.robots.sticks import body_sticks
from dexgrasp.utils.files import write_text
from dexgrasp.utils.text import comma_separated, repeated, shown

HAND_BASE, PALM, TOOL, BASE, WORLD = "hand_base", "palm", "tool", "base", "world"
DIGITS = 7
"""Decimals of metres and radians."""
LEAST_INERTIA, LEAST_MASS_KG = 1e-9, 1e-6
"""Readers of URDF refuse bodies without mass and inertia."""
COLOUR = "0.55 0.58 0.62 1"
Pose = tuple[ArrayLike, ArrayLike]
"""Position (3,) [m] and quaternion (4,) wxyz in the parent."""
IDENTITY: Pose = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
PREFIX = "${prefix}"
MACRO_NOTE = " Attaches the hand base frame to the link `parent`; origin: its pose there. "


def robot_urdf(
    hand: HandSpec, mount: str = "floating", prefix: str = "", base: tuple[Sequence[float], float] | None = None
) -> str:
    """Return the URDF of a hand, and of the arm that carries it unless `mount` is "floating".

    `prefix`: begins the name of every link and joint. `base`: position [m] and yaw [rad] of the arm's base in the world
    instead of the stated one.
    """
    root = _robot(hand, mount, prefix, base)
    ET.indent(root)
    return '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def hand_xacro(hand: HandSpec) -> str:
    """Return a xacro file with the macro `dexgrasp_NAME`, which attaches a hand to a link."""
    root = ET.Element("robot", {"xmlns:xacro": "http://www.ros.org/wiki/xacro"})
    macro = ET.SubElement(
        root, "xacro:macro", name="dexgrasp_" + re.sub(r"\W", "_", hand.name), params="parent prefix:='' *origin"
    )
    macro.append(ET.Comment(MACRO_NOTE))
    joint = ET.SubElement(macro, "joint", name=f"{PREFIX}{HAND_BASE}_joint", type="fixed")
    ET.SubElement(joint, "xacro:insert_block", name="origin")
    ET.SubElement(joint, "parent", link="${parent}")
    ET.SubElement(joint, "child", link=PREFIX + HAND_BASE)
    macro.extend(_robot(hand, "floating", PREFIX, None))
    ET.indent(root)
    return '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _robot(hand: HandSpec, mount: str, prefix: str, base: tuple[Sequence[float], float] | None) -> ET.Element:
    arm = None if mount == "floating" else ArmSpec.load(mount, hand, base)
    root = ET.Element("robot", name=hand.name if arm is None else f"{hand.name}_on_{arm.name}")
    model, writer = _compiled(hand, mount), _Writer(root, prefix)
    if arm is not None:
        half = arm.base_yaw_rad / 2
        place = arm.base_pos_w, (np.cos(half), 0.0, 0.0, np.sin(half))
        writer.frame(WORLD)
        writer.frame(BASE, WORLD, place)
    writer.bodies(model, _limits(hand, arm))
    if arm is not None:
        writer.frame(TOOL, HAND_BASE, IDENTITY)
    writer.frame(PALM, HAND_BASE, (hand.palm_pos_b, hand.palm_quat_b))
    writer.couplings(hand)
    for kind in ("link", "joint"):
        if twice := repeated(element.get("name", "") for element in root.findall(kind)):
            raise ValueError(
                f"the URDF of {root.get('name')} would have several {kind}s called "
                f"{comma_separated(map(shown, twice))}: rename them in the model of the hand or of the arm"
            )
    return root


def _compiled(hand: HandSpec, mount: str) -> mujoco.MjModel:
    if mount == "floating":
        return hand.model
    world = mujoco.MjSpec()
    attach(world, hand, mount)
    return world.compile()


def _limits(hand: HandSpec, arm: ArmSpec | None) -> dict[str, tuple[float, float]]:
    """Return effort [N m] and speed limit [rad/s] of each joint; those of a coupled one are those of its motor."""
    found = {}
    for name in hand.joint_names:
        line = hand.coupled.get(name)
        motor = hand.motors.names.index(name if line is None else line.follows)
        ratio = 1.0 if line is None else abs(line.ratio)
        found[name] = float(hand.effort_limit[motor]), float(hand.speed_limit[motor]) * ratio
    if arm is not None:
        efforts, speeds = arm.effort_limit.tolist(), arm.speed_limit.tolist()
        found |= dict(zip(arm.joint_names, zip(efforts, speeds, strict=True), strict=True))
    return found


class _Writer:
    """Writes links and joints into a robot element."""

    def __init__(self, root: ET.Element, prefix: str) -> None:
        self._root, self._prefix = root, prefix

    def frame(self, name: str, parent: str = "", pose: Pose = IDENTITY) -> ET.Element:
        """Add a link, fixed to `parent` unless that is empty."""
        link = ET.SubElement(self._root, "link", name=self._prefix + name)
        if parent:
            self._joint(f"{name}_joint", "fixed", parent, name, pose)
        return link

    def bodies(self, model: mujoco.MjModel, limits: dict[str, tuple[float, float]]) -> None:
        """Add the bodies of a model, with their hinges; a first body that moves with an arm is fixed to its base."""
        taken = {HAND_BASE, TOOL, BASE, WORLD, PALM}
        names = [self._free(model.body(i).name, taken) for i in range(model.nbody)]
        quats, shapes = quats_at_zero(model), visible_geoms(model)
        for i in range(1, model.nbody):
            link = ET.SubElement(self._root, "link", name=self._prefix + names[i])
            self._inertial(link, model, i)
            for geom in (geom for geom in shapes if model.geom_bodyid[geom] == i):
                for stick in body_sticks(model, geom, layers=2):
                    _add_capsule(link, *stick)
            parent, pose = model.body_parentid[i], (model.body_pos[i], quats[i])
            if parent == 0:
                if names[i] != HAND_BASE:
                    self._joint(f"{names[i]}_joint", "fixed", BASE, names[i], IDENTITY)
            elif model.body_jntnum[i] == 0:
                self._joint(f"{names[i]}_joint", "fixed", names[parent], names[i], pose)
            else:
                number = int(model.body_jntadr[i])
                joint = self._joint(model.joint(number).name, "revolute", names[parent], names[i], pose)
                self._hinge(joint, model, number, limits)

    def couplings(self, hand: HandSpec) -> None:
        """Let each coupled joint follow its motor's joint."""
        joints = {element.get("name"): element for element in self._root.iter("joint")}
        for name, line in hand.coupled.items():
            ET.SubElement(
                joints[self._prefix + name],
                "mimic",
                joint=self._prefix + line.follows,
                multiplier=_numbers([line.ratio]),
                offset=_numbers([line.offset]),
            )

    def _free(self, body: str, taken: set[str]) -> str:
        """Return the name of a body's link: "palm" is the hand base, other bodies keep clear of the further links."""
        return HAND_BASE if body == "palm" else f"{body}_link" if body in taken else body

    def _joint(self, name: str, kind: str, parent: str, child: str, pose: Pose) -> ET.Element:
        joint = ET.SubElement(self._root, "joint", name=self._prefix + name, type=kind)
        _origin(joint, *pose)
        ET.SubElement(joint, "parent", link=self._prefix + parent)
        ET.SubElement(joint, "child", link=self._prefix + child)
        return joint

    def _hinge(
        self, joint: ET.Element, model: mujoco.MjModel, number: int, limits: dict[str, tuple[float, float]]
    ) -> None:
        low, high = model.jnt_range[number]
        effort, speed = limits[model.joint(number).name]
        ET.SubElement(joint, "axis", xyz=_numbers(model.jnt_axis[number]))
        ET.SubElement(
            joint,
            "limit",
            lower=_numbers([low]),
            upper=_numbers([high]),
            effort=_numbers([effort]),
            velocity=_numbers([speed]),
        )

    def _inertial(self, link: ET.Element, model: mujoco.MjModel, body: int) -> None:
        inertial = ET.SubElement(link, "inertial")
        _origin(inertial, model.body_ipos[body], model.body_iquat[body])
        ET.SubElement(inertial, "mass", value=f"{max(model.body_mass[body], LEAST_MASS_KG):.9g}")
        ixx, iyy, izz = (f"{max(value, LEAST_INERTIA):.9g}" for value in model.body_inertia[body])
        ET.SubElement(inertial, "inertia", ixx=ixx, iyy=iyy, izz=izz, ixy="0", ixz="0", iyz="0")


def _add_capsule(link: ET.Element, start: NDArray, end: NDArray, radius_m: float) -> None:
    """Add a capsule as a cylinder between two spheres: URDF knows no capsules."""
    along = np.asarray(end) - np.asarray(start)
    length_m = float(np.linalg.norm(along))
    pitch, yaw = np.arctan2(np.hypot(along[0], along[1]), along[2]), np.arctan2(along[1], along[0])
    shapes: list[tuple[NDArray, tuple[float, float, float], str, dict[str, str]]] = [
        (point, (0.0, 0.0, 0.0), "sphere", {"radius": _numbers([radius_m])})
        for point in ([start] if length_m < 10**-DIGITS else [start, end])
    ]
    if len(shapes) > 1:
        size = {"radius": _numbers([radius_m]), "length": _numbers([length_m])}
        shapes.append(((np.asarray(start) + end) / 2, (0.0, float(pitch), float(yaw)), "cylinder", size))
    for pos_m, rpy, kind, size in shapes:
        for use in ("visual", "collision"):
            element = ET.SubElement(link, use)
            ET.SubElement(element, "origin", xyz=_numbers(pos_m), rpy=_numbers(rpy))
            ET.SubElement(ET.SubElement(element, "geometry"), kind, size)
            if use == "visual":
                ET.SubElement(ET.SubElement(element, "material", name="robot"), "color", rgba=COLOUR)


def _origin(element: ET.Element, pos_m: ArrayLike, quat: ArrayLike) -> None:
    ET.SubElement(element, "origin", xyz=_numbers(pos_m), rpy=_numbers(_rpy(quat)))


def _rpy(quat: ArrayLike) -> tuple[float, float, float]:
    """Return roll, pitch and yaw [rad] of a quaternion (4,) wxyz: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    flat = np.empty(9)
    mujoco.mju_quat2Mat(flat, np.asarray(quat, dtype=np.float64))
    R = flat.reshape(3, 3)
    level = float(np.hypot(R[0, 0], R[1, 0]))
    pitch = float(np.arctan2(-R[2, 0], level))
    if level < 1e-9:  # straight up or down: roll and yaw turn about one axis
        return float(np.arctan2(-R[1, 2], R[1, 1])), pitch, 0.0
    return float(np.arctan2(R[2, 1], R[2, 2])), pitch, float(np.arctan2(R[1, 0], R[0, 0]))


def _numbers(values: ArrayLike) -> str:
    rounded = np.round(np.asarray(values, dtype=np.float64), DIGITS) + 0.0  # which makes -0 a 0
    return " ".join(np.format_float_positional(value, trim="-") for value in rounded)


def main(words: Iterable[str]) -> int:
    """Write the file of a hand, and of an arm if one is named; return the exit code."""
    words = list(words)
    files = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    left = "side=left" in words
    robots = [word for word in words if not word.startswith(("out=", "side="))]
    if len(files) != 1 or not 1 <= len(robots) <= 2:
        print(
            "usage: python -m dexgrasp.sim.robots.urdf HAND [ARM] [side=left] out=FILE.urdf or FILE.xacro",
            file=sys.stderr,
        )
        return 2
    try:
        hand, file = HandSpec.load(robots[0], side="left" if left else "right"), Path(files[0])
        if file.suffix == ".xacro" and len(robots) == 2:
            raise ValueError(
                f"out={file}: a xacro file describes a hand alone; leave out {robots[1]}, or write a .urdf"
            )
        text = (
            hand_xacro(hand)
            if file.suffix == ".xacro"
            else robot_urdf(hand, robots[1] if len(robots) == 2 else "floating")
        )
        write_text(file, text)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"written: {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
