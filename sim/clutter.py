"""Several library objects at rest on one table: spread out, packed together, or piled.

Objects are dropped or pushed together in MuJoCo until they rest. What comes out is poses, so that an image, a viewer
or an environment can build its own scene of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dexgrasp.sim.objects import ObjectLibrary, ObjectModel
from dexgrasp.sim.objects.resting_poses import add_free_object
from dexgrasp.sim.scene import GRAVITY_M_S2, jacobian_form

Layout = Literal["spread", "packed", "piled"]
"""spread: apart; packed: side by side, pushed together; piled: half of the objects dropped on the others."""
LAYOUTS = ("spread", "packed", "piled")
ContactClass = Literal["free", "touching", "stacked"]
CONTACT_CLASSES = ("free", "touching", "stacked")

AREA_M = 0.28
"""Objects rest with their centres no further than this from the middle of the table."""
SPREAD_GAP_M = 0.02
"""Least gap between the spheres around spread objects, and between those that are about to be pushed together."""
CONTACT_GAP_M = 0.004
"""Objects that are no further apart touch."""
SLOPE = 0.5
"""Vertical part of a contact's normal from which on one object carries the other: at most 60 degrees from vertical."""
STEP_S, PUSH_S, REST_S, MAX_REST_S = 0.004, 0.8, 0.4, 2.4
"""Time step, duration of the push, and of the search for rest: in pieces, at most so long in total [s]."""
PUSH_M_S2 = 6.0
"""Acceleration towards the middle; friction on the table takes half of it."""
STILL_M_S = 0.02
"""Speed below which an object rests, of its centre and of points 5 cm from it."""
TRIES, PLACES = 40, 400
"""Scenes that are drawn before a layout is given up, and places that are looked at for one object."""


@dataclass(frozen=True)
class PlacedObject:
    """An object at rest."""

    model: ObjectModel
    pos_w: NDArray[np.float64]
    """(3,) origin of the object, world frame [m]."""
    quat_w: NDArray[np.float64]
    """(4,) wxyz."""
    contact: ContactClass
    """free: apart from the other objects; stacked: on one or below one; touching: beside one."""


def draw_clutter(library: ObjectLibrary, count: int, layout: Layout, rng: np.random.Generator) -> list[PlacedObject]:
    """Return `count` objects of a library at rest on the table z = 0, in the given layout.

    The same state of `rng` gives the same scene. Raises ValueError where the objects do not find room or rest.
    """
    for _ in range(TRIES):
        names = [library.names[int(number)] for number in rng.choice(len(library), count, replace=count > len(library))]
        models = sorted((library[name] for name in names), key=lambda model: -float(model.extents.max()))
        placed = settle(models, layout, rng)
        if placed is not None:
            return placed
    raise ValueError(f"{count} objects of {library.spec} found no rest within {AREA_M} m in {TRIES} tries ({layout})")


def draw_around(
    wanted: ObjectModel, library: ObjectLibrary, count: tuple[int, int], layout: Layout, rng: np.random.Generator
) -> list[PlacedObject]:
    """Return an object and others of its library at rest on the table z = 0, the wanted one first.

    Their number is drawn from the range `count`, which includes the wanted one; where so many find no room or rest,
    there are fewer of them. The state of `rng` decides the scene. Raises ValueError where not even the least number
    finds rest.
    """
    others = [name for name in library.names if name != wanted.name]
    for number in range(int(rng.integers(count[0], count[1] + 1)), count[0] - 1, -1):
        for _ in range(TRIES):
            names = [others[int(i)] for i in rng.choice(len(others), number - 1, replace=False)]
            models = sorted([wanted, *(library[name] for name in names)], key=lambda model: -float(model.extents.max()))
            if placed := settle(models, layout, rng):
                return sorted(placed, key=lambda one: one.model is not wanted)
    raise ValueError(
        f"{wanted.name} and {count[0] - 1} other objects of {library.spec} found no rest within {AREA_M} m in {TRIES} "
        f"tries ({layout}): ask for fewer with task.scene.objects"
    )


def settle(models: Sequence[ObjectModel], layout: Layout, rng: np.random.Generator) -> list[PlacedObject] | None:
    """Return the objects at rest, or None where that fails.

    None: one finds no room, does not rest, or rolls out of the area. In a pile the first half of the list lies below
    the others.
    """
    starts = _starting_poses(models, layout, rng)
    if starts is None:
        return None
    scene = _physics(models)
    data = mujoco.MjData(scene)
    data.qpos[:] = np.concatenate([np.concatenate(pose) for pose in starts])
    if layout != "spread":
        _push_together(scene, data, len(models) if layout == "packed" else _base_count(len(models)))
    if not _come_to_rest(scene, data):
        return None
    poses = data.qpos.reshape(len(models), 7)
    if np.linalg.norm(poses[:, :2], axis=1).max() > AREA_M or poses[:, 2].min() < 0:
        return None
    return _placed(models, scene, data)


def let_fall(models: Sequence[ObjectModel], poses: NDArray[np.float64]) -> list[PlacedObject]:
    """Return objects where they come to rest from poses (object, 7), or where they are after 2.4 s.

    `poses`: position [m] and orientation, wxyz.
    """
    scene = _physics(models)
    data = mujoco.MjData(scene)
    data.qpos[:] = poses.reshape(-1)
    _come_to_rest(scene, data)
    return _placed(models, scene, data)


