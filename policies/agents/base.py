"""Actor network as a policy: mean actions and grip confidence."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dexgrasp.policies.deploy.bundle import BATCH_MULTIPLE
from dexgrasp.policies.networks.student import StudentActor
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.regrasp import grip_confidence


class ActorAgent:
    """Policy of the mean actions of a teacher's or student's actor."""

    def __init__(self, actor: nn.Module, task: GraspTask) -> None:
        self._actor, self._hand = actor, task.hand
        self._contact = task.layouts["teacher"].slices()["contact"]
        self.grip: Tensor | None = None
        """Grip confidence (env,): a student estimates contacts, a teacher observes them."""

    def reset(self, trials: Sequence[int]) -> None:
        """Do nothing: the policy has no state."""

    @torch.no_grad()
    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return the mean actions (env, action)."""
        if not isinstance(self._actor, StudentActor):
            self.grip = grip_confidence(obs["teacher"][:, self._contact], self._hand)
            return self._actor(_pad_batch(obs["teacher"]))[: len(self.grip)]
        action, reconstructed = self._actor.act_and_reconstruct(_pad_batch(obs["student"]))
        rows = len(obs["student"])
        self.grip = grip_confidence(self._actor.contact_probabilities(reconstructed[:rows]), self._hand)
        return action[:rows]


def _pad_batch(obs: Tensor) -> Tensor:
    """Return observations (env, size), the last row repeated up to a multiple of BATCH_MULTIPLE."""
    return torch.cat([obs, obs[-1:].expand(-len(obs) % BATCH_MULTIPLE, -1)])
