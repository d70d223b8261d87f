"""Depth frames, pinhole cameras and the conversion of pixels to points.

Camera frame: OpenCV axes, x right, y down, z forward; pixel (0, 0) is the centre of the top left pixel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.perception.cameras.lens import Distortion, Lens, LensError
from dexgrasp.perception.cameras.numbers import FINITE, check_rigid

Stream = Literal["depth", "color"]

LARGEST_SIDE = 16384
"""Largest width or height of an image [pixel]."""
FOCAL_RANGE = 0.1, 50.0
"""Least and largest focal length, in multiples of the mean side: fields of view of about 157 and 1.1 degrees."""
LARGEST_ASPECT = 2.0
"""Largest ratio of the two focal lengths; rectified images of wide lenses reach 1.3."""

BASELINE_M = 0.05
"""Baseline of a D435 [m]."""
DISPARITY_SD_PX = 0.08
"""Standard deviation of its disparity [pixel]: the vendor's guide gives 0.05 to 0.1 for textured surfaces."""
DEPTH_STEP_M = 0.001
"""Resolution of its depth values [m]."""


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
    """A pinhole camera behind a lens.

    Raises ValueError for values that no camera of this image size has, and where the lens cannot be inverted over the
    whole image.
    """

    width: int
    height: int
    fx: float
    """Focal length [pixel]."""
    fy: float
    cx: float
    """Principal point [pixel]."""
    cy: float
    distortion: Distortion = "none"
    """Lens model: `brown_conrady` and `equidistant` (fisheye) as in OpenCV, the others as in the RealSense SDK."""
    coeffs: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """Coefficients: k1, k2, p1, p2, k3, ... of Brown as in OpenCV (4, 5, 8, 12 or 14), or k1 to k4 of a fisheye."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.height)
        if not all(isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes):
            raise ValueError(f"intrinsics need a positive size in whole pixels, got {sizes}")
        if max(sizes) > LARGEST_SIDE:
            raise ValueError(f"intrinsics: an image of {sizes} pixels, at most {LARGEST_SIDE} a side are read")
        for name in ("fx", "fy", "cx", "cy"):
            FINITE.read(getattr(self, name), f"intrinsics: {name}")
        if isinstance(self.coeffs, str) or not isinstance(self.coeffs, Sequence):
            raise ValueError(f"intrinsics: coeffs must be a list of numbers, got {self.coeffs!r}")
        for at, value in enumerate(self.coeffs):
            FINITE.read(value, f"intrinsics: coeffs[{at}]")
        self._check_plausible()
        if not self._lens.is_pinhole:
            self.rays_at(_outline(self.width, self.height))

    def _check_plausible(self) -> None:
        """Raise ValueError for a focal length or an image centre that no camera of this image size has."""
        size, side = f"{self.width}x{self.height}", np.sqrt(self.width * self.height)
        least, most = (factor * side for factor in FOCAL_RANGE)
        for name, value in (("fx", self.fx), ("fy", self.fy)):
            if not least <= value <= most:
                raise ValueError(
                    f"intrinsics: {name} is {value:g} px, expected {least:g} to {most:g} px (a positive focal length) "
                    f"for an image of {size}; check that size and {name} are of one resolution, both in pixels"
                )
        if not 1 / LARGEST_ASPECT <= self.fx / self.fy <= LARGEST_ASPECT:
            raise ValueError(
                f"intrinsics: fx is {self.fx:g} px and fy {self.fy:g} px, expected a ratio of at most {LARGEST_ASPECT}"
            )
        for name, value, most in (("cx", self.cx, self.width), ("cy", self.cy, self.height)):
            if not -0.5 <= value <= most - 0.5:
                raise ValueError(
                    f"intrinsics: {name} is {value:g} px, outside the image of {size}; expected -0.5 to {most - 0.5:g}"
                )

    def rays(self, stride: int = 1) -> NDArray[np.float32]:
        """Return x and y (2, rows, columns) at unit depth of every `stride`-th pixel, camera frame."""
        v, u = np.mgrid[0 : self.height : stride, 0 : self.width : stride]
        return self.rays_at(np.stack([u, v], axis=-1)).transpose(2, 0, 1).astype(np.float32, order="C")

    def rays_at(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Return the rays (..., 2) at unit depth of pixels (..., 2) = (column, row), which may be fractional.

        Raises ValueError for a pixel that no ray of the lens reaches.
        """
        pixels = np.asarray(pixels, float)
        rays, exists = self._lens.unbend((pixels - (self.cx, self.cy)) / (self.fx, self.fy))
        if not exists.all():
            at = pixels[~exists][0]
            limit = self._lens.limit
            reach = np.abs(self._lens.bend(np.array([[limit, 0.0], [0.0, limit]])) * (self.fx, self.fy)).max()
            raise LensError(
                f"distortion {self.distortion} with coefficients {tuple(map(float, self.coeffs))} cannot be inverted "
                f"beyond a radius of {reach:.0f} px (ray {limit:.3g} at unit depth): no ray reaches pixel "
                f"({at[0]:g}, {at[1]:g}) of {self.width}x{self.height}; check the coefficients, or use rectified images"
            )
        return rays

    def project(self, points_c: ArrayLike) -> NDArray[np.float64]:
        """Return the pixels (..., 2) = (column, row) of points (..., 3) in the camera frame.

        Raises ValueError for a point that lies behind the camera or outside the lens.
        """
        points = np.asarray(points_c, float)
        if not (points[..., 2] > 0).all():
            raise ValueError("points to project must lie in front of the camera (z > 0)")
        rays = points[..., :2] / points[..., 2:]
        if not ((rays**2).sum(-1) <= self._lens.limit**2).all():
            raise ValueError(f"points to project must lie within {self._lens.limit:.3g} of the axis at unit depth")
        return self._lens.bend(rays) * (self.fx, self.fy) + (self.cx, self.cy)

    @property
    def _lens(self) -> Lens:
        return Lens(self.distortion, tuple(self.coeffs))


