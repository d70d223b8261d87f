"""Stable resting poses of an object on the table, from its hull, settled and held in MuJoCo.

A facet of the hull is stable when the centre of mass stands over it; an object that lands on another facet tips over
the edge it overhangs most, until it is stable.  The solid angles that end on one facet are the probability of its
pose.  Each pose is then simulated with the very pieces that the task uses; what does not stay is dropped.
"""

import logging
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from scipy.spatial import ConvexHull

mujoco.set_mju_user_warning(logging.getLogger("dexgrasp").debug)  # else printed, and put into ./MUJOCO_LOG.TXT

MERGE_RAD = np.deg2rad(10)
"""Poses whose down directions differ by less are one pose (they are equal up to yaw)."""
MAX_POSES = 8
"""Round objects have no end of poses: the likeliest are kept."""
MIN_PROB = 0.01
"""Poses rarer than this are left out."""
HEIGHT_TOLERANCE = 0.04
"""Poses of a round thing, which may stand for each other, differ by less than this share of their height."""
STEP_S = 0.004
"""At twice this step a light coin on one piece sinks and trembles on the plane (measured)."""
SETTLE_S, HOLD_S = 0.6, 0.8
HOLD_RAD = np.deg2rad(4)
"""Most turn while a pose is held; well under the 10 degrees that users of a pose may rely on for 2 s."""
FREE_DAMPING = 1e-3
"""Damping of the free joint, which ends endless rolling [N s/m, N m s/rad]."""


