"""Reading of robot models, MJCF or URDF, and of the meshes that they name."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from dexgrasp.utils.readers import foreign_file, regular_bytes
from dexgrasp.utils.text import comma_separated, did_you_mean, one_line, repeated, shown

mujoco.set_mju_user_warning(logging.getLogger("dexgrasp").debug)  # else printed, and put into ./MUJOCO_LOG.TXT

MESH_FORMATS = (".stl", ".obj", ".msh")
"""Endings of the mesh files that MuJoCo reads."""

URDF_COMPILER = {"discardvisual": "false", "fusestatic": "false", "strippath": "false", "balanceinertia": "true"}
"""Settings that keep the links, visuals and paths of a URDF; MuJoCo refuses moments with A + B < C otherwise."""

THINNEST_M = 1e-5
"""Least stated size of a box, sphere, capsule or cylinder that collides; a smaller one is a mistake of units."""

SCHEMES = ("package://", "file://")
SEARCH_PATHS = ("AMENT_PREFIX_PATH", "ROS_PACKAGE_PATH")
"""Environment variables that list the folders of ROS packages."""


def read_model(file: Path, owner: str, visuals: bool = True) -> mujoco.MjSpec:
    """Return the MJCF or URDF of `owner`, such as "the hand 'leap'", as an editable model.

    Keyframes are left out. `visuals`: false leaves out geoms that touch nothing, and their meshes; a model that has no
    others keeps them. Raises ValueError for a file that is damaged or of another kind, FileNotFoundError where a mesh
    file is missing.
    """
    if kind := foreign_file(file):
        raise ValueError(f"{file}: {kind}")
    content = regular_bytes(file)
    root = _root(content)
    if b"<xacro:" in content:
        raise ValueError(f"{file}: it holds xacro macros; expand them first: `xacro {file.name} > expanded.urdf`")
    included = {} if root is None else dict(_included(root, file.parent))
    try:
        _check_numbers([found for found in (root, *map(_root, included.values())) if found is not None])
        if root is not None and root.tag == "robot":
            spec = mujoco.MjSpec.from_string(_prepared_urdf(root, file))
        elif root is not None and root.tag != "mujoco":
            raise ValueError(f"{shown(root.tag)} is its outermost element; expected <mujoco> or <robot>")
        elif file.suffix.lower() == ".xml":
            spec = mujoco.MjSpec.from_file(str(file))
        else:  # MuJoCo chooses its reader by the ending
            spec = mujoco.MjSpec.from_string(content.decode("utf-8", "replace"), include=included)
            spec.modelfiledir = str(file.parent)
    except ValueError as error:
        kind = "MJCF" if root is None or root.tag != "robot" else "URDF"
        raise ValueError(f"{file}: not a valid {kind}: {one_line(error)}") from error
    for key in list(spec.keys):
        spec.delete(key)  # of the model in a scene of its own; a wrong one would stop every attachment
    if not visuals:
        _drop_visuals(spec)
    _check_sizes(spec, file)
    for mesh in spec.meshes:
        if mesh.file:  # else its vertices stand in the model
            path = file.parent / spec.meshdir / (Path(mesh.file).name if spec.strippath else mesh.file)
            _check_mesh(path, f"{file}: mesh '{mesh.name or mesh.file}' of {owner}")
    return spec


def collides(geom: mujoco.MjsGeom) -> bool:
    """Return whether the model lets a geom touch anything."""
    return bool(geom.contype or geom.conaffinity)


def _check_sizes(spec: mujoco.MjSpec, file: Path) -> None:
    """Raise ValueError for a collider that is too thin to be in metres."""
    for geom in filter(collides, spec.geoms):
        thinnest_m = min((size for size in geom.size if size > 0), default=math.inf)  # what a type does not use is 0
        if geom.type != mujoco.mjtGeom.mjGEOM_MESH and thinnest_m < THINNEST_M:
            raise ValueError(
                f"{file}: a collider of '{geom.parent.name}' has a size of {thinnest_m:.3g} m; expected at least "
                f"{THINNEST_M:g} m: lengths are in metres"
            )


def _drop_visuals(spec: mujoco.MjSpec) -> None:
    if any(collides(geom) for geom in spec.geoms):
        for geom in [geom for geom in spec.geoms if not collides(geom)]:
            if geom.parent.explicitinertial or any(collides(other) for other in geom.parent.geoms):
                spec.delete(geom)
    used = {geom.meshname for geom in spec.geoms if geom.meshname}
    for mesh in list(spec.meshes):
        if (mesh.name or Path(mesh.file).stem) not in used:
            spec.delete(mesh)


def resolved(name: str, folder: Path) -> Path:
    """Return the file that a URDF in `folder` names: package://NAME/PATH, file://PATH, or a path.

    A package is looked for in AMENT_PREFIX_PATH and ROS_PACKAGE_PATH, then among the folders above the URDF.
    """
    candidates = list(_candidates(name, folder))
    return next((path for path in candidates if path.is_file()), candidates[0])


def _candidates(name: str, folder: Path) -> Iterator[Path]:
    scheme = next((scheme for scheme in SCHEMES if name.startswith(scheme)), "")
    rest = name.removeprefix(scheme)
    if scheme != "package://":
        yield folder / rest
        return
    package, _, path = rest.partition("/")
    for listed in (os.environ.get(key, "") for key in SEARCH_PATHS):
        for prefix in filter(None, listed.split(os.pathsep)):
            yield from (Path(prefix) / "share" / rest, Path(prefix) / rest)
    above = (folder.absolute(), *folder.absolute().parents)
    yield from (place / path if place.name == package else place / rest for place in above)
    yield from (place / path for place in above)  # a checkout may have another name than its package


def _root(content: bytes) -> ElementTree.Element | None:
    """Return the outermost element of an XML text; none where it cannot be parsed, which MuJoCo explains."""
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return None


def _included(
    root: ElementTree.Element, folder: Path, above: frozenset[Path] = frozenset()
) -> Iterator[tuple[str, bytes]]:
    """Iterate over the files that an MJCF in `folder` includes, by name; with a text alone MuJoCo cannot find them."""
    for element in root.iter("include"):
        path = folder / element.get("file", "")
        if path.is_file() and path not in above:
            content = regular_bytes(path)
            yield element.get("file", ""), content
            inner = _root(content)
            yield from () if inner is None else _included(inner, path.parent, above | {path})


def _prepared_urdf(robot: ElementTree.Element, file: Path) -> str:
    """Return a URDF with absolute mesh paths, without visuals that MuJoCo cannot read, which bodies show colliders."""
    _check_joints(robot, file)
    _check_masses(robot)
    extension = robot.find("mujoco")
    extension = ElementTree.SubElement(robot, "mujoco") if extension is None else extension
    compiler = extension.find("compiler")
    compiler = ElementTree.SubElement(extension, "compiler") if compiler is None else compiler
    folder = file.parent / compiler.attrib.pop("meshdir", "")
    compiler.attrib.update(URDF_COMPILER)
    for link in robot.iter("link"):
        for shape in [*link.findall("visual"), *link.findall("collision")]:
            mesh = shape.find("geometry/mesh")
            if mesh is None:
                continue
            name = mesh.get("filename", "")
            path = resolved(name, folder)
            if shape.tag == "visual" and path.suffix.lower() not in MESH_FORMATS:
                link.remove(shape)
            elif name.startswith("package://") and not path.is_file():
                raise FileNotFoundError(
                    f"{file}: link {shown(link.get('name'))}: no file {name}; its package is looked for in "
                    f"{' and '.join(SEARCH_PATHS)}, and in the folders above the URDF"
                )
            mesh.set("filename", os.path.abspath(path))
    for material in robot.iter("material"):
        for texture in material.findall("texture"):
            material.remove(texture)
    return ElementTree.tostring(robot, encoding="unicode")


def _check_joints(robot: ElementTree.Element, file: Path) -> None:
    """Raise ValueError for names that occur twice, and for joints that follow none: MuJoCo drops these in silence."""
    for kind in ("link", "joint"):
        if twice := repeated(element.get("name", "") for element in robot.findall(kind)):
            raise ValueError(f"several {kind}s are called {comma_separated(map(shown, twice))}: rename all but one")
    known = [joint.get("name", "") for joint in robot.findall("joint")]
    for joint in robot.findall("joint"):
        name, mimic = joint.get("name", ""), joint.find("mimic")
        follows = name if mimic is None else mimic.get("joint", "")
        if mimic is not None and follows == name:
            raise ValueError(f"joint {shown(name)} mimics itself: name the joint that it follows")
        if follows not in known:
            raise ValueError(
                f"joint {shown(name)} mimics {shown(follows)}, which is no joint; known: {known}."
                f"{did_you_mean(follows, known)}"
            )


def _check_masses(robot: ElementTree.Element) -> None:
    """Raise ValueError for a link with a negative mass, which MuJoCo takes for 0 where the link does not move."""
    for link in robot.findall("link"):
        mass = link.find("inertial/mass")
        value = None if mass is None else _numbers(mass.get("value", ""))
        if value and min(value) < 0:
            raise ValueError(f"link {shown(link.get('name'))} weighs {min(value):g} kg; expected 0 kg or more")


def _check_numbers(roots: Sequence[ElementTree.Element]) -> None:
    """Raise ValueError for a number that is not finite; MuJoCo takes NaN for "not stated", or simulates with it.

    Limits may be infinite, and names may read like numbers.
    """
    elements = [element for root in roots for element in root.iter()]
    names = {element.get(key) for element in elements for key in ("name", "class", "model")}
    for element in elements:
        for key, value in element.attrib.items():
            limit = element.tag in ("limit", "safety_controller") or key.endswith("range")
            numbers = _numbers(value) if value not in names else ()
            if any(math.isnan(number) or (math.isinf(number) and not limit) for number in numbers):
                owner = f" {shown(element.get('name'))}" if element.get("name") else ""
                raise ValueError(f"<{element.tag}>{owner} has {key}={shown(value)}; expected finite numbers")


def _numbers(text: str) -> list[float]:
    """Return the numbers of an attribute; none where it holds a word."""
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []


def _check_mesh(path: Path, what: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{what}: no file {path}")
    if path.suffix.lower() not in MESH_FORMATS:
        raise ValueError(
            f"{what}: MuJoCo cannot read {path}; expected one of {', '.join(MESH_FORMATS)}: convert it, for instance "
            "with Blender or trimesh, and name the new file"
        )
    if kind := foreign_file(path):
        raise ValueError(f"{what}: {path}: {kind}")
