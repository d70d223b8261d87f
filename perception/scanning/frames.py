"""Frames of a scan: depth with colour in one pinhole camera, without flying pixels.

Table frame: z up, the table at z = 0; with a board its origin is the middle of the board and x goes along its rows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import DepthFrame, DepthSource, Intrinsics, deproject, frames
from dexgrasp.perception.segmentation.clustering import on_surfaces
from dexgrasp.perception.segmentation.pipeline import MAX_SLOPE

RANGE_M = 0.1, 1.5
"""Range of depths that are used; a thing for a hand fills the image at half a metre."""
LEAST_DEPTH_SHARE = 0.1
"""Share of pixels with depth below which a recording is refused."""
LEAST_FRAMES = 12
"""Least number of frames whose pose is known."""


class ScanError(ValueError):
    """Raised for a recording that gives no object; the text says what to do."""


@dataclass(frozen=True)
class ScanFrame:
    """One frame of a scan."""

    name: str
    depth_m: NDArray[np.float32] = field(repr=False)
    """(rows, columns) along the camera's axis [m]; 0 = hole or flying pixel."""
    color: NDArray[np.uint8] = field(repr=False)
    """(rows, columns, 3) RGB in the pixels of the depth image."""
    camera: Intrinsics
    """Pinhole camera without distortion."""
    hole: NDArray[np.bool_] = field(repr=False)
    """(rows, columns) pixels in which the camera delivered no depth."""
    T_table_cam: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    """(4, 4) camera to table."""

    def points(self, stride: int) -> NDArray[np.float32]:
        """Return the points (n, 3) of every `stride`-th pixel with depth, table frame [m]."""
        depth_m, rays = self.depth_m[::stride, ::stride], self.camera.rays(stride)
        points_c = deproject(depth_m, rays)[:, depth_m > 0].T
        T = self.T_table_cam.astype(np.float32)
        return points_c @ T[:3, :3].T + T[:3, 3]


def read_frames(
    source: DepthSource, most: int, seconds: float = np.inf, watch: Callable[[DepthFrame], None] = lambda frame: None
) -> list[ScanFrame]:
    """Return at most `most` frames, evenly spread over a recording or over `seconds` of a live camera.

    `watch` is called with every frame that was read.

    Raises ScanError where there are too few frames, no colour in the pixels of the depth image, or hardly any depth.
    """
    kept: list[DepthFrame] = []
    stride, end_s = 1, time.monotonic() + seconds
    for number, frame in enumerate(frames(source, timeout_s=5.0)):
        watch(frame)
        if number % stride == 0:
            kept.append(frame)
        if len(kept) == 2 * most:
            kept, stride = kept[::2], 2 * stride
        if time.monotonic() > end_s:
            break
    if len(kept) < LEAST_FRAMES:
        raise ScanError(f"{len(kept)} frames, at least {LEAST_FRAMES} from all sides are needed: record longer")
    _check_streams(kept)
    share = max(float((frame.depth_m > 0).mean()) for frame in kept)
    if share < LEAST_DEPTH_SHARE:
        raise ScanError(
            f"no depth: at most {100 * share:.0f} % of the pixels of any frame have one; check the distance (0.3 to "
            "0.7 m), the light, and that the projector of the camera is on"
        )
    chosen = np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int))
    return [_scan_frame(kept[i], f"frame {i * stride}") for i in chosen]


def _check_streams(kept: list[DepthFrame]) -> None:
    first = kept[0]
    if first.color is None:
        raise ScanError(
            "the frames have no colour: record depth and colour (a folder: color/ and depth/ with images of equal "
            "names)"
        )
    if first.stream != "color":
        raise ScanError(
            'the depth images are not in the pixels of the colour camera: align them, and state "stream": "color" in '
            "camera.json"
        )
    for number, frame in enumerate(kept):
        if frame.color is None or frame.color.shape[:2] != frame.depth_m.shape:
            size = "no colour" if frame.color is None else f"colour of {frame.color.shape[:2]} pixels"
            raise ScanError(
                f"frame {number} has depth of {frame.depth_m.shape} pixels and {size}: record both at one size"
            )
        if frame.intrinsics != first.intrinsics:
            raise ScanError(f"frame {number} is of another camera than the first one: scan with one camera")


def _scan_frame(frame: DepthFrame, name: str) -> ScanFrame:
    depth_m, color = frame.depth_m, frame.color
    assert color is not None
    camera = frame.intrinsics
    if camera.distortion != "none" and any(camera.coeffs):
        depth_m, color, camera = _rectified(depth_m, color, camera)
    hole = depth_m == 0
    near, far = RANGE_M
    index = np.flatnonzero((depth_m > near) & (depth_m < far))
    clean = np.zeros_like(depth_m)
    if len(index):
        pitch_m = float(np.median(depth_m.reshape(-1)[index])) / camera.fx
        index = index[on_surfaces(depth_m, index, MAX_SLOPE * pitch_m)]
        clean.reshape(-1)[index] = depth_m.reshape(-1)[index]
    return ScanFrame(name=name, depth_m=clean, color=color, camera=camera, hole=hole)


def _rectified(
    depth_m: NDArray[np.float32], color: NDArray[np.uint8], camera: Intrinsics
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Intrinsics]:
    """Return images and camera without distortion: each pixel takes the nearest one of the distorted image."""
    ideal = replace(camera, distortion="none", coeffs=(0.0,) * 5)
    x, y = ideal.rays()
    u, v = np.rint(camera.project(np.stack([x, y, np.ones_like(x)], -1))).astype(int).transpose(2, 0, 1)
    outside = (u < 0) | (u >= camera.width) | (v < 0) | (v >= camera.height)
    place = v.clip(0, camera.height - 1), u.clip(0, camera.width - 1)
    depth, image = depth_m[place], color[place]
    depth[outside], image[outside] = 0, 0
    return depth, image, ideal
