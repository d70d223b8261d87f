"""Episodes of a policy, with another grasp from a new pre-grasp if the hand is empty after the lift.

The rule is `dexgrasp.policies.deploy.hand_state.is_hand_empty`: at the end of the lift it uses the object's rise, its
visibility and the grip confidence, in the hold the grip confidence alone. A policy without grip confidence (synergy)
has one attempt.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dexgrasp.policies.agents.registry import Agent
from dexgrasp.policies.deploy.hand_state import is_hand_empty
from dexgrasp.sim.task.grasp_task import GraspTask, StepResult
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.sim.task.regrasp import (
    GRIP_THRESHOLD_HOLD,
    GRIP_THRESHOLD_UNSEEN,
    MIN_RISE_FRACTION,
    MIN_VISIBLE_FRACTION,
    lowest_height_m,
)

ATTEMPTS = 3
"""Largest number of grasps in a trial.

The third one closes 11 to 19 s after the start; the published method has 14 s for its single grasp.
"""


class RegraspRunner:
    """Execution of a policy in the task, with up to `attempts` grasps per episode."""

    def __init__(self, task: GraspTask, policy: Agent | None, attempts: int = 1) -> None:
        """`policy` may be None where the caller steps the task and calls `regrasp` before each step."""
        self._task, self._policy = task, policy
        self._attempts = attempts if task.cfg.camera.live else 1  # a regrasp needs frames after the first one
        self._base_m = torch.zeros(task.num_envs, device=task.device)  # height at the start of the lift
        self._height_m = self._base_m  # height at the last start or end of a lift

    def step(self, obs: dict[str, Tensor]) -> StepResult:
        """Run one control step."""
        assert self._policy is not None
        action, grip = self._policy.act(obs), self._policy.grip
        self.regrasp(grip)
        return self._task.step(action, grip)

    def regrasp(self, grip: Tensor | None) -> None:
        """Start another attempt in the environments whose hand is empty.

        `grip`: grip confidence (env,) of the policy; None: the policy has no estimate.
        """
        if self._attempts < 2 or grip is None:
            return
        rows = (self._empty(grip) & (self._task.outcome_tracker.attempts < self._attempts)).nonzero().squeeze(1)
        if len(rows):
            self._task.start_regrasp(rows)

    def _empty(self, felt: Tensor) -> Tensor:
        """Return whether the hand is empty (env,): at the end of its lift, or in the hold before the last step."""
        task = self._task
        steps, lifted = task.steps_since_pregrasp, task.grasp_steps + task.lift_steps
        begins, ends = steps == task.grasp_steps, steps == lifted
        if (begins | ends).any():
            self._height_m = lowest_height_m(task.object_camera.points_w)
            self._base_m = torch.where(begins, self._height_m, self._base_m)
        return is_hand_empty(
            felt,
            self._height_m - self._base_m,
            task.object_camera.visible_fraction,
            lift_ends=ends,
            holding=(steps > lifted) & (steps < task.episode_steps - 1),
            lift_m=task.cfg.lift_m,
            min_rise_fraction=MIN_RISE_FRACTION,
            min_visible_fraction=MIN_VISIBLE_FRACTION,
            grip_threshold_unseen=GRIP_THRESHOLD_UNSEEN,
            grip_threshold_hold=GRIP_THRESHOLD_HOLD,
        )


class BlockProgress:
    """Words on how far a block of trials is, for `play(watch=...)`."""

    def __init__(self, task: GraspTask, tell: Callable[[str], None]) -> None:
        """`tell`: takes the words before each control step, and shows them every few seconds."""
        self._task, self._tell, self._steps = task, tell, 0

    def __call__(self) -> None:
        """Tell the control step, how many trials have ended, and how many grasp again."""
        task = self._task
        ended = int((task.steps_since_pregrasp >= task.episode_steps).sum())
        again = int((task.outcome_tracker.attempts > 1).sum())
        regrasps = f", {again} grasped again" if again else ""
        self._steps += 1
        self._tell(
            f"control step {self._steps} ({task.episode_steps} per attempt), {ended} of the block's {task.num_envs} "
            f"trials ended{regrasps}"
        )


def play(
    task: GraspTask,
    policy: Agent,
    trials: Sequence[int],
    attempts: int = 1,
    watch: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Run one episode in every row of `task`; row i is trial `trials[i]`.

    `watch` is called before each step.
    """
    outcomes = play_to_end(task, policy, task.reset(trials=list(trials)), trials, attempts, watch)
    return [outcomes[trial] for trial in trials]


def play_to_end(
    task: GraspTask,
    policy: Agent,
    obs: dict[str, Tensor],
    trials: Sequence[int],
    attempts: int = 1,
    watch: Callable[[], None] | None = None,
) -> dict[int, Outcome]:
    """Run the episodes that have begun until all have ended; return their outcomes by trial.

    `obs`: first observations; `trials`: number of each row.
    """
    policy.reset(trials)
    actor, outcomes = RegraspRunner(task, policy, attempts), {}
    while (task.steps_since_pregrasp < task.episode_steps).any():
        if watch is not None:
            watch()
        obs = actor.step(obs).obs
        done = task.steps_since_pregrasp == task.episode_steps
        if done.any():
            outcomes |= {outcome.trial: outcome for outcome in task.outcomes(done)}
            task.engine.freeze(done.nonzero().squeeze(1))
    return outcomes
