"""Disturbance of the objects beside the wanted one, judged from true poses: moved, toppled, fallen."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dexgrasp.perception.transforms import quat_conjugate, quat_multiply, quat_rotate, unit_axis
from dexgrasp.sim.clutter import ContactClass
from dexgrasp.sim.engine.base import Neighbours
from dexgrasp.sim.task.outcomes import BELOW_TABLE_M, WORKSPACE_M, Outcome

MOVED_M = 0.05
"""Distance from its start beyond which a neighbour was moved."""
TOPPLED_RAD = math.radians(45)
"""Tilt against its start beyond which a neighbour toppled; turns about the vertical are no tilt."""


class NeighbourTracker:
    """Judges the neighbours of a batch of episodes; first dimension of its tensors: environment."""

    def __init__(self, num_envs: int, neighbours: int) -> None:
        """`neighbours`: places per environment; 0: nothing is judged."""
        self._start_pos_w = torch.zeros(num_envs, neighbours, 3, dtype=torch.float64)
        self._start_quat_w = torch.zeros(num_envs, neighbours, 4, dtype=torch.float64)
        self._there, self.moved, self.toppled, self.fallen = torch.zeros(4, num_envs, neighbours, dtype=torch.bool)
        self._contacts: list[str] = [""] * num_envs
        self.names: list[tuple[str, ...]] = [()] * num_envs
        """Names of each environment's neighbours; empty where a place is not used."""

    def reset(self, rows: Tensor, start: Neighbours, contacts: Sequence[ContactClass]) -> None:
        """Reset the episodes of `rows`; `contacts`: how each wanted object stands among its neighbours."""
        self._start_pos_w[rows], self._start_quat_w[rows] = start.pos_w.double(), start.quat_w.double()
        self._there[rows] = torch.tensor([[bool(name) for name in names] for names in start.names])
        self.moved[rows] = self.toppled[rows] = self.fallen[rows] = False
        for row, names, contact in zip(rows.tolist(), start.names, contacts, strict=True):
            self.names[row], self._contacts[row] = names, contact

    def update(self, pos_w: Tensor, quat_w: Tensor) -> None:
        """Update after a control step with the poses (env, neighbour, 3) [m], (env, neighbour, 4)."""
        if not self._there.shape[1]:
            return
        pos_w, quat_w = pos_w.double(), quat_w.double()
        self.moved |= ((pos_w - self._start_pos_w).norm(dim=-1) > MOVED_M) & self._there
        self.fallen |= off_table(pos_w) & self._there
        turned = quat_multiply(quat_w, quat_conjugate(self._start_quat_w))
        upright = quat_rotate(turned, unit_axis(2, turned))[..., 2]
        self.toppled = (upright < math.cos(TOPPLED_RAD)) & self._there

    def added_to(self, outcomes: Sequence[Outcome], rows: Sequence[int]) -> list[Outcome]:
        """Return the outcomes of `rows` with what happened to the neighbours."""
        if not self._there.shape[1]:
            return list(outcomes)
        counts = torch.stack([self._there, self.moved, self.toppled, self.fallen]).sum(dim=2).T.tolist()
        found = []
        for outcome, row in zip(outcomes, rows, strict=True):
            neighbours, moved, toppled, fallen = counts[row]
            found.append(
                replace(
                    outcome,
                    contact=self._contacts[row],
                    neighbours=neighbours,
                    neighbours_moved=moved,
                    neighbours_toppled=toppled,
                    neighbours_fallen=fallen,
                )
            )
        return found


def off_table(pos_w: Tensor) -> Tensor:
    """Return where centres of mass (..., 3) [m] lie outside the workspace on the table, (...) bool."""
    return (pos_w[..., :2].abs().amax(dim=-1) > WORKSPACE_M) | (pos_w[..., 2] < BELOW_TABLE_M)
