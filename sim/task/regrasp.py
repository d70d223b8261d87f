"""Regrasp: motion of an empty hand out of the camera's view, and to a new pre-grasp.

 via ----> aside ----> next pre-grasp      every motion rises first, then crosses
  ^        (new view)
grasp

An empty hand is detected from grip confidence, rise and visible fraction of the object (`is_hand_empty`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dexgrasp.perception.grasp_planning.planner import Pregrasp
from dexgrasp.perception.grasp_planning.scoring import FailedGrasps
from dexgrasp.perception.tracking.icp import centroid_xy
from dexgrasp.perception.transforms import (
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    rotvec_from_quat,
    unit_axis,
)
from dexgrasp.sim.engine.base import Engine
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.object_camera import ObjectCamera
from dexgrasp.sim.task.actions import HandController, Targets
from dexgrasp.sim.task.episode_clock import EpisodeClock
from dexgrasp.sim.task.outcomes import WORKSPACE_M
from dexgrasp.sim.task.reset import PregraspPlanner

MIN_VISIBLE_FRACTION = 0.1
"""An object counts as not visible below this fraction of the pixels of its first view."""
GRIP_THRESHOLD_UNSEEN = 0.7
"""An object that is not visible counts as held above this grip confidence. In 1,296 lifts of validation objects,
randomised, shifted or pushed, two students detected 145 of 150 empty hands with it, and reported 21 of 1,146 hands as
empty that held the object; among the 704 that held it for three seconds, 2."""
GRIP_THRESHOLD_HOLD = 0.3
"""In the hold an object counts as lost below this grip confidence. A student detected 57 of 67 failures in the hold
with it, mostly with disturbance=force, and reported none of 702 successful grasps of validation objects as lost."""
MIN_RISE_FRACTION = 1 / 3
"""An object that rose by less than this fraction of the lift was left behind. Grip confidence alone is not sufficient:
fingers that press against each other give a high one."""
PALM_M_S, PALM_RAD_S = 0.3, 1.5
"""Mean speeds of the palm; a UR5e turns twice as fast."""
OPEN_S = 0.4
"""Least time that the fingers have to open before the palm moves across."""
ASIDE_M, ABOVE_M = 0.25, 0.3
"""Distance that the palm moves back, against the fingers' direction, and its height over the table there."""
REST_S = 0.2
"""Pause of the palm at the end of each motion."""


def grip_confidence(contact: Tensor, hand: HandSpec) -> Tensor:
    """Return the confidence (env,) that thumb and a finger touch the object.

    `contact` (env, body): contact probabilities.
    """
    columns = contact.unbind(1)
    thumb, fingers = (
        torch.stack([columns[body] for body in mask.nonzero()[0]]).amax(dim=0)
        for mask in (hand.thumb_mask, hand.finger_mask)
    )
    return torch.minimum(thumb, fingers)


def lowest_height_m(points_w: Tensor) -> Tensor:
    """Return the mean height (env,) of the lowest quarter of points (env, point, 3) [m]."""
    count = points_w.shape[1] // 4
    return points_w[..., 2].topk(count, dim=1, largest=False).values.mean(dim=1)


