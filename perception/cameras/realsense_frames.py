"""What the frames and stream profiles of the RealSense SDK mean in our terms; nothing of the SDK is imported here."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import CameraError, Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose


def depth_to_color(frames: Any) -> NDArray[np.float64] | None:
    """(4, 4) T_color_depth of a set as the camera delivered it, not aligned yet; None without a colour image."""
    color = frames.get_color_frame()
    if not color:
        return None
    stored = frames.get_depth_frame().get_profile().get_extrinsics_to(color.get_profile())
    T = np.eye(4)
    T[:3, :3] = np.reshape(stored.rotation, (3, 3)).T  # the SDK stores columns
    T[:3, 3] = stored.translation
    return T


def place(pose: CameraPose, aligned: bool, T_color_depth: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(4, 4) world from the frame that depth will be in, `aligned` or not; the pose may be that of the other frame."""
    if (pose.stream == "color") == aligned:
        return pose.T_world_cam
    if T_color_depth is None:
        raise CameraError(f"the pose is that of the {pose.stream} camera, and the colour stream is missing")
    return pose.T_world_cam @ (np.linalg.inv(T_color_depth) if aligned else T_color_depth)


class AlignedDepth:
    """Depth along the colour camera's axis. Alignment moves pixels and leaves in them the depth camera's distances.

    A point at z of the colour camera on the ray r has the depth camera's z_d = z (R^T r)_z - (R^T t)_z.
    """

    def __init__(self, T_color_depth: NDArray[np.float64], color: Intrinsics) -> None:
        R, t = T_color_depth[:3, :3], T_color_depth[:3, 3]
        x, y = color.rays()
        self._slope = (R[0, 2] * x + R[1, 2] * y + R[2, 2]).astype(np.float32)
        self._offset_m = np.float32(R[:, 2] @ t)

    def __call__(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Depth [m] in the colour frame of depth as alignment leaves it (rows, columns); holes stay holes."""
        return np.where(depth_m > 0, (depth_m + self._offset_m) / self._slope, np.float32(0))


def intrinsics_of(profile: Any) -> Intrinsics:
    """Intrinsics of a video stream profile of the SDK."""
    given = profile.as_video_stream_profile().get_intrinsics()
    name, coeffs = str(given.model).rsplit(".", 1)[-1], tuple(float(x) for x in given.coeffs)
    if name not in ("brown_conrady", "inverse_brown_conrady", "modified_brown_conrady"):
        if any(coeffs):
            raise CameraError(f"lens distortion '{name}' is not supported: use a rectified depth stream")
        name = "none"
    return Intrinsics(given.width, given.height, given.fx, given.fy, given.ppx, given.ppy, name, coeffs)


def rgb(frame: Any) -> NDArray[np.uint8]:
    """A copy of a colour frame (rows, columns, 3)."""
    image, kind = np.asanyarray(frame.get_data()), str(frame.get_profile().format()).rsplit(".", 1)[-1]
    if kind not in ("rgb8", "bgr8"):
        raise CameraError(f"the colour stream is {kind}; expected rgb8 or bgr8")
    return np.array(image if kind == "rgb8" else image[..., ::-1])
