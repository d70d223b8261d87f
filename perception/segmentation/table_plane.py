"""Table plane, fitted to the points of a depth image or known from calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import take_points

HYPOTHESES = 96
"""Planes through three points each. With half of the points on the table, all miss it once in 4e5 images."""
SAMPLE = 1024
"""Points on which hypotheses are compared."""
REFIT_SAMPLE = 8192
"""Points to which the best plane is fitted."""
REFITS = 3
MAD_TO_SD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
UP_W = np.array([0.0, 0.0, 1.0])


class NoPlaneError(ValueError):
    """Failure to find a nearly horizontal plane in the points."""


@dataclass(frozen=True)
class Plane:
    """Plane of the points x with normal · x = offset; the normal points up."""

    normal_w: NDArray[np.float64]
    """(3,) unit vector."""
    offset_m: float
    roughness_m: float = 0.0
    """Standard deviation of the table's points about the plane: noise, texture, unevenness; 0 = not measured."""

    def height(self, points_w: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the heights (n,) of points (3, n) over the plane [m]."""
        return self.normal_w.astype(points_w.dtype) @ points_w - points_w.dtype.type(self.offset_m)

    @property
    def tilt_rad(self) -> float:
        """Angle between the normal and the world's z axis."""
        return float(np.arccos(np.clip(self.normal_w[2], -1.0, 1.0)))


TABLE = Plane(UP_W, 0.0)
"""Table plane z = 0 of the world frame."""


def fit_plane(
    points_w: NDArray[np.float32],
    tolerance_m: float = 0.006,
    max_tilt_rad: float = 0.35,
    seed: int = 0,
) -> Plane:
    """Fit the table plane to points (3, n) by RANSAC and least squares; deterministic for a given seed.

    A plane scores higher the more points lie within `tolerance_m` of it and the fewer lie below: nothing is below a
    table, while the flat top of a box, however large, has the table below it.
    """
    rng = np.random.default_rng(seed)
    count = points_w.shape[1]
    if count < 3:
        raise NoPlaneError(f"{count} points make no plane")
    sample = take_points(points_w, rng.integers(count, size=min(SAMPLE, count))).astype(np.float64)
    normals, offsets = _hypotheses(sample, rng)
    upright = normals[:, 2] > np.cos(max_tilt_rad)
    if not upright.any():
        raise NoPlaneError(
            f"no plane within {np.degrees(max_tilt_rad):.0f} deg of horizontal among {count:,} points: "
            "is the pose of the camera right?"
        )
    normals, offsets = normals[upright], offsets[upright]
    height = normals @ sample - offsets[:, None]
    score = (np.abs(height) < tolerance_m).sum(1) - (height < -2 * tolerance_m).sum(1)
    best = int(score.argmax())
    fine = take_points(points_w, rng.integers(count, size=REFIT_SAMPLE)) if count > REFIT_SAMPLE else points_w
    return _refit(Plane(normals[best], float(offsets[best])), fine.astype(np.float64), tolerance_m)


def _hypotheses(sample: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Return upward normals (h, 3) and offsets (h,) of planes through three random points each."""
    a, b, c = sample[:, rng.integers(sample.shape[1], size=(3, HYPOTHESES))].transpose(1, 2, 0)
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 1e-9)
    normals *= np.where(normals[:, 2:] < 0, -1.0, 1.0)
    return normals, (normals * a).sum(1)


def _refit(plane: Plane, points: NDArray[np.float64], tolerance_m: float) -> Plane:
    """Refit the plane by least squares to the points near it.

    The band narrows to the measured roughness of the table.
    """
    band_m = 2 * tolerance_m
    for _ in range(REFITS):
        near = take_points(points, np.flatnonzero(np.abs(plane.height(points)) < band_m))
        if near.shape[1] < 3:
            break
        centre = near.mean(1)
        apart = near - centre[:, None]
        covariance = np.dot(apart, apart.T.conj()) * (1 / (near.shape[1] - 1))  # np.cov to the bit, with one mean less
        normal = np.linalg.eigh(covariance)[1][:, 0]
        normal *= np.sign(normal[2]) or 1.0
        residual = np.abs(normal @ near - normal @ centre)
        roughness = MAD_TO_SD * float(np.median(residual))
        plane = Plane(normal, float(normal @ centre), roughness)
        band_m = float(np.clip(2.5 * roughness, tolerance_m / 2, 4 * tolerance_m))
    return plane
