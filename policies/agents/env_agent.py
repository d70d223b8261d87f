"""Trained policy for NumPy observations of the Gymnasium and Stable-Baselines3 environments.

A bundle acts on readings, pre-grasp and phase (obs="dict"), a checkpoint on the vector of its stage.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.policies.agents import registry
from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.agents.checkpoint import load_checkpoint
from dexgrasp.policies.agents.registry import POLICIES
from dexgrasp.policies.deploy.policy import Observation, Policy, PregraspPlan
from dexgrasp.sim.task.observations import teacher_layout
from dexgrasp.sim.task.robot_observations import PREGRASP, STEP

Array = NDArray[Any]


class EnvAgent(ABC):
    """Policy on the observations of one environment or of a batch.

    `env`, if given, receives the grip confidence before each step.
    """

    def __init__(self, env: Any = None) -> None:
        self._env = env
        self.grip: Array | None = None
        """Confidence (env,) that thumb and another finger touched the object at the last `act`, 0 to 1."""

    def act(self, obs: Any) -> Array:
        """Return actions (env, action) float32, or (action,) for the observation of a single environment."""
        entries = {name: np.asarray(value) for name, value in self._entries(obs).items()}
        single = self._is_single(entries)
        if single:
            entries = {name: value[None] for name, value in entries.items()}
        actions, self.grip = self._act(entries)
        if self._env is not None:
            self._env.streams.grip = torch.from_numpy(self.grip).to(self._env.task.device)
        return actions[0] if single else actions

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Array, None]:
        """Return (actions, None): the interface of Stable-Baselines3's `evaluate_policy`."""
        return self.act(observation), None

    @abstractmethod
    def _entries(self, obs: Any) -> Mapping[str, Any]:
        """Return the entries of an observation that the policy reads, by name."""

    @abstractmethod
    def _is_single(self, entries: Mapping[str, Array]) -> bool:
        """Return whether the entries are those of a single environment, without a batch dimension."""

    @abstractmethod
    def _act(self, entries: dict[str, Array]) -> tuple[Array, Array]:
        """Return actions (env, action) and grip (env,)."""


class BundleEnvAgent(EnvAgent):
    """Exported policy on obs="dict"; an episode or attempt starts where `steps_since_pregrasp` is 0."""

    def __init__(self, policy: Policy, env: Any = None) -> None:
        super().__init__(env)
        self._policy, self._rows = policy, 0

    def _entries(self, obs: Any) -> Mapping[str, Any]:
        if not isinstance(obs, Mapping) or STEP not in obs:
            raise ValueError('an exported policy acts on sensor readings: make the environment with obs="dict"')
        return obs

    def _is_single(self, entries: Mapping[str, Array]) -> bool:
        return entries[STEP].ndim == 0

    def _act(self, entries: dict[str, Array]) -> tuple[Array, Array]:
        plan = PregraspPlan(
            **{name.removeprefix(PREGRASP): entries[name] for name in entries if name.startswith(PREGRASP)}
        )
        at_pregrasp = entries[STEP] == 0
        if self._rows != len(at_pregrasp):
            if not at_pregrasp.all():
                raise ValueError(
                    "the policy must see an episode from its start: call env.reset() before policy.act(obs)"
                )
            self._policy.reset(plan)
            self._rows = len(at_pregrasp)
        elif at_pregrasp.any():
            self._policy.reset(plan, np.flatnonzero(at_pregrasp).tolist())
        names = ("joint_pos", "palm_pos_w", "palm_quat_w", "points_w", "visible_fraction", "view_fresh")
        command = self._policy.act(Observation(**{name: entries[name] for name in names}))
        return command.action, command.grip


class CheckpointEnvAgent(EnvAgent):
    """Policy of a checkpoint's mean actions on the vector of its stage, student or teacher."""

    def __init__(self, actor: ActorAgent, stage: str, env: Any = None) -> None:
        super().__init__(env)
        self._actor, self._stage = actor, stage

    def _entries(self, obs: Any) -> Mapping[str, Any]:
        if not isinstance(obs, Mapping):
            return {self._stage: obs}
        if self._stage not in obs:
            raise ValueError(
                f'the policy acts on the {self._stage} vector: make the environment with obs="{self._stage}"'
            )
        return {self._stage: obs[self._stage]}

    def _is_single(self, entries: Mapping[str, Array]) -> bool:
        return entries[self._stage].ndim == 1

    def _act(self, entries: dict[str, Array]) -> tuple[Array, Array]:
        actions = self._actor.act({name: torch.from_numpy(value) for name, value in entries.items()})
        assert self._actor.grip is not None
        return actions.numpy(), self._actor.grip.numpy()


def load_env_agent(name: str, env: Any = None) -> EnvAgent:
    """Return the trained policy `name` for an environment.

    Without `env`, the policy acts on observations of obs="dict".

    Raises ValueError if the environment's task differs from what the policy was trained for.
    """
    if name in POLICIES:
        raise ValueError(f"'{name}' acts in a GraspTask only: make the task with dexgrasp.make")
    base = None
    if env is not None:
        base = getattr(env, "unwrapped", env)
        if not (hasattr(base, "task") and hasattr(base, "streams")):
            raise TypeError(
                f"task must be a GraspTask or an environment of make_gym, make_gym_vec or make_sb3, "
                f"got {type(env).__name__}"
            )
        registry.check_task(name, base.task)
    source = registry.find_policy(name)
    if source.bundle:
        _check_mode(name, base, ("dict",))
        joints = None if base is None else base.task.hand.joint_names
        return BundleEnvAgent(Policy.load(source.path, joints), base)
    checkpoint = load_checkpoint(source.path)
    hand = checkpoint.hand
    sizes = (len(hand.joint_names), len(hand.keypoint_names), hand.num_actions, len(hand.contact_bodies))
    known = SimpleNamespace(hand=hand, layouts={"teacher": teacher_layout(*sizes)})
    _check_mode(name, base, (checkpoint.stage, "both", "dict"))
    _check_size(checkpoint.actor, checkpoint.stage, base, name)
    return CheckpointEnvAgent(ActorAgent(checkpoint.actor, known), checkpoint.stage, base)  # pyright: ignore


def _check_mode(name: str, base: Any, modes: Sequence[str]) -> None:
    """Raise ValueError if the environment's observations are not among those that the policy reads."""
    if base is not None and base.obs_mode not in modes:
        raise ValueError(f'\'{name}\' cannot act on obs="{base.obs_mode}": make the environment with obs="{modes[0]}"')


def _check_size(actor: Any, stage: str, base: Any, name: str) -> None:
    if base is None:
        return
    size, given = len(actor.normaliser.mean), base.task.layouts[stage].size
    if size != given:
        raise ValueError(f"'{name}' takes a {stage} vector of {size} values, the environment gives {given}")
