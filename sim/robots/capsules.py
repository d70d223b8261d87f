"""Capsules about the geoms of a model: of a hand for the training camera, of a whole robot for self-filtering.

A box becomes capsules side by side along its longest edge, as thick as its thinnest; its corners are lost, or nearly
kept by two layers of thinner ones. A mesh becomes the box about it in its own axes, rounded likewise.
"""

from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.occlusion import HandCapsules, HandOcclusion
from dexgrasp.perception.robot_mask import Capsules
from dexgrasp.perception.transforms import invert
from dexgrasp.sim.robots.hand import HandSpec

ROUND = (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER)
Stick = tuple[NDArray[np.float64], NDArray[np.float64], float]
"""Two ends [m] and a radius [m]."""


def hand_shape(hand: HandSpec) -> HandCapsules:
    """Return capsules around the collision geoms of a hand, in float32."""
    model = hand.to_mjspec().compile()
    kinematics = hand.kinematics()
    sticks = [(model.geom_bodyid[i] - 1, *stick) for i in range(model.ngeom) for stick in body_sticks(model, i)]
    body, start, end, radius = zip(*sticks, strict=True)
    return HandCapsules(
        kinematics=kinematics,
        body=tuple(int(number) for number in body),
        start=torch.from_numpy(np.stack(start)).float(),
        end=torch.from_numpy(np.stack(end)).float(),
        radius_m=torch.tensor(radius, dtype=torch.float32),
    )


def hand_shadow(hand: HandSpec, margin_m: float) -> HandOcclusion:
    """Return the occlusion model of a hand enlarged by `margin_m` [m]."""
    base_in_palm = invert(torch.tensor(hand.palm_pos_b), torch.tensor(hand.palm_quat_b))
    return HandOcclusion(hand_shape(hand), base_in_palm, margin_m)


def robot_capsules(model: mujoco.MjModel, data: mujoco.MjData, geoms: Sequence[int]) -> Capsules:
    """Return capsules around these geoms where `data` has them, world frame; corners stand out by 0.2 of a side."""
    sticks = [(i, *stick) for i in geoms for stick in _sticks(model, i, layers=2)]
    place = [(data.geom_xpos[i], data.geom_xmat[i].reshape(3, 3)) for i, *_ in sticks]
    ends = np.array([[p + R @ a, p + R @ b] for (p, R), (_, a, b, _) in zip(place, sticks, strict=True)])
    ends = ends.reshape(-1, 2, 3)
    return Capsules(ends[:, 0], ends[:, 1], np.array([radius for *_, radius in sticks]))


def body_sticks(model: mujoco.MjModel, geom: int, layers: int = 1) -> list[Stick]:
    """Return the capsules of a geom in the frame of its body."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    R, p = rotation.reshape(3, 3), model.geom_pos[geom]
    return [(p + R @ a, p + R @ b, radius) for a, b, radius in _sticks(model, geom, layers)]


def _sticks(model: mujoco.MjModel, geom: int, layers: int = 1) -> list[Stick]:
    """Return the capsules of a geom in its own frame."""
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return [(np.zeros(3), np.zeros(3), float(size[0]))]
    if kind in ROUND:
        half = np.array([0.0, 0.0, size[1]])
        return [(-half, half, float(size[0]))]
    if kind in (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID):
        return _of_box(np.zeros(3), size, layers)
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        box = model.geom_aabb[geom]
        return _of_box(box[:3], box[3:], layers)
    raise ValueError(f"geom '{model.geom(geom).name}' is a {kind.name}, which no capsule can stand for")


def _of_box(centre: NDArray[np.float64], half: NDArray[np.float64], layers: int) -> list[Stick]:
    thin, wide, long = np.argsort(half)
    radius = float(half[thin]) / layers
    along = np.eye(3)[long] * (half[long] - radius)
    places = [
        centre + np.eye(3)[thin] * deep + np.eye(3)[wide] * side
        for deep in _spread(float(half[thin]) - radius, radius)
        for side in _spread(float(half[wide]) - radius, radius)
    ]
    return [(place - along, place + along, radius) for place in places]


def _spread(room: float, radius: float) -> NDArray[np.float64]:
    """Return positions from -room to room, at most two radii apart; one in the middle where there is no room."""
    if room < 0.1 * radius:
        return np.zeros(1)
    return np.linspace(-room, room, max(2, int(np.ceil(room / radius)) + 1))
