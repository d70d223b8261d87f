"""Gymnasium faces of the grasping task: one environment, and many in one batch of the engine.

Importing this file registers "dexgrasp/Grasp-v0" for `gymnasium.make` and `gymnasium.make_vec`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from sim.hands import HandSpec
from sim.objects import ObjectLibrary
from sim.outcomes import Outcome
from sim.streams import TrialStreams, make_task
from sim.task import GraspTask
from sim.window import MODES, Window, check_mode

ENV_ID = "dexgrasp/Grasp-v0"
BOTH = "both"
"""The name under which both observation groups are given, as a dictionary."""
Observation = NDArray[np.float32] | dict[str, NDArray[np.float32]]


def observation_space(task: GraspTask, group: str) -> Space[Any]:
    """Space of one environment's observation group: "student", "teacher", or "both" as a dictionary."""
    groups = sorted(task.layouts)
    if group not in (*groups, BOTH):
        raise ValueError(f"group must be one of {[*groups, BOTH]}, got '{group}'")
    boxes: dict[str, Space[Any]] = {
        name: Box(-np.inf, np.inf, (task.layouts[name].size,), np.float32) for name in groups
    }
    return Dict(boxes) if group == BOTH else boxes[group]


def action_space(task: GraspTask) -> Space[NDArray[np.float32]]:
    """Actions in the units of `sim.actions`, between the task's clips."""
    limit = task.cfg.action_clip
    return Box(-limit, limit, (task.num_actions,), np.float32)


def observation(obs: dict[str, Tensor], group: str, row: int | slice) -> Observation:
    """The observation that `observation_space` describes, of one environment or of a slice of them."""
    arrays = {name: value[row].cpu().numpy() for name, value in sorted(obs.items())}
    return arrays if group == BOTH else arrays[group]


def final_info(outcome: Outcome) -> dict[str, Any]:
    """What is said about an episode that ended; "is_success" is the name that trainers look for."""
    return {"is_success": outcome.success, "outcome": asdict(outcome)}


class GraspEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One grasping episode at a time; `group` is the observation, float32; the action: see `sim.actions`."""

    metadata: dict[str, Any] = {"render_modes": list(MODES), "render_fps": 20.0}  # noqa: RUF012

    def __init__(
        self,
        objects: str | ObjectLibrary = "shipped",
        hand: str | HandSpec = "allegro",
        group: str = "student",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """`options`: those of `sim.streams.make_task`: mount, disturbance, task, physics, randomize, seed."""
        check_mode(render_mode)
        self.render_mode, self._group = render_mode, group
        self.task = make_task(1, objects, hand, **options)
        self._streams, self._window = TrialStreams(self.task), Window(self.task)
        self.observation_space, self.action_space = observation_space(self.task, group), action_space(self.task)
        self.metadata = type(self).metadata | {"render_fps": self.task.cfg.rate_hz}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict]:
        """Start the next trial; `seed` starts the sequence of trials anew."""
        super().reset(seed=seed)
        self._streams.seed([seed])
        obs = self._streams.reset()
        self._follow()
        return observation(obs, self._group, 0), _start_info(self.task, 0)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step. The last info of an episode holds its outcome."""
        step = self.task.step(torch.as_tensor(action)[None])
        info: dict[str, Any] = {"terms": step.info["terms"]}
        for outcome in step.info["outcomes"]:
            info |= final_info(outcome)
        self._follow()
        obs = observation(step.obs, self._group, 0)
        return obs, float(step.reward), bool(step.terminated), bool(step.truncated), info

    def render(self) -> NDArray[np.uint8] | None:
        """A picture (480, 640, 3), or the window brought up to date, as `render_mode` says."""
        if self.render_mode == "rgb_array":
            return self._window.picture()
        if self.render_mode == "human":
            self._window.show()
        else:
            gymnasium.logger.warn("nothing is drawn: make the environment with render_mode='rgb_array' or 'human'")
        return None

    def _follow(self) -> None:
        if self.render_mode == "human":
            self._window.show()

    def close(self) -> None:
        """Close the window and free OpenGL."""
        self._window.close()


class GraspVectorEnv(VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]):
    """Many episodes in one batch. A finished episode is reset in the same step; its end is in infos["final_obs"]."""

    metadata: dict[str, Any] = GraspEnv.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        objects: str | ObjectLibrary = "shipped",
        hand: str | HandSpec = "allegro",
        group: str = "student",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """`options`: those of `sim.streams.make_task`. Environment i with seed s + i does what `GraspEnv` does."""
        check_mode(render_mode)
        self.num_envs, self.render_mode, self._group = num_envs, render_mode, group
        self.task = make_task(num_envs, objects, hand, **options)
        self._streams = TrialStreams(self.task)
        self._windows = [Window(self.task, row) for row in range(num_envs)]
        self.single_observation_space = observation_space(self.task, group)
        self.single_action_space = action_space(self.task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = type(self).metadata | {"render_fps": self.task.cfg.rate_hz}

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the next trials, of all environments or where options["reset_mask"] (env,) is true."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        rows = _masked_rows((options or {}).get("reset_mask"), self.num_envs)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        self._streams.seed([s if i in rows else None for i, s in enumerate(seeds)])
        obs = self._streams.reset(torch.tensor(rows))
        infos: dict[str, Any] = {}
        for row in rows:
            infos = self._add_info(infos, _start_info(self.task, row), row)
        self._follow()
        return observation(obs, self._group, slice(None)), infos

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One control step of all environments."""
        step = self._streams.step(torch.as_tensor(actions))
        infos: dict[str, Any] = {}
        ended = (step.terminated | step.truncated).nonzero().squeeze(1).tolist()
        for row, outcome in zip(ended, step.info["outcomes"], strict=True):
            final = {"final_obs": observation(step.info["final_obs"], self._group, row)}
            infos = self._add_info(infos, final | {"final_info": final_info(outcome)}, row)
            infos = self._add_info(infos, _start_info(self.task, row), row)
        self._follow()
        obs = observation(step.obs, self._group, slice(None))
        ends = step.terminated.cpu().numpy(), step.truncated.cpu().numpy()
        return obs, step.reward.double().cpu().numpy(), *ends, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One picture per environment; in mode "human", the window that follows the first one."""
        if self.render_mode == "rgb_array":
            return tuple(window.picture() for window in self._windows)
        self._follow()
        return None

    def _follow(self) -> None:
        if self.render_mode == "human":
            self._windows[0].show()

    def close_extras(self, **kwargs: Any) -> None:
        """Close windows and free OpenGL."""
        for window in self._windows:
            window.close()


def _start_info(task: GraspTask, row: int) -> dict[str, Any]:
    return {"trial": int(task.trial[row]), "object": task.objects[row]}


def _masked_rows(mask: NDArray[np.bool_] | None, num_envs: int) -> list[int]:
    if mask is None:
        return list(range(num_envs))
    if mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(f"options['reset_mask'] must be ({num_envs},) bool with at least one True, got {mask}")
    return np.flatnonzero(mask).tolist()


gymnasium.register(ENV_ID, entry_point="sim.gym:GraspEnv", vector_entry_point="sim.gym:GraspVectorEnv")
