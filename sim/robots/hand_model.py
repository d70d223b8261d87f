"""Geometry of a hand: a model from one body downwards, with joints frozen, and its mirror image."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dexgrasp.sim.robots.models.model_reader import collides, read_model
from dexgrasp.utils.text import comma_separated, did_you_mean, shown

PALM = "palm"
"""Name of the root body of every hand."""

WORLD = "world"
"""Name by which `root` takes a model whose parts have no common body."""

MIRROR_POS = np.array([1.0, -1.0, 1.0])
"""Factors of a position under y -> -y."""
MIRROR_QUAT = np.array([1.0, -1.0, 1.0, -1.0])
"""Factors of a quaternion: the mirrored rotation M R M, which is a rotation again."""

_QUAT = mujoco.mjtOrientation.mjORIENTATION_QUAT
_POSED = (mujoco.mjtEq.mjEQ_CONNECT, mujoco.mjtEq.mjEQ_WELD)
"""Equalities that hold positions and orientations of bodies."""
_EQUATED = {mujoco.mjtEq.mjEQ_JOINT: "joint", mujoco.mjtEq.mjEQ_TENDON: "tendon"}
_DRIVEN = {
    mujoco.mjtTrn.mjTRN_JOINT: "joint",
    mujoco.mjtTrn.mjTRN_JOINTINPARENT: "joint",
    mujoco.mjtTrn.mjTRN_TENDON: "tendon",
}

_OF_SCENES = re.compile(r"table|object(_\d+)?|palm_(x|y|z|ball)")

log = logging.getLogger("dexgrasp")


def hand_model(file: Path, root: str, frozen: Mapping[str, float], owner: str) -> mujoco.MjSpec:
    """Return the hand in a model: body `root` and what it carries, named "palm", at the origin.

    Tendons, equalities, excludes and actuators between its parts stay; sensors, keyframes, lights and cameras go, and
    so do the joints of the root itself, since the mount moves it, and those in `frozen`, each at its position [rad] or
    [m]. Colliders are invisible on bodies that have visual geoms. `owner`: for messages. Raises ValueError and
    FileNotFoundError in one line.
    """
    whole = read_model(file, owner)
    spec = _taken(whole, root, file)
    for name, position in frozen.items():
        joint = spec.joint(name)
        if joint is None:
            known = [joint.name for joint in whole.joints if joint.name]
            if name not in known:
                raise ValueError(f"{file}: frozen: joint {shown(name)} is unknown; known: {known}."
                                 f"{did_you_mean(name, known)}")  # fmt: skip
            continue  # above the root, or of the root itself
        _freeze(joint, position, file)
    gone = {joint.name for joint in spec.body(PALM).joints} | set(frozen)
    _drop_users(spec, gone)
    for joint in [joint for joint in spec.joints if joint.name in gone or joint.parent.name == PALM]:
        spec.delete(joint)
    if left_out := _left_out(whole, spec):
        _tell(f"{file}: from body '{root}' downwards, without {left_out}")
    _check_names(spec, file)
    _hide_covered_colliders(spec)
    return spec


def centre_on_joints(spec: mujoco.MjSpec) -> None:
    """Move the origin of each body with one joint to that joint; nothing moves in the world."""
    for body in spec.bodies[1:]:
        if len(body.joints) == 1 and body.joints[0].pos.any() and body.joints[0].frame is None:
            _shift_origin(spec, body, body.joints[0].pos.copy())


def _shift_origin(spec: mujoco.MjSpec, body: Any, by: np.ndarray) -> None:
    _use_quat(body)
    body.pos = body.pos + _rotated(by, body.quat)
    for part in [*body.geoms, *body.sites, *body.joints, *body.bodies, *body.frames]:
        if part.frame is not None:
            continue  # its frame moves
        if np.isfinite(getattr(part, "fromto", np.nan)).all():
            part.fromto = part.fromto - np.tile(by, 2)
        else:
            part.pos = part.pos - by
    if body.explicitinertial:
        body.ipos = body.ipos - by
    for equality in spec.equalities:
        anchored = {mujoco.mjtEq.mjEQ_CONNECT: equality.name1, mujoco.mjtEq.mjEQ_WELD: equality.name2}
        if equality.objtype == mujoco.mjtObj.mjOBJ_BODY and anchored.get(equality.type) == body.name:
            equality.data[:3] = equality.data[:3] - by


def joints_in_order(spec: mujoco.MjSpec) -> list[str]:
    """Return the names of the joints of a hand, in the order of the compiled model.

    Each finger's joints stand from palm to tip.
    """

    def below(body: Any) -> Iterator[str]:
        yield from (joint.name for joint in body.joints)
        for child in body.bodies:
            yield from below(child)

    return list(below(spec.worldbody))


def _taken(whole: mujoco.MjSpec, root: str, file: Path) -> mujoco.MjSpec:
    """Return a model with nothing but the body `root`, what it carries, and what lies between its parts."""
    names = [body.name for body in whole.bodies[1:] if body.name]
    if root != WORLD and root not in names:
        known = [*names, WORLD]
        raise ValueError(f"{file}: root: body {shown(root)} is unknown; known: {known}.{did_you_mean(root, known)}")
    spec = mujoco.MjSpec()
    with warnings.catch_warnings():  # of options that the scene sets, and of the empty prefix
        warnings.simplefilter("ignore", UserWarning)
        if root == WORLD:
            palm = spec.worldbody.add_body(name=PALM if PALM not in names else f"{PALM} of all")
            spec.attach(whole, prefix="", frame=palm.add_frame())
        else:
            palm = spec.worldbody.add_frame().attach_body(whole.body(root), "", "")
    root = palm.name
    spec = spec.copy()  # without the warnings, which every compilation would repeat
    if root != PALM and spec.body(PALM) is not None:
        inner = next(f"{PALM}_{i}" for i in range(2, len(names) + 3) if f"{PALM}_{i}" not in names)
        _rename(spec, PALM, inner)
        _tell(f"{file}: body '{PALM}' is called '{inner}' here; '{PALM}' is the root, '{root}' of the model")
    _rename(spec, root, PALM)
    palm = spec.body(PALM)
    palm.pos, palm.quat, palm.alt.type = [0, 0, 0], [1, 0, 0, 0], _QUAT
    used = {geom.meshname for geom in spec.geoms}
    unused = [mesh for mesh in spec.meshes if mesh.name not in used]
    for element in [*unused, *spec.sensors, *spec.lights, *spec.cameras]:
        spec.delete(element)
    return spec


def _rename(spec: mujoco.MjSpec, old: str, new: str) -> None:
    """Rename a body, also where excludes and equalities refer to it; MuJoCo keeps their old names."""
    spec.body(old).name = new
    for pair in spec.excludes:
        pair.bodyname1, pair.bodyname2 = (new if name == old else name for name in (pair.bodyname1, pair.bodyname2))
    for equality in spec.equalities:
        if equality.type in _POSED and equality.objtype == mujoco.mjtObj.mjOBJ_BODY:
            equality.name1, equality.name2 = (new if name == old else name for name in (equality.name1, equality.name2))


def _freeze(joint: Any, position: float, file: Path) -> None:
    """Turn or shift the joint's body as the joint at `position` would; earlier joints of the body turn with it."""
    kind, body = joint.type, joint.parent
    moved, turned = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    ref = joint.ref
    if kind == mujoco.mjtJoint.mjJNT_HINGE:
        angle = position - (np.deg2rad(ref) if joint.compiler.degree else ref)
        mujoco.mju_axisAngle2Quat(turned, _unit(joint.axis), angle)
        moved = joint.pos - _rotated(joint.pos, turned)
    elif kind == mujoco.mjtJoint.mjJNT_SLIDE:
        moved = _unit(joint.axis) * (position - ref)
    else:
        raise ValueError(f"{file}: frozen: joint '{joint.name}' is no hinge and no slide, it has no single position")
    _use_quat(body)
    body.pos = body.pos + _rotated(moved, body.quat)
    body.quat = _product(body.quat, turned)
    back = turned * [1.0, -1.0, -1.0, -1.0]
    for earlier in body.joints:
        if earlier.name == joint.name:
            break
        earlier.axis, earlier.pos = _rotated(earlier.axis, back), _rotated(earlier.pos - moved, back)


