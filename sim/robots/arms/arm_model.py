"""Arm models: base and tip of an MJCF or URDF, and the bodies between them as a model of their own.

A model is compiled once, so that files of either kind, defaults, units and frames are dealt with by MuJoCo. From the
result the bodies from base to tip are written down anew: hinges at the origins of their bodies, inertias stated,
collision geoms alone. Whatever hangs below the tip, such as a gripper, is left out.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.sim.robots.models.model_reader import collides, read_model
from dexgrasp.utils.readers import regular_bytes
from dexgrasp.utils.text import comma_separated, did_you_mean, one_line, shown

BASE = "arm_base"
"""Body that stands in the world."""
TIP_NAMES = ("attachment_site", "tool0", "flange", "ee", "eef", "ee_link", "end_effector", "hand_mount")
"""Names of the frame that carries a hand, the surest first; a prefix such as `left_` may stand before them."""
HULL_VERTICES = 64
"""Most vertices of the convex hull of a mesh."""
REACH_M = (0.15, 4.0)
"""Least and largest length of an arm, from base to tip along its joints."""
FREE_TURN_RAD = 2 * np.pi
"""Range of a joint without limits, to either side."""
FLAT = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)
"""Geoms of the surroundings."""
UNIT = np.array([1.0, 0.0, 0.0, 0.0])
"""Orientation without a rotation."""
LEAST_MASS_KG, LEAST_INERTIA = 1e-3, 1e-6

Array = NDArray[np.float64]
JointType, Equality = mujoco.mjtJoint, mujoco.mjtEq

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
class ArmJoint:
    """Values of a joint in the model; nan where it does not state them."""

    name: str
    lower: float
    upper: float
    effort_limit: float
    speed_limit: float
    armature: float


@dataclass(frozen=True)
class ArmGeom:
    """Collision geom in the frame of its body."""

    name: str
    type: int
    size: Array
    pos: Array
    quat: Array
    rgba: Array
    group: int
    vertices: Array
    """(vertex, 3) of the convex hull of a mesh, in the frame of the geom [m]; (0, 3) otherwise."""


@dataclass(frozen=True)
class ArmLink:
    """Body of an arm with at most one hinge, at its origin."""

    name: str
    parent: int
    pos: Array
    quat: Array
    joint: str = ""
    """Name of its hinge; empty for a body that is fixed to its parent."""
    axis: Array = field(default_factory=lambda: np.zeros(3))
    mass: float = 0.0
    ipos: Array = field(default_factory=lambda: np.zeros(3))
    iquat: Array = field(default_factory=lambda: np.array([1.0, 0.0, 0.0, 0.0]))
    inertia: Array = field(default_factory=lambda: np.zeros(3))
    geoms: tuple[ArmGeom, ...] = ()


@dataclass(frozen=True)
class ArmModel:
    """Bodies from the base of an arm to its tip, parents first; the first is the base."""

    bodies: tuple[ArmLink, ...]
    joints: tuple[ArmJoint, ...]
    tip: str
    """Name of the frame that carries the hand."""
    tip_body: int
    tip_pos: Array
    """(3,) of the tip in its body [m]."""
    tip_quat: Array
    base: str
    """Name of the base in the file."""
    dropped_joints: tuple[str, ...]
    """Joints below the tip or beside the arm, such as those of a gripper."""

    def to_mjspec(self, joint_names: tuple[str, ...]) -> mujoco.MjSpec:
        """Return a new model with the base at the origin and the tip as a site; joints get `joint_names`."""
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        scene_names = dict(zip((joint.name for joint in self.joints), joint_names, strict=True))
        made: list[mujoco.MjsBody] = []
        for body in self.bodies:
            parent = made[body.parent] if body.parent >= 0 else spec.worldbody
            new = parent.add_body(name=body.name, pos=body.pos, quat=body.quat)
            if body.mass > 0:
                new.explicitinertial = True
                new.mass, new.ipos, new.iquat, new.inertia = body.mass, body.ipos, body.iquat, body.inertia
            if body.joint:
                new.add_joint(name=scene_names[body.joint], type=JointType.mjJNT_HINGE, axis=body.axis)
            for geom in body.geoms:
                _add_geom(spec, new, geom)
            made.append(new)
        made[self.tip_body].add_site(name=self.tip, pos=self.tip_pos, quat=self.tip_quat, size=[0.003] * 3, group=4)
        return spec


def _add_geom(spec: mujoco.MjSpec, body: mujoco.MjsBody, geom: ArmGeom) -> None:
    made = body.add_geom(name=geom.name, type=mujoco.mjtGeom(geom.type), pos=geom.pos, quat=geom.quat)
    made.rgba, made.group = geom.rgba, geom.group
    if len(geom.vertices):
        made.meshname = f"{geom.name}_hull"
        spec.add_mesh(name=made.meshname, uservert=geom.vertices.ravel())
    else:
        made.size = geom.size


def read_arm_model(file: Path, base: str = "", tip: str = "") -> ArmModel:
    """Return the arm of an MJCF or URDF from `base` to `tip`; empty: found by their names and places.

    Raises ValueError or FileNotFoundError, in one line, for a file without such an arm.
    """
    spec = _read_spec(file)
    try:
        model = spec.compile()
    except ValueError as error:
        raise ValueError(f"{file}: the arm cannot be simulated: {one_line(error, 300)}") from error
    tree = _Tree(file, model)
    tip_body, tip_site = tree.find_tip(tip)
    root = tree.find_base(base, tip_body, tip or tree.name_of(tip_body, tip_site))
    tree.check(tree.kept_bodies(root, tip_body), root if base else -1)
    found = _written(tree, root, bool(base), (tip_body, tip_site), _urdf_speeds(file))
    _check_length(file, found)
    return found


def _read_spec(file: Path) -> mujoco.MjSpec:
    """Return the model without geoms that touch nothing; a model that has no others touches with them."""
    spec = read_model(file, "the arm", visuals=False)
    for kind in (spec.sensors, spec.lights, spec.cameras):
        for element in list(kind):
            spec.delete(element)
    if not any(collides(geom) for geom in spec.geoms):
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 1
    for mesh in spec.meshes:
        mesh.maxhullvert = HULL_VERTICES
    return spec


def _urdf_speeds(file: Path) -> dict[str, float]:
    """Return the speed limits of a URDF's joints [rad/s], which MuJoCo does not read; empty for an MJCF."""
    root = ElementTree.fromstring(regular_bytes(file))
    limits = {joint.get("name", ""): joint.find("limit") for joint in root.iter("joint")} if root.tag == "robot" else {}
    return {name: float(limit.get("velocity", "nan")) for name, limit in limits.items() if limit is not None}


