"""Registration of two passes of a thing that was turned over: global search, then ICP of open3d.

Poses from all directions are tried, each refined by ICP. A pose is judged by what both passes have seen: a point fits
where the other pass has seen a surface of its direction, and contradicts where the other pass has seen free space.
Poses that fit equally well are one where the thing is symmetric; otherwise colour decides, or the pair is refused.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dexgrasp.perception.scanning.frames import ScanError
from dexgrasp.perception.scanning.fusion import Surface
from dexgrasp.perception.scanning.open3d_import import open3d

STARTS = 200
"""Rotations from which ICP starts; the nearest one is at most about 25 degrees from any."""
COARSE_POINTS, FINE_POINTS = 500, 4000
COARSE_M = 0.02
"""Distance of corresponding points from the starts."""
FINE_M = 0.006, 0.0025
"""Distances of corresponding points, in order, of the best poses."""
TUKEY_M = 0.0015
"""Distance from which a corresponding point has no weight (Tukey's biweight)."""
NEAR_M = 0.006
"""Displacement of all points below which two rough poses are one."""
ROUGH_SHARE = 1.5
"""Poses are refined whose rough misfit is at most this share of the least one, plus MOST_MISFIT_M."""
KEPT = 30
"""Best poses that are refined."""
CLIP_M = 0.005
"""Largest distance that counts in the misfit."""
FIT_M = 0.002
"""Distance within which a point fits a seen surface; also that within which two shapes are one."""
MOST_MISFIT_M = 0.0008
"""Mean distance of contradicting points above which two passes do not fit."""
LEAST_OVERLAP = 0.3
"""Share of a pass's seen points that must fit a surface that the other pass has seen."""
TIE_M, TIE_SHARE = 0.0001, 0.25
"""Misfits that differ by less, absolute and relative, are equally good."""
COLOR_MARGIN = 0.03
"""Difference of colour, 0 to 1, from which it decides between poses that fit equally well."""


@dataclass(frozen=True)
class SeenSurface:
    """Closed surface of one pass."""

    surface: Surface
    seen: NDArray[np.bool_] = field(repr=False)
    """(f,) faces that a camera has seen; the others close the surface."""


@dataclass(frozen=True)
class Registration:
    """Pose of one pass in the frame of another one."""

    T_fixed_moving: NDArray[np.float64]
    """(4, 4)."""
    misfit_m: float
    """Mean distance of contradicting points; fitting ones within it count by their distance."""
    overlap: float
    """Share of the seen points that fit, of the pass with fewer."""


def register(moving: SeenSurface, fixed: SeenSurface) -> Registration:
    """Return the pose of `moving` in the frame of `fixed`.

    Raises ScanError where the passes do not fit, or fit in several ways that give different things.
    """
    pair = _Cloud(moving), _Cloud(fixed)
    rough = [_judge(*pair, _rough(*pair, T), COARSE_POINTS) for T in _starts(*pair)]
    rough.sort(key=lambda one: one.misfit_m)
    promising = [one for one in rough if one.misfit_m < ROUGH_SHARE * rough[0].misfit_m + MOST_MISFIT_M]
    best_of_each = _distinct(pair[0], promising)[:KEPT]
    found = [_judge(*pair, _refined(*pair, one.T), FINE_POINTS) for one in best_of_each]
    found = sorted((one for one in found if one.overlap >= LEAST_OVERLAP), key=lambda one: one.misfit_m)
    if not found or found[0].misfit_m > MOST_MISFIT_M:
        said = f"{1000 * found[0].misfit_m:.1f} mm apart" if found else "hardly any surface that both have seen"
        raise ScanError(
            f"the passes do not fit together ({said} at best): are they of one thing? Show at least its sides in both, "
            "let nothing bend or move in it, or scan one pass only"
        )
    least_m = found[0].misfit_m
    ties = [one for one in found if one.misfit_m < least_m + max(TIE_M, TIE_SHARE * least_m)]
    ties.sort(key=lambda one: one.color)
    best = ties[0]
    for other in ties[1:]:
        if other.color - best.color < COLOR_MARGIN and _differ(*pair, best, other):
            raise ScanError(
                "the passes fit together in several ways, which give different things: stick something that tells its "
                "sides apart (a coloured label, a lump of putty) to the side of the thing, and scan all passes again"
            )
    return Registration(T_fixed_moving=best.T, misfit_m=best.misfit_m, overlap=best.overlap)


class _Cloud:
    """Points of a surface, and the scene for distances from it."""

    def __init__(self, of: SeenSurface) -> None:
        surface = of.surface
        corners = surface.vertices[surface.faces]
        cross = surface.area_normals()
        double_area = np.maximum(np.linalg.norm(cross, axis=1), 1e-15)
        rng = np.random.default_rng(0)
        face = rng.choice(len(cross), FINE_POINTS, p=double_area / double_area.sum())
        share = rng.dirichlet(np.ones(3), FINE_POINTS)
        self.face_normals = cross / double_area[:, None]
        self.face_seen, self.face_color = of.seen, surface.color[surface.faces].mean(1)
        self.points = np.einsum("nk,nkd->nd", share, corners[face])
        self.normals, self.seen = self.face_normals[face], of.seen[face]
        self.color = np.einsum("nk,nkd->nd", share, surface.color[surface.faces[face]])
        volumes = np.einsum("fd,fd->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
        self.middle = (volumes[:, None] * corners.sum(1)).sum(0) / (4 * volumes.sum())
        self.scene = surface.raycasting_scene()
        self.coarse, self.fine = (self._open3d_cloud(count) for count in (COARSE_POINTS, FINE_POINTS))

    def _open3d_cloud(self, count: int) -> Any:
        o3d = open3d()
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(self.points[:count]))
        cloud.normals = o3d.utility.Vector3dVector(self.normals[:count])
        return cloud


@dataclass(frozen=True)
class _Pose:
    """One way to put the passes together."""

    T: NDArray[np.float64]
    misfit_m: float
    overlap: float
    color: float
    """Mean difference of colour where the passes fit, without the difference of their means."""


def _starts(moving: _Cloud, fixed: _Cloud) -> list[NDArray[np.float64]]:
    starts = []
    for R in Rotation.random(STARTS, rng=np.random.default_rng(0)).as_matrix():
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, fixed.middle - R @ moving.middle
        starts.append(T)
    return starts


def _rough(moving: _Cloud, fixed: _Cloud, T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pose after point-to-plane ICP of few points."""
    registration = open3d().pipelines.registration
    criteria = registration.ICPConvergenceCriteria(max_iteration=20)
    kind = registration.TransformationEstimationPointToPlane()
    done = registration.registration_icp(moving.coarse, fixed.coarse, COARSE_M, T, kind, criteria)
    return np.asarray(done.transformation)


def _refined(moving: _Cloud, fixed: _Cloud, T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pose after ICP of many points.

    What closes a pass takes part, with little weight where it is off: a flat bottom lies on the table.
    """
    registration = open3d().pipelines.registration
    criteria = registration.ICPConvergenceCriteria(max_iteration=30)
    kind = registration.TransformationEstimationPointToPlane(registration.TukeyLoss(k=TUKEY_M))
    for near_m in FINE_M:
        T = np.asarray(registration.registration_icp(moving.fine, fixed.fine, near_m, T, kind, criteria).transformation)
    return T


def _distinct(moving: _Cloud, poses: list[_Pose]) -> list[_Pose]:
    """Return poses without those that place the points near where an earlier one does."""
    kept: list[_Pose] = []
    places: list[NDArray[np.float64]] = []
    for pose in poses:
        place = moving.points[:COARSE_POINTS:5] @ pose.T[:3, :3].T + pose.T[:3, 3]
        if all(np.linalg.norm(place - other, axis=1).max() > NEAR_M for other in places):
            kept.append(pose)
            places.append(place)
    return kept


def _judge(moving: _Cloud, fixed: _Cloud, T: NDArray[np.float64], count: int) -> _Pose:
    there = _compare(moving, fixed, T, count)
    back = _compare(fixed, moving, np.asarray(np.linalg.inv(T), float), count)
    return _Pose(
        T=T,
        misfit_m=(there[0] + back[0]) / 2,
        overlap=min(there[1], back[1]),
        color=(there[2] + back[2]) / 2,
    )


def _compare(cloud: _Cloud, other: _Cloud, T: NDArray[np.float64], count: int) -> tuple[float, float, float]:
    """Return misfit [m], share of fitting points and difference of colour of the seen points of a cloud."""
    o3d = open3d()
    seen = cloud.seen[:count]
    points = cloud.points[:count][seen] @ T[:3, :3].T + T[:3, 3]
    normals = cloud.normals[:count][seen] @ T[:3, :3].T
    query = o3d.core.Tensor(points.astype(np.float32))
    distance = other.scene.compute_signed_distance(query).numpy()
    face = other.scene.compute_closest_points(query)["primitive_ids"].numpy()
    along = other.face_seen[face] & ((normals * other.face_normals[face]).sum(1) > 0.5)
    away = np.where(along, np.abs(distance), distance).clip(0, CLIP_M)
    fits = along & (away < FIT_M)
    if not fits.any():
        return float(away.mean()), 0.0, 1.0
    colors = cloud.color[:count][seen][fits] - other.face_color[face[fits]]
    return float(away.mean()), float(fits.mean()), float(np.abs(colors - colors.mean(0)).mean())


def _differ(moving: _Cloud, fixed: _Cloud, one: _Pose, other: _Pose) -> bool:
    """Return whether two poses give different things: the turn between them maps neither pass onto itself."""
    turn = np.linalg.inv(one.T) @ other.T
    turn_fixed = one.T @ np.linalg.inv(other.T)
    return not (_is_onto_itself(moving, turn) or _is_onto_itself(fixed, turn_fixed))


def _is_onto_itself(cloud: _Cloud, T: NDArray[np.float64]) -> bool:
    points = cloud.points[cloud.seen] @ T[:3, :3].T + T[:3, 3]
    away = cloud.scene.compute_distance(open3d().core.Tensor(points.astype(np.float32))).numpy()
    return bool(np.percentile(away, 98) < FIT_M)