def _drop_users(spec: mujoco.MjSpec, joints: set[str]) -> None:
    """Delete fixed tendons over joints that go, and actuators and equalities of these joints and tendons."""
    tendons = [tendon for tendon in spec.tendons if joints & set(_tendon_joints(tendon))]
    names = {"joint": joints, "tendon": {tendon.name for tendon in tendons}, "": set[str]()}
    for actuator in list(spec.actuators):
        if actuator.target in names[_DRIVEN.get(actuator.trntype, "")]:
            spec.delete(actuator)
    for equality in list(spec.equalities):
        if names[_EQUATED.get(equality.type, "")] & {equality.name1, equality.name2}:
            spec.delete(equality)
    for tendon in tendons:
        spec.delete(tendon)


def _tendon_joints(tendon: Any) -> Iterator[str]:
    return (part.target.name for part in tendon.path if part.type == mujoco.mjtWrap.mjWRAP_JOINT)


def _left_out(whole: mujoco.MjSpec, spec: mujoco.MjSpec) -> str:
    """Return in words the joints, actuators, tendons, equalities and excludes of a model that its hand lacks."""
    parts = []
    for key in ("joints", "actuators", "tendons", "equalities", "excludes"):
        kept = {element.name for element in getattr(spec, key)}
        gone = [element.name for element in getattr(whole, key) if element.name and element.name not in kept]
        nameless = len(getattr(whole, key)) - len(getattr(spec, key)) - len(gone)
        if gone or nameless > 0:
            parts.append(f"{key} {comma_separated([*gone, *([f'{nameless} without a name'] if nameless > 0 else [])])}")
    return "; ".join(parts)


