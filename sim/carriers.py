"""Palm actuation of a batch: pose of the hand base, placement at a reset, targets to controls."""

from typing import Protocol

import mujoco
import torch
from torch import Tensor

from perception.geometry import quat_nlerp, rotvec_from_quat
from sim.mounts import ArmIK, ArmSpec


class Carrier(Protocol):
    """Actuates the hand base; poses are (env, 3) [m] and (env, 4) wxyz in the world."""

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """Return the pose of the hand base at the current joint positions."""
        ...

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """Place the base of `rows` at a pose, or as near as it can reach, at rest, as state and as target."""
        ...

    def aim(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """Set the target poses of all rows for the end of the next control period."""
        ...

    def advance(self, part: float) -> None:
        """Set the controls for the fraction `part` in (0, 1] between the last target and the present one."""
        ...


class FloatingCarrier:
    """Actuates three slides and a ball joint in the world frame; controls are position and rotation vector."""

    def __init__(self, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> None:
        slide, ball = model.joint("palm_x").qposadr[0], model.joint("palm_ball").qposadr[0]
        self._pos, self._quat = qpos[:, slide : slide + 3], qpos[:, ball : ball + 4]
        self._ctrl = ctrl[:, :6]
        self._last = self._goal = self._pos.clone(), self._quat.clone()

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """See `Carrier`: views of the rows."""
        return self._pos, self._quat

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `Carrier`."""
        for pos, quat in ((self._pos, self._quat), self._goal):
            pos[rows], quat[rows] = pos_w, quat_w
        self._ctrl[rows] = torch.cat([pos_w, rotvec_from_quat(quat_w)], dim=1)

    def aim(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `Carrier`."""
        self._last, self._goal = self._goal, (pos_w, quat_w)

    def advance(self, part: float) -> None:
        """See `Carrier`."""
        self._ctrl[:, :3] = torch.lerp(self._last[0], self._goal[0], part)
        self._ctrl[:, 3:] = rotvec_from_quat(quat_nlerp(self._last[1], self._goal[1], part))


class ArmCarrier:
    """Actuates an arm by joint targets from differential inverse kinematics, once per control period."""

    def __init__(self, arm: ArmSpec, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> None:
        first, n = model.joint(arm.joint_names[0]).qposadr[0], len(arm.joint_names)
        self._q, self._ctrl = qpos[:, first : first + n], ctrl[:, :n]
        self._ik = ArmIK(arm)
        self._q[:] = torch.from_numpy(arm.home)
        self._last = self._goal = self._q.clone()

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """See `Carrier`."""
        return self._ik.forward(self._q)

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `Carrier`."""
        q, _ = self._ik.reach(pos_w, quat_w)
        self._q[rows] = self._goal[rows] = self._ctrl[rows] = q

    def aim(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `Carrier`."""
        self._last, self._goal = self._goal, self._ik.solve(self._goal, pos_w, quat_w)

    def advance(self, part: float) -> None:
        """See `Carrier`."""
        self._ctrl[:] = torch.lerp(self._last, self._goal, part)


def make_carrier(mount: str, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> Carrier:
    """Return the actuation of scenes built with `mount`; `qpos` and `ctrl` are the batch's live tensors."""
    if mount == "floating":
        return FloatingCarrier(model, qpos, ctrl)
    return ArmCarrier(ArmSpec.load(mount), model, qpos, ctrl)
