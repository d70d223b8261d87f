"""Gymnasium environments of the grasping task: a single one, and many in one batch of the engine.

    obs="student"   flat vector of what a robot can measure
    obs="teacher"   flat vector with contacts, forces and the true object
    obs="both"      dictionary of the two vectors
    obs="dict"      the two vectors, sensor readings, pre-grasp and phase by name: any trained policy acts on it

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

from dexgrasp.sim.envs.registration import ENV_ID as ENV_ID
from dexgrasp.sim.envs.registration import register_envs
from dexgrasp.sim.envs.trial_streams import TrialStreams, make_task
from dexgrasp.sim.envs.window import MODES, Window, check_mode
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.sim.task.robot_observations import robot_observations, specification

OBS_MODES = ("student", "teacher", "both", "dict")
"""Values of the option `obs`."""
Observation = NDArray[Any] | dict[str, NDArray[Any]]


def check_obs_mode(obs: str) -> str:
    """Return the observation mode, or raise ValueError for an unknown one."""
    if obs not in OBS_MODES:
        raise ValueError(f"obs must be one of {list(OBS_MODES)}, got '{obs}'")
    return obs


def make_streams(task: GraspTask, obs: str) -> TrialStreams:
    """Return the trials of `task` with the observations of mode `obs`."""
    return TrialStreams(task, robot_observations if obs == "dict" else None)


def observation_space(task: GraspTask, obs: str) -> Space[Any]:
    """Return the observation space of one environment in mode `obs`."""
    boxes: dict[str, Space[Any]] = {
        name: Box(-np.inf, np.inf, (layout.size,), np.float32) for name, layout in sorted(task.layouts.items())
    }
    if obs == "dict":
        boxes |= {name: _box(*spec) for name, spec in specification(task).items()}
    return Dict(boxes) if obs in ("both", "dict") else boxes[obs]


def _box(shape: tuple[int, ...], dtype: torch.dtype) -> Box:
    if dtype == torch.bool:
        return Box(0, 1, shape, np.bool_)  # pyright: ignore[reportArgumentType, reportCallIssue]
    if dtype == torch.int64:
        return Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, shape, np.int64)
    return Box(-np.inf, np.inf, shape, np.float32 if dtype == torch.float32 else np.float64)


def action_space(task: GraspTask) -> Space[NDArray[np.float32]]:
    """Return the action space of one environment, bounded by `task.action_clip`.

    Units: `dexgrasp.sim.task.actions`.
    """
    limit = task.cfg.action_clip
    return Box(-limit, limit, (task.num_actions,), np.float32)


def observation(groups: dict[str, Tensor], obs: str, row: int | slice) -> Observation:
    """Return the observation of mode `obs` of one environment or of a slice of them, as NumPy arrays."""
    if obs not in ("both", "dict"):
        return groups[obs][row].cpu().numpy()
    return {name: value[row].cpu().numpy() for name, value in sorted(groups.items())}


def final_info(outcome: Outcome) -> dict[str, Any]:
    """Return the info entries of an episode that ended; trainers look for the name "is_success"."""
    return {"is_success": outcome.success, "outcome": asdict(outcome)}


class GraspEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Gymnasium environment that runs one grasping episode at a time.

    Observations: `OBS_MODES`; actions: `dexgrasp.sim.task.actions`.
    """

    metadata: dict[str, Any] = {"render_modes": list(MODES), "render_fps": 20.0}  # noqa: RUF012

    def __init__(
        self,
        objects: str | ObjectLibrary = "shipped",
        hand: str | HandSpec = "allegro",
        obs: str = "student",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """`options`: those of `dexgrasp.sim.envs.trial_streams.make_task`.

        Among them mount, disturbance, task, physics, randomization, seed.
        """
        check_mode(render_mode)
        self.render_mode, self.obs_mode = render_mode, check_obs_mode(obs)
        self.task = make_task(1, objects, hand, **options)
        self.streams, self._window = make_streams(self.task, self.obs_mode), Window(self.task)
        self.observation_space, self.action_space = observation_space(self.task, self.obs_mode), action_space(self.task)
        self.metadata = type(self).metadata | {"render_fps": self.task.cfg.rate_hz}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict]:
        """Start the next trial.

        `seed` restarts the sequence of trials; options["trials"] = [n] goes to trial n.
        """
        super().reset(seed=seed)
        self.streams.seed([seed])
        self.streams.continue_at(_trials(options, 1))
        obs = self.streams.reset()
        self._follow()
        return observation(obs, self.obs_mode, 0), _start_info(self.task, 0)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Run one control step. The last info of an episode holds its outcome."""
        step = self.streams.step(torch.as_tensor(action)[None], reset=False)
        info: dict[str, Any] = {"terms": step.info["terms"]}
        for outcome in step.info["outcomes"]:
            info |= final_info(outcome)
        self._follow()
        obs = observation(step.obs, self.obs_mode, 0)
        return obs, float(step.reward), bool(step.terminated), bool(step.truncated), info

    def render(self) -> NDArray[np.uint8] | None:
        """Return an image (480, 640, 3), or update the window, depending on `render_mode`."""
        if self.render_mode == "rgb_array":
            return self._window.picture()
        if self.render_mode == "human":
            self._window.show()
        else:
            gymnasium.logger.warn("nothing is rendered: make the environment with render_mode='rgb_array' or 'human'")
        return None

    def _follow(self) -> None:
        if self.render_mode == "human":
            self._window.show()

    def close(self) -> None:
        """Close the window and free OpenGL."""
        self._window.close()


class GraspVectorEnv(VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]):
    """Gymnasium vector environment that runs many episodes in one batch.

    Finished episodes are reset in the same step, with their last observation in infos.
    """

    metadata: dict[str, Any] = GraspEnv.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        objects: str | ObjectLibrary = "shipped",
        hand: str | HandSpec = "allegro",
        obs: str = "student",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """`options`: those of `dexgrasp.sim.envs.trial_streams.make_task`.

        Environment i repeats a `GraspEnv` with seed s + i.
        """
        check_mode(render_mode)
        self.num_envs, self.render_mode, self.obs_mode = num_envs, render_mode, check_obs_mode(obs)
        self.task = make_task(num_envs, objects, hand, **options)
        self.streams = make_streams(self.task, self.obs_mode)
        self._windows = [Window(self.task, row) for row in range(num_envs)]
        self.single_observation_space = observation_space(self.task, self.obs_mode)
        self.single_action_space = action_space(self.task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = type(self).metadata | {"render_fps": self.task.cfg.rate_hz}

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the next trials, of all environments or where options["reset_mask"] (env,) is true.

        `seed`: an integer (environment i takes seed + i) or one per environment. options["trials"]: numbers of the
        trials that start, one per environment.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        rows = _masked_rows((options or {}).get("reset_mask"), self.num_envs)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        self.streams.seed([s if i in rows else None for i, s in enumerate(seeds)])
        self.streams.continue_at(_trials(options, self.num_envs))
        obs = self.streams.reset(torch.tensor(rows))
        infos: dict[str, Any] = {}
        for row in rows:
            infos = self._add_info(infos, _start_info(self.task, row), row)
        self._follow()
        return observation(obs, self.obs_mode, slice(None)), infos

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Run one control step of all environments."""
        step = self.streams.step(torch.as_tensor(actions))
        infos: dict[str, Any] = {}
        ended = (step.terminated | step.truncated).nonzero().squeeze(1).tolist()
        for row, outcome in zip(ended, step.info["outcomes"], strict=True):
            final = {"final_obs": observation(step.info["final_obs"], self.obs_mode, row)}
            infos = self._add_info(infos, final | {"final_info": final_info(outcome)}, row)
            infos = self._add_info(infos, _start_info(self.task, row), row)
        self._follow()
        obs = observation(step.obs, self.obs_mode, slice(None))
        ends = step.terminated.cpu().numpy(), step.truncated.cpu().numpy()
        return obs, step.reward.double().cpu().numpy(), *ends, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Return one image per environment; in mode "human" update the window of the first one."""
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


def _trials(options: dict[str, Any] | None, num_envs: int) -> list[int] | None:
    trials = (options or {}).get("trials")
    if trials is not None and len(trials) != num_envs:
        raise ValueError(f"options['trials'] must hold one number per environment ({num_envs}), got {len(trials)}")
    return None if trials is None else [int(trial) for trial in trials]


register_envs()