class _Tree:
    """Finds base, tip and the bodies between them in a compiled model."""

    def __init__(self, file: Path, model: mujoco.MjModel) -> None:
        self.file, self.model = file, model
        self.children: list[list[int]] = [[] for _ in range(model.nbody)]
        for body in range(1, model.nbody):
            self.children[model.body_parentid[body]].append(body)

    def joints(self, body: int) -> range:
        """Return the numbers of a body's joints."""
        first = self.model.body_jntadr[body]
        return range(first, first + self.model.body_jntnum[body])

    def path(self, body: int) -> list[int]:
        """Return the bodies from the world's child to `body`."""
        found = []
        while body:
            found.append(body)
            body = int(self.model.body_parentid[body])
        return found[::-1]

    def subtree(self, body: int) -> list[int]:
        """Return the body and all below it, parents first."""
        found = [body]
        for at in found:
            found += self.children[at]
        return sorted(found)

    def moves(self, body: int) -> bool:
        """Return whether the body or one below it has a joint."""
        return any(len(self.joints(at)) for at in self.subtree(body))

    def name_of(self, body: int, site: int = -1) -> str:
        """Return the name of a body, or of a site where one is given."""
        return (self.model.body(body) if site < 0 else self.model.site(site)).name

    def find_tip(self, stated: str) -> tuple[int, int]:
        """Return body and site of the tip; site -1: the frame of the body itself."""
        model = self.model
        frames = [(model.site(i).name, int(model.site_bodyid[i]), i) for i in range(model.nsite)]
        frames += [(model.body(i).name, i, -1) for i in range(1, model.nbody)]
        if stated:
            for name, body, site in frames:
                if name == stated:
                    return body, site
            known = [name for name, *_ in frames if name]
            raise ValueError(
                f"{self.file}: tip {shown(stated)} is no site or body; known: {comma_separated(known[:30])}."
                f"{did_you_mean(stated, known)}"
            )
        moved = [frame for frame in frames if any(len(self.joints(body)) for body in self.path(frame[1]))]
        if not moved:
            raise ValueError(f"{self.file}: no body is moved by a joint; expected the model of an arm")
        for wanted in TIP_NAMES:
            named = [frame for frame in moved if re.fullmatch(rf"(.*[^a-z])?{wanted}", frame[0].lower())]
            if len(named) > 1:
                raise self._ambiguous([name for name, *_ in named])
            if named:
                return named[0][1:]
        return self._last_link(), -1

    def _ambiguous(self, names: list[str]) -> ValueError:
        return ValueError(
            f"{self.file}: the tip, which carries the hand, may be {comma_separated(names)}: "
            f"state it, {self.file.name}:tip={names[0]}, or as `tip` in an arm.yaml"
        )

    def _last_link(self) -> int:
        """Return the frame at the end of the chain of moving bodies, where a gripper or nothing follows."""
        at = 0
        while True:
            moving = [body for body in self.children[at] if self.moves(body)]
            if len(moving) != 1:
                break
            at = moving[0]
        if (moving and len(self.joints(at))) or not at:
            raise self._ambiguous([self.name_of(body) for body in [at, *moving] if body])
        leaves = [body for body in self.children[at] if not moving and not self.children[body]]
        if len(leaves) > 1:
            raise self._ambiguous([self.name_of(body) for body in [at, *leaves]])
        return leaves[0] if leaves else at

    def find_base(self, stated: str, tip: int, tip_name: str) -> int:
        """Return the body that stands in the world."""
        path = self.path(tip)
        if not stated:
            return path[0]
        names = [self.model.body(i).name for i in range(1, self.model.nbody)]
        if stated not in names:
            raise ValueError(
                f"{self.file}: base {shown(stated)} is no body; known: {comma_separated(names[:30])}."
                f"{did_you_mean(stated, names)}"
            )
        base = self.model.body(stated).id
        if base not in path or not any(len(self.joints(body)) for body in path[path.index(base) + 1 :]):
            above = comma_separated(self.name_of(body) for body in path)
            raise ValueError(
                f"{self.file}: no joint leads from base '{stated}' to tip '{tip_name}', above which are {above}: "
                "give a base among them, or another tip"
            )
        return base

    def kept_bodies(self, base: int, tip: int) -> list[int]:
        """Return the bodies of the path from base to tip with what is fixed to them, except below the tip."""
        path = self.path(tip)
        path = path[path.index(base) :]
        kept = list(path)
        for body in path[:-1]:
            fixed = [child for child in self.children[body] if child not in path and not self.moves(child)]
            kept += [below for child in fixed for below in self.subtree(child)]
        return sorted(kept)

    def check(self, kept: list[int], still: int) -> None:
        """Raise ValueError for joints that are no hinges, and for joints that are coupled.

        `still`: body whose joints do not move.
        """
        model = self.model
        for body in kept:
            for i in self.joints(body):
                kind = JointType(model.jnt_type[i])
                name = model.joint(i).name
                if body != still and kind not in (JointType.mjJNT_FREE, JointType.mjJNT_HINGE):
                    word = {JointType.mjJNT_SLIDE: "slides", JointType.mjJNT_BALL: "is a ball joint"}[kind]
                    raise ValueError(
                        f"{self.file}: joint '{name}' {word}; expected hinges from base to tip: give a base below it, "
                        f"{self.file.name}:base={self.name_of(body)}, which holds it still"
                    )
        for i in range(model.neq):
            kind, pair = Equality(model.eq_type[i]), (int(model.eq_obj1id[i]), int(model.eq_obj2id[i]))
            if kind == Equality.mjEQ_JOINT:
                bodies = [int(model.jnt_bodyid[j]) for j in pair if j >= 0]
            elif kind in (Equality.mjEQ_CONNECT, Equality.mjEQ_WELD):
                sites = model.eq_objtype[i] == mujoco.mjtObj.mjOBJ_SITE
                bodies = [int(model.site_bodyid[j]) if sites else j for j in pair]
            else:
                continue
            if any(body in kept for body in bodies):
                names = comma_separated(self.name_of(body) for body in bodies)
                raise ValueError(
                    f"{self.file}: <equality> couples {names}; expected an open chain of joints that move by "
                    "themselves: closed chains and joints that follow others are not supported in an arm"
                )


