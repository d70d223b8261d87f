"""Depth frames, pinhole cameras and the conversion of pixels to points.

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
"""Tolerance of the orthonormality of rotation matrices read from text."""

Distortion = Literal["none", "brown_conrady", "inverse_brown_conrady", "modified_brown_conrady"]


class CameraError(OSError):
    """Failure of a source of frames; the message says what to check."""


class CameraNotFoundError(CameraError):
    """No such camera is connected."""


class CameraLostError(CameraError):
    """Loss of the connection to a camera."""


class FrameTimeoutError(CameraError, TimeoutError):
    """Timeout of a connected camera that delivered no frame."""


class EndOfFramesError(CameraError):
    """End of a recording."""


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
    """Distortion model: `brown_conrady` as in OpenCV; inverse and modified apply the tangential part last."""
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
        """Return x and y (2, rows, columns) at unit depth of every `stride`-th pixel, camera frame."""
        v, u = np.mgrid[0 : self.height : stride, 0 : self.width : stride]
        return self.rays_at(np.stack([u, v], axis=-1)).transpose(2, 0, 1).astype(np.float32, order="C")

    def rays_at(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Return the rays (..., 2) at unit depth of pixels (..., 2) = (column, row), which may be fractional."""
        start = (np.asarray(pixels, float) - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.distortion == "none" or not any(self.coeffs):
            return start
        rays = start
        for _ in range(INVERSION_STEPS):
            rays = start - (self._bend(rays) - rays)
        return rays

    def project(self, points_c: ArrayLike) -> NDArray[np.float64]:
        """Return the pixels (..., 2) = (column, row) of points (..., 3) in the camera frame."""
        points = np.asarray(points_c, float)
        return self._bend(points[..., :2] / points[..., 2:]) * (self.fx, self.fy) + (self.cx, self.cy)

    def _bend(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply the lens distortion to rays (..., 2) at unit depth."""
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
    """One depth image with its camera, time and pose."""

    depth_m: NDArray[np.float32]
    """(rows, columns) distance along the camera's z axis [m]; 0 = hole."""
    intrinsics: Intrinsics
    stamp_s: float
    """Time of exposure, on the clock of the source [s]."""
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
    """Interface of sources of depth frames; a context manager that releases the camera at its end."""

    def read(self, timeout_s: float = 1.0) -> DepthFrame:
        """Return the next frame.

        Raises FrameTimeoutError, CameraLostError, or at the end of a recording EndOfFramesError.
        """
        ...

    def close(self) -> None:
        """Release the camera or the file; repeated calls have no effect."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def frames(source: DepthSource, timeout_s: float = 1.0) -> Iterator[DepthFrame]:
    """Yield the frames of a source until a recording ends; a camera never ends."""
    while True:
        try:
            yield source.read(timeout_s)
        except EndOfFramesError:
            return


def deproject(depth_m: NDArray[np.float32], rays: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the points (3, ...), camera frame, of depths (...) [m] and the rays (2, ...) of their pixels."""
    points = np.empty((3, *depth_m.shape), np.float32)
    np.multiply(rays, depth_m, out=points[:2])
    points[2] = depth_m
    return points


def to_frame(T_a_b: NDArray[np.float64], points_b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transform points (3, n) from frame b to frame a [m]; the first axis is x, y, z."""
    T = T_a_b.astype(np.float32)
    return T[:3, :3] @ points_b + T[:3, 3:]


def check_rigid(T: NDArray[np.float64], name: str) -> None:
    """Raise ValueError unless T is the (4, 4) matrix of a rotation and a translation."""
    if np.shape(T) != (4, 4) or not np.isfinite(T).all():
        raise ValueError(f"{name} must be a finite (4, 4) matrix, got shape {np.shape(T)}: {T}")
    R = T[:3, :3]
    off = np.abs(R @ R.T - np.eye(3)).max()
    if off > RIGID_TOLERANCE or np.linalg.det(R) < 0 or np.abs(T[3] - (0, 0, 0, 1)).max() > RIGID_TOLERANCE:
        raise ValueError(f"{name} is not a rotation with a translation (off by {off:.1e}): {np.round(T, 4).tolist()}")
