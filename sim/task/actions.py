"""Control law from actions to palm and finger targets; an action corrects the scripted grasp.

    action[0:3]   palm increment along the palm's axes, times TaskCfg.palm_action_m_s / rate
    action[3:6]   palm rotation vector in the palm frame, times TaskCfg.palm_action_rad_s / rate
    action[6:]    targets of the motors about the measured positions of their joints, times TaskCfg.finger_action_rad

Palm actions act in the grasp phase alone; the lift raises the palm, and the policy moves the fingers to the end.
`WristCfg` limits palm poses to those an arm can hold.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.grasp_style import blend
from dexgrasp.perception.grasp_planning.planner import Pregrasp
from dexgrasp.perception.transforms import (
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    rotvec_from_quat,
    unit_axis,
)
from dexgrasp.sim.robots.arm import ArmSpec
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.proprioception import ProprioceptiveState
from dexgrasp.sim.task.scripted_grasp import ScriptedGraspCfg, ScriptedStep, follow_step, scripted_grasp_step
from dexgrasp.utils.bounds import Bounds, bounded

Targets = tuple[Tensor, Tensor, Tensor]
"""Finger targets (env, motor) [rad], palm target positions (env, 3) [m] and orientations (env, 4) wxyz."""


@dataclass(frozen=True)
class Phases:
    """Phase of each episode; masks are (env,) bool."""

    step: Tensor
    """(env,) control steps since the palm was at its pre-grasp; negative while it moves to a new one."""
    grasp_steps: int
    lift_steps: int
    episode_steps: int

    @property
    def grasping(self) -> Tensor:
        """Return the mask of the grasp phase, in which the policy moves the palm."""
        return self.step < self.grasp_steps

    @property
    def lifting(self) -> Tensor:
        """Return the mask of the lift, in which the palm rises."""
        return ~self.grasping & ~self.holding

    @property
    def lift_ends(self) -> Tensor:
        """Return the mask of the last step of the lift."""
        return self.step == self.grasp_steps + self.lift_steps - 1

    @property
    def holding(self) -> Tensor:
        """Return the mask of the hold, in which the palm stays and the object must too."""
        return self.step >= self.grasp_steps + self.lift_steps

    def name(self, row: int) -> str:
        """Return the name of the phase of one episode: retreat (to another pre-grasp), grasp, lift or hold."""
        if self.step[row] < 0:
            return "retreat"
        return "grasp" if self.grasping[row] else "lift" if self.lifting[row] else "hold"


@dataclass(frozen=True)
class ActionScales:
    """Scale a unit of action to palm speeds and a finger offset."""

    palm_m_s: float
    palm_rad_s: float
    finger_rad: float
    lift_m: float


@dataclass(frozen=True)
@bounded
class WristCfg:
    """Limit palm poses to those that an arm behind the hand can hold, whatever the mount is.

    The defaults of the first two are those of a UR5e and an Allegro; `wrist_on` gives those of another arm and hand.
    """

    offset_m: Annotated[float, Bounds(0, 1)] = 0.195
    """Distance from the palm to the centre of the last arm joint, against the fingers [m]."""
    clearance_m: Annotated[float, Bounds(0, 1)] = 0.055
    """Least height of that centre above the table: the joint's radius and a margin [m]."""
    max_turn_rad: Annotated[float, Bounds(0, 3.15)] = 0.8
    """Largest rotation of the palm from its pre-grasp [rad]; beyond it the arm would fold onto the object."""


def wrist_on(mount: str, hand: HandSpec, cfg: WristCfg) -> WristCfg:
    """Return the limits for a hand on a mount: on an arm, defaults are replaced by those of arm and hand."""
    default = WristCfg()
    if mount == "floating" or (cfg.offset_m, cfg.clearance_m) != (default.offset_m, default.clearance_m):
        return cfg
    offset_m, clearance_m = ArmSpec.load(mount, hand).wrist(hand)
    return replace(cfg, offset_m=max(offset_m, 0.0), clearance_m=clearance_m)


@dataclass(frozen=True)
class PalmTrajectory:
    """Hold start and target of each palm and the progress of its approach; first dimension: environment."""

    start_pos_w: Tensor
    """(env, 3) [m]."""
    start_quat_w: Tensor
    """(env, 4) wxyz."""
    palm_pos_w: Tensor
    """(env, 3) palm target [m]."""
    palm_quat_w: Tensor
    """(env, 4) palm target, wxyz."""
    depth_m: Tensor
    """(env,) length of the planned approach."""
    travelled_m: Tensor
    """(env,) length of the approach that is done [m]."""
    object_xy_w: Tensor
    """(env, 2) centroid of the object's points at the start of the grasp [m]."""
    followed_m: Tensor
    """(env, 2) motion of the palm target after an object that moved since then [m]."""

    @property
    def remaining_m(self) -> Tensor:
        """Return (env,) length of the approach that is left [m]."""
        return self.depth_m - self.travelled_m