class _Writer:
    """Writes the kept bodies down anew, with each hinge at the origin of a body of its own."""

    def __init__(self, tree: _Tree, speeds: dict[str, float]) -> None:
        self.tree, self.model, self.speeds = tree, tree.model, speeds
        self.bodies: list[ArmLink] = []
        self.joints: list[ArmJoint] = []
        self.written: dict[int, tuple[int, Array]] = {}
        """Body of the file -> its number here, and the shift of its origin [m]."""
        self._used: set[tuple[str, str]] = {("body", BASE)}

    def write(self, body: int, base: int, hinges: list[int], frame_alone: bool) -> None:
        """Append a body with its hinges; `frame_alone`: without its mass and geoms."""
        model = self.model
        if not self.bodies and hinges:
            self.bodies.append(ArmLink(name=BASE, parent=-1, pos=np.zeros(3), quat=UNIT))
        if body == base:
            parent, pos, quat = len(self.bodies) - 1, np.zeros(3), UNIT
        else:
            parent, shift = self.written[int(model.body_parentid[body])]
            pos, quat = model.body_pos[body] - shift, model.body_quat[body]
        joint, shift = -1, np.zeros(3)
        for i in hinges:
            if joint >= 0:  # a second hinge in one body
                self.bodies.append(self._moved(joint, parent, pos, quat, self._name("")))
                parent, pos, quat = len(self.bodies) - 1, model.jnt_pos[i] - shift, UNIT
            else:
                pos = pos + _rotated(quat, model.jnt_pos[i])
            quat, shift, joint = _turned(quat, model.jnt_axis[i], -self._zero(i)), model.jnt_pos[i], i
        name = BASE if not self.bodies else self._name(model.body(body).name)
        content = {} if frame_alone else self._content(body, name, shift)
        self.written[body] = len(self.bodies), shift
        self.bodies.append(self._moved(joint, parent, pos, quat, name, **content))

    def _content(self, body: int, name: str, shift: Array) -> dict[str, Any]:
        """Return mass and collision geoms of a body whose origin is shifted."""
        model = self.model
        geoms = [i for i in range(model.ngeom) if model.geom_bodyid[i] == body and model.geom_type[i] not in FLAT]
        return {
            "mass": float(model.body_mass[body]),
            "ipos": model.body_ipos[body] - shift,
            "iquat": model.body_iquat[body].copy(),
            "inertia": model.body_inertia[body].copy(),
            "geoms": tuple(
                self._geom(i, name, shift) for i in geoms if model.geom_contype[i] or model.geom_conaffinity[i]
            ),
        }

    def _moved(self, joint: int, parent: int, pos: Array, quat: Array, name: str, **content: Any) -> ArmLink:
        place = ArmLink(name=name, parent=parent, pos=pos, quat=quat, **content)
        if joint < 0:
            return place
        model = self.model
        self.joints.append(self._values(joint))
        light = place.mass < LEAST_MASS_KG
        return replace(
            place,
            joint=self.joints[-1].name,
            axis=model.jnt_axis[joint].copy(),
            mass=LEAST_MASS_KG if light else place.mass,
            inertia=np.maximum(place.inertia, LEAST_INERTIA) if light else place.inertia,
        )

    def _zero(self, joint: int) -> float:
        return float(self.model.qpos0[self.model.jnt_qposadr[joint]])

    def _values(self, joint: int) -> ArmJoint:
        model = self.model
        name = model.joint(joint).name or f"joint_{len(self.joints) + 1}"
        lower, upper = model.jnt_range[joint] if model.jnt_limited[joint] else (-FREE_TURN_RAD, FREE_TURN_RAD)
        efforts = [np.abs(model.jnt_actfrcrange[joint]).max()] if model.jnt_actfrclimited[joint] else []
        for i in range(model.nactuator):
            of_joint = model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT and model.actuator_trnid[i, 0] == joint
            if of_joint and model.actuator_forcelimited[i]:
                efforts.append(np.abs(model.actuator_forcerange[i]).max() * abs(model.actuator_gear[i, 0]))
        return ArmJoint(
            name=name,
            lower=float(lower),
            upper=float(upper),
            effort_limit=float(min(efforts, default=np.nan)) or np.nan,
            speed_limit=self.speeds.get(name, np.nan) or np.nan,
            armature=float(model.dof_armature[model.jnt_dofadr[joint]]) or np.nan,
        )

    def _geom(self, i: int, body: str, shift: Array) -> ArmGeom:
        model = self.model
        vertices = np.zeros((0, 3))
        if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_MESH:
            vertices = _hull(model, int(model.geom_dataid[i]))
        return ArmGeom(
            name=self._name(model.geom(i).name or f"{body}_geom", taken=body),
            type=int(model.geom_type[i]),
            size=model.geom_size[i].copy(),
            pos=model.geom_pos[i] - shift,
            quat=model.geom_quat[i].copy(),
            rgba=model.geom_rgba[i].copy(),
            group=int(model.geom_group[i]),
            vertices=vertices,
        )

    def _name(self, wanted: str, taken: str = "") -> str:
        """Return a name that no body, or no geom, has yet; `taken`: name of the geom's body, which it may share."""
        kind = "geom" if taken else "body"
        name, number = wanted or "arm_link", 2
        while (kind, name) in self._used:
            name, number = f"{wanted or 'arm_link'}_{number}", number + 1
        self._used.add((kind, name))
        return name