class RegraspMotion:
    """Interpolates palm poses: vertical to the height of the higher end, then across.

    The palm turns while it moves across.
    """

    def __init__(self, num_envs: int, motors: int, step_s: float, device: torch.device | str = "cpu") -> None:
        self._step_s = step_s

        def zeros(*size: int) -> Tensor:
            return torch.zeros(num_envs, *size, dtype=torch.float64, device=device)

        self._from_pos_w, self._from_quat_w = zeros(3), zeros(4)
        self._to_pos_w, self._to_quat_w, self._fingers = zeros(3), zeros(4), zeros(motors)
        self._up_steps, self._across_steps, self._steps = zeros(), zeros(), zeros()

    def start(self, rows: Tensor, start: tuple[Tensor, Tensor], goal: tuple[Tensor, Tensor], fingers: Tensor) -> Tensor:
        """Plan the motions of `rows`; return their lengths in control steps, (row,) int64.

        `start` and `goal` are palm poses (row, 3) [m] and (row, 4); `fingers` (row, motor) is the finger target [rad].
        """
        self._from_pos_w[rows], self._from_quat_w[rows] = start
        self._to_pos_w[rows], self._to_quat_w[rows] = goal
        self._fingers[rows] = fingers
        via = self._via(rows)
        up_s = ((via - self._from_pos_w[rows])[:, 2] / PALM_M_S).clamp(min=OPEN_S)
        across_s = torch.maximum((goal[0] - via).norm(dim=1) / PALM_M_S, self._turn(rows).norm(dim=1) / PALM_RAD_S)
        self._up_steps[rows] = (up_s / self._step_s).ceil()
        self._across_steps[rows] = (across_s / self._step_s).ceil().clamp(min=1.0)
        self._steps[rows] = self._up_steps[rows] + self._across_steps[rows] + round(REST_S / self._step_s)
        return self._steps[rows].long()

    def targets(self, rows: Tensor, steps_left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the targets of `rows` at `steps_left` (row,) control steps before the end.

        Finger targets (row, motor) [rad], palm positions (row, 3) [m] and orientations (row, 4).
        """
        step = self._steps[rows] - steps_left + 1  # the first is 1
        up = (step / self._up_steps[rows]).clamp(max=1.0)[:, None]
        across = ((step - self._up_steps[rows]) / self._across_steps[rows]).clamp(0.0, 1.0)[:, None]
        pos = torch.lerp(self._from_pos_w[rows], self._via(rows), up)
        pos = torch.lerp(pos, self._to_pos_w[rows], across)
        quat = quat_multiply(self._from_quat_w[rows], quat_from_rotvec(across * self._turn(rows)))
        return self._fingers[rows], pos, quat

    def _via(self, rows: Tensor) -> Tensor:
        """Return the points (row, 3) above the starts, as high as the higher end."""
        start, end = self._from_pos_w[rows], self._to_pos_w[rows]
        return torch.cat([start[:, :2], torch.maximum(start, end)[:, 2:]], dim=1)

    def _turn(self, rows: Tensor) -> Tensor:
        """Return the rotation from start to goal as rotation vectors (row, 3) in the palm frame."""
        return rotvec_from_quat(quat_multiply(quat_conjugate(self._from_quat_w[rows]), self._to_quat_w[rows]))


class Regrasp:
    """Wraps the hand controller: replaces its targets while palms move to another pre-grasp.

    An environment is moving while its steps since the pre-grasp are negative. At zero, a palm that is aside takes a new
    view and plans the next motion; a palm at its pre-grasp starts the grasp. Clock and draws are shared with the task,
    which changes them in place.
    """

    def __init__(
        self,
        *,
        control: HandController,
        planner: PregraspPlanner,
        object_camera: ObjectCamera,
        engine: Engine,
        objects: Sequence[str],
        draws: EpisodeDraws,
        clock: EpisodeClock,
        episode_steps: int,
        step_s: float,
    ) -> None:
        """`objects`: name of each environment's object."""
        self._control, self._planner, self._object_camera, self._engine = control, planner, object_camera, engine
        self._objects, self._draws = objects, draws
        self._clock, self._episode_steps = clock, episode_steps
        num_envs, device = len(objects), clock.since_pregrasp.device
        self._motion = RegraspMotion(num_envs, control.style.closing.shape[1], step_s, device)
        self.any_moving = False
        """Host-side flag, so that no device sync is needed: false while no palm is moving."""
        self.moving_aside = torch.zeros(num_envs, dtype=torch.bool, device=device)
        """(env,) whether the current motion ends aside, for a new view; otherwise it ends at a pre-grasp."""
        self.failed_grasps = FailedGrasps(num_envs, device)
        """Grasps started in each trial, the current one included."""

    def reset(self, rows: Tensor, plan: Pregrasp) -> None:
        """Reset the memory of `rows` to the first grasp of their new trials."""
        self.failed_grasps.clear(rows)
        self.failed_grasps.add(rows, plan.descriptor)

    def start(self, rows: Tensor) -> None:
        """Move the palms of `rows` (sorted) up and aside, opening the fingers."""
        control = self._control
        pos, quat = control.palm_pos_w[rows], control.palm_quat_w[rows]
        back = -quat_rotate(quat, unit_axis(2, quat))[:, :2]
        away = ASIDE_M * back / back.norm(dim=1, keepdim=True).clamp(min=1e-9)
        goal = torch.nn.functional.pad(pos[:, :2] + away, (0, 1), value=ABOVE_M)
        self.moving_aside[rows] = self.any_moving = True
        fingers = control.motors.positions(control.style.open_pose[rows])
        steps = self._motion.start(rows, (pos, quat), (goal, quat), fingers)
        self._clock.set_since_pregrasp(rows, -steps)

    def override_targets(self, targets: Targets) -> Targets:
        """Return the targets of the controller, with those of the moving palms replaced by their motions."""
        if not self.any_moving:
            return targets
        since = self._clock.since_pregrasp
        rows = (since < 0).nonzero().squeeze(1)
        fingers, pos, quat = self._motion.targets(rows, -since[rows])
        self._control.set_palm_target(rows, pos, quat)
        return targets[0].index_copy(0, rows, fingers), self._control.palm_pos_w, self._control.palm_quat_w

    def finish_motions(self) -> None:
        """Replan where a palm arrived aside; start the grasp where one arrived at its pre-grasp."""
        if not self.any_moving:
            return
        clock = self._clock
        arrived = ((clock.since_pregrasp == 0) & (clock.since_reset > 0)).nonzero().squeeze(1)
        if (aside := self.moving_aside[arrived]).any():
            self._replan(arrived[aside])
        self.any_moving = bool((clock.since_pregrasp < 0).any())
        self._control.restart_approach(arrived[~aside])

    def _replan(self, rows: Tensor) -> None:
        """Plan another grasp in `rows` and move there; end the trial where the object is unseen or out of reach."""
        seen = self._object_camera.observe_first_again(
            rows, self._objects, self._engine.state, self._draws, self._clock.since_reset
        )
        gone = ~seen | (centroid_xy(self._object_camera.points_w[rows]).abs() > WORKSPACE_M).any(dim=1)
        self._clock.set_since_pregrasp(rows[gone], self._episode_steps - 1)
        rows = rows[~gone]
        if not len(rows):
            return
        points_w, draws, control = self._object_camera.points_w[rows], self._draws.rows(rows), self._control
        place_w = torch.nn.functional.pad(centroid_xy(points_w), (0, 1))
        plan = self._planner(points_w, place_w + draws.approach_offset, draws, self.failed_grasps.descriptors[rows])
        self.failed_grasps.add(rows, plan.descriptor)
        self.moving_aside[rows] = False
        start = control.palm_pos_w[rows], control.palm_quat_w[rows]
        goal = plan.palm_pos_w, plan.palm_quat_w
        fingers = control.motors.positions(plan.style.open_pose)
        self._clock.set_since_pregrasp(rows, -self._motion.start(rows, start, goal, fingers))
        control.reset(rows, plan)
