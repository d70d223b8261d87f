"""What the policy knows of the object: the first view for good, the newest one, or the first one moved along.

frame taken at steps k, 2k, 3k, ... -> arrives some steps later -> replaces the points, or moves them
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from perception.tracking import Tracker
from sim.engine import Engine, State
from sim.randomize import Episode, RandomizeCfg
from sim.sample_camera import POINTS, SampleCamera
from sim.scene import ModelPool
from sim.view_cfg import ViewCfg


class Camera(Protocol):
    """Sees the objects: samples of training, or rendered depth."""

    def draw(self, row: int, rng: np.random.Generator) -> None:
        """Draw the errors of one episode."""
        ...

    def first(
        self, rows: Tensor, names: Sequence[str], pos_w: Tensor, quat_w: Tensor, camera_w: Tensor, draws: Episode
    ) -> Tensor:
        """Points (row, POINTS, 3) before the hand is there; `draws` are of the rows."""
        ...

    def frame(
        self, rows: Tensor, state: State, camera_w: Tensor, draws: Episode, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points (row, POINTS, 3), their number (row,), and the share of the first view's; `draws` are of all."""
        ...


class View:
    """The points that features are made of."""

    def __init__(self, cfg: ViewCfg, camera: Camera, num_envs: int) -> None:
        self._cfg = cfg
        self.camera = camera
        """What sees."""
        self.points_w = torch.zeros(num_envs, POINTS, 3)
        """(env, POINTS, 3) visible points, world frame [m]."""
        self.fraction = torch.ones(num_envs)
        """(env,) points in the last frame that arrived, as a share of those in the first."""
        self.fresh = torch.ones(num_envs, dtype=torch.bool)
        """(env,) whether that frame was of use: enough points, and where the object is tracked, on it."""
        self.camera_w = torch.zeros(num_envs, 3, dtype=torch.float64)
        """(env, 3) where it stands, world frame [m]."""
        self._waiting = torch.zeros(num_envs, POINTS, 3)
        self._count, self._share = torch.zeros(num_envs, dtype=torch.int64), torch.ones(num_envs)
        self._tracker = Tracker(num_envs, POINTS) if cfg.mode == "tracked" else None

    def draw(self, row: int, rng: np.random.Generator) -> None:
        """Draw the errors of one episode."""
        self.camera.draw(row, rng)

    def look(self, rows: Tensor, names: Sequence[str], pos_w: Tensor, quat_w: Tensor, draws: Episode) -> Tensor:
        """See the objects `names` of `rows` at these poses for the first time; where the palm comes from (row, 3) [m].

        World frame. That is the camera itself unless it stands aside.
        """
        place_w = torch.cat([pos_w[:, :2], torch.zeros_like(pos_w[:, 2:])], dim=1)
        camera_w = place_w + draws.camera_offset
        self.points_w[rows] = self.camera.first(rows, names, pos_w, quat_w, camera_w, draws)
        self.camera_w[rows] = camera_w
        self.fraction[rows], self.fresh[rows] = 1.0, True
        if self._tracker is not None:
            self._tracker.begin(rows, self.points_w[rows])
        return place_w + draws.approach_offset

    def update(self, state: State, draws: Episode, step: Tensor) -> None:
        """`step` (env,) control steps have passed; to be called once after each."""
        if not self._cfg.live:
            return
        period, latency = self._cfg.period_steps, self._cfg.latency_steps
        taken, arrives = step % period == 0, ((step - latency) % period == 0) & (step - latency >= period)
        if latency:
            self._arrive(arrives.nonzero().squeeze(1))
        self._take((taken & (step > 0)).nonzero().squeeze(1), state, draws, step)
        if not latency:
            self._arrive(arrives.nonzero().squeeze(1))

    def terms(self) -> dict[str, Tensor]:
        """What a policy is told about the view, beside the points."""
        if not self._cfg.live:
            return {}
        return {"visible_fraction": self.fraction, "view_fresh": self.fresh}

    def _take(self, rows: Tensor, state: State, draws: Episode, step: Tensor) -> None:
        if len(rows):
            seen = self.camera.frame(rows, state, self.camera_w[rows], draws, step[rows])
            self._waiting[rows], self._count[rows], self._share[rows] = seen

    def _arrive(self, rows: Tensor) -> None:
        if not len(rows):
            return
        enough = self._count[rows] >= self._cfg.min_points
        self.fraction[rows], self.fresh[rows] = self._share[rows], enough
        rows = rows[enough]
        if self._tracker is None:
            self.points_w[rows] = self._waiting[rows]
        elif len(rows):
            self.fresh[rows] = self._tracker.follow(rows, self._waiting[rows], self._count[rows])
            self.points_w[rows] = self._tracker.points_w(rows)


def make_view(cfg: ViewCfg, domain: RandomizeCfg, pool: ModelPool, engine: Engine) -> View:
    """The view that the configuration asks for. Raises OSError where OpenGL is needed and missing."""
    if cfg.camera == "rendered":
        from sim.render import RenderUnavailable  # OpenGL, pictures: only here
        from sim.rendered_camera import RenderedCamera

        try:
            return View(cfg, RenderedCamera(pool, engine), engine.num_envs)
        except RenderUnavailable as error:
            raise OSError(f"depth cannot be rendered: {error}; or take perception=model") from error
    camera = SampleCamera(cfg, domain, pool.hand, pool.library, engine.num_envs)
    return View(cfg, camera, engine.num_envs)
