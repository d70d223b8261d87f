"""Interpolates and checks the path of a motion planner to the pre-grasp; without ROS."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.utils.rotations import Pose

Array = NDArray[np.float64]
NOT_PLANNED = "no path to the pre-grasp is planned"
SPACING_RAD = 0.02
"""Largest motion of a joint between two poses of a path [rad]."""
LONGEST_RAD = 60.0
"""Sum of the largest joint motions above which a path is refused [rad]."""
START_M, START_RAD = 0.02, 0.1
"""Largest distance of the first pose of a path from the last command."""
GOAL_M, GOAL_RAD = 0.01, 0.06
"""Largest distance of the last pose of a path from the pre-grasp."""


@dataclass(frozen=True, eq=False)
class PlannedPath:
    """Palm poses on the way to a pre-grasp, from the pose at which the arm stands."""

    poses: tuple[Pose, ...]
    """T_world_palm; between two of them no joint moves further than SPACING_RAD."""

    def problem(self, start: Pose, goal: Pose, lower_m: Array, upper_m: Array) -> str:
        """Return why the palm must not follow the path from `start` to `goal` within a box, or an empty text."""
        first, last = self.poses[0], self.poses[-1]
        if first.distance_m(start) > START_M or first.angle_rad(start) > START_RAD:
            return (
                f"the planned path begins {first.distance_m(start):.3f} m and {first.angle_rad(start):.2f} rad from "
                "the last command: it was planned for another position of the arm; ask again"
            )
        if last.distance_m(goal) > GOAL_M or last.angle_rad(goal) > GOAL_RAD:
            return (
                f"the planned path ends {last.distance_m(goal):.3f} m and {last.angle_rad(goal):.2f} rad from the "
                "pre-grasp: it was planned for another plan, or joint names or zeros of the planner are not those of "
                "the driver"
            )
        positions = np.array([pose.pos_m for pose in self.poses])
        outside = (np.clip(positions, lower_m, upper_m) != positions).any(axis=1)
        if outside.any():
            where = np.round(positions[outside.argmax()], 3).tolist()
            return f"the planned path leads the palm through {where} m, outside its workspace"
        return ""


def path_of_waypoints(waypoints: ArrayLike, palms: Callable[[Array], list[Pose]]) -> PlannedPath:
    """Return the path through joint positions (waypoint, joint) [rad], interpolated linearly between them.

    `palms`: returns T_world_palm at joint positions (row, joint) [rad]. Raises ValueError for a path that is none.
    """
    rows = np.array(waypoints, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 1 or not np.isfinite(rows).all():
        raise ValueError(f"a path has waypoints of finite joint positions, got shape {rows.shape}")
    return PlannedPath(tuple(palms(interpolated(rows))))


def interpolated(waypoints: Array) -> Array:
    """Return joint positions (row, joint) [rad] along waypoints, at most SPACING_RAD apart.

    Raises ValueError for a path that is too long.
    """
    steps_rad = np.abs(np.diff(waypoints, axis=0)).max(axis=1, initial=0.0)
    if steps_rad.sum() > LONGEST_RAD:
        raise ValueError(f"the path moves joints by {steps_rad.sum():.3g} rad in all, at most {LONGEST_RAD:g} are used")
    parts = [waypoints[:1]]
    for start, end, step_rad in zip(waypoints[:-1], waypoints[1:], steps_rad, strict=True):
        count = max(1, int(np.ceil(step_rad / SPACING_RAD)))
        parts.append(start + (np.arange(1, count + 1) / count)[:, None] * (end - start))
    return np.concatenate(parts)