@dataclass(frozen=True)
class ControlLaw:
    """Compute targets from an action, without memory; simulator and exported policy share it."""

    scales: ActionScales
    scripted_grasp: ScriptedGraspCfg | None
    """Scripted grasp that actions correct; None: actions alone move hand and palm, as in the published method."""
    wrist: WristCfg
    step_s: float
    motor_lower: Tensor
    """(motor,) [rad]."""
    motor_upper: Tensor
    """(motor,) [rad]."""

    def __call__(
        self,
        action: Tensor,
        trajectory: PalmTrajectory,
        closing: Tensor,
        floor_m: Tensor,
        motor_pos: Tensor,
        keypoint_height_m: Tensor,
        object_xy_w: Tensor,
        phases: Phases,
        grip: Tensor,
    ) -> tuple[Tensor, PalmTrajectory]:
        """Return finger targets (env, motor) [rad] and the palm trajectory after this step.

        `action` (env, action). `closing` (env, motor), `floor_m` (env,): of the grasp style. `motor_pos` (env, motor)
        [rad], of the motors' joints, and `keypoint_height_m` (env, keypoint) [m] are measured. `object_xy_w` (env, 2):
        centroid of the object's points [m]. `grip` (env,): confidence that thumb and another finger touch the object,
        0 to 1.
        """
        action = action.double()
        grasping = phases.grasping[:, None]
        increment = action[:, :3] * (self.scales.palm_m_s * self.step_s)
        fingers = action[:, 6:] * self.scales.finger_rad
        travelled_m, follow_m = trajectory.travelled_m, torch.zeros_like(trajectory.followed_m)
        planned_xy_w = torch.where((phases.step == 0)[:, None], object_xy_w, trajectory.object_xy_w)
        if self.scripted_grasp is not None:
            script = self._scripted_step(
                self.scripted_grasp,
                trajectory,
                closing=closing,
                floor_m=floor_m,
                keypoint_height_m=keypoint_height_m,
                phases=phases,
                grip=grip,
            )
            increment = torch.cat([increment[:, :1] + script.palm_m[:, None], increment[:, 1:]], dim=1)
            fingers = fingers + script.finger_rad
            travelled_m = travelled_m + torch.where(phases.grasping, script.palm_m, 0.0)
            follow_m = follow_step(
                self.scripted_grasp,
                moved_m=object_xy_w - planned_xy_w,
                followed_m=trajectory.followed_m,
                step_s=self.step_s,
                phase_s=phases.step * self.step_s,
                grasp_s=phases.grasp_steps * self.step_s,
            )
        turn = quat_from_rotvec(action[:, 3:6] * (self.scales.palm_rad_s * self.step_s))
        turned = self._limit_rotation(trajectory.start_quat_w, quat_multiply(trajectory.palm_quat_w, turn))
        pos = trajectory.palm_pos_w + torch.where(grasping, quat_rotate(trajectory.palm_quat_w, increment), 0.0)
        rise = torch.where(phases.lifting, self.scales.lift_m / phases.lift_steps, 0.0)
        quat = torch.where(grasping, turned / turned.norm(dim=1, keepdim=True), trajectory.palm_quat_w)
        height = torch.maximum(pos[:, 2] + rise, self._least_height(quat))
        pos = torch.cat([pos[:, :2] + follow_m, height[:, None]], dim=1)
        target = (motor_pos + fingers).clamp(self.motor_lower, self.motor_upper)
        followed = {"object_xy_w": planned_xy_w, "followed_m": trajectory.followed_m + follow_m}
        return target, replace(trajectory, palm_pos_w=pos, palm_quat_w=quat, travelled_m=travelled_m, **followed)

    def _limit_rotation(self, start_quat_w: Tensor, palm_quat_w: Tensor) -> Tensor:
        """Return the orientations (env, 4), limited to the largest rotation from the start."""
        turn = rotvec_from_quat(quat_multiply(quat_conjugate(start_quat_w), palm_quat_w))
        fraction = self.wrist.max_turn_rad / turn.norm(dim=1, keepdim=True).clamp(min=self.wrist.max_turn_rad)
        return quat_multiply(start_quat_w, quat_from_rotvec(fraction * turn))

    def _least_height(self, palm_quat_w: Tensor) -> Tensor:
        """Return the least heights (env,) of the palm [m] at which the wrist is clear of the table."""
        fingers = quat_rotate(palm_quat_w, unit_axis(2, palm_quat_w))
        return self.wrist.clearance_m + self.wrist.offset_m * fingers[:, 2]

    def _scripted_step(
        self,
        cfg: ScriptedGraspCfg,
        trajectory: PalmTrajectory,
        *,
        closing: Tensor,
        floor_m: Tensor,
        keypoint_height_m: Tensor,
        phases: Phases,
        grip: Tensor,
    ) -> ScriptedStep:
        x = unit_axis(0, trajectory.palm_pos_w)
        return scripted_grasp_step(
            cfg,
            closing=closing,
            floor_m=floor_m,
            step_s=self.step_s,
            phase_s=phases.step * self.step_s,
            grasp_s=phases.grasp_steps * self.step_s,
            travelled_m=trajectory.travelled_m,
            depth_m=trajectory.depth_m,
            palm_height_m=trajectory.palm_pos_w[:, 2],
            palm_down=-quat_rotate(trajectory.palm_quat_w, x)[:, 2],
            keypoint_height_m=keypoint_height_m,
            grip=grip,
        )


