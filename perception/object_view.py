"""What is known of the object once its first view is taken: that view for good, the newest, or the first moved along.

Batched, one object per row; the simulator and a robot use the same. Where frames come from, and when they arrive, is
the caller's matter.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perception.carrying import carried
from perception.hand_shape import Sight
from perception.tracking import Tracker, corrected

Mode = Literal["frozen", "refreshed", "tracked", "corrected"]
"""frozen: the first view only. refreshed: what is visible in each new frame, behind the hand nothing. tracked: the
first view, moved with the object as new frames show it. corrected: the same, and those points of the newest frame that
it does not explain."""

CLEAR_M = 0.012
"""What lies further than this beside the hand's outline should be seen."""


@dataclass(frozen=True, eq=False)
class Frame:
    """What one depth image showed of the objects of some rows."""

    points_w: Tensor
    """(row, point, 3) world frame [m]."""
    count: Tensor
    """(row,) how many of them there are; the others repeat or mean nothing."""
    share: Tensor
    """(row,) pixels of the object, as a share of those in the first view."""
    sight: Sight | None = None
    """What the camera had before it; modes that track need it."""


class ObjectView:
    """The points of all objects, and how good they are."""

    def __init__(
        self, mode: Mode, min_points: int, num_envs: int, points: int, device: torch.device | str = "cpu"
    ) -> None:
        """With fewer than `min_points` in a frame what is known stays as it was."""
        self._mode, self._min_points = mode, min_points
        self.points_w = torch.zeros(num_envs, points, 3, device=device)
        """(env, point, 3) world frame [m]."""
        self.fraction = torch.ones(num_envs, device=device)
        """(env,) pixels in the last frame, as a share of those in the first view."""
        self.fresh = torch.ones(num_envs, dtype=torch.bool, device=device)
        """(env,) whether that frame was of use: enough points, and where the object is tracked, on it."""
        self.seen = torch.ones(num_envs, dtype=torch.bool, device=device)
        """(env,) whether that frame had enough points."""
        self.tracker = Tracker(num_envs, points, device) if mode in ("tracked", "corrected") else None
        """Follows the objects, in modes that do."""

    def begin(self, rows: Tensor, points_w: Tensor) -> None:
        """The first views (row, point, 3) of these objects."""
        self.points_w[rows] = points_w
        self.fraction[rows], self.fresh[rows], self.seen[rows] = 1.0, True, True
        if self.tracker is not None:
            self.tracker.begin(rows, self.points_w[rows])

    def carry(self, rows: Tensor, shift: Tensor, turn: Tensor) -> None:
        """What holds the objects of `rows` moved by `shift` (row, 3) [m] and `turn` (row, 4): x -> turn x + shift."""
        self.points_w[rows] = carried(self.points_w[rows], shift, turn)
        if self.tracker is not None:
            self.tracker.carry(rows, shift, turn)

    def update(self, rows: Tensor, frame: Frame) -> None:
        """A frame of these objects has arrived."""
        enough = frame.count >= self._min_points
        self.fraction[rows], self.fresh[rows], self.seen[rows] = frame.share, enough, enough
        rows, fresh_w = rows[enough], frame.points_w[enough]
        if self.tracker is None:
            self.points_w[rows] = fresh_w
        elif len(rows):
            if frame.sight is None:
                raise ValueError(f"view mode {self._mode} must be told what the hand hides: a frame without a sight")
            self.fresh[rows] = self.tracker.follow(rows, fresh_w, frame.count[enough], frame.sight[enough])
            followed_w = self.tracker.points_w(rows)
            self.points_w[rows] = corrected(followed_w, fresh_w) if self._mode == "corrected" else followed_w
