"""Camera extrinsics: pose of a calibrated camera in the world, stored as YAML.

T_world_cam:            # camera frame (OpenCV axes) to world
  pos_m: [0.6, 0.0, 0.5]
  quat_wxyz: [...]
stream: depth           # whose camera frame: depth or color
T_color_depth: {...}    # depth camera to colour camera, where known: then the pose is valid for both
serial: "..."           # of the camera; empty = any
frame_id: "..."         # of its ROS messages; empty = not known
residuals: {...}        # how good it is, for people
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from dexgrasp.perception.cameras.depth import Stream, check_stream
from dexgrasp.perception.cameras.numbers import BASELINE, POSITION, Quantity, check_rigid, unit_quaternion
from dexgrasp.utils.files import write_text
from dexgrasp.utils.readers import read_yaml
from dexgrasp.utils.rotations import matrix_from_quat, quat_from_matrix
from dexgrasp.utils.text import shown

KEYS = ("T_world_cam", "stream", "serial", "residuals", "T_color_depth", "frame_id")


@dataclass(frozen=True)
class CameraPose:
    """The calibrated pose of one camera."""

    T_world_cam: NDArray[np.float64]
    """(4, 4) camera to world."""
    stream: Stream = "depth"
    """Camera frame of the pose: depth or color."""
    serial: str = ""
    """Serial number of the camera that was calibrated; empty = any."""
    residuals: Mapping[str, Any] = field(default_factory=dict)
    """Residuals that the calibration reported."""
    T_color_depth: NDArray[np.float64] | None = None
    """(4, 4) depth camera to colour camera of the device; None = unknown."""
    frame_id: str = ""
    """frame_id of the ROS messages of the camera whose pose this is; empty = not known."""

    def __post_init__(self) -> None:
        check_rigid(self.T_world_cam, "T_world_cam")
        check_stream(self.stream, "stream")
        if self.T_color_depth is not None:
            check_rigid(self.T_color_depth, "T_color_depth", BASELINE)

    def of_stream(self, stream: Stream, T_color_depth: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the pose (4, 4) in the world of the depth or of the colour camera.

        `T_color_depth`: that of the device, in place of the stored one. Raises ValueError where it is needed but
        unknown.
        """
        check_stream(stream, "stream of the depth images")
        if self.stream == stream:
            return self.T_world_cam
        T = self.T_color_depth if T_color_depth is None else T_color_depth
        if T is None:
            remedy = "align depth to colour" if self.stream == "color" else "do not align depth to colour"
            raise ValueError(
                f"the camera pose is that of the {self.stream} camera, the depth images are in the frame of the "
                f"{stream} camera: {remedy}, calibrate with stream={stream}, or give T_color_depth in the camera file"
            )
        return self.T_world_cam @ (np.linalg.inv(T) if stream == "color" else T)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the YAML; a missing, unknown or impossible entry is a ValueError that names file and key."""
        values = read_yaml(path)
        if not isinstance(values, dict) or "T_world_cam" not in values:
            raise ValueError(f"{path}: no T_world_cam; `dexgrasp calibrate camera` writes such a file")
        unknown = sorted(set(values) - set(KEYS))
        if unknown:
            raise ValueError(f"{path}: unknown keys {unknown}; known: {', '.join(KEYS)}")
        try:
            T = pose_from_dict(values["T_world_cam"], "T_world_cam")
            serial, residuals = values.get("serial", ""), values.get("residuals", {})
            frame_id = values.get("frame_id", "")
            if not isinstance(frame_id, str):
                raise ValueError(f"frame_id must be a text, got {shown(frame_id)}")
            if not isinstance(serial, (str, int)) or isinstance(serial, bool) or not isinstance(residuals, Mapping):
                raise ValueError(f"serial must be a text and residuals keys with values, got {shown(serial)}")
            other = values.get("T_color_depth")
            between = None if other is None else pose_from_dict(other, "T_color_depth", BASELINE)
            stream = values.get("stream", "depth")
            return cls(
                T_world_cam=T,
                stream=stream,
                serial=str(serial),
                residuals=residuals,
                T_color_depth=between,
                frame_id=frame_id,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the YAML with full precision; the file appears complete or not at all."""
        values = {
            "T_world_cam": pose_to_dict(self.T_world_cam),
            "stream": self.stream,
            "serial": self.serial,
            "residuals": dict(self.residuals),
        }
        if self.T_color_depth is not None:
            values["T_color_depth"] = pose_to_dict(self.T_color_depth)
        if self.frame_id:
            values["frame_id"] = self.frame_id
        head = "# Pose of the camera, written by `dexgrasp calibrate camera`. Metres; quaternion wxyz; OpenCV axes.\n"
        write_text(path, head + yaml.safe_dump(values, sort_keys=False))


def pose_from_dict(values: Any, name: str, position: Quantity = POSITION) -> NDArray[np.float64]:
    """Return the matrix (4, 4) of {pos_m: [3], quat_wxyz: [4]}; error messages contain `name`."""
    if not isinstance(values, Mapping) or set(values) != {"pos_m", "quat_wxyz"}:
        raise ValueError(f"{name} must hold pos_m: [x, y, z] and quat_wxyz: [w, x, y, z], got {shown(values)}")
    return pose_matrix(values["pos_m"], values["quat_wxyz"], name, position)


def pose_to_dict(T: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return {pos_m: [3], quat_wxyz: [4]} of a matrix (4, 4), plain numbers for YAML."""
    return {"pos_m": [float(x) for x in T[:3, 3]], "quat_wxyz": quat_from_matrix(T[:3, :3]).tolist()}


def pose_matrix(
    pos_m: ArrayLike, quat_wxyz: ArrayLike, name: str = "pose", position: Quantity = POSITION
) -> NDArray[np.float64]:
    """Return the matrix (4, 4) of a position in the range `position` and a quaternion.

    Raises ValueError for other positions, and for a quaternion that is not of unit length.
    """
    T = np.eye(4)
    T[:3, 3] = position.read_all(pos_m, f"{name}: pos_m", 3)
    T[:3, :3] = matrix_from_quat(unit_quaternion(quat_wxyz, f"{name}: quat_wxyz"))
    return T
