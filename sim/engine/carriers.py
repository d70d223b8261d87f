"""Palm actuation of a batch: pose of the hand base, placement at a reset, targets to controls."""

from typing import Protocol

import mujoco
import torch
from torch import Tensor

from dexgrasp.perception.transforms import quat_nlerp, rotvec_from_quat
from dexgrasp.sim.robots.mount import ArmIK, ArmSpec


class PalmActuation(Protocol):
    """Actuates the hand base; poses are (env, 3) [m] and (env, 4) wxyz in the world."""

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """Return the pose of the hand base at the current joint positions."""
        ...

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """Place the base of `rows` at a pose, or as near as it can reach, at rest, as state and as target."""
        ...

    def set_palm_target(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """Set the target poses of all rows for the end of the next control period."""
        ...

    def interpolate(self, part: float) -> None:
        """Set the controls for the fraction `part` in (0, 1] between the last target and the present one."""
        ...


class FloatingPalm:
    """Actuates three slides and a ball joint in the world frame; controls are position and rotation vector."""

    def __init__(self, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> None:
        slide, ball = model.joint("palm_x").qposadr[0], model.joint("palm_ball").qposadr[0]
        self._pos, self._quat = qpos[:, slide : slide + 3], qpos[:, ball : ball + 4]
        self._ctrl = ctrl[:, :6]
        self._last = self._goal = self._pos.clone(), self._quat.clone()

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """See `PalmActuation`: views of the rows."""
        return self._pos, self._quat

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `PalmActuation`."""
        for pos, quat in ((self._pos, self._quat), self._goal):
            pos[rows], quat[rows] = pos_w, quat_w
        self._ctrl[rows] = torch.cat([pos_w, rotvec_from_quat(quat_w)], dim=1)

    def set_palm_target(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `PalmActuation`."""
        self._last, self._goal = self._goal, (pos_w, quat_w)

    def interpolate(self, part: float) -> None:
        """See `PalmActuation`."""
        self._ctrl[:, :3] = torch.lerp(self._last[0], self._goal[0], part)
        self._ctrl[:, 3:] = rotvec_from_quat(quat_nlerp(self._last[1], self._goal[1], part))


class ArmPalm:
    """Actuates an arm by joint targets from differential inverse kinematics, once per control period."""

    def __init__(self, arm: ArmSpec, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> None:
        first, n = model.joint(arm.joint_names[0]).qposadr[0], len(arm.joint_names)
        self._q, self._ctrl = qpos[:, first : first + n], ctrl[:, :n]
        self._ik = ArmIK(arm)
        self._q[:] = torch.from_numpy(arm.home)
        self._last = self._goal = self._q.clone()

    def base_pose(self) -> tuple[Tensor, Tensor]:
        """See `PalmActuation`."""
        return self._ik.forward(self._q)

    def place(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `PalmActuation`."""
        q, _ = self._ik.reach(pos_w, quat_w)
        self._q[rows] = self._goal[rows] = self._ctrl[rows] = q

    def set_palm_target(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """See `PalmActuation`."""
        self._last, self._goal = self._goal, self._ik.solve(self._goal, pos_w, quat_w)

    def interpolate(self, part: float) -> None:
        """See `PalmActuation`."""
        self._ctrl[:] = torch.lerp(self._last, self._goal, part)


def make_carrier(mount: str, model: mujoco.MjModel, qpos: Tensor, ctrl: Tensor) -> PalmActuation:
    """Return the actuation of scenes built with `mount`; `qpos` and `ctrl` are the batch's live tensors."""
    if mount == "floating":
        return FloatingPalm(model, qpos, ctrl)
    return ArmPalm(ArmSpec.load(mount), model, qpos, ctrl)