def _hull(model: mujoco.MjModel, mesh: int) -> Array:
    """Return the vertices (vertex, 3) of a mesh's convex hull in the frame of its geom [m]."""
    first, count, at = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh], model.mesh_graphadr[mesh]
    vertices = model.mesh_vert[first : first + count]
    if at >= 0:
        n = model.mesh_graph[at]
        vertices = vertices[model.mesh_graph[at + 2 + n : at + 2 + 2 * n]]
    return vertices.astype(np.float64)


def _rotated(quat: Array, vector: Array) -> Array:
    found = np.empty(3)
    mujoco.mju_rotVecQuat(found, vector, quat)
    return found


def _turned(quat: Array, axis: Array, angle: float) -> Array:
    """Return the orientation after a rotation about an axis of its own frame."""
    if angle == 0.0:
        return quat.copy()
    turn, found = np.empty(4), np.empty(4)
    mujoco.mju_axisAngle2Quat(turn, axis, angle)
    mujoco.mju_mulQuat(found, quat, turn)
    return found


def _written(tree: _Tree, base: int, stated_base: bool, tip: tuple[int, int], speeds: dict[str, float]) -> ArmModel:
    """Return the bodies from base to tip."""
    model, (tip_body, tip_site) = tree.model, tip
    kept = tree.kept_bodies(base, tip_body)
    replaced = tip_body if tip_site < 0 and not len(tree.joints(tip_body)) else -1  # by the hand: a gripper's base
    writer = _Writer(tree, speeds)
    for body in kept:
        hinges = [i for i in tree.joints(body) if model.jnt_type[i] == JointType.mjJNT_HINGE]
        hinges = [] if stated_base and body == base else hinges
        writer.write(body, base, hinges, frame_alone=body == replaced)
    number, shift = writer.written[tip_body]
    quat = UNIT if tip_site < 0 else model.site_quat[tip_site].copy()
    return ArmModel(
        bodies=tuple(writer.bodies),
        joints=tuple(writer.joints),
        tip=tree.name_of(tip_body, tip_site) or "tip",
        tip_body=number,
        tip_pos=(np.zeros(3) if tip_site < 0 else model.site_pos[tip_site]) - shift,
        tip_quat=_facing_z(writer.bodies, number, quat),
        base=tree.name_of(base),
        dropped_joints=tuple(
            model.joint(i).name or "unnamed" for i in range(model.njnt) if model.jnt_bodyid[i] not in kept
        ),
    )


