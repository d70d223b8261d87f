"""Actor-critic policy of Stable-Baselines3 from trained policies.

PPO of Stable-Baselines3 loads it, runs it and trains it further.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from dexgrasp import configs
from dexgrasp.perception.observations import Layout, Term
from dexgrasp.policies.agents.checkpoint import Checkpoint
from dexgrasp.policies.networks.actor_critic import Architecture
from dexgrasp.policies.networks.student import make_policy

BOTH = "both"
"""Name of the dictionary of both observation groups, as in `GraspVecEnv`."""


class Sb3GraspPolicy(ActorCriticPolicy):
    """GraspPolicy on the observations of a GraspVecEnv; its networks have their own normalisers."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        architecture: dict[str, Any],
        **options: Any,
    ) -> None:
        """`architecture`: plain values of an Architecture. `options`: those of ActorCriticPolicy."""
        self._architecture = architecture
        super().__init__(observation_space, action_space, lr_schedule, **options)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"architecture": self._architecture}

    def _build(self, lr_schedule: Schedule) -> None:
        architecture = configs.from_dict(Architecture, self._architecture, "architecture")
        layouts = {
            group: Layout(tuple(Term(name, size, "") for name, size in terms.items()))
            for group, terms in architecture.observations.items()
        }
        self.grasp = make_policy(architecture, layouts)
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1.0),  # pyright: ignore[reportCallIssue]
            **self.optimizer_kwargs,
        )

    def _groups(self, obs: Any) -> dict[str, Tensor]:
        """Return observations by group; those of one group alone are the actor's."""
        return obs if isinstance(obs, dict) else {self.grasp.actor_group: obs}

    def predict_values(self, obs: Any) -> Tensor:
        """Return values (env, 1)."""
        groups = self._groups(obs)
        if self.grasp.critic_group not in groups:
            raise ValueError(
                "the student's critic reads the teacher's observations: make the environment with obs='both'"
            )
        return self.grasp.predict_values(groups)[:, None]

    def get_distribution(self, obs: Any) -> Any:
        """Return the action distribution of Stable-Baselines3."""
        means = self.grasp.mean(self._groups(obs))
        return self.action_dist.proba_distribution(means, self.grasp.std.log())  # pyright: ignore[reportCallIssue]

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (env, action), values (env, 1) and log-probabilities (env,)."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (env, 1), log-probabilities (env,) of the actions, and entropy (env,)."""
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.get_distribution(observation).get_actions(deterministic=deterministic)


def sb3_model(checkpoint: Checkpoint, obs: str = BOTH) -> PPO:
    """Return a PPO of Stable-Baselines3 with the policy of the checkpoint.

    `obs`: observation mode of the environment, as in `dexgrasp.make_sb3(obs=...)`.
    """
    policy, architecture = checkpoint.policy, checkpoint.policy.architecture
    if obs not in (BOTH, policy.actor_group):
        raise ValueError(f"obs={obs}: the actor of a {checkpoint.stage} reads obs={policy.actor_group} or obs=both")
    limit = checkpoint.task.action_clip
    model = PPO(
        Sb3GraspPolicy,
        env=None,  # pyright: ignore[reportArgumentType]
        learning_rate=3e-5,
        gamma=float(checkpoint.training["config"].get("gamma", 0.99)),
        n_steps=checkpoint.task.phase_steps[-1],
        policy_kwargs={"architecture": configs.as_dict(architecture)},
        device="cpu",
        _init_setup_model=False,
    )
    model.observation_space = _space(policy.layouts, obs)
    model.action_space = spaces.Box(-limit, limit, (architecture.num_actions,), np.float32)
    model.n_envs = 1
    model._setup_model()
    model.policy.grasp.load_state_dict(policy.state_dict())  # pyright: ignore[reportAttributeAccessIssue]
    return model


def write_sb3(checkpoint: Checkpoint, out: Path | io.BytesIO, obs: str = BOTH) -> None:
    """Write a zip file that `stable_baselines3.PPO.load` opens where dexgrasp is installed."""
    with torch.random.fork_rng():
        sb3_model(checkpoint, obs).save(out)


def _space(layouts: dict[str, Layout], obs: str) -> spaces.Space[Any]:
    names: Sequence[str] = sorted(layouts) if obs == BOTH else [obs]
    boxes: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(-np.inf, np.inf, (layouts[name].size,), np.float32) for name in names
    }
    return spaces.Dict(boxes) if obs == BOTH else boxes[obs]
