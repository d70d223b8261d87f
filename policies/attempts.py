"""Try again: a policy that feels nothing between thumb and fingers goes back to a new pre-grasp instead of lifting air.

What is asked is what the student learnt to feel from its own joints, whatever the camera sees: twice in an attempt,
when the grasp phase ends and when the lift does. A policy that feels nothing (synergy) has one attempt.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from policies.gripping import EMPTY
from policies.synergy import Policy
from sim.outcomes import Outcome
from sim.step import Step
from sim.task import GraspTask

ATTEMPTS = 3
"""As many grasps as fit into the 14 s that the published method has for its one."""


class Attempts:
    """A policy in the task, with so many attempts for each episode."""

    def __init__(self, task: GraspTask, policy: Policy, attempts: int = 1) -> None:
        self._task, self._policy = task, policy
        self._attempts = attempts if task.cfg.view.live else 1  # what only looked once does not know where to go

    def step(self, obs: dict[str, Tensor]) -> Step:
        """One control step."""
        task, action = self._task, self._policy.act(obs)
        felt = self._policy.grip
        if self._attempts > 1 and felt is not None:
            asked = (task.clock == task.grasp_steps) | (task.clock == task.grasp_steps + task.lift_steps)
            rows = (asked & (felt < EMPTY) & (task.judge.attempts < self._attempts)).nonzero().squeeze(1)
            if len(rows):
                task.try_again(rows)
        return task.step(action)


def play(
    task: GraspTask,
    policy: Policy,
    trials: Sequence[int],
    attempts: int = 1,
    watch: Callable[[], None] | None = None,
) -> list[Outcome]:
    """One episode in every row of `task`, row i being trial `trials[i]`. `watch` is called before every step."""
    obs = task.reset(trials=list(trials))
    policy.reset(trials)
    actor, outcomes = Attempts(task, policy, attempts), {}
    while (task.clock < task.episode_steps).any():
        if watch is not None:
            watch()
        obs = actor.step(obs).obs
        done = task.clock == task.episode_steps
        outcomes |= {outcome.trial: outcome for outcome in task.outcomes(done)}
        task.engine.rest(done.nonzero().squeeze(1))
    return [outcomes[trial] for trial in trials]
