"""Synthetic depth images of objects on a table with realistic errors, and per-pixel ground truth.

Rays are cast by MuJoCo without any graphics library; noise, holes and flying pixels are those of a stereo camera. The
same seed gives the same image. One kind of scene per difficulty; SCENES says which.
"""

from dataclasses import dataclass, field

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics
from dexgrasp.perception.robot_mask import Capsules
from dexgrasp.perception.transforms import quat_rotate_inverse
from dexgrasp.sim.objects import ObjectLibrary, ObjectModel
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_depth_errors, highlight_holes, table_bumps

CAMERA = Intrinsics(width=640, height=480, fx=385.0, fy=385.0, cx=319.5, cy=239.5)
"""The pinhole of a D435 at this size."""
TABLE_M = (0.6, 0.45)
"""Half sides of the table; behind it is nothing within the range."""
ROUGH_M = 0.03
"""From the lowest to the highest part of the rough table: five standard deviations."""
SCENES = {
    "plain": "one object",
    "flat": "a box, 8 to 10 mm high",
    "glossy": "holes over a third of the object",
    "missing": "40 % of all pixels missing",
    "two": "two objects; the one that is chosen, whole and alone, is right",
    "border": "the object cut by the border of the image",
    "tilted": "table tilted by 10 degrees",
    "texture": "depth of the table wrong in patches of 3 cm, standard deviation 2 mm",
    "rough": "table uneven by 3 cm from top to bottom, bumps 6 cm apart; the object 6 cm or higher",
    "hand": "a hand above the object, its capsules known",
}


@dataclass(frozen=True)
class View:
    """Ranges that the camera is drawn from."""

    distance_m: tuple[float, float] = (0.5, 0.9)
    elevation_deg: tuple[float, float] = (30, 80)
    """Angle above the table."""
    pixel: tuple[tuple[float, float], tuple[float, float]] = ((220, 160), (420, 320))
    """Lower and upper (column, row) at which the middle of the table is seen."""


@dataclass(frozen=True)
class DepthScene:
    """Depth image of a scene with its ground truth."""

    kind: str
    frame: DepthFrame
    labels: NDArray[np.int8] = field(repr=False)
    """(rows, columns) number of the object seen in each pixel, from 1; 0 = table, hand, hole, flying pixel."""
    capsules: Capsules | None = None
    """The hand in view."""


def make_scene(kind: str, library: ObjectLibrary, seed: int) -> DepthScene:
    """Return a scene of the kind `kind` (a key of SCENES), with objects of the library."""
    if kind not in SCENES:
        raise ValueError(f"no kind of scene '{kind}'; known: {', '.join(SCENES)}")
    rng = np.random.default_rng([list(SCENES).index(kind), seed])
    spec, tilt = mujoco.MjSpec(), _tilt(rng, np.radians(10 if kind == "tilted" else 0))
    spec.worldbody.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=(*TABLE_M, 0.01), pos=tilt @ (0, 0, -0.01), quat=_quat(tilt)
    )
    if kind == "flat":
        size = (*rng.uniform(0.02, 0.05, 2), rng.uniform(0.004, 0.005))
        spec.worldbody.add_geom(
            name="object1", type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=(0, 0, size[2]), quat=_yaw(rng)
        )
    else:
        place_w = np.zeros(3)
        for number in range(1, 3 if kind == "two" else 2):
            model, rest = _draw_object(library, rng, ROUGH_M * 2 if kind == "rough" else 0.0)
            place_w = _add_object(spec, model, rest, number, place_w, tilt, rng)
    capsules = _add_hand(spec, rng) if kind == "hand" else None
    model = spec.compile()
    T_world_cam = draw_camera(rng, View(), at_border=kind == "border")
    depth_m, labels = cast(model, CAMERA, T_world_cam)
    if kind in ("texture", "rough"):
        sd_m, width_m = (0.002, 0.03) if kind == "texture" else (ROUGH_M / 5, 0.06)
        depth_m += np.where(labels == 0, table_bumps(depth_m, CAMERA, T_world_cam, sd_m, width_m, rng), 0)
    if kind == "glossy":
        depth_m[highlight_holes(labels > 0, rng)] = 0
    flying = add_depth_errors(
        depth_m, CAMERA, DepthNoiseDraws.draw(depth_m.shape, rng, missing=0.4 if kind == "missing" else 0.02)
    )
    labels[(depth_m == 0) | flying] = 0
    frame = DepthFrame(depth_m=depth_m.astype(np.float32), intrinsics=CAMERA, stamp_s=0.0, T_world_cam=T_world_cam)
    return DepthScene(kind=kind, frame=frame, labels=np.maximum(labels, 0).astype(np.int8), capsules=capsules)


def overlap(found: NDArray[np.bool_], labels: NDArray[np.int8]) -> float:
    """Return the intersection over union of the found pixels and their best-matching object.

    `found`, `labels`: (rows, columns); the object is the one that they overlap most.
    """
    common = np.bincount(labels[found & (labels > 0)], minlength=2)
    return iou(found, labels == max(1, int(common.argmax())))


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks; 0 where both are empty."""
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def cast(
    model: mujoco.MjModel, camera: Intrinsics, T_world_cam: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return depth [m] and label of every pixel, (rows, columns).

    Label n for the geom named objectn, 0 for any other, -1 where nothing is.
    """
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    rays = camera.rays().reshape(2, -1).astype(np.float64)
    rays_c = np.concatenate([rays, np.ones((1, rays.shape[1]))])
    length = np.linalg.norm(rays_c, axis=0)
    directions_w = np.ascontiguousarray((T_world_cam[:3, :3] @ (rays_c / length)).T)
    geom, distance = np.empty(len(length), np.int32), np.empty(len(length))
    origin = np.ascontiguousarray(T_world_cam[:3, 3])
    mujoco.mj_multiRay(
        model, data, origin, directions_w.reshape(-1), None, 1, -1, geom, distance, None, len(length), mujoco.mjMAXVAL
    )
    names = [model.geom(number).name for number in range(model.ngeom)]
    numbers = np.array([int(name[6:]) if name.startswith("object") else 0 for name in names] + [-1])
    depth_m = np.where(geom >= 0, distance / length, 0.0)
    return depth_m.reshape(camera.height, camera.width), numbers[geom].reshape(camera.height, camera.width)


