"""Replay check of a bundle: episodes of its checkpoint, repeated from sensor readings alone.

The simulator searches nearest points in single precision: of two equally near points it may choose the other one, so
that the observation differs. Such an episode counts up to that step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.agents.bundle_agent import observation_of, plan_of
from dexgrasp.policies.agents.checkpoint import Checkpoint
from dexgrasp.policies.deploy.policy import Observation, Policy, PregraspPlan
from dexgrasp.policies.export.controller import DeployableController
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.utils.progress import track

TOLERANCE = 5e-5
"""Largest difference of an action or target, in its unit. Rounding of single precision grows through the history of an
episode: 4e-6 with the shipped students, 1.1e-5 with barely trained ones."""
TIE_M = 2e-6
"""Difference of distances from a keypoint below which two points count as equally near [m]."""


@dataclass
class RecordedEpisodes:
    """Episodes of the checkpoint in the task; lists over time, arrays with the environment first."""

    plan: PregraspPlan
    observations: list[Observation] = field(default_factory=list)
    commands: list[dict[str, NDArray]] = field(default_factory=list)
    """Commands of the task: joint_target, palm_pos_w, palm_quat_w, action."""


@dataclass(frozen=True)
class ReplayError:
    """Deviation of a bundle from a recording."""

    steps: int
    """Number of compared control steps."""
    ties: int
    """Episodes that ended early because two points were equally near."""
    error: dict[str, float]
    """Largest difference of each quantity."""


@torch.no_grad()
def record_episodes(checkpoint: Checkpoint, task: GraspTask, trials: Sequence[int]) -> RecordedEpisodes:
    """Run one episode in every environment with the checkpoint's mean actions."""
    obs = task.reset(trials)
    recording, policy = RecordedEpisodes(plan_of(task)), ActorAgent(checkpoint.actor, task)
    for _ in track(range(task.episode_steps), task.episode_steps, "export: episodes of the checkpoint"):
        recording.observations.append(observation_of(task))
        action = policy.act(obs)
        obs = task.step(action, policy.grip).obs
        limit = task.cfg.action_clip
        recording.commands.append(
            {
                "joint_target": task.engine.state.joint_target.numpy().copy(),
                "palm_pos_w": task.control.palm_pos_w.numpy().copy(),
                "palm_quat_w": task.control.palm_quat_w.numpy().copy(),
                "action": action.clamp(-limit, limit).numpy(),
            }
        )
    return recording


def replay(
    policy: Policy, recording: RecordedEpisodes, controller: DeployableController
) -> tuple[ReplayError, list[dict[str, NDArray]]]:
    """Run `policy` on the recorded observations; return its deviation and its inputs at every step.

    Raises ValueError if a command differs although no two points were equally near.
    """
    policy.reset(recording.plan)
    alive = np.ones(len(recording.commands[0]["action"]), dtype=bool)
    error, steps, ties, feeds = dict.fromkeys(recording.commands[0], 0.0), 0, 0, []
    pairs = zip(recording.observations, recording.commands, strict=True)
    for t, (observation, wanted) in enumerate(track(pairs, len(recording.commands), "export: the same by the bundle")):
        feeds.append(policy.graph_inputs(observation))
        command = policy.act(observation)
        gaps = {name: np.abs(getattr(command, name) - value).max(axis=1) for name, value in wanted.items()}
        off = np.any([gap > TOLERANCE for gap in gaps.values()], axis=0) & alive
        tied = off & has_tie(controller, observation)
        for name, gap in gaps.items():
            if (gap > TOLERANCE)[off & ~tied].any():
                raise ValueError(
                    f"parity: in step {t} {name} of the bundle differs from that of the checkpoint by "
                    f"{gap[off & ~tied].max():.2g} (> {TOLERANCE})"
                )
        alive, ties = alive & ~tied, ties + int(tied.sum())
        steps += int(alive.sum())
        error = {name: max(error[name], float(gap[alive].max(initial=0.0))) for name, gap in gaps.items()}
    return ReplayError(steps, ties, error), feeds


def has_tie(controller: DeployableController, observation: Observation) -> NDArray[np.bool_]:
    """Return whether for some keypoint two different points are equally near, (env,)."""
    joints, pos, quat, points = (
        torch.as_tensor(getattr(observation, name)).double()
        for name in ("joint_pos", "palm_pos_w", "palm_quat_w", "points_w")
    )
    distance = torch.cdist(controller.keypoints(pos, quat, joints), points, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.argmin(dim=2)
    same = (points[:, None] == points.gather(1, nearest[..., None].expand(-1, -1, 3))[:, :, None]).all(-1)
    second = distance.masked_fill(same, torch.inf).amin(dim=2)
    return ((second - distance.amin(dim=2)) < TIE_M).any(dim=1).numpy()