def _facing_z(bodies: Sequence[ArmLink], at: int, quat: Array) -> Array:
    """Return the orientation of the tip in its body, turned where x, not z, points along the last joint.

    Hands are attached along z; ROS has frames such as `flange` whose x points forward.
    """
    to_tip = quat
    while at and not bodies[at].joint:
        to_tip, at = _product(bodies[at].quat, to_tip), bodies[at].parent
    along = np.empty(9)
    mujoco.mju_quat2Mat(along, to_tip)
    share = np.abs(bodies[at].axis @ along.reshape(3, 3))  # of the joint's axis along x, y and z of the tip
    return _product(quat, np.array([0.5**0.5, 0.0, 0.5**0.5, 0.0])) if share[0] > 0.999 else quat


def _product(a: Array, b: Array) -> Array:
    found = np.empty(4)
    mujoco.mju_mulQuat(found, a, b)
    return found


def _check_length(file: Path, arm: ArmModel) -> None:
    """Raise ValueError for an arm that is too long or too short to be in metres."""
    bodies, at, length_m = arm.bodies, arm.tip_body, float(np.linalg.norm(arm.tip_pos))
    while at >= 0:
        length_m, at = length_m + float(np.linalg.norm(bodies[at].pos)), bodies[at].parent
    least, most = REACH_M
    if not least <= length_m <= most:
        raise ValueError(
            f"{file}: the arm is {length_m:.4g} m long from base '{arm.base}' to tip '{arm.tip}'; expected {least:g} "
            f"to {most:g} m: lengths are in metres" + (", these may be millimetres" if length_m > most else "")
        )
    for body in bodies:
        for geom in body.geoms:
            radius_m = np.abs(geom.vertices).max(initial=0.0) if len(geom.vertices) else geom.size.max()
            if radius_m > most:
                raise ValueError(
                    f"{file}: geom '{geom.name}' is {2 * radius_m:.4g} m wide; expected at most {2 * most:g}: lengths "
                    "are in metres: give meshes in millimetres the scale 0.001"
                )
