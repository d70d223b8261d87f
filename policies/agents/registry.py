"""Policies by name: scripted grasp, zero, random, and trained ones with their task settings.

policy=runs/student             its best checkpoint, with the config.yaml beside it
policy=runs/student/last.zip    that checkpoint
policy=runs/bundle              a bundle, through the runtime of a robot
policy=allegro/student          shipped under assets/policies: the bundle, or the checkpoint of a teacher
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dexgrasp import configs
from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.agents.checkpoint import Checkpoint, load_checkpoint, read_config
from dexgrasp.policies.agents.location import PolicyLocation, check_policy, find_policy
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.policies.networks.actor_critic import observation_difference
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.utils.text import comma_separated

BELONGS_TO_POLICY = (
    "rate_hz",
    "grasp_s",
    "lift_s",
    "lift_m",
    "vector_frame",
    "use_scripted_grasp",
    "palm_action_m_s",
    "palm_action_rad_s",
    "finger_action_rad",
    "action_clip",
    "scripted_grasp",
    "wrist",
)
"""Task options that define the meaning of actions and observations."""

BELONGS_TO_CAMERA = (
    "mode",
    "move_with_palm",
    "frame_interval_steps",
    "hold_frame_interval_steps",
    "latency_steps",
    "min_points",
)
"""Camera options that define the meaning of a student's observation; camera errors belong to the evaluation."""

log = logging.getLogger("dexgrasp")

Cfg = TypeVar("Cfg")


def policy_config(policy: PolicyLocation) -> dict[str, Any]:
    """Return the configuration of a policy's training: `hand`, `side`, `task`, ..."""
    return dict(read_contract(policy.path).training.config) if policy.bundle else read_config(policy.path)


def prescribes_camera(name: str) -> bool:
    """Return whether the policy `name` was trained for one camera, as students are."""
    return name not in POLICIES and policy_config(find_policy(name)).get("stage") != "teacher"


def demand_observations(checkpoint: Checkpoint, task: GraspTask, group: str) -> None:
    """Raise ValueError unless the task gives the observation group that a policy reads; say what to do."""
    given = {term.name: term.size for term in task.layouts[group].terms}
    if not (found := observation_difference(group, checkpoint.policy.architecture.observations[group], given)):
        return
    config, trained = checkpoint.training["config"], checkpoint.task
    options = [f"plugins={','.join(config.get('plugins', ()))}"] if config.get("plugins") else []
    options += [f"task.class_name={trained.class_name}"] if trained.class_name != task.cfg.class_name else []
    options += (
        [f"camera={trained.camera.mode}"] if group == "student" and trained.camera.live != task.cfg.camera.live else []
    )
    advice = f"give {' '.join(options)}, as in its training" if options else "give hand and task of its training"
    raise ValueError(f"{checkpoint.path}: {found}: {advice}")