def _outline(width: int, height: int) -> NDArray[np.float64]:
    """Return pixels (n, 2) on the border of an image, corners among them, and in its middle."""
    along = np.linspace(0.0, 1.0, 33)
    edges = [np.stack([along, np.full(33, end)], 1) for end in (0.0, 1.0)]
    return np.concatenate([*edges, *(edge[:, ::-1] for edge in edges), [[0.5, 0.5]]]) * (width - 1, height - 1)


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
    stream: Stream = "depth"
    """Camera whose pixels and frame the depth image has: depth, or color where depth is aligned to it."""
    color: NDArray[np.uint8] | None = field(default=None, repr=False)
    """(rows, columns, 3) RGB of the colour camera, where one was asked for; its own pixels unless depth was aligned."""

    def __post_init__(self) -> None:
        expected = (self.intrinsics.height, self.intrinsics.width)
        if self.depth_m.shape != expected or self.depth_m.dtype != np.float32:
            got = f"{self.depth_m.dtype} {self.depth_m.shape}"
            raise ValueError(f"a depth image holds float32 metres of shape {expected}, got {got}")
        if self.T_world_cam is not None:
            check_rigid(self.T_world_cam, "T_world_cam")
        check_stream(self.stream, "stream")


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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def take_points(points: NDArray[Any], where: NDArray[np.integer]) -> NDArray[Any]:
    """Return points[:, where] of points (3, n), in its memory layout and a tenth of its time."""
    if points.flags.f_contiguous:
        return np.take(points.T, where, axis=0).T
    return np.asfortranarray(np.take(points, where, axis=1))


def check_stream(stream: object, name: str) -> None:
    """Raise ValueError unless a stream is depth or color."""
    if stream not in ("depth", "color"):
        raise ValueError(f"{name} must be depth or color, got {stream!r}")
