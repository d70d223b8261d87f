"""Result of one control step of the task."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepResult:
    """Hold the result of one control step; first dimension: environment."""

    obs: dict[str, Tensor]
    """Observation groups "teacher" and "student", float32."""
    reward: Tensor
    """(env,) float32."""
    terminated: Tensor
    """(env,) bool: the episode ended because physics failed or the object left the workspace."""
    truncated: Tensor
    """(env,) bool: the episode reached its full length."""
    info: dict
    """"terms": mean of each weighted reward term; "outcomes": list of Outcome of the episodes that ended; "final_obs":
    observations before the reset, where episodes ended and the task resets them itself."""
