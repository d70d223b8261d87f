"""Capsules in place of single geoms.

A box becomes capsules side by side along its longest edge, as thick as its thinnest edge; its corners are lost, or
nearly kept by two layers of thinner capsules. A mesh is replaced by its bounding box in its own axes.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

ROUND = (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER)

Stick = tuple[NDArray[np.float64], NDArray[np.float64], float]
"""Two ends [m] and a radius [m]."""


def body_sticks(model: mujoco.MjModel, geom: int, layers: int = 1) -> list[Stick]:
    """Return the capsules of a geom in the frame of its body."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    R, p = rotation.reshape(3, 3), model.geom_pos[geom]
    return [(p + R @ a, p + R @ b, radius) for a, b, radius in geom_sticks(model, geom, layers)]


def geom_sticks(model: mujoco.MjModel, geom: int, layers: int = 1) -> list[Stick]:
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
