"""Stable-Baselines3 `VecEnv` of the grasping task, over one batch of the engine."""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices

from dexgrasp.sim.envs.gymnasium_env import (
    Observation,
    action_space,
    check_obs_mode,
    final_info,
    make_streams,
    observation,
    observation_space,
)
from dexgrasp.sim.envs.trial_streams import make_task
from dexgrasp.sim.envs.window import Window, check_mode
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import Outcome


class EnvView:
    """View of one environment of the batch for `get_attr`, `set_attr` and `env_method`."""

    spec = None

    def __init__(self, task: GraspTask, row: int, render_mode: str | None) -> None:
        self.task, self.row, self.render_mode = task, row, render_mode
        self.outcome: Outcome | None = None
        """Outcome of the environment's last episode."""
        self._window = Window(task, row)

    @property
    def trial(self) -> int:
        """Return the number of the running trial in the sequence of its seed."""
        return int(self.task.trial[self.row])

    @property
    def seed(self) -> int:
        """Return the environment's own seed."""
        return int(self.task.seeds[self.row])

    @property
    def object(self) -> str:
        """Return the name of the object of the running trial."""
        return self.task.objects[self.row]

    def render(self) -> NDArray[np.uint8] | None:
        """Return an image (480, 640, 3); in mode "human" update the window, which shows the first row."""
        if self.render_mode == "rgb_array":
            return self._window.picture()
        if self.row == 0:
            self._window.show()
        return None

    def close(self) -> None:
        """Close the window and free OpenGL."""
        self._window.close()


class GraspVecEnv(VecEnv):
    """Runs `num_envs` episodes at once and resets each in the step that ends it.

    infos[i] of a step that ends an episode: "terminal_observation", "TimeLimit.truncated", "is_success", "outcome" and
    "episode" (return r, length l, seconds t), which is what a `Monitor` would add; therefore `env_is_wrapped(Monitor)`.
    `obs="both"` gives the two observation vectors as a dictionary, for `MultiInputPolicy` and asymmetric critics.
    """

    def __init__(
        self,
        num_envs: int = 1,
        objects: str | ObjectLibrary = "shipped",
        hand: str | HandSpec = "allegro",
        obs: str = "student",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """`obs`: a mode of `dexgrasp.sim.envs.gymnasium_env`.

        `options`: those of `dexgrasp.sim.envs.trial_streams.make_task`: mount, task, physics, seed, ...
        """
        check_mode(render_mode)
        self.obs_mode = check_obs_mode(obs)
        self.task = make_task(num_envs, objects, hand, **options)
        self.streams = make_streams(self.task, self.obs_mode)
        self.rows = [EnvView(self.task, row, render_mode) for row in range(num_envs)]
        self._began_s = time.time()
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self._actions = torch.zeros(num_envs, self.task.num_actions)
        super().__init__(num_envs, observation_space(self.task, self.obs_mode), action_space(self.task))
        self.metadata |= {"render_fps": self.task.cfg.rate_hz}  # pyright: ignore[reportOperatorIssue]

    def reset(self) -> Observation:
        """Start the next trials, of new sequences after a call of `seed`."""
        self.streams.seed(self._seeds)
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        obs = self.streams.reset()
        self.reset_infos = [{"trial": row.trial, "object": row.object} for row in self.rows]
        return observation(obs, self.obs_mode, slice(None))

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Store the actions (env, num_actions) for the next `step_wait`."""
        self._actions = torch.as_tensor(np.asarray(actions, dtype=np.float32))

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Run one control step of all environments."""
        step = self.streams.step(self._actions)
        rewards = step.reward.cpu().numpy()
        dones = (step.terminated | step.truncated).cpu().numpy()
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": truncated} for truncated in step.truncated.tolist()]
        for row, outcome in zip(np.flatnonzero(dones).tolist(), step.info["outcomes"], strict=True):
            final = observation(step.info["final_obs"], self.obs_mode, row)
            infos[row] |= final_info(outcome) | {"terminal_observation": final, "episode": self._episode(row)}
            self.rows[row].outcome = outcome
            self.reset_infos[row] = {"trial": self.rows[row].trial, "object": self.rows[row].object}
        return observation(step.obs, self.obs_mode, slice(None)), rewards, dones, infos

    def _episode(self, row: int) -> dict[str, float | int]:
        """Return the statistics of the episode that ends in `row` and reset them."""
        seconds = round(time.time() - self._began_s, 6)
        statistics = {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": seconds}
        self._returns[row], self._lengths[row] = 0.0, 0
        return statistics

    def close(self) -> None:
        """Close windows and free OpenGL."""
        for row in self.rows:
            row.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return one image per environment, in mode "rgb_array"."""
        return [row.render() for row in self.rows]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each environment's `EnvView`, or one set by `set_attr`."""
        return [_attribute(row, attr_name) for row in self._select(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment's `EnvView`; the task itself is `self.task`."""
        for row in self._select(indices):
            setattr(row, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of `EnvView` on each environment."""
        return [_attribute(row, method_name)(*method_args, **method_kwargs) for row in self._select(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return True for `Monitor`, whose statistics are built in, False for other wrappers."""
        return [wrapper_class is Monitor for _ in self._select(indices)]

    def _select(self, indices: VecEnvIndices) -> list[EnvView]:
        return [self.rows[i] for i in self._get_indices(indices)]


def _attribute(row: EnvView, name: str) -> Any:
    if not hasattr(row, name):
        known = sorted(key for key in {*vars(row), *vars(EnvView)} if not key.startswith("_"))
        raise AttributeError(f"environments of a GraspVecEnv have no attribute '{name}'; known: {known}")
    return getattr(row, name)