def add_visual(spec: mujoco.MjSpec, model: ObjectModel, number: int, pos: NDArray, quat: NDArray) -> None:
    """Add the mesh of an object, which rays hit, as the geom `objectNUMBER` at a pose in the world."""
    name = f"object{number}"
    mesh = spec.add_mesh(name=name, uservert=model.vertices.ravel().tolist(), userface=model.faces.ravel().tolist())
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    body = spec.worldbody.add_body(pos=pos, quat=quat)
    body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, contype=0, conaffinity=0)


def _draw_object(library: ObjectLibrary, rng: np.random.Generator, height_m: float) -> tuple[ObjectModel, int]:
    """Return an object and the number of one of its resting poses, in which it is at least so high."""
    while True:
        model = library[library.names[int(rng.integers(len(library)))]]
        rest = int(rng.choice(len(model.rest_prob), p=model.rest_prob))
        up_o = quat_rotate_inverse(torch.from_numpy(model.rest_quat[rest]), torch.tensor([0.0, 0.0, 1.0]).double())
        if np.ptp(model.vertices @ up_o.numpy()) >= height_m:
            return model, rest


def _add_object(
    spec: mujoco.MjSpec,
    model: ObjectModel,
    rest: int,
    number: int,
    beside_w: NDArray,
    tilt: NDArray,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Put an object at rest on the table, clear of a first one; return a place beside it."""
    yaw, resting = (Rotation.from_quat(quat, scalar_first=True) for quat in (_yaw(rng), model.rest_quat[rest]))
    radius = float(np.linalg.norm(model.vertices, axis=1).max())
    pos = tilt @ (beside_w[0] + (radius if number > 1 else 0), 0, model.rest_height[rest])
    quat = (Rotation.from_matrix(tilt) * yaw * resting).as_quat(scalar_first=True)
    add_visual(spec, model, number, pos, quat)
    return np.array([radius + rng.uniform(0.025, 0.06), 0, 0])


def _add_hand(spec: mujoco.MjSpec, rng: np.random.Generator) -> Capsules:
    """Add a palm and four fingers that hang around the object; return their capsules."""
    yaw, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.2)
    across, along = np.array([-np.sin(yaw), np.cos(yaw), 0]), np.array([np.cos(yaw), np.sin(yaw), 0])
    palm = np.array([0, 0, height]) - 0.07 * along
    starts = [palm - 0.04 * across, *(palm + side * across for side in (-0.045, -0.015, 0.015, 0.045))]
    down = [0.06 * along + (0, 0, -rng.uniform(0.02, 0.05)) for _ in range(4)]
    ends = [palm + 0.04 * across, *(start + step for start, step in zip(starts[1:], down, strict=True))]
    radii = np.array([0.03, 0.012, 0.012, 0.012, 0.012])
    for start, end, radius in zip(starts, ends, radii, strict=True):
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=(radius, 0, 0), contype=0, conaffinity=0
        )
    return Capsules(np.array(starts), np.array(ends), radii)


def draw_camera(rng: np.random.Generator, view: View, at_border: bool = False) -> NDArray[np.float64]:
    """Return a camera pose (4, 4) towards the middle of the table, drawn from the ranges of `view`.

    `at_border`: the middle of the table lies at the border of the image.
    """
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(*view.elevation_deg))
    towards = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.cross((0, 0, 1.0), -towards)
    right = -right / np.linalg.norm(right)
    R = np.stack([right, np.cross(-towards, right), -towards], axis=1)
    pixel = rng.uniform(*view.pixel)
    if at_border:
        pixel = [(rng.uniform(2, 20), pixel[1]), (pixel[0], rng.uniform(460, 478))][int(rng.integers(2))]
    T = np.eye(4)
    T[:3, :3] = R @ _onto_axis(np.array([*CAMERA.rays_at(pixel), 1.0]))
    T[:3, 3] = rng.uniform(*view.distance_m) * towards + (0, 0, 0.02)
    return T


def _onto_axis(ray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation that takes the direction of `ray` to +z."""
    z = ray / np.linalg.norm(ray)
    v, c = np.cross(z, (0, 0, 1.0)), z[2]
    K = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + K + K @ K / (1 + c)


def _tilt(rng: np.random.Generator, angle_rad: float) -> NDArray[np.float64]:
    azimuth = rng.uniform(0, 2 * np.pi)
    lean = np.array([np.sin(angle_rad) * np.cos(azimuth), np.sin(angle_rad) * np.sin(azimuth), np.cos(angle_rad)])
    return _onto_axis(lean).T


def _quat(R: NDArray[np.float64]) -> NDArray[np.float64]:
    return Rotation.from_matrix(R).as_quat(scalar_first=True)


def _yaw(rng: np.random.Generator) -> NDArray[np.float64]:
    half = rng.uniform(0, np.pi)
    return np.array([np.cos(half), 0, 0, np.sin(half)])
