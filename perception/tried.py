"""Grasps that took hold of nothing: what is tried next should be something else.

A grasp is marked by where the palm ends beside the middle of the points, by the palm's orientation and by the hand's
style, each in the unit that makes it another grasp. In log-odds of success a candidate loses

    COST * sum over the grasps that were tried of exp(-|mark - mark tried|^2)
"""

import torch
from torch import Tensor

PLACE_M, AXIS, SHARE = 0.02, 0.35, 0.5
"""Units of a mark: of the palm's place, of the ends of its unit axes (20 degrees), of the share of the power grasp."""
COST = 3.0
"""What the very same grasp loses."""
MARK = 10
"""Numbers of a mark."""
NOTHING = 1e4
"""Further than any two marks are apart: where nothing was tried."""


def mark(place_m: Tensor, axes_w: Tensor, share: Tensor) -> Tensor:
    """Marks (..., MARK) of grasps.

    `place_m` (..., 3): the palm at the end of the approach, from the middle of the points, world axes. `axes_w`
    (..., 3, 3): columns palm normal, y, finger direction. `share` (...): 0 pinches, 1 takes hold with the whole hand.
    """
    normal, _, fingers = axes_w.unbind(-1)
    return torch.cat([place_m / PLACE_M, normal / AXIS, fingers / AXIS, share[..., None] / SHARE], dim=-1)


def cost(marks: Tensor, tried: Tensor) -> Tensor:
    """What candidates (env, cand, MARK) lose by grasps that were tried (env, grasp, MARK); log-odds (env, cand)."""
    apart = (marks[:, :, None] - tried[:, None]).square().sum(dim=-1)
    return COST * torch.exp(-apart).sum(dim=-1)


class Tried:
    """The last grasps that were begun on the object of each environment."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu", kept: int = 4) -> None:
        self.marks = torch.full((num_envs, kept, MARK), NOTHING, device=device)
        """(env, grasp, MARK) newest first; far from everything where there were fewer."""

    def forget(self, rows: Tensor) -> None:
        """Nothing was tried on the objects of `rows` (row,)."""
        self.marks[rows] = NOTHING

    def add(self, rows: Tensor, marks: Tensor | None) -> None:
        """Grasps with these marks (row, MARK) begin in `rows`; None: of a planner that has no choice."""
        if marks is not None:
            self.marks[rows] = torch.cat([marks[:, None].float(), self.marks[rows, :-1]], dim=1)
