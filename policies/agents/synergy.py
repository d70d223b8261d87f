"""Policies by name: the scripted grasp, zero and random actions, and trained ones."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dexgrasp.policies.agents import registry
from dexgrasp.sim.task.grasp_task import GraspTask


class Agent(Protocol):
    """Protocol of a policy that acts in a GraspTask."""

    @property
    def grip(self) -> Tensor | None:
        """Return the certainty (env,) that thumb and a finger touched the object at the last `act`, 0 to 1, or None."""
        ...

    def reset(self, trials: Sequence[int]) -> None:
        """Start a new episode in every row; row i is trial `trials[i]`, the seed of all random numbers."""
        ...

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return actions (env, action) float32 for the observation groups "teacher" and "student"."""
        ...


class ZeroAgent:
    """Zero actions: with the task's prior, the scripted grasp (approach, close, keep closed in the lift)."""

    grip = None

    def __init__(self, task: GraspTask) -> None:
        self._action = torch.zeros(task.num_envs, task.num_actions, device=task.device)

    def reset(self, trials: Sequence[int]) -> None:
        """Do nothing: the policy has no state."""

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return zeros (env, action)."""
        return self._action


class RandomAgent:
    """Standard normal actions, drawn per trial: a trial repeats in any batch."""

    grip = None

    def __init__(self, task: GraspTask) -> None:
        self._shape = (task.episode_steps, task.num_actions)
        self._seed, self._device = task.seed, task.device
        self.reset(range(task.num_envs))

    def reset(self, trials: Sequence[int]) -> None:
        """Draw the episode's actions of every row."""
        draws = [np.random.default_rng([self._seed, trial]).standard_normal(self._shape) for trial in trials]
        self._actions = torch.from_numpy(np.stack(draws, axis=1).astype(np.float32)).to(self._device)
        self._step = 0

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return the next drawn actions (env, action), from the first again after the length of an episode."""
        action = self._actions[self._step % len(self._actions)]
        self._step += 1
        return action


def _synergy(task: GraspTask) -> Agent:
    if not task.cfg.use_scripted_grasp:
        raise ValueError(
            "policy=synergy is the task's scripted prior, which task.use_scripted_grasp=false removes; use policy=zero instead"
        )
    return ZeroAgent(task)


POLICIES: dict[str, Callable[[GraspTask], Agent]] = {"random": RandomAgent, "synergy": _synergy, "zero": ZeroAgent}


def make_policy(name: str, task: GraspTask) -> Agent:
    """Return the policy `name` for `task`: zero, random, synergy (the scripted grasp), or a trained one."""
    check_policy(name)
    return POLICIES[name](task) if name in POLICIES else registry.load_policy(name, task)


def check_policy(name: str, key: str = "policy") -> None:
    """Raise ValueError if there is no policy `name`; `key` is the option in the message."""
    if name in POLICIES:
        return
    try:
        registry.find_policy(name, key, also=list(POLICIES))
    except OSError as error:
        raise ValueError(str(error)) from error
