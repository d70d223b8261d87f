"""The task as a `VecTask` of IsaacGymEnvs: its buffers, hooks and constructor arguments.

Difference to IsaacGymEnvs: an episode that ends is reset in the same step, so that the returned observation starts the
next one, as rl_games assumes and as in Isaac Lab. IsaacGymEnvs resets one step later and discards an action.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp.sim.envs.isaacgym import gymapi
from dexgrasp.sim.envs.trial_streams import TrialStreams, make_task
from dexgrasp.sim.envs.window import Window, check_mode
from dexgrasp.sim.task.grasp_task import StepResult, TaskCfg
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.text import did_you_mean

OPTIONS = (
    "sim_device",
    "rl_device",
    "graphics_device_id",
    "headless",
    "obs_group",
    "states_group",
    "clip_observations",
    "clip_actions",
)
"""Names of the options that `VecTask` has besides those of `dexgrasp.sim.envs.trial_streams.make_task`."""


def make(
    seed: int = 0,
    task: "str | type[VecTask]" = "Grasp",
    num_envs: int = 64,
    sim_device: str = "cpu",
    rl_device: str = "cpu",
    graphics_device_id: int = -1,
    headless: bool = True,
    **options: Any,
) -> "VecTask":
    """Return a task by name or class, with the arguments of `isaacgymenvs.make`.

    `options` are those of the class.
    """
    kind = task_class(task)
    return kind(num_envs, rl_device, sim_device, graphics_device_id, headless, seed=seed, **options)


class VecTask:
    """Runs `num_envs` episodes at once, with tensors on `rl_device`.

    Actions are in the units of `dexgrasp.sim.task.actions`.

    A subclass may override the hooks, in the order of a step: `pre_physics_step`, `compute_reward` (which also says who
    is reset), `reset_idx`, `compute_observations`. The tensor API is reached through `gym` and `sim`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "rgb_array"]}

    def __init__(
        self,
        num_envs: int = 64,
        rl_device: str = "cpu",
        sim_device: str = "cpu",
        graphics_device_id: int = -1,
        headless: bool = True,
        obs_group: str = "student",
        states_group: str | None = "teacher",
        clip_observations: float = float("inf"),
        clip_actions: float | None = None,
        task_cfg: TaskCfg | None = None,
        **options: Any,
    ) -> None:
        """`states_group`: observation of the critic, or None. `clip_actions`: None takes the task's own limit.

        Further `options`: those of `dexgrasp.sim.envs.trial_streams.make_task`, whose `task` is `task_cfg` here.
        """
        if torch.device(sim_device).type != "cpu":
            raise ValueError(f"physics runs on the processor: sim_device must be 'cpu', got '{sim_device}'")
        check_mode(None if headless else "human")
        self.device, self.sim_device, self.rl_device = "cpu", sim_device, rl_device
        self.graphics_device_id, self.headless = graphics_device_id, headless
        self.task = make_task(num_envs, task=task_cfg, **options)
        self.num_environments, self.num_agents, self.num_actions = num_envs, 1, self.task.num_actions
        self._obs_group, self._states_group = self._known(obs_group), states_group and self._known(states_group)
        self.num_observations = self.task.layouts[obs_group].size
        self.num_states = self.task.layouts[states_group].size if states_group else 0
        self.obs_space, self.state_space = _box(np.inf, self.num_obs), _box(np.inf, self.num_states)
        self.act_space = _box(1.0, self.num_actions)
        self.clip_obs = clip_observations
        self.clip_actions = self.task.cfg.action_clip if clip_actions is None else clip_actions
        self.max_episode_length = self.task.episode_steps
        self.dt = self.task.engine.get_model(0).opt.timestep
        self.control_freq_inv = self.decimation = round(self.task.step_s / self.dt)
        self.total_train_env_frames = self.control_steps = 0
        self.gym = gymapi.acquire_gym()
        self.sim = self.gym.create_sim(self.task)
        self._streams, self._window = TrialStreams(self.task), Window(self.task)
        self.allocate_buffers()

    def _known(self, group: str) -> str:
        if group not in self.task.layouts:
            raise ValueError(f"observation group must be one of {sorted(self.task.layouts)}, got '{group}'")
        return group

    def allocate_buffers(self) -> None:
        """Allocate the buffers (env, ...); reset_buf and timeout_buf describe the last step."""
        n = self.num_envs
        self.obs_buf, self.states_buf = torch.zeros(n, self.num_obs), torch.zeros(n, self.num_states)
        self.actions, self.rew_buf = torch.zeros(n, self.num_actions), torch.zeros(n)
        self.reset_buf, self.timeout_buf = torch.ones(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool)
        self.progress_buf, self.randomize_buf = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
        self.obs_dict: dict[str, Tensor] = {}
        self.extras: dict[str, Any] = {}
        self._groups: dict[str, Tensor] = {}

    @property
    def num_envs(self) -> int:
        """Return the number of environments."""
        return self.num_environments

    @property
    def num_obs(self) -> int:
        """Return the length of the policy's observation."""
        return self.num_observations

    @property
    def num_acts(self) -> int:
        """Return the length of an action."""
        return self.num_actions

    @property
    def observation_space(self) -> Box:
        """Return the space of one environment's "obs"."""
        return self.obs_space

    @property
    def action_space(self) -> Box:
        """Return the action space of one environment, ±1; larger actions are clipped at `clip_actions`."""
        return self.act_space

    def reset(self) -> dict[str, Tensor]:
        """Start the next trial in every environment."""
        self.reset_idx(torch.arange(self.num_envs))
        self.compute_observations()
        return self._publish()

    def reset_idx(self, env_ids: Tensor) -> None:
        """Start the next trial in the environments of the list (any order, on any device)."""
        rows = torch.unique(env_ids.to(self.device, torch.int64))
        self._groups = self._streams.reset(rows)
        self.progress_buf[rows] = self.randomize_buf[rows] = 0

    def reset_done(self) -> tuple[dict[str, Tensor], Tensor]:
        """Return the observations, and the environments whose episode ended in the last step (already reset)."""
        return self.obs_dict, self.reset_buf.nonzero().flatten().to(self.rl_device)

    def step(self, actions: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Any]]:
        """Run one control step.

        Return {"obs", "states"}, reward (env,), reset (env,), extras with "time_outs".
        """
        self.extras = {}
        self.pre_physics_step(actions.to(self.device).clamp(-self.clip_actions, self.clip_actions))
        self._step = self.task.step(self.actions)
        self.post_physics_step()
        self.control_steps += 1
        self.extras["time_outs"] = self.timeout_buf.to(self.rl_device)
        if not self.headless:
            self._window.show()
        return self._publish(), self.rew_buf.to(self.rl_device), self.reset_buf.to(self.rl_device), self.extras

    def pre_physics_step(self, actions: Tensor) -> None:
        """Hook: store the clipped actions (env, num_actions) that physics follows in `self.actions`."""
        self.actions = actions.clone()

    def post_physics_step(self) -> None:
        """Hook: compute rewards and resets of the last step, reset, then compute observations."""
        self.progress_buf += 1
        self.randomize_buf += 1
        self._groups = self._step.obs
        self.compute_reward()
        ended = self.reset_buf.nonzero().flatten()
        if len(ended):
            self.extras["final_obs"] = self._final(self._groups)
            self._describe(self._step)
            self.reset_idx(ended)
        self.compute_observations()

    def compute_reward(self) -> None:
        """Hook: fill rew_buf, reset_buf and timeout_buf."""
        self.rew_buf = self._step.reward
        self.reset_buf = (self._step.terminated | self._step.truncated).long()
        self.timeout_buf = self._step.truncated

    def compute_observations(self) -> None:
        """Hook: fill obs_buf and states_buf."""
        self.obs_buf = self._groups[self._obs_group]
        if self._states_group:
            self.states_buf = self._groups[self._states_group]

    def _describe(self, step: StepResult) -> None:
        outcomes: list[Outcome] = step.info["outcomes"]
        self.extras["outcomes"] = outcomes
        if outcomes:
            numbers = {name: [float(getattr(o, name)) for o in outcomes] for name in ("success", "lift_m", "slip_m")}
            self.extras["episode"] = {name: torch.tensor(values).mean() for name, values in numbers.items()}

    def _publish(self) -> dict[str, Tensor]:
        self.obs_dict = {"obs": self._to_learner(self.obs_buf)}
        if self._states_group:
            self.obs_dict["states"] = self.get_state()
        return self.obs_dict

    def _final(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {"obs": self._obs_group, "states": self._states_group}
        return {name: self._to_learner(groups[group]) for name, group in names.items() if group}

    def _to_learner(self, observation: Tensor) -> Tensor:
        return observation.clamp(-self.clip_obs, self.clip_obs).to(self.rl_device)

    def get_state(self) -> Tensor:
        """Return the clipped observation of the critic."""
        return self._to_learner(self.states_buf)

    def render(self, mode: str = "rgb_array") -> NDArray[np.uint8] | None:
        """Return an image (480, 640, 3) of environment 0, or update its window."""
        check_mode(mode)
        if mode == "rgb_array":
            return self._window.picture()
        self._window.show()
        return None

    def close(self) -> None:
        """Close the window and free OpenGL."""
        self._window.close()

    def seed(self, seed: int) -> None:
        """Set the seeds: environment i runs the trials of seed + i from its next reset on."""
        self._streams.seed(range(seed, seed + self.num_envs))

    def get_env_info(self) -> dict[str, Any]:
        """Return the spaces and the number of agents, as rl_games asks of a vector environment."""
        spaces = {"action_space": self.action_space, "observation_space": self.observation_space, "agents": 1}
        return spaces | ({"state_space": self.state_space} if self.num_states else {})

    def get_number_of_agents(self) -> int:
        """Return the number of agents per environment, 1."""
        return self.num_agents

    def has_action_masks(self) -> bool:
        """Return False: all actions are allowed at any time."""
        return False

    def set_train_info(self, env_frames: int, *args: Any, **kwargs: Any) -> None:
        """Store the learner's number of environment steps; the task does not depend on it."""
        self.total_train_env_frames = env_frames

    def get_env_state(self) -> dict[str, list[int]]:
        """Return seed and next trial of each environment, for a checkpoint."""
        return {"seeds": self.task.seeds.tolist(), "next_trial": self._streams.next_trial.tolist()}

    def set_env_state(self, env_state: dict[str, list[int]] | None) -> None:
        """Continue, from the next reset on, with the trials of `get_env_state`."""
        if env_state is not None:
            self._streams.seed(env_state["seeds"])
            self._streams.next_trial[:] = torch.tensor(env_state["next_trial"])


isaacgym_task_map: dict[str, type[VecTask]] = {"Grasp": VecTask}
"""Tasks by name, as in IsaacGymEnvs; see `register`."""


def register(name: str, task: type[VecTask]) -> None:
    """Add a subclass of `VecTask` under a name that `make(task=name)` takes."""
    if not (isinstance(task, type) and issubclass(task, VecTask)):
        raise TypeError(f"task '{name}' must be a subclass of VecTask, got {task!r}")
    if isaacgym_task_map.get(name, task) is not task:
        raise ValueError(
            f"task '{name}' is registered already, as {isaacgym_task_map[name].__name__}: choose another name"
        )
    isaacgym_task_map[name] = task


def task_class(task: str | type[VecTask]) -> type[VecTask]:
    """Return the class of a registered name, or `task` itself where it is a subclass of `VecTask`."""
    if isinstance(task, type) and issubclass(task, VecTask):
        return task
    if not isinstance(task, str) or task not in isaacgym_task_map:
        raise ValueError(
            f"task must be a subclass of VecTask or one of {sorted(isaacgym_task_map)}, got {task!r}."
            f"{did_you_mean(str(task), isaacgym_task_map)} Add names with dexgrasp.register_isaacgym_task"
        )
    return isaacgym_task_map[task]


def _box(limit: float, size: int) -> Box:
    return Box(-limit, limit, (size,), np.float32)
