"""Penalty for repeating failed grasps, so that the next attempt is a different grasp.

A mark describes a grasp by the palm's final position relative to the centroid of the points, the palm's orientation and
the grasp style, each divided by the change that makes a different grasp. A candidate loses, in log-odds of success,

    COST * sum over failed grasps of exp(-|mark - failed mark|^2)
"""

import torch
from torch import Tensor

PLACE_M, AXIS, SHARE = 0.02, 0.35, 0.5
"""Units of a mark: palm position, tips of the palm's unit axes (20 degrees), share of the power grasp."""
COST = 3.0
"""Penalty of an exact repetition, in log-odds."""
MARK = 10
"""Length of a mark."""
NOTHING = 1e4
"""Entry of an empty mark: further than any two marks are apart."""


def grasp_descriptor(place_m: Tensor, axes_w: Tensor, share: Tensor) -> Tensor:
    """Return marks (..., MARK) of grasps.

    `place_m` (..., 3): palm at the end of the approach relative to the centroid of the points, world axes. `axes_w`
    (..., 3, 3): columns palm normal, y, finger direction. `share` (...): 0 pinch grasp, 1 power grasp.
    """
    normal, _, fingers = axes_w.unbind(-1)
    return torch.cat([place_m / PLACE_M, normal / AXIS, fingers / AXIS, share[..., None] / SHARE], dim=-1)


def repetition_penalty(marks: Tensor, tried: Tensor) -> Tensor:
    """Return the penalty (env, cand) of candidates (env, cand, MARK) for failed grasps (env, grasp, MARK), log-odds."""
    apart = (marks[:, :, None] - tried[:, None]).square().sum(dim=-1)
    return COST * torch.exp(-apart).sum(dim=-1)


class FailedGrasps:
    """Remembers the latest grasps of each environment's trial."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu", kept: int = 4) -> None:
        self.marks = torch.full((num_envs, kept, MARK), NOTHING, device=device)
        """(env, grasp, MARK) newest first; NOTHING where there were fewer."""

    def forget(self, rows: Tensor) -> None:
        """Clear the grasps of `rows` (row,)."""
        self.marks[rows] = NOTHING

    def add(self, rows: Tensor, marks: Tensor | None) -> None:
        """Add grasps with marks (row, MARK) in `rows`; None, of a planner without candidates, adds nothing."""
        if marks is not None:
            self.marks[rows] = torch.cat([marks[:, None].float(), self.marks[rows, :-1]], dim=1)