class HandController:
    """Hold the palm and finger targets of all environments and advance them step by step."""

    def __init__(
        self,
        hand: HandSpec,
        scales: ActionScales,
        scripted_grasp: ScriptedGraspCfg | None,
        wrist: WristCfg,
        step_s: float,
        num_envs: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """`scripted_grasp`: None: actions alone move hand and palm, as in the published method."""
        self.law = ControlLaw(
            scales=scales,
            scripted_grasp=scripted_grasp,
            wrist=wrist,
            step_s=step_s,
            motor_lower=torch.tensor(hand.motor_lower, device=device),
            motor_upper=torch.tensor(hand.motor_upper, device=device),
        )
        self.motors = hand.motors
        """Motors of the hand."""
        """Maps an action to targets."""
        self.style = blend(hand.power.to(device), hand.pinch.to(device), torch.zeros(num_envs, device=device))
        """Grasp style of each environment."""

        def zeros(*size: int) -> Tensor:
            return torch.zeros(num_envs, *size, dtype=torch.float64, device=device)

        self.palm_trajectory = PalmTrajectory(
            start_pos_w=zeros(3),
            start_quat_w=zeros(4),
            palm_pos_w=zeros(3),
            palm_quat_w=zeros(4),
            depth_m=zeros(),
            travelled_m=zeros(),
            object_xy_w=zeros(2),
            followed_m=zeros(2),
        )
        """Start, target and approach of each palm."""
        self._not_finite = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def check(self) -> None:
        """Raise FloatingPointError where an action was not finite since the last call; waits for the device."""
        rows = self._not_finite.nonzero().squeeze(1).tolist()
        self._not_finite = torch.zeros_like(self._not_finite)
        if rows:
            raise FloatingPointError(f"actions are not finite in environments {rows}: check the outputs of the policy")

    @property
    def palm_pos_w(self) -> Tensor:
        """Return (env, 3) palm target [m]."""
        return self.palm_trajectory.palm_pos_w

    @property
    def palm_quat_w(self) -> Tensor:
        """Return (env, 4) palm target, wxyz."""
        return self.palm_trajectory.palm_quat_w

    def reset(self, rows: Tensor, pregrasp: Pregrasp) -> None:
        """Set the palm targets of `rows` to their pre-grasp, with the whole approach ahead."""
        trajectory = self.palm_trajectory
        trajectory.start_pos_w[rows] = trajectory.palm_pos_w[rows] = pregrasp.palm_pos_w
        trajectory.start_quat_w[rows] = trajectory.palm_quat_w[rows] = pregrasp.palm_quat_w
        trajectory.depth_m[rows] = pregrasp.depth_m
        self.style.write(rows, pregrasp.style)
        self.restart_approach(rows)

    def restart_approach(self, rows: Tensor) -> None:
        """Reset the approach progress of `rows` to zero."""
        self.palm_trajectory.travelled_m[rows] = self.palm_trajectory.followed_m[rows] = 0.0

    def set_palm_target(self, rows: Tensor, palm_pos_w: Tensor, palm_quat_w: Tensor) -> None:
        """Set the palm targets of `rows` to (row, 3) [m] and (row, 4), whatever the actions were."""
        self.palm_trajectory.palm_pos_w[rows], self.palm_trajectory.palm_quat_w[rows] = palm_pos_w, palm_quat_w

    def compute_targets(
        self,
        action: Tensor,
        sensed: ProprioceptiveState,
        object_xy_w: Tensor,
        phases: Phases,
        grip: Tensor | None = None,
    ) -> Targets:
        """Return the targets of the next control period.

        `object_xy_w` (env, 2): centroid of the object's points [m]. `grip` (env,): confidence that thumb and another
        finger touch the object, 0 to 1; None: zero. Raise FloatingPointError where an action is not finite; on a GPU
        `check` does.
        """
        self._not_finite |= ~torch.isfinite(action).all(dim=1)
        if action.device.type == "cpu":
            self.check()
        target, self.palm_trajectory = self.law(
            action,
            self.palm_trajectory,
            closing=self.style.closing,
            floor_m=self.style.floor_m,
            motor_pos=self.motors.positions(sensed.joint_pos),
            keypoint_height_m=sensed.keypoints_w[..., 2],
            object_xy_w=object_xy_w,
            phases=phases,
            grip=torch.zeros_like(self.palm_trajectory.depth_m) if grip is None else grip,
        )
        return target, self.palm_pos_w, self.palm_quat_w