def resting_poses(pieces: np.ndarray, mass: float, inertia: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the stable resting poses of an object on a flat table.

    Heights (r,) [m], orientations (r, 4) wxyz and probabilities (r,).

    pieces (p, 64, 3) in the object frame, whose origin is the centre of mass.  At least one pose is returned, or
    ValueError says that none was found.
    """
    down, prob = stable_directions(pieces.reshape(-1, 3))
    model = object_on_table(pieces, mass, inertia)
    heights, quats, kept = [], [], []
    for direction, weight in zip(down, prob, strict=True):
        settled = _settle(model, pieces, _quat_down(direction))
        if settled is None:
            continue
        height, quat = settled
        twin = next((k for k, q in enumerate(quats) if _down_angle(q, quat) < MERGE_RAD), None)
        if twin is None:
            heights.append(height)
            quats.append(quat)
            kept.append(weight)
        else:
            kept[twin] += weight
    if not kept:
        raise ValueError("the object comes to rest in no pose")
    return np.array(heights), np.array(quats), np.array(kept) / sum(kept)


def stable_directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the down directions (k, 3) of the statically stable poses, with probabilities.

    Object frame; likeliest first.

    points (n, 3) about the centre of mass; quasi-static tipping over the facets of their hull.
    """
    hull = ConvexHull(np.asarray(points, float))
    normals = hull.equations[:, :3]
    share = _solid_angles(hull.points[hull.simplices])
    lands = _tips_to(hull)
    weight = np.bincount(lands, weights=share, minlength=len(normals))
    down, prob = [], []
    for k in np.argsort(-weight, kind="stable"):
        if weight[k] <= 0:
            break
        near = [i for i, d in enumerate(down) if d @ normals[k] > np.cos(MERGE_RAD)]
        if near:
            prob[near[0]] += weight[k]
        else:
            down.append(normals[k])
            prob.append(weight[k])
    heights = (points @ np.array(down).T).max(axis=0)
    return _likeliest(np.array(down), np.array(prob), heights)


def _likeliest(down: np.ndarray, prob: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most MOST_POSES poses with their probabilities.

    A round object lies on its side in any number of ways, all at one height: each height keeps its likeliest pose
    first, and poses left out add their probability to those of their height.
    """
    prob = prob / prob.sum()
    group = np.array([np.flatnonzero(np.abs(heights / h - 1) < HEIGHT_TOLERANCE)[0] for h in heights])
    total = np.bincount(group, weights=prob, minlength=len(prob))
    order = np.argsort(-prob, kind="stable")
    order = [k for k in order if total[group[k]] >= MIN_PROB or k == order[0]]
    rank = {k: sum(group[i] == group[k] for i in order[:at]) for at, k in enumerate(order)}
    chosen = sorted(order, key=lambda k: (rank[k] > 0, -prob[k]))[:MAX_POSES]
    share = np.bincount(group[chosen], weights=prob[chosen], minlength=len(prob))
    kept = np.array([prob[k] * total[group[k]] / share[group[k]] for k in chosen])
    return down[chosen], kept / kept.sum()


def object_on_table(pieces: np.ndarray, mass: float, inertia: np.ndarray) -> mujoco.MjModel:
    """Return a free body of convex pieces (p, 64, 3) over the plane z = 0.

    Contacts have the task's settings.
    """
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep, option.integrator = STEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 3
    surface = {"solref": [0.01, 1], "solimp": [0.95, 0.99, 0.001, 0.5, 2], "friction": [1, 0.01, 0.0005]}
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], contype=1, conaffinity=0, **surface)
    contact = {"contype": 0, "conaffinity": 1, "condim": 3, **surface}
    add_free_object(spec, "object", pieces, mass=mass, inertia=inertia, damping=FREE_DAMPING, contact=contact)
    return spec.compile()


def add_free_object(
    spec: mujoco.MjSpec,
    name: str,
    pieces: np.ndarray,
    *,
    mass: float,
    inertia: np.ndarray,
    damping: float,
    contact: Mapping[str, Any],
) -> None:
    """Add a free body of convex pieces (p, n, 3) with its origin at the centre of mass.

    `contact`: attributes of its geoms.
    """
    body = spec.worldbody.add_body(name=name)
    body.add_freejoint().damping = [damping, 0, 0]
    body.explicitinertial, body.mass, body.ipos = True, mass, [0, 0, 0]
    body.fullinertia = [*np.diag(inertia), inertia[0, 1], inertia[0, 2], inertia[1, 2]]
    for k, points in enumerate(pieces):
        mesh = f"{name}_piece{k}"
        spec.add_mesh(name=mesh, uservert=np.asarray(points, float).ravel())
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, **contact)


def rotation_angle_rad(quat_a: np.ndarray, quat_b: np.ndarray) -> float:
    """Return the angle between two orientations wxyz [rad]."""
    return float(2 * np.arccos(np.clip(abs(np.dot(quat_a, quat_b)), 0, 1)))


def _settle(model: mujoco.MjModel, pieces: np.ndarray, quat: np.ndarray) -> tuple[float, np.ndarray] | None:
    data = mujoco.MjData(model)
    data.qpos[:] = [0, 0, _height(pieces, quat), *quat]
    mujoco.mj_step(model, data, nstep=round(SETTLE_S / STEP_S))
    start = data.qpos.copy()
    mujoco.mj_step(model, data, nstep=round(HOLD_S / STEP_S))
    if not np.isfinite(data.qpos).all() or rotation_angle_rad(start[3:], data.qpos[3:]) > HOLD_RAD:
        return None
    rest = data.qpos[3:] / np.linalg.norm(data.qpos[3:])
    return _height(pieces, rest), rest


def _height(pieces: np.ndarray, quat: np.ndarray) -> float:
    """Return the height of the origin at which the lowest point touches the table [m]."""
    return float(-(pieces.reshape(-1, 3) @ _matrix(quat)[2]).min())


def _solid_angles(triangles: np.ndarray) -> np.ndarray:
    """Return the solid angle of each triangle (n, 3, 3) seen from the origin (van Oosterom and Strackee 1983)."""
    a, b, c = triangles.transpose(1, 0, 2)
    la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
    top = np.abs(np.einsum("ni,ni->n", a, np.cross(b, c)))
    ab, ac, bc = (np.einsum("ni,ni->n", *pair) for pair in ((a, b), (a, c), (b, c)))
    return 2 * np.arctan2(top, la * lb * lc + ab * lc + ac * lb + bc * la) % (2 * np.pi)


def _tips_to(hull: ConvexHull) -> np.ndarray:
    """Return the facet on which an object that lands on each facet ends up (index of itself when stable)."""
    normals, offsets = hull.equations[:, :3], hull.equations[:, 3]
    below = -offsets[:, None] * normals  # the centre of mass projected on each facet's plane
    corners = hull.points[hull.simplices]
    step = np.arange(len(normals))
    worst = np.zeros(len(normals))
    for k in range(3):  # qhull: neighbor k lies across the edge opposite to corner k
        p, q, opposite = corners[:, (k + 1) % 3], corners[:, (k + 2) % 3], corners[:, k]
        edge_normal = np.cross(q - p, normals)
        edge_normal *= np.sign(np.einsum("ni,ni->n", edge_normal, p - opposite))[:, None]
        outside = np.einsum("ni,ni->n", edge_normal, below - p)
        outside /= np.maximum(np.linalg.norm(edge_normal, axis=1), 1e-12)
        # tipping lowers the centre of mass, so the neighbour's plane must be nearer to it
        downhill = -offsets[hull.neighbors[:, k]] < -offsets
        better = (outside > worst) & downhill
        step = np.where(better, hull.neighbors[:, k], step)
        worst = np.where(better, outside, worst)
    for _ in range(int(np.ceil(np.log2(len(step) + 1)))):
        step = step[step]
    return step


def _quat_down(direction: np.ndarray) -> np.ndarray:
    """Return the shortest rotation (4,) wxyz that takes a unit direction of the object to world -z."""
    if direction[2] > 1 - 1e-9:
        return np.array([0.0, 1.0, 0.0, 0.0])
    axis = np.cross(direction, [0, 0, -1])
    quat = np.array([1 - direction[2], *axis])
    return quat / np.linalg.norm(quat)


def _down_angle(quat_a: np.ndarray, quat_b: np.ndarray) -> float:
    return float(np.arccos(np.clip(_matrix(quat_a)[2] @ _matrix(quat_b)[2], -1, 1)))


def _matrix(quat: np.ndarray) -> np.ndarray:
    """Return the rotation matrix by MuJoCo's formula: the bytes of generated libraries depend on its rounding."""
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, np.asarray(quat, float))
    return flat.reshape(3, 3)
