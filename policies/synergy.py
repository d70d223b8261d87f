"""Policies by name. Those that need no training: the scripted grasp of the prior, and two that test everything else."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from policies import trained
from sim.task import GraspTask


class Policy(Protocol):
    """What acts in a GraspTask."""

    @property
    def grip(self) -> Tensor | None:
        """(env,) how surely thumb and fingers touched something when it acted last, 0 to 1; None: it cannot tell."""
        ...

    def reset(self, trials: Sequence[int]) -> None:
        """A new episode starts in every row; row i is trial `trials[i]`, which alone decides any chance."""
        ...

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Actions (env, action) float32 for observations of the groups "teacher" and "student"."""
        ...


class ZeroPolicy:
    """No correction at all: with the task's prior, the scripted grasp (approach, close, keep closed in the lift)."""

    grip = None

    def __init__(self, task: GraspTask) -> None:
        self._action = torch.zeros(task.num_envs, task.num_actions, device=task.device)

    def reset(self, trials: Sequence[int]) -> None:
        """Nothing to forget."""

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Zeros (env, action)."""
        return self._action


class RandomPolicy:
    """Standard normal actions, drawn per trial, so that a trial repeats alone and whatever ran beside it."""

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
        """The next drawn actions (env, action); they start over when an episode is outlasted."""
        action = self._actions[self._step % len(self._actions)]
        self._step += 1
        return action


def _synergy(task: GraspTask) -> Policy:
    if task.cfg.prior == "off":
        raise ValueError(
            "policy=synergy is the task's scripted prior, which task.prior=off removes; use policy=zero instead"
        )
    return ZeroPolicy(task)


POLICIES: dict[str, Callable[[GraspTask], Policy]] = {"random": RandomPolicy, "synergy": _synergy, "zero": ZeroPolicy}


def make_policy(name: str, task: GraspTask) -> Policy:
    """The policy called `name` for `task`: zero, random, synergy (the prior alone), or a trained one."""
    check_policy(name)
    return POLICIES[name](task) if name in POLICIES else trained.load(name, task)


def check_policy(name: str, key: str = "policy") -> None:
    """Raise ValueError if there is no policy `name`; `key` is the option in the message."""
    if name in POLICIES:
        return
    try:
        trained.find(name, key, also=list(POLICIES))
    except OSError as error:
        raise ValueError(str(error)) from error
