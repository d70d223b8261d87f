"""Lens models of OpenCV and of the RealSense SDK, with their inverse.

Image points are at unit focal length, relative to the principal point. A ray is its point (x, y) at unit depth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Distortion = Literal[
    "none", "brown_conrady", "inverse_brown_conrady", "modified_brown_conrady", "equidistant", "ftheta"
]
Array = NDArray[np.float64]

LENGTHS: dict[str, tuple[int, ...]] = {
    "none": (0, 1, 4, 5, 8, 12, 14),
    "brown_conrady": (4, 5, 8, 12, 14),
    "inverse_brown_conrady": (5,),
    "modified_brown_conrady": (5,),
    "equidistant": (4, 5),
    "ftheta": (1, 5),
}
"""Numbers of coefficients that a model may have."""
USED = {"equidistant": 4, "ftheta": 1}
"""Number of coefficients that a model reads where it may be given more; the others must be 0."""
MOST_COEFFS = 14

_ANGLES = np.linspace(0.0, np.radians(89.9), 4096)
_RADII = np.tan(_ANGLES)
"""Radii of rays (4096,) at unit depth at which models are tabulated; a ray at 90 degrees or more has none."""
_STEPS, _DIFFERENCE, _TOLERANCE = 20, 1e-7, 1e-9


class LensError(ValueError):
    """Raised for lens coefficients that are no lens, or that cannot be inverted over an image."""


@dataclass(frozen=True)
class Lens:
    """A lens model with its coefficients."""

    model: Distortion = "none"
    coeffs: tuple[float, ...] = ()
    """brown_conrady: k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tx ty]]]] as in OpenCV; equidistant: k1 k2 k3 k4."""

    def __post_init__(self) -> None:
        lengths = LENGTHS.get(self.model)
        if lengths is None:
            raise LensError(f"unknown distortion '{self.model}'; known: {', '.join(LENGTHS)}")
        if len(self.coeffs) not in lengths:
            numbers = " or ".join(map(str, lengths))
            raise LensError(f"distortion {self.model} needs {numbers} coefficients, got {len(self.coeffs)}")
        if not np.isfinite(self.coeffs).all():
            raise LensError(f"distortion {self.model} needs finite coefficients, got {self.coeffs}")
        spare = self.coeffs if self.model == "none" else self.coeffs[USED.get(self.model, MOST_COEFFS) :]
        if any(spare):
            raise LensError(f"distortion {self.model} does not use the coefficients {spare}: which model are they of?")
        if self.model == "ftheta" and not 0 < self.coeffs[0] < np.pi:
            raise LensError(f"distortion ftheta needs a coefficient between 0 and pi, got {self.coeffs[0]:g}")

    @property
    def is_pinhole(self) -> bool:
        """Whether image points are equal to rays."""
        return self.model == "none" or (self.model not in USED and not any(self.coeffs))

    @property
    def limit(self) -> float:
        """Largest radius of a ray at unit depth up to which image points move outwards with their rays."""
        if self.is_pinhole:
            return np.inf
        image = self._radial(_RADII)
        inward = ~(np.diff(image) > 0)
        return float(_RADII[np.argmax(inward)]) if inward.any() else float(_RADII[-1])

    def bend(self, rays: ArrayLike) -> Array:
        """Return the image points (..., 2) of rays (..., 2)."""
        rays = np.asarray(rays, float)
        if self.is_pinhole:
            return rays
        r = np.sqrt((rays**2).sum(-1, keepdims=True))
        if self.model in USED:
            return rays * np.where(r > 0, self._radial(r) / np.where(r > 0, r, 1.0), self._radial(1e-9) / 1e-9)
        return self._brown(rays, r)

    def unbend(self, points: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
        """Return the rays (..., 2) of image points (..., 2), and whether each one exists (...).

        Newton steps from the ray of the radial part. A ray beyond the limit of the model does not exist.
        """
        points = np.asarray(points, float)
        if self.is_pinhole:
            return points, np.asarray(np.isfinite(points).all(-1))
        limit = self.limit
        known = limit >= _RADII
        radius = np.sqrt((points**2).sum(-1, keepdims=True))
        start = np.interp(radius, self._radial(_RADII[known]), _RADII[known])
        rays = points * np.where(radius > 0, start / np.where(radius > 0, radius, 1.0), 1.0)
        with np.errstate(all="ignore"):
            for _ in range(_STEPS):
                step, size = _newton_step(self.bend, rays, points)
                rays = rays - step
                if np.nanmax(np.abs(step), initial=0.0) < 1e-12:
                    break
            _, size = _newton_step(self.bend, rays, points)
            error = np.abs(self.bend(rays) - points).max(-1)
            exists = (error < _TOLERANCE * (1 + radius[..., 0])) & (size > 0) & ((rays**2).sum(-1) <= limit**2)
        return rays, exists

    def _radial(self, r: ArrayLike) -> Array:
        """Return the distances from the axis of the image points of rays of radius r, without tangential parts."""
        r = np.asarray(r, float)
        if self.model == "equidistant":
            angle = np.arctan(r)
            k1, k2, k3, k4 = self.coeffs[:4]
            a2 = angle**2
            return angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
        if self.model == "ftheta":
            w = self.coeffs[0]
            return np.arctan(2 * r * np.tan(w / 2)) / w
        return r * self._gain(r**2)

    def _gain(self, r2: Array) -> Array:
        k1, k2, _, _, k3, k4, k5, k6 = self._padded()[:8]
        gain = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return gain / (1 + r2 * (k4 + r2 * (k5 + r2 * k6))) if k4 or k5 or k6 else gain

    def _padded(self) -> tuple[float, ...]:
        return (*self.coeffs, *(0.0,) * (MOST_COEFFS - len(self.coeffs)))

    def _brown(self, rays: Array, r: Array) -> Array:
        _, _, p1, p2, _, _, _, _, s1, s2, s3, s4, tx, ty = self._padded()
        r2 = r**2
        radial = rays * self._gain(r2)
        base = rays if self.model == "brown_conrady" else radial
        x, y, r2 = base[..., 0].copy(), base[..., 1].copy(), r2[..., 0]
        radial[..., 0] += 2 * p1 * x * y + p2 * (r2 + 2 * x**2) + r2 * (s1 + s2 * r2)
        radial[..., 1] += 2 * p2 * x * y + p1 * (r2 + 2 * y**2) + r2 * (s3 + s4 * r2)
        if not (tx or ty):
            return radial
        tilted = np.concatenate([radial, np.ones_like(r)], -1) @ _tilt(tx, ty).T
        return tilted[..., :2] / tilted[..., 2:]


def _tilt(tx: float, ty: float) -> Array:
    """Return the projection (3, 3) onto a sensor that is tilted by tx about x and ty about y [rad], as in OpenCV."""
    cx, sx, cy, sy = np.cos(tx), np.sin(tx), np.cos(ty), np.sin(ty)
    R = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    return np.array([[R[2, 2], 0, -R[0, 2]], [0, R[2, 2], -R[1, 2]], [0, 0, 1]]) @ R


def _newton_step(bend: Callable[[Array], Array], rays: Array, points: Array) -> tuple[Array, Array]:
    """Return the step (..., 2) of Newton's method and the determinant (...) of the derivative."""
    bent = bend(rays)
    dx, dy = ((bend(rays + offset) - bent) / _DIFFERENCE for offset in np.eye(2) * _DIFFERENCE)
    error = bent - points
    size = dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]
    step = np.stack(
        [
            dy[..., 1] * error[..., 0] - dy[..., 0] * error[..., 1],
            dx[..., 0] * error[..., 1] - dx[..., 1] * error[..., 0],
        ],
        -1,
    )
    return step / size[..., None], size