def _placed(models: Sequence[ObjectModel], scene: mujoco.MjModel, data: mujoco.MjData) -> list[PlacedObject]:
    """Return the objects where they are, with their contacts."""
    poses = data.qpos.reshape(len(models), 7).copy()
    contacts = contact_classes(scene, data, len(models))
    return [
        PlacedObject(model=model, pos_w=pose[:3].copy(), quat_w=pose[3:] / np.linalg.norm(pose[3:]), contact=contact)
        for model, pose, contact in zip(models, poses, contacts, strict=True)
    ]


def _base_count(count: int) -> int:
    """Return how many objects of a pile start on the table."""
    return count - count // 2


def _starting_poses(
    models: Sequence[ObjectModel], layout: Layout, rng: np.random.Generator
) -> list[tuple[NDArray, NDArray]] | None:
    """Return positions and orientations: in resting poses on the table, those to be dropped above them."""
    on_table = _base_count(len(models)) if layout == "piled" else len(models)
    centres, radii, poses, top_m = np.zeros((0, 2)), np.zeros(0), [], 0.0
    for number, model in enumerate(models):
        rest = int(rng.choice(len(model.rest_prob), p=model.rest_prob))
        yaw = Rotation.from_rotvec([0, 0, rng.uniform(0, 2 * np.pi)])
        resting = Rotation.from_quat(model.rest_quat[rest], scalar_first=True)
        quat, height_m = (yaw * resting).as_quat(scalar_first=True), float(model.rest_height[rest])
        turned = resting.apply(model.vertices)
        upper_m = float(turned[:, 2].max())
        if number < on_table:
            radius = float(np.linalg.norm(turned[:, :2], axis=1).max())
            centre = _free_place(centres, radii, radius, rng)
            if centre is None:
                return None
            centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
            top_m = max(top_m, height_m + upper_m)
        else:
            centre, height_m = rng.uniform(-0.04, 0.04, 2), top_m + height_m
            top_m = height_m + upper_m
        poses.append((np.array([*centre, height_m + 1e-3]), quat))
    return poses


def _free_place(centres: NDArray, radii: NDArray, radius: float, rng: np.random.Generator) -> NDArray | None:
    """Return a place (2,) for a disc of `radius` among the others; those near the middle are preferred."""
    places = rng.uniform(-AREA_M, AREA_M, (PLACES, 2))
    places = places[np.linalg.norm(places, axis=1) < AREA_M - 0.02]
    gaps = np.linalg.norm(places[:, None] - centres[None], axis=2) - radii - radius
    fits = places[(gaps > SPREAD_GAP_M).all(axis=1)]
    return None if not len(fits) else fits[np.linalg.norm(fits, axis=1).argmin()]


def _physics(models: Sequence[ObjectModel]) -> mujoco.MjModel:
    """Return free bodies of the objects' convex pieces over the plane z = 0."""
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep, option.integrator = STEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 3
    option.gravity, option.jacobian = [0, 0, -GRAVITY_M_S2], jacobian_form(mujoco.__version__)
    surface = {"solref": [0.01, 1], "solimp": [0.95, 0.99, 0.001, 0.5, 2], "friction": [0.3, 0.01, 0.001], "condim": 4}
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], **surface)
    for number, obj in enumerate(models):
        add_free_object(
            spec,
            f"object{number}",
            obj.pieces,
            mass=obj.mass,
            inertia=obj.inertia,
            damping=0.02 * obj.mass,
            contact=surface,
        )
    return spec.compile()


def _push_together(scene: mujoco.MjModel, data: mujoco.MjData, count: int) -> None:
    """Push the first `count` objects towards the middle of the table; the others are held in the air."""
    waiting = slice(7 * count, None)
    above = data.qpos[waiting].copy()
    for _ in range(round(PUSH_S / STEP_S)):
        inward = -data.xipos[1 : count + 1, :2]
        inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 0.03)
        data.xfrc_applied[1 : count + 1, :2] = PUSH_M_S2 * scene.body_mass[1 : count + 1, None] * inward
        mujoco.mj_step(scene, data)
        data.qpos[waiting], data.qvel[6 * count :] = above, 0.0
    data.xfrc_applied[:] = 0


def _come_to_rest(scene: mujoco.MjModel, data: mujoco.MjData) -> bool:
    """Step until all objects rest; return whether they do."""
    reach = np.array([1, 1, 1, 0.05, 0.05, 0.05])
    for _ in range(round(MAX_REST_S / REST_S)):
        mujoco.mj_step(scene, data, nstep=round(REST_S / STEP_S))
        if np.abs(data.qvel.reshape(-1, 6) * reach).max() < STILL_M_S:
            return bool(np.isfinite(data.qpos).all())
    return False


def contact_classes(scene: mujoco.MjModel, data: mujoco.MjData, count: int) -> list[ContactClass]:
    """Return the class of contact of each object, bodies 1 to `count`.

    Margins and gaps of the scene are changed.
    """
    scene.geom_margin[:] = 0
    scene.geom_gap[:] = CONTACT_GAP_M / 2  # those of both geoms add up
    mujoco.mj_forward(scene, data)
    rank = np.zeros(count, np.int64)
    for contact in data.contact:
        pair = scene.geom_bodyid[contact.geom] - 1
        if pair.min() >= 0:
            rank[pair] = np.maximum(rank[pair], 2 if abs(contact.frame[2]) > SLOPE else 1)
    return [CONTACT_CLASSES[int(value)] for value in rank]
