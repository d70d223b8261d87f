"""Scripted motions of palm and fingers (approach, release, home) as speed-limited stages.

A stage moves a reference of the palm and one of the fingers. The palm reference waits for a robot that lags behind it,
so that the robot does not catch up at high speed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.drivers.arm_kinematics import TRANSIT_M

Array = NDArray[np.float64]
MIN_DOWN_COSINE = 0.7
"""A palm whose normal points down by at least this (cosine) descends along the normal."""
SIDE_RETREAT_M = 0.1
"""Any other palm descends this far from its pre-grasp, beside the object [m]."""
RELEASE_HEIGHT_M = 0.005
"""Height above its first position at which a lifted object is released [m]."""


@dataclass(frozen=True)
@bounded
class MotionCfg:
    """Speeds and tolerances of scripted motions."""

    palm_speed_m_s: Annotated[float, Bounds(0.001, 5)] = 0.15
    """Speed of the palm [m/s]."""
    palm_speed_rad_s: Annotated[float, Bounds(0.01, 20)] = 0.6
    """Angular speed of the palm [rad/s]."""
    joint_speed_rad_s: Annotated[float, Bounds(0.01, 20)] = 1.0
    """Speed of the finger joints [rad/s]."""
    transit_height_m: Annotated[float, Bounds(0.01, 2)] = TRANSIT_M
    """Height of the palm in horizontal motions; objects and open fingers must fit below [m]."""
    lead_m: Annotated[float, Bounds(0.0001, 10)] = 0.05
    """Distance between palm and reference above which the reference waits [m]."""
    lead_rad: Annotated[float, Bounds(0.0001, 6.3)] = 0.3
    """Angle between palm and reference above which the reference waits [rad]."""
    arrived_m: Annotated[float, Bounds(0.0001, 1)] = 0.01
    """Distance to the goal at which the palm has arrived [m]."""
    arrived_rad: Annotated[float, Bounds(0.0001, 3.15)] = 0.06
    """Angle to the goal at which the palm has arrived [rad]."""
    arrived_joint_rad: Annotated[float, Bounds(0.0001, 6.3)] = 0.15
    """Difference to the goal at which the fingers have arrived [rad]."""
    settle_s: Annotated[float, Bounds(0.001, 60)] = 0.5
    """Time after the arrival of its reference at which a stage ends that need not be exact [s]."""


@dataclass(frozen=True, eq=False)
class MotionStage:
    """Goal of palm and fingers; None: they stay."""

    name: str
    palm: Pose | None = None
    fingers: Array | None = None
    """(joint,) [rad]."""
    via: tuple[Pose, ...] = ()
    """Poses that the palm passes on the way."""
    exact: bool = False
    """Whether the robot must arrive; else the stage ends after `settle_s`, because the object may block it."""


class ScriptedMotion:
    """Executes stages in order, from the last sent targets."""

    def __init__(
        self, stages: Sequence[MotionStage], palm: Pose, fingers: Array, cfg: MotionCfg, period_s: float
    ) -> None:
        self.palm, self.fingers = palm, fingers
        """References of palm and fingers, to be sent."""
        self._stages, self._cfg, self._dt = list(stages), cfg, period_s
        self.speed_scale = 1.0
        """Fraction of the speeds of the settings."""
        self._waited_s, self._passed = 0.0, 0  # of the current stage: time at its end, poses of `via` behind the palm

    @property
    def done(self) -> bool:
        """Whether all stages are complete."""
        return not self._stages

    @property
    def stage(self) -> str:
        """Name of the current stage."""
        return self._stages[0].name if self._stages else "done"

    def step(self, palm: Pose, fingers: Array) -> tuple[Pose, Array]:
        """Return the references of the next control period for measured palm and fingers (joint,) [rad]."""
        if self._stages:
            stage, cfg, scaled_s = self._stages[0], self._cfg, self.speed_scale * self._dt
            near = self.palm.distance_m(palm) < cfg.lead_m and self.palm.angle_rad(palm) < cfg.lead_rad
            if stage.palm is not None and near:
                step_m, step_rad = cfg.palm_speed_m_s * scaled_s, cfg.palm_speed_rad_s * scaled_s
                self._advance([*stage.via[self._passed :], stage.palm], step_m, step_rad)
            if stage.fingers is not None:
                limit = cfg.joint_speed_rad_s * scaled_s
                self.fingers = self.fingers + np.clip(stage.fingers - self.fingers, -limit, limit)
            if self._complete(stage, palm, fingers):
                self._stages.pop(0)
                self._waited_s, self._passed = 0.0, 0
        return self.palm, self.fingers

    def _advance(self, poses: Sequence[Pose], step_m: float, step_rad: float) -> None:
        """Move the palm reference through poses, as far as one control period allows."""
        left = 1.0
        for pose in poses:
            before = self.palm
            self.palm = before.step_towards(pose, left * step_m, left * step_rad)
            left -= max(before.distance_m(self.palm) / step_m, before.angle_rad(self.palm) / step_rad)
            if pose is poses[-1] or left <= 1e-9:
                return
            self._passed += 1

    def remaining(self, palm: Pose, fingers: Array) -> str:
        """Describe the remaining distance of the current stage."""
        if not self._stages:
            return "nothing"
        stage = self._stages[0]
        away = ""
        if stage.palm is not None:
            away = f"the palm is {stage.palm.distance_m(palm):.3f} m and {stage.palm.angle_rad(palm):.2f} rad away, "
        worst = 0.0 if stage.fingers is None else float(np.abs(stage.fingers - fingers).max())
        return f"{stage.name}: {away}a finger joint {worst:.2f} rad"

    def _complete(self, stage: MotionStage, palm: Pose, fingers: Array) -> bool:
        """Return whether the references have arrived and the robot has arrived or `settle_s` has passed."""
        cfg, goal, finger_goal = self._cfg, stage.palm, stage.fingers
        if goal is not None and (self.palm.distance_m(goal) > 1e-9 or self.palm.angle_rad(goal) > 1e-6):
            return False
        if finger_goal is not None and np.abs(self.fingers - finger_goal).max() > 1e-9:
            return False
        self._waited_s += self._dt
        if not stage.exact and self._waited_s > cfg.settle_s - 1e-9:
            return True
        near = goal is None or (goal.distance_m(palm) <= cfg.arrived_m and goal.angle_rad(palm) <= cfg.arrived_rad)
        return near and (finger_goal is None or bool(np.abs(finger_goal - fingers).max() <= cfg.arrived_joint_rad))


def approach(start: Pose, goal: Pose, fingers: Array, transit_m: float) -> list[MotionStage]:
    """Return the stages to a pre-grasp: raise and open the fingers (joint,), move across, descend."""
    entry = back_off(goal, transit_m)
    height_m = max(start.pos_m[2], entry.pos_m[2], transit_m)
    return [
        MotionStage("raise", at_height(start, height_m), fingers, exact=True),
        MotionStage("across", at_height(entry, height_m), exact=True),
        MotionStage("lower", entry, exact=True),
        MotionStage("descend", goal, fingers, exact=True),
    ]


def approach_along(path: Sequence[Pose], goal: Pose, fingers: Array) -> list[MotionStage]:
    """Return the stage along a planned path to a pre-grasp, while the fingers (joint,) open."""
    return [MotionStage("path", goal, fingers, via=tuple(path), exact=True)]


def back_off(goal: Pose, height_m: float) -> Pose:
    """Return `goal` moved back along its normal: to a height for a downward palm, else by SIDE_M."""
    down, rise_m = -goal.normal[2], max(height_m - goal.pos_m[2], 0.0)
    return Pose(goal.pos_m - goal.normal * (rise_m / down if down >= MIN_DOWN_COSINE else SIDE_RETREAT_M), goal.quat)


def release(palm: Pose, lowered_m: float, fingers: Array, retreat_m: float) -> list[MotionStage]:
    """Return the stages of a release: lower, open the fingers (joint,), retreat along the palm's normal.

    The palm is lowered by `lowered_m` - GAP_M, so that the object is not pressed into the table.
    """
    lowered_m = max(lowered_m - RELEASE_HEIGHT_M, 0.0)
    down = Pose(palm.pos_m - np.array([0.0, 0.0, lowered_m]), palm.quat)
    back = Pose(down.pos_m - down.normal * retreat_m, down.quat)
    lower = [MotionStage("lower", down)] if lowered_m > 0 else []
    return [*lower, MotionStage("open", None, fingers), MotionStage("retreat", back)]


def place(start: Pose, goal: Pose, fingers: Array, transit_m: float, retreat_m: float) -> list[MotionStage]:
    """Return the stages that put a held object down at `goal`.

    Raise, move across, lower, open the fingers (joint,), retreat.
    """
    height_m = max(start.pos_m[2], goal.pos_m[2], transit_m)
    return [
        MotionStage("raise", at_height(start, height_m), exact=True),
        MotionStage("across", at_height(goal, height_m), exact=True),
        MotionStage("lower", goal),
        *release(goal, 0.0, fingers, retreat_m),
    ]


def go_home(start: Pose, home: Pose, fingers: Array, transit_m: float) -> list[MotionStage]:
    """Return the stages to the home pose: raise, move across, descend."""
    height_m = max(start.pos_m[2], home.pos_m[2], transit_m)
    return [
        MotionStage("raise", at_height(start, height_m), exact=True),
        MotionStage("across", at_height(home, height_m), exact=True),
        MotionStage("home", home, fingers),
    ]


def at_height(pose: Pose, height_m: float) -> Pose:
    """Return the pose moved vertically to a height."""
    return Pose(np.array([*pose.pos_m[:2], height_m]), pose.quat)


def clip_to_workspace(stages: Sequence[MotionStage], lower_m: Array, upper_m: Array) -> list[MotionStage]:
    """Return the stages with each palm position clipped to a box (3,), (3,) [m]."""
    return [
        stage
        if stage.palm is None
        else replace(stage, palm=Pose(np.clip(stage.palm.pos_m, lower_m, upper_m), stage.palm.quat))
        for stage in stages
    ]
