"""Motions that no policy makes: to the pre-grasp, out of a release, home. Stages in turn, at limited speed.

A stage moves a reference for the palm and one for the fingers. The references wait for the robot where it lags, so that
a robot that was held up does not rush after them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.rotations import Pose

Array = NDArray[np.float64]
DOWN = 0.7
"""A palm that looks down by at least this (cosine) comes down along its normal all the way."""
SIDE_M = 0.1
"""Another one comes down beside the object, this much further away than its pre-grasp."""

GAP_M = 0.005


@dataclass(frozen=True)
class MotionCfg:
    """Speeds and tolerances of scripted motions."""

    palm_speed_m_s: float = 0.15
    """Of the palm."""
    palm_speed_rad_s: float = 0.6
    """Of its turns."""
    joint_speed_rad_s: float = 1.0
    """Of the fingers."""
    transit_height_m: float = 0.4
    """Height of the palm centre in which it moves across; objects and open fingers must fit below."""
    lead_m: float = 0.05
    """The reference waits when the palm is further behind."""
    lead_rad: float = 0.3
    """The same for its orientation."""
    arrived_m: float = 0.01
    """The palm is where it should be."""
    arrived_rad: float = 0.06
    """It is oriented as it should be."""
    arrived_joint_rad: float = 0.15
    """The fingers are where they should be."""
    settle_s: float = 0.5
    """A stage that need not be exact ends so long after its reference has arrived."""

    def __post_init__(self) -> None:
        if wrong := [name for name, value in vars(self).items() if not (np.isfinite(value) and value > 0)]:
            raise ValueError(f"motion: {wrong} must be positive")


@dataclass(frozen=True, eq=False)
class Stage:
    """Where palm and fingers go next; None: they stay."""

    name: str
    palm: Pose | None = None
    fingers: Array | None = None
    """(joint,) [rad]."""
    exact: bool = False
    """The robot must arrive; else it is given `settle_s`, because the object may be in its way."""


class Script:
    """Stages in turn, from the targets that were sent last."""

    def __init__(self, stages: Sequence[Stage], palm: Pose, fingers: Array, cfg: MotionCfg, period_s: float) -> None:
        self.palm, self.fingers = palm, fingers
        """References: what to send."""
        self._stages, self._cfg, self._dt = list(stages), cfg, period_s
        self._waited_s = 0.0

    @property
    def done(self) -> bool:
        """All stages are over."""
        return not self._stages

    @property
    def stage(self) -> str:
        """Name of the stage that is under way."""
        return self._stages[0].name if self._stages else "done"

    def step(self, palm: Pose, fingers: Array) -> tuple[Pose, Array]:
        """References for the next control period, where palm and fingers (joint,) [rad] were measured."""
        if self._stages:
            stage, cfg = self._stages[0], self._cfg
            near = self.palm.distance_m(palm) < cfg.lead_m and self.palm.angle_rad(palm) < cfg.lead_rad
            if stage.palm is not None and near:
                step_m, step_rad = cfg.palm_speed_m_s * self._dt, cfg.palm_speed_rad_s * self._dt
                self.palm = self.palm.towards(stage.palm, step_m, step_rad)
            if stage.fingers is not None:
                limit = cfg.joint_speed_rad_s * self._dt
                self.fingers = self.fingers + np.clip(stage.fingers - self.fingers, -limit, limit)
            if self._over(stage, palm, fingers):
                self._stages.pop(0)
                self._waited_s = 0.0
        return self.palm, self.fingers

    def missing(self, palm: Pose, fingers: Array) -> str:
        """What keeps the current stage from its end, in words."""
        if not self._stages:
            return "nothing"
        stage = self._stages[0]
        away = "" if stage.palm is None else f"the palm is {stage.palm.distance_m(palm):.3f} m and "
        away += "" if stage.palm is None else f"{stage.palm.angle_rad(palm):.2f} rad away, "
        worst = 0.0 if stage.fingers is None else float(np.abs(stage.fingers - fingers).max())
        return f"{stage.name}: {away}a finger joint {worst:.2f} rad"

    def _over(self, stage: Stage, palm: Pose, fingers: Array) -> bool:
        """The references are there, and so is the robot, or it has been given time."""
        cfg, goal, open_to = self._cfg, stage.palm, stage.fingers
        if goal is not None and (self.palm.distance_m(goal) > 1e-9 or self.palm.angle_rad(goal) > 1e-6):
            return False
        if open_to is not None and np.abs(self.fingers - open_to).max() > 1e-9:
            return False
        self._waited_s += self._dt
        if not stage.exact and self._waited_s > cfg.settle_s - 1e-9:
            return True
        near = goal is None or (goal.distance_m(palm) <= cfg.arrived_m and goal.angle_rad(palm) <= cfg.arrived_rad)
        return near and (open_to is None or bool(np.abs(open_to - fingers).max() <= cfg.arrived_joint_rad))


def approach(start: Pose, goal: Pose, fingers: Array, transit_m: float) -> list[Stage]:
    """To a pre-grasp: up with the fingers (joint,) opening, across, down along the palm's normal. Never lower first."""
    entry = back_off(goal, transit_m)
    height_m = max(start.pos_m[2], entry.pos_m[2], transit_m)
    return [
        Stage("raise", at_height(start, height_m), fingers, exact=True),
        Stage("across", at_height(entry, height_m), exact=True),
        Stage("lower", entry, exact=True),
        Stage("descend", goal, fingers, exact=True),
    ]


def back_off(goal: Pose, height_m: float) -> Pose:
    """A pose back along the palm's normal: at that height where the palm looks down, else SIDE_M away from `goal`."""
    down, rise_m = -goal.normal[2], max(height_m - goal.pos_m[2], 0.0)
    return Pose(goal.pos_m - goal.normal * (rise_m / down if down >= DOWN else SIDE_M), goal.quat)


def let_go(palm: Pose, lowered_m: float, fingers: Array, retreat_m: float) -> list[Stage]:
    """Out of a grasp: lower by what was lifted, open the fingers (joint,), move back along the palm's normal.

    The object is let go GAP_M above where it was taken, rather than pressed into the table.
    """
    lowered_m = max(lowered_m - GAP_M, 0.0)
    down = Pose(palm.pos_m - np.array([0.0, 0.0, lowered_m]), palm.quat)
    back = Pose(down.pos_m - down.normal * retreat_m, down.quat)
    lower = [Stage("lower", down)] if lowered_m > 0 else []
    return [*lower, Stage("open", None, fingers), Stage("retreat", back)]


def go_home(start: Pose, home: Pose, fingers: Array, transit_m: float) -> list[Stage]:
    """Up, across, then to the home pose."""
    height_m = max(start.pos_m[2], home.pos_m[2], transit_m)
    return [
        Stage("raise", at_height(start, height_m), exact=True),
        Stage("across", at_height(home, height_m), exact=True),
        Stage("home", home, fingers),
    ]


def at_height(pose: Pose, height_m: float) -> Pose:
    """The pose moved straight up or down."""
    return Pose(np.array([*pose.pos_m[:2], height_m]), pose.quat)


def within(stages: Sequence[Stage], lower_m: Array, upper_m: Array) -> list[Stage]:
    """The same stages with every palm in a box (3,), (3,) [m], where it can arrive."""
    return [
        Stage(
            stage.name,
            None if stage.palm is None else Pose(np.clip(stage.palm.pos_m, lower_m, upper_m), stage.palm.quat),
            stage.fingers,
            stage.exact,
        )
        for stage in stages
    ]
