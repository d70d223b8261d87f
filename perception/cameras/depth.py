"""A depth image and the camera that took it: what every source of frames delivers, and how a pixel becomes a point.

Camera frame: OpenCV axes, x right, y down, z forward; pixel (0, 0) is the centre of the top left pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

INVERSION_STEPS = 30
"""Fixed-point steps that invert a lens distortion; those of depth cameras converge to 1e-9 in fewer than ten."""
RIGID_TOLERANCE = 1e-5
"""How far a rotation matrix that was written in text may be from orthonormal."""

Distortion = Literal["none", "brown_conrady", "inverse_brown_conrady", "modified_brown_conrady"]


class CameraError(OSError):
    """A source of frames that cannot deliver; the text says what to check."""


class CameraNotFoundError(CameraError):
    """No such camera is connected."""


class CameraLostError(CameraError):
    """The camera was there and is gone."""


class FrameTimeoutError(CameraError, TimeoutError):
    """The camera is there, but no frame came in time."""


class EndOfFramesError(CameraError):
    """A recording has been read to its end."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera with the lens distortion of Brown, in the variants that RealSense cameras report."""

    width: int
    height: int
    fx: float
    """Focal length [pixel]."""
    fy: float
    cx: float
    """Principal point [pixel]."""
    cy: float
    distortion: Distortion = "none"
    """With `brown_conrady` as in OpenCV; the inverse and modified kinds bend tangentially what was bent radially."""
    coeffs: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """k1, k2, p1, p2, k3."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or not (self.fx > 0 and self.fy > 0):
            raise ValueError(f"intrinsics need a positive size and focal length, got {self}")
        if self.distortion not in Distortion.__args__:
            raise ValueError(f"unknown distortion '{self.distortion}'; known: {', '.join(Distortion.__args__)}")
        if len(self.coeffs) != 5 or not np.isfinite([self.fx, self.fy, self.cx, self.cy, *self.coeffs]).all():
            raise ValueError(f"intrinsics need finite numbers and five coefficients k1 k2 p1 p2 k3, got {self}")

    def rays(self, stride: int = 1) -> NDArray[np.float32]:
        """Points at unit depth of every `stride`-th pixel, camera frame: x and y, shape (2, rows, columns)."""
        v, u = np.mgrid[0 : self.height : stride, 0 : self.width : stride]
        return self.rays_at(np.stack([u, v], axis=-1)).transpose(2, 0, 1).astype(np.float32, order="C")

    def rays_at(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Points at unit depth (..., 2) of pixels (..., 2) = (column, row), which may lie between pixels."""
        start = (np.asarray(pixels, float) - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.distortion == "none" or not any(self.coeffs):
            return start
        rays = start
        for _ in range(INVERSION_STEPS):
            rays = start - (self._bend(rays) - rays)
        return rays

    def project(self, points_c: ArrayLike) -> NDArray[np.float64]:
        """Pixels (..., 2) = (column, row) of points (..., 3) in the camera frame."""
        points = np.asarray(points_c, float)
        return self._bend(points[..., :2] / points[..., 2:]) * (self.fx, self.fy) + (self.cx, self.cy)

    def _bend(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the lens makes of straight rays (..., 2)."""
        if self.distortion == "none":
            return rays
        k1, k2, p1, p2, k3 = self.coeffs
        r2 = (rays**2).sum(-1, keepdims=True)
        radial = rays * (1 + r2 * (k1 + r2 * (k2 + r2 * k3)))
        base = rays if self.distortion == "brown_conrady" else radial
        product, square = 2 * base[..., :1] * base[..., 1:], r2 + 2 * base**2
        return radial + product * (p1, p2) + square * (p2, p1)


@dataclass(frozen=True)
class DepthFrame:
    """One depth image, ready to be used."""

    depth_m: NDArray[np.float32]
    """(rows, columns) distance along the camera's z axis [m]; 0 = hole."""
    intrinsics: Intrinsics
    stamp_s: float
    """When it was taken, by the clock of its source [s]."""
    T_world_cam: NDArray[np.float64] | None = None
    """(4, 4) camera to world; None while the camera is not calibrated."""
    color: NDArray[np.uint8] | None = field(default=None, repr=False)
    """(rows, columns, 3) RGB of the colour camera, where one was asked for; its own pixels unless depth was aligned."""

    def __post_init__(self) -> None:
        expected = (self.intrinsics.height, self.intrinsics.width)
        if self.depth_m.shape != expected or self.depth_m.dtype != np.float32:
            got = f"{self.depth_m.dtype} {self.depth_m.shape}"
            raise ValueError(f"a depth image holds float32 metres of shape {expected}, got {got}")
        if self.T_world_cam is not None:
            check_rigid(self.T_world_cam, "T_world_cam")


class DepthSource(Protocol):
    """Anything that delivers depth frames. Use it as a context: the camera is released at the end."""

    def read(self, timeout_s: float = 1.0) -> DepthFrame:
        """The next frame. Raises FrameTimeoutError, CameraLostError, or at the end of a recording EndOfFramesError."""
        ...

    def close(self) -> None:
        """Release the camera or the file; more than once does no harm."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def frames(source: DepthSource, timeout_s: float = 1.0) -> Iterator[DepthFrame]:
    """Frames of a source until a recording ends; a camera has no end."""
    while True:
        try:
            yield source.read(timeout_s)
        except EndOfFramesError:
            return


def deproject(depth_m: NDArray[np.float32], rays: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points (3, ...) in the camera frame of depths (...) [m] and the rays (2, ...) of the same pixels."""
    points = np.empty((3, *depth_m.shape), np.float32)
    np.multiply(rays, depth_m, out=points[:2])
    points[2] = depth_m
    return points


def to_frame(T_a_b: NDArray[np.float64], points_b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points (3, n), known in frame b, in frame a [m]; coordinates first, as the pipeline holds them."""
    T = T_a_b.astype(np.float32)
    return T[:3, :3] @ points_b + T[:3, 3:]


def check_rigid(T: NDArray[np.float64], name: str) -> None:
    """Raises ValueError unless T is the (4, 4) matrix of a rotation and a translation."""
    if np.shape(T) != (4, 4) or not np.isfinite(T).all():
        raise ValueError(f"{name} must be a finite (4, 4) matrix, got shape {np.shape(T)}: {T}")
    R = T[:3, :3]
    off = np.abs(R @ R.T - np.eye(3)).max()
    if off > RIGID_TOLERANCE or np.linalg.det(R) < 0 or np.abs(T[3] - (0, 0, 0, 1)).max() > RIGID_TOLERANCE:
        raise ValueError(f"{name} is not a rotation with a translation (off by {off:.1e}): {np.round(T, 4).tolist()}")
