"""What an action means: a correction of the scripted prior, turned into palm and finger targets.

    action[0:3]   palm increment along the palm's axes, times TaskCfg.palm_action_m_s / rate
    action[3:6]   palm rotation vector in the palm frame, times TaskCfg.palm_action_rad_s / rate
    action[6:]    finger targets about the measured positions, times TaskCfg.finger_action_rad

Palm actions count in the grasp phase alone; the lift raises the palm, the fingers stay the policy's to the end.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from perception.geometry import quat_from_rotvec, quat_multiply, quat_rotate
from perception.grasp_style import blend
from perception.pregrasp import Pregrasp
from perception.prior import Advance, PriorCfg, prior_step
from sim.hands import HandSpec
from sim.sensing import Readings


@dataclass(frozen=True)
class Phases:
    """Where the episodes are; masks are (env,) bool."""

    step: Tensor
    """(env,) control steps since the reset."""
    grasp_steps: int
    lift_steps: int
    episode_steps: int

    @property
    def grasping(self) -> Tensor:
        """The policy moves the palm."""
        return self.step < self.grasp_steps

    @property
    def lifting(self) -> Tensor:
        """The palm rises."""
        return ~self.grasping & ~self.holding

    @property
    def lift_ends(self) -> Tensor:
        """Last step of the lift."""
        return self.step == self.grasp_steps + self.lift_steps - 1

    @property
    def holding(self) -> Tensor:
        """The palm rests, the object must stay."""
        return self.step >= self.grasp_steps + self.lift_steps


@dataclass(frozen=True)
class Scales:
    """Palm speeds and finger offset per unit of action."""

    palm_m_s: float
    palm_rad_s: float
    finger_rad: float
    lift_m: float


class HandControl:
    """Targets of the palm and the fingers of all environments, step by step."""

    def __init__(self, hand: HandSpec, scales: Scales, prior: PriorCfg | None, step_s: float, num_envs: int) -> None:
        """`prior`: None gives the published method's plain residual."""
        self._scales, self._prior, self._step_s = scales, prior, step_s
        self._lower, self._upper = torch.tensor(hand.joint_lower), torch.tensor(hand.joint_upper)
        self._style = blend(hand.power, hand.pinch, torch.zeros(num_envs))
        zeros = partial(torch.zeros, dtype=torch.float64)
        self.start_pos_w, self.start_quat_w = zeros(num_envs, 3), zeros(num_envs, 4)
        self.palm_pos_w, self.palm_quat_w = zeros(num_envs, 3), zeros(num_envs, 4)
        """Palm target, (env, 3) [m] and (env, 4) wxyz."""
        self._depth_m, self._travelled_m = zeros(num_envs), zeros(num_envs)

    @property
    def remaining_m(self) -> Tensor:
        """(env,) what is left of the planned approach."""
        return self._depth_m - self._travelled_m

    def reset(self, rows: Tensor, pregrasp: Pregrasp) -> None:
        """The palms of `rows` are at their pre-grasp."""
        self.start_pos_w[rows] = self.palm_pos_w[rows] = pregrasp.palm_pos_w
        self.start_quat_w[rows] = self.palm_quat_w[rows] = pregrasp.palm_quat_w
        self._depth_m[rows], self._travelled_m[rows] = pregrasp.depth_m, 0.0
        self._style.write(rows, pregrasp.style)

    def act(self, action: Tensor, sensed: Readings, phases: Phases) -> tuple[Tensor, Tensor, Tensor]:
        """Finger targets (env, joint) [rad] and the palm target pose (env, 3), (env, 4) of the next control period."""
        action = _finite(action).double()
        grasping = phases.grasping[:, None]
        increment = action[:, :3] * (self._scales.palm_m_s * self._step_s)
        fingers = action[:, 6:] * self._scales.finger_rad
        if self._prior is not None:
            script = self._script(self._prior, sensed, phases)
            increment[:, 0] += script.palm_m
            fingers = fingers + script.finger_rad
            self._travelled_m += torch.where(phases.grasping, script.palm_m, 0.0)
        turn = quat_from_rotvec(action[:, 3:6] * (self._scales.palm_rad_s * self._step_s))
        turned = quat_multiply(self.palm_quat_w, turn)
        self.palm_pos_w += torch.where(grasping, quat_rotate(self.palm_quat_w, increment), 0.0)
        self.palm_pos_w[:, 2] += torch.where(phases.lifting, self._scales.lift_m / phases.lift_steps, 0.0)
        self.palm_quat_w = torch.where(grasping, turned / turned.norm(dim=1, keepdim=True), self.palm_quat_w)
        return (sensed.joint_pos + fingers).clamp(self._lower, self._upper), self.palm_pos_w, self.palm_quat_w

    def _script(self, prior: PriorCfg, sensed: Readings, phases: Phases) -> Advance:
        x = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        return prior_step(
            prior,
            closing=self._style.closing,
            floor_m=self._style.floor_m,
            step_s=self._step_s,
            phase_s=phases.step * self._step_s,
            grasp_s=phases.grasp_steps * self._step_s,
            travelled_m=self._travelled_m,
            depth_m=self._depth_m,
            palm_height_m=self.palm_pos_w[:, 2],
            palm_down=-quat_rotate(self.palm_quat_w, x)[:, 2],
            keypoint_height_m=sensed.keypoints_w[..., 2],
        )


def _finite(action: Tensor) -> Tensor:
    bad = (~torch.isfinite(action)).any(dim=1).nonzero().squeeze(1)
    if len(bad):
        raise FloatingPointError(
            f"actions are not finite in environments {bad.tolist()}: look at the policy that gave them"
        )
    return action