class CheckpointAgent(ActorAgent):
    """Policy of the mean actions of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, task: GraspTask) -> None:
        if checkpoint.hand.joint_names != task.hand.joint_names:
            raise ValueError(
                f"{checkpoint.path} was trained with {checkpoint.hand.name}, the task has {task.hand.name}"
            )
        demand_observations(checkpoint, task, checkpoint.stage)
        super().__init__(checkpoint.actor.to(task.device), task)


def load_policy(name: str, task: GraspTask) -> Any:
    """Return the trained policy `name` for `task`, with `reset(trials)` and `act(obs)`."""
    source = find_policy(name)
    if source.bundle:
        from dexgrasp.policies.agents.bundle_agent import BundleAgent  # onnxruntime: only here

        return BundleAgent(source.path, task)
    return CheckpointAgent(load_checkpoint(source.path), task)


def apply_policy_config(cfg: Cfg, name: str) -> Cfg:
    """Return `cfg` with the settings that the policy `name` was trained for.

    `cfg` has the fields `hand`, `side` and `task`.

    Values at their defaults are replaced and logged. Raises ValueError for other values that differ.
    """
    config = policy_config(find_policy(name))
    trained = configs.from_dict(TaskCfg, config["task"], f"{name}: task")
    keep = ("class_name", *BELONGS_TO_POLICY)
    task, taken = _merge(cfg.task, trained, TaskCfg(), keep, "task.", name)  # pyright: ignore[reportAttributeAccessIssue]
    if config.get("stage") != "teacher":
        camera, more = _merge(task.camera, trained.camera, CameraCfg(), BELONGS_TO_CAMERA, "task.camera.", name)
        task, taken = replace(task, camera=camera), taken + more
    whose = {key: config[key] for key in ("hand", "side")}
    defaults = {item.name: item.default for item in fields(cfg) if item.name in whose}  # pyright: ignore[reportArgumentType]
    for key, value in whose.items():
        taken += _taken(key, getattr(cfg, key), value, defaults[key], name)
    if taken:
        log.info("as '%s' was trained: %s", name, comma_separated(taken))
    return replace(cfg, task=task, **whose)  # pyright: ignore[reportArgumentType, reportCallIssue]


def refuse_contradictions(cfg: Any, name: str, given: Collection[str]) -> None:
    """Raise ValueError where a given option differs from what the policy `name` was trained for.

    `cfg` has the fields `hand`, `side` and `task`; `given`: keys and groups of a command line, whatever
    their values.
    """
    config = policy_config(find_policy(name))
    trained = configs.from_dict(TaskCfg, config["task"], f"{name}: task")
    pairs = [(key, getattr(cfg, key), config[key]) for key in ("hand", "side")]
    pairs += [("task.class_name", cfg.task.class_name, trained.class_name), *_task_pairs(cfg.task, trained, config)]
    camera = [(value, wanted) for key, value, wanted in pairs if key.startswith("task.camera.")]
    if "camera" in given and any(value != wanted for value, wanted in camera):
        mode, wanted = cfg.task.camera.mode, trained.camera.mode
        raise ValueError(f"camera={mode}, but '{name}' was trained with {wanted}: leave camera out")
    for key, value, wanted in pairs:
        if key in given and value != wanted:
            raise _contradiction(key, value, wanted, name)


def check_task(name: str, task: GraspTask) -> None:
    """Raise ValueError if `task` differs from what the policy `name` was trained for."""
    config = policy_config(find_policy(name))
    trained = configs.from_dict(TaskCfg, config["task"], f"{name}: task")
    pairs = [("hand", task.hand.name, HandSpec.load(config["hand"]).name), ("side", task.hand.side, config["side"])]
    pairs += _task_pairs(task.cfg, trained, config)
    differ = [f"{key}={wanted}, not {given}" for key, given, wanted in pairs if given != wanted]
    if differ:
        raise ValueError(
            f"'{name}' was trained with {', '.join(differ)}: make the task with these, or with policy='{name}'"
        )


def _task_pairs(given: TaskCfg, trained: TaskCfg, config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (key, value in `given`, value in `trained`) of the task options that a policy prescribes.

    `config`: configuration of the policy's training; a teacher prescribes no camera.
    """
    pairs = [pair for key in BELONGS_TO_POLICY for pair in _leaves(key, getattr(given, key), getattr(trained, key))]
    if config.get("stage") != "teacher":
        keys = BELONGS_TO_CAMERA
        pairs += [(f"camera.{key}", getattr(given.camera, key), getattr(trained.camera, key)) for key in keys]
    return [(f"task.{key}", value, wanted) for key, value, wanted in pairs]


def _merge(
    given: Any, trained: Any, default: Any, keys: Sequence[str], prefix: str, name: str
) -> tuple[Any, list[str]]:
    """Return `given` with the values of `trained` for `keys`, and "key=value" of those that differ."""
    taken = []
    for key in keys:
        pairs = _leaves(key, getattr(given, key), getattr(trained, key), getattr(default, key))
        for leaf, value, wanted, usual in pairs:
            taken += _taken(prefix + leaf, value, wanted, usual, name)
    return replace(given, **{key: getattr(trained, key) for key in keys}), taken


def _leaves(key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    if not is_dataclass(values[0]):
        yield key, *values
        return
    for item in fields(values[0]):
        yield from _leaves(f"{key}.{item.name}", *(getattr(value, item.name) for value in values))


def _taken(key: str, given: Any, wanted: Any, default: Any, name: str) -> list[str]:
    """Return "key=wanted" where the default gives way; raise ValueError for another value that differs."""
    if given == wanted:
        return []
    if given != default:
        raise _contradiction(key, given, wanted, name)
    return [f"{key}={wanted}"]


def _contradiction(key: str, given: Any, wanted: Any, name: str) -> ValueError:
    return ValueError(f"{key}={given}, but '{name}' was trained with {wanted}: leave {key} out")


class Agent(Protocol):
    """Protocol of a policy that acts in a GraspTask."""

    @property
    def grip(self) -> Tensor | None:
        """Return the grip confidence (env,) of the last `act`, 0 to 1, or None.

        Grip confidence: confidence that thumb and a finger touch the object.
        """
        ...

    def reset(self, trials: Sequence[int]) -> None:
        """Start a new episode in every row; row i is trial `trials[i]`, the seed of all random numbers."""
        ...

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return actions (env, action) float32 for the observation groups "teacher" and "student"."""
        ...


class ZeroAgent:
    """Policy of zero actions.

    With task.use_scripted_grasp these are the scripted grasp: approach, close, keep closed in the lift.
    """

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
            "policy=synergy is the scripted grasp of the task, which task.use_scripted_grasp=false removes; "
            "use policy=zero instead"
        )
    return ZeroAgent(task)


POLICIES: dict[str, Callable[[GraspTask], Agent]] = {"random": RandomAgent, "synergy": _synergy, "zero": ZeroAgent}


def make_policy(name: str, task: GraspTask) -> Agent:
    """Return the policy `name` for `task`: zero, random, synergy (the scripted grasp), or a trained one."""
    check_policy(name)
    return POLICIES[name](task) if name in POLICIES else load_policy(name, task)
