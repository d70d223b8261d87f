"""What carries the palm in a batch: where its base is, how it is placed at a reset, and how a target becomes controls."""

from typing import Protocol

import mujoco
import torch
from torch import Tensor

from perception.geometry import rotvec_from_quat


class Carrier(Protocol):
    """The batch's rows seen as the pose of the hand base. All poses: position (env, 3) [m], quaternion (env, 4) wxyz."""

    target_pos_w: Tensor
    target_quat_w: Tensor

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """Pose of the hand base, from the current joint positions."""
        ...

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """Put the base of `rows` there, at rest, as state and as target."""
        ...

    def steer(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """Make this the servo target of all rows."""
        ...


class FloatingCarrier:
    """Three slides and a ball joint in the world frame; controls are the position and the rotation vector."""

    def __init__(self, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> None:
        slide, ball = model.joint("palm_x").qposadr[0], model.joint("palm_ball").qposadr[0]
        self._pos, self._quat = qpos[:, slide : slide + 3], qpos[:, ball : ball + 4]
        self._ctrl = ctrl[:, :6]
        self.target_pos_w, self.target_quat_w = self._pos.clone(), self._quat.clone()

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """See `Carrier`: views of the rows."""
        return self._pos, self._quat

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `Carrier`."""
        self._pos[rows], self._quat[rows] = pos_w, quat_w
        self.target_pos_w[rows], self.target_quat_w[rows] = pos_w, quat_w
        self._ctrl[rows] = torch.cat([pos_w, rotvec_from_quat(quat_w)], dim=1)

    def steer(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `Carrier`."""
        self.target_pos_w, self.target_quat_w = pos_w, quat_w
        self._ctrl[:, :3] = pos_w
        self._ctrl[:, 3:] = rotvec_from_quat(quat_w)


def make_carrier(mount: str, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> Carrier:
    """The carrier of a scene that was built with `mount`."""
    if mount == "floating":
        return FloatingCarrier(model, qpos, ctrl)
    raise ValueError(f"mount must be floating or ur5e, got '{mount}'")
