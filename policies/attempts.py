"""Play episodes of a policy, with regrasps: a policy whose hand is empty returns to a new pre-grasp.

`hand_state.is_hand_empty` decides, from the object points and from the grip that a student estimates from its joints.
A policy without such an estimate (synergy) has one attempt.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from policies.gripping import LEFT_SHARE, LOST_GRIP, SURE_GRIP, UNSEEN_SHARE, base_m
from policies.hand_state import is_hand_empty
from policies.synergy import Policy
from sim.outcomes import Outcome
from sim.step import Step
from sim.task import GraspTask

ATTEMPTS = 3
"""Default number of grasps per trial. The third one ends 11 to 19 s after the start; the published method has 14 s for
its only one."""


class Attempts:
    """Steps a policy in the task and starts another attempt where the hand is empty, up to a number per episode."""

    def __init__(self, task: GraspTask, policy: Policy, attempts: int = 1) -> None:
        self._task, self._policy = task, policy
        self._attempts = attempts if task.cfg.view.live else 1  # what only looked once does not know where to go
        self._base_m = torch.zeros(task.num_envs, device=task.device)  # when the lift began
        self._height_m = self._base_m  # when a lift last began or ended

    def step(self, obs: dict[str, Tensor]) -> Step:
        """One control step."""
        task, action = self._task, self._policy.act(obs)
        felt = self._policy.grip
        if self._attempts > 1 and felt is not None:
            rows = (self._empty(felt) & (task.judge.attempts < self._attempts)).nonzero().squeeze(1)
            if len(rows):
                task.try_again(rows)
        return task.step(action, felt)

    def _empty(self, felt: Tensor) -> Tensor:
        """Return whether the hand is empty (env,): at the end of its lift, or in the hold before the last step."""
        task = self._task
        lifted = task.grasp_steps + task.lift_steps
        begins, ends = task.clock == task.grasp_steps, task.clock == lifted
        if (begins | ends).any():
            self._height_m = base_m(task.view.points_w)
            self._base_m = torch.where(begins, self._height_m, self._base_m)
        return is_hand_empty(
            felt,
            self._height_m - self._base_m,
            task.view.fraction,
            lift_ends=ends,
            holding=(task.clock > lifted) & (task.clock < task.episode_steps - 1),
            lift_m=task.cfg.lift_m,
            min_rise_fraction=LEFT_SHARE,
            min_visible_fraction=UNSEEN_SHARE,
            grip_threshold_unseen=SURE_GRIP,
            grip_threshold_hold=LOST_GRIP,
        )


def play(
    task: GraspTask,
    policy: Policy,
    trials: Sequence[int],
    attempts: int = 1,
    watch: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Play one episode per row of `task`, trial `trials[i]` in row i; return the outcomes in the order of `trials`.

    `watch` is called before every step.
    """
    obs = task.reset(trials=list(trials))
    policy.reset(trials)
    actor, outcomes = Attempts(task, policy, attempts), {}
    while (task.clock < task.episode_steps).any():
        if watch is not None:
            watch()
        obs = actor.step(obs).obs
        done = task.clock == task.episode_steps
        if done.any():
            outcomes |= {outcome.trial: outcome for outcome in task.outcomes(done)}
            task.engine.rest(done.nonzero().squeeze(1))
    return [outcomes[trial] for trial in trials]
