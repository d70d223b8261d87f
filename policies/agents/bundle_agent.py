"""Exported policy in the simulated task, with a check that both compute equal targets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexgrasp.policies.deploy.policy import TOLERANCE, Command, Observation, Policy, PregraspPlan
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.robot_observations import pregrasp, readings


def plan_of(task: GraspTask) -> PregraspPlan:
    """Return the pre-grasps of all environments."""
    return PregraspPlan(**{name: _array(value) for name, value in pregrasp(task).items()})


def observation_of(task: GraspTask) -> Observation:
    """Return the sensor readings of all environments."""
    return Observation(**{name: _array(value) for name, value in readings(task).items()})


def _array(value: Tensor) -> np.ndarray:
    """Return a copy as a NumPy array."""
    return value.cpu().numpy().copy()


class BundleAgent:
    """Policy of a bundle for an evaluation, one graph for all environments.

    The bundle integrates its own targets; at every step they must equal those that the task computed from its actions.
    """

    def __init__(self, folder: Path, task: GraspTask) -> None:
        self._policy = Policy.load(folder, task.hand.joint_names)
        self._task, self._command = task, None
        self._between_grasps = np.zeros(task.num_envs, bool)  # rows that move to another pre-grasp, or have given up
        self.grip: Tensor | None = None
        """Grip confidence (env,) of the last `act`, 0 to 1."""
        late = task.cfg.randomization
        self._immediate = not (late.action_delay or late.late_action_probability)

    def reset(self, trials: Sequence[int]) -> None:
        """Start an episode at the pre-grasps of all environments."""
        self._policy.reset(plan_of(self._task))
        self._command, self._between_grasps[:] = None, False

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return actions (env, action); `obs` is not used, the bundle computes its own observation."""
        self._between_grasps |= _array(self._task.steps_since_pregrasp < 0)
        if self._command is not None:
            self._compare(self._command)
            self._reset_arrived()
        self._command = self._policy.act(observation_of(self._task))
        self.grip = torch.from_numpy(self._command.grip).to(self._task.device)
        return torch.from_numpy(self._command.action).to(self._task.device)

    def _reset_arrived(self) -> None:
        """Start another attempt in the environments that have arrived at a new pre-grasp."""
        rows = (self._task.steps_since_pregrasp == 0).nonzero().squeeze(1).tolist()
        if rows:
            self._policy.reset(plan_of(self._task), rows)
            self._between_grasps[rows] = False

    def _compare(self, command: Command) -> None:
        """Raise ValueError where task and bundle computed different targets from the last action."""
        task = self._task
        pairs = [("palm target", command.palm_pos_w, task.control.palm_pos_w)]
        if self._immediate:
            pairs.append(("joint targets", command.joint_target, task.engine.state.joint_target))
        for name, ours, theirs in pairs:
            rows = ~(self._between_grasps | _array(task.outcome_tracker.unstable))
            gap = np.abs(ours - _array(theirs))[rows].max(initial=0.0)
            if gap > TOLERANCE:
                raise ValueError(f"bundle and task disagree on the {name} by {gap:.2g}: was it exported for this task?")
