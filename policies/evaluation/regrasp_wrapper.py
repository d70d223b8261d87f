"""Gymnasium wrappers for another grasp when the hand is empty after the lift.

`dexgrasp evaluate` applies an identical rule.

The policy must report its grip before each step: `dexgrasp.load_policy(name, env)` does so, others set
`env.unwrapped.streams.grip`. Without it, and with task.camera.mode=first_frame, one attempt is made.
"""

from typing import Any

import gymnasium
from gymnasium.vector import VectorWrapper

from dexgrasp.policies.evaluation.episodes import ATTEMPTS, RegraspRunner


class RegraspWrapper(gymnasium.Wrapper):
    """Wrapper of a `GraspEnv` that repeats empty grasps, up to `attempts` grasps per episode."""

    def __init__(self, env: gymnasium.Env[Any, Any], attempts: int = ATTEMPTS) -> None:
        super().__init__(env)
        self._attempts = _attempts(self.unwrapped, attempts)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Start another attempt if the hand is empty, then run one control step."""
        self._attempts.regrasp(self.unwrapped.streams.grip)  # pyright: ignore[reportAttributeAccessIssue]
        return self.env.step(action)


class VectorRegraspWrapper(VectorWrapper):
    """Wrapper of a `GraspVectorEnv` that repeats empty grasps, up to `attempts` grasps per episode."""

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], attempts: int = ATTEMPTS) -> None:
        super().__init__(env)
        self._attempts = _attempts(self.unwrapped, attempts)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Start another attempt where a hand is empty, then run one control step of all environments."""
        self._attempts.regrasp(self.unwrapped.streams.grip)  # pyright: ignore[reportAttributeAccessIssue]
        return self.env.step(actions)


def _attempts(env: Any, attempts: int) -> RegraspRunner:
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}")
    if not hasattr(env, "streams"):
        raise TypeError(f"attempts need a GraspEnv or GraspVectorEnv, got {type(env).__name__}")
    return RegraspRunner(env.task, None, attempts)
