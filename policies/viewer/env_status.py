"""Status of one environment for the panel of the policy preset."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.viewer.rollout import Rollout


@dataclass(frozen=True)
class EnvStatus:
    """Trial, object, phase, outcome and plan of one environment."""

    trial: int
    object: str
    phase: str
    attempt: int
    verdict: str
    """success, or the failure; empty before the end."""
    mass_kg: float
    friction: float
    plan: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Palm pose at the start of the approach: (3,) [m] and (4,) wxyz."""
    approach_m: float
    """Length of the approach along the palm's normal [m]."""


def env_status(rollout: Rollout, row: int) -> EnvStatus:
    """Return the status of one environment."""
    task, outcome = rollout.task, rollout.outcomes[row]
    trajectory = task.control.palm_trajectory
    return EnvStatus(
        trial=int(task.trial[row]),
        object=task.objects[row],
        phase=task.phases.name(row),
        attempt=int(task.outcome_tracker.attempts[row]),
        verdict="" if outcome is None else outcome.verdict,
        mass_kg=float(task.engine.state.object_mass[row]),
        friction=float(task.engine.state.object_friction[row]),
        plan=(trajectory.start_pos_w[row].numpy().copy(), trajectory.start_quat_w[row].numpy().copy()),
        approach_m=float(trajectory.depth_m[row]),
    )
