"""Gymnasium face of the grasping task."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch

from sim.hands import HandSpec
from sim.objects import ObjectLibrary
from sim.scene import PhysicsCfg
from sim.task import GraspTask, TaskCfg


class GraspEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One grasping episode at a time; observation: one group of the task, float32; action: see `sim.task`."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        objects: str = "shipped",
        hand: str = "allegro",
        group: str = "student",
        task: TaskCfg | None = None,
        physics: PhysicsCfg | None = None,
        seed: int = 0,
    ) -> None:
        spec, library = HandSpec.load(hand), ObjectLibrary.open(objects)
        self._group, self._args = group, (task or TaskCfg(), spec, library, physics or PhysicsCfg())
        self._task = GraspTask(*self._args, num_envs=1, num_threads=1, seed=seed, auto_reset=False)
        if group not in self._task.layouts:
            raise ValueError(f"group must be one of {sorted(self._task.layouts)}, got '{group}'")
        size, limit = self._task.layouts[group].size, self._task.cfg.action_clip
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-limit, limit, (self._task.num_actions,), np.float32)
        self._trial = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start the next trial; `seed` starts the sequence of trials anew."""
        super().reset(seed=seed)
        if seed is not None:
            self._task.seeds[:], self._trial = seed, -1
        self._trial += 1
        return self._task.reset([self._trial])[self._group][0].numpy(), {"trial": self._trial}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step."""
        step = self._task.step(torch.from_numpy(action)[None])
        info = {"outcomes": step.info["outcomes"]}
        return step.obs[self._group][0].numpy(), float(step.reward), bool(step.terminated), bool(step.truncated), info
