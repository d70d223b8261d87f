"""The camera's first view of each object: visible surface points with the errors of a depth camera."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from perception.geometry import quat_rotate
from sim.camera import pick_points, visible
from sim.objects import SURFACE_POINTS, ObjectLibrary
from sim.randomize import Episode, RandomizeCfg

POINTS = 256
"""Object points per environment, of the visible side and of the whole surface."""


class FirstView:
    """What the policy knows of the object; frozen when the episode begins, as in the published method."""

    def __init__(self, cfg: RandomizeCfg, library: ObjectLibrary, num_envs: int) -> None:
        self._cfg, self._library = cfg, library
        self.points_w = torch.zeros(num_envs, POINTS, 3)
        """(env, POINTS, 3) visible points, world frame [m]."""
        noisy = num_envs if cfg.points_noise_m else 0
        self._noise = torch.zeros(noisy, POINTS, 3)
        self._kept = torch.ones(num_envs if cfg.points_dropout else 0, SURFACE_POINTS, dtype=torch.bool)

    def draw(self, row: int, rng: np.random.Generator) -> None:
        """Draw the errors of one episode's view."""
        if self._cfg.points_noise_m:
            noise = rng.normal(0, self._cfg.points_noise_m, (POINTS, 3))
            self._noise[row] = torch.from_numpy(noise.astype(np.float32))
        if self._cfg.points_dropout:
            share = rng.uniform(0, self._cfg.points_dropout)
            self._kept[row] = torch.from_numpy(rng.uniform(size=SURFACE_POINTS) >= share)

    def look(self, rows: Tensor, names: Sequence[str], pos_w: Tensor, quat_w: Tensor, draws: Episode) -> Tensor:
        """See the objects `names` of `rows` at these poses; returns the camera positions (row, 3), world frame [m]."""
        points = torch.from_numpy(np.stack([self._library[name].points for name in names])).double()
        normals = torch.from_numpy(np.stack([self._library[name].normals for name in names])).double()
        camera_w = torch.cat([pos_w[:, :2], torch.zeros_like(pos_w[:, 2:])], dim=1) + draws.camera_offset
        points_w = quat_rotate(quat_w[:, None], points * draws.size[:, None, None]) + pos_w[:, None]
        mask = visible(points_w, quat_rotate(quat_w[:, None], normals), camera_w)
        if self._cfg.points_dropout:
            mask = _without(mask, ~self._kept[rows])
        index = pick_points(mask, POINTS)
        seen_w = points_w.gather(1, index[..., None].expand(-1, -1, 3)) + draws.camera_bias[:, None]
        self.points_w[rows] = seen_w.float()
        if self._cfg.points_noise_m:
            self.points_w[rows] += self._noise[rows]
        return camera_w


def _without(mask: Tensor, dropped: Tensor) -> Tensor:
    """The mask (row, point) less what is dropped; where that would leave nothing, the mask."""
    rest = mask & ~dropped
    return torch.where(rest.any(dim=1, keepdim=True), rest, mask)
