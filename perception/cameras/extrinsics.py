"""Camera extrinsics: pose of a calibrated camera in the world, stored as YAML.

T_world_cam:            # camera frame (OpenCV axes) to world
  pos_m: [0.6, 0.0, 0.5]
  quat_wxyz: [...]
stream: depth           # whose camera frame: depth or color
serial: "..."           # of the camera; empty = any
residuals: {...}        # how good it is, for people
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike, NDArray

from dexgrasp.perception.cameras.depth import check_rigid
from dexgrasp.perception.transforms import matrix_from_quat, quat_from_matrix
from dexgrasp.utils.files import write_text

UNIT_TOLERANCE = 1e-3
"""Tolerance of the unit length of quaternions read from text."""
KEYS = ("T_world_cam", "stream", "serial", "residuals")


@dataclass(frozen=True)
class CameraPose:
    """The calibrated pose of one camera."""

    T_world_cam: NDArray[np.float64]
    """(4, 4) camera to world."""
    stream: Literal["depth", "color"] = "depth"
    """Camera frame of the pose: depth or color."""
    serial: str = ""
    """Serial number of the camera that was calibrated; empty = any."""
    residuals: Mapping[str, Any] = field(default_factory=dict)
    """Residuals that the calibration reported."""

    def __post_init__(self) -> None:
        check_rigid(self.T_world_cam, "T_world_cam")
        if self.stream not in ("depth", "color"):
            raise ValueError(f"stream must be depth or color, got '{self.stream}'")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the YAML; a missing, unknown or impossible entry is a ValueError that names file and key."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a YAML file: {error}") from error
        if not isinstance(values, dict) or "T_world_cam" not in values:
            raise ValueError(f"{path}: no T_world_cam; `dexgrasp calibrate camera` writes such a file")
        unknown = sorted(set(values) - set(KEYS))
        if unknown:
            raise ValueError(f"{path}: unknown keys {unknown}; known: {', '.join(KEYS)}")
        try:
            T = pose_from_dict(values["T_world_cam"], "T_world_cam")
            serial, residuals = str(values.get("serial", "")), values.get("residuals", {})
            return cls(T_world_cam=T, stream=values.get("stream", "depth"), serial=serial, residuals=residuals)
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
        head = "# Pose of the camera, written by `dexgrasp calibrate camera`. Metres; quaternion wxyz; OpenCV axes.\n"
        write_text(path, head + yaml.safe_dump(values, sort_keys=False))


def pose_from_dict(values: Any, name: str) -> NDArray[np.float64]:
    """Return the matrix (4, 4) of {pos_m: [3], quat_wxyz: [4]}; error messages contain `name`."""
    if not isinstance(values, Mapping) or set(values) != {"pos_m", "quat_wxyz"}:
        raise ValueError(f"{name} must hold pos_m: [x, y, z] and quat_wxyz: [w, x, y, z], got {values}")
    return pose_matrix(values["pos_m"], values["quat_wxyz"], name)


def pose_to_dict(T: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return {pos_m: [3], quat_wxyz: [4]} of a matrix (4, 4), plain numbers for YAML."""
    quat = quat_from_matrix(torch.from_numpy(np.ascontiguousarray(T[:3, :3])))
    return {"pos_m": [float(x) for x in T[:3, 3]], "quat_wxyz": quat.tolist()}


def pose_matrix(pos_m: ArrayLike, quat_wxyz: ArrayLike, name: str = "pose") -> NDArray[np.float64]:
    """Return the matrix (4, 4) of a position and a quaternion; ValueError unless it has unit length."""
    try:
        pos, quat = np.asarray(pos_m, float), np.asarray(quat_wxyz, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected three and four numbers, got {pos_m} and {quat_wxyz}") from error
    if pos.shape != (3,) or quat.shape != (4,) or not np.isfinite([*pos, *quat]).all():
        raise ValueError(f"{name}: expected three and four finite numbers, got {pos_m} and {quat_wxyz}")
    length = np.linalg.norm(quat)
    if abs(length - 1) > UNIT_TOLERANCE:
        raise ValueError(f"{name}: the quaternion wxyz {quat.tolist()} has length {length:.4f}, expected 1")
    T = np.eye(4)
    T[:3, :3] = matrix_from_quat(torch.from_numpy(quat / length)).numpy()
    T[:3, 3] = pos
    return T