@cache
def _tell(text: str) -> None:
    log.info(text)


def _check_names(spec: mujoco.MjSpec, file: Path) -> None:
    """Raise ValueError for joints without a name, and for a name that a scene gives to table, object or mount."""
    if nameless := [joint.parent.name for joint in spec.joints if not joint.name]:
        raise ValueError(f"{file}: a joint of body {shown(nameless[0])} has no name; give it one")
    for kind in ("body", "joint", "geom"):
        for element in spec.bodies[1:] if kind == "body" else getattr(spec, f"{kind}s"):
            if _OF_SCENES.fullmatch(element.name):
                raise ValueError(f"{file}: {kind} '{element.name}' has a name that scenes use themselves; rename it")


def _hide_covered_colliders(spec: mujoco.MjSpec) -> None:
    """Make colliders invisible on bodies with visual geoms: cameras see these, contacts take those."""
    for body in spec.bodies[1:]:
        if any(not collides(geom) for geom in body.geoms):
            for geom in filter(collides, body.geoms):
                geom.rgba, geom.material = [*geom.rgba[:3], 0.0], ""


def mirror(spec: mujoco.MjSpec) -> None:
    """Reflect the model in the x-z plane of its base frame (y -> -y).

    A mirrored hinge takes the same joint values.
    """
    for element in [*spec.bodies[1:], *spec.geoms, *spec.sites, *spec.frames]:
        _use_quat(element)
        element.pos, element.quat = element.pos * MIRROR_POS, element.quat * MIRROR_QUAT
    for long in [*spec.geoms, *spec.sites]:
        long.fromto = long.fromto * np.tile(MIRROR_POS, 2)
    for body in spec.bodies[1:]:
        if body.ialt.type != _QUAT:
            body.iquat, body.ialt.type = _resolved(body, body.ialt), _QUAT
        body.ipos, body.iquat = body.ipos * MIRROR_POS, body.iquat * MIRROR_QUAT
        body.fullinertia = body.fullinertia * [1, 1, 1, -1, 1, -1]  # xx yy zz xy xz yz
    for joint in spec.joints:
        slides = joint.type == mujoco.mjtJoint.mjJNT_SLIDE
        turn = 1.0 if slides else -1.0  # the axis of a turn is a pseudovector
        joint.pos, joint.axis = joint.pos * MIRROR_POS, turn * joint.axis * MIRROR_POS
    for mesh in spec.meshes:
        mesh.scale = mesh.scale * MIRROR_POS  # of vertices at their place: MuJoCo applies refpos and refquat before
    for equality in spec.equalities:
        if equality.type in _POSED:
            _mirror_equality(equality)


def _mirror_equality(equality: Any) -> None:
    data = np.array(equality.data)
    data[:3] *= MIRROR_POS  # the anchor
    if equality.type == mujoco.mjtEq.mjEQ_WELD:
        data[3:6] *= MIRROR_POS
        data[6:10] *= MIRROR_QUAT
    equality.data = data


def _use_quat(element: Any) -> None:
    """Write the orientation of an element, in whatever form it was given, as its quaternion."""
    if element.alt.type != _QUAT:
        element.quat, element.alt.type = _resolved(element, element.alt), _QUAT


def _resolved(element: Any, orientation: Any) -> np.ndarray:
    compiler = element.compiler
    return np.array(
        mujoco.MjSpec.resolve_orientation(
            degree=bool(compiler.degree), sequence=compiler.eulerseq, orientation=orientation
        )
    )


def _unit(axis: np.ndarray) -> np.ndarray:
    return np.asarray(axis) / np.linalg.norm(axis)


def _rotated(vector: np.ndarray, quat: np.ndarray) -> np.ndarray:
    result = np.empty(3)
    mujoco.mju_rotVecQuat(result, np.asarray(vector, dtype=float), quat / np.linalg.norm(quat))
    return result


def _product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    result = np.empty(4)
    mujoco.mju_mulQuat(result, first / np.linalg.norm(first), second)
    return result
