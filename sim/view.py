"""What the policy knows of the object: the first view for good, the newest one, or the first one moved along.

frame taken at steps k, 2k, 3k, ... -> arrives some steps later -> replaces the points, moves them, or both;
in lift and hold everything known, a frame on its way included, goes along with the palm between frames
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from perception.carrying import PalmMotion, carried
from perception.object_view import CLEAR_M, Frame, ObjectView
from sim.engine import Engine, State
from sim.hand_capsules import hand_shadow
from sim.hands import HandSpec
from sim.randomize import Episode, RandomizeCfg
from sim.sample_camera import POINTS, SampleCamera
from sim.scene import ModelPool
from sim.sensing import Readings
from sim.view_cfg import ViewCfg


class Camera(Protocol):
    """Sees the objects: samples of training, or rendered depth."""

    def first(
        self,
        rows: Tensor,
        names: Sequence[str],
        pos_w: Tensor,
        quat_w: Tensor,
        camera_w: Tensor,
        draws: Episode,
        again: bool = False,
    ) -> Tensor:
        """Points (row, POINTS, 3) before the hand is there, or `again` when it is aside; `draws` are of the rows."""
        ...

    def frame(
        self, rows: Tensor, state: State, camera_w: Tensor, draws: Episode, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points (row, POINTS, 3), their number (row,), and the share of the first view's; `draws` are of all."""
        ...


class View:
    """The points that features are made of."""

    def __init__(
        self,
        cfg: ViewCfg,
        camera: Camera,
        num_envs: int,
        hand: HandSpec | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """`hand`: what stands before the object; the modes that track it need that."""
        self._cfg = cfg
        self.camera = camera
        """What sees."""
        self._known = ObjectView(cfg.mode, cfg.min_points, num_envs, POINTS, device)
        self.points_w, self.fraction = self._known.points_w, self._known.fraction
        """(env, POINTS, 3) visible points, world frame [m]; (env,) pixels in the last frame there was, as a share."""
        self.fresh, self.seen = self._known.fresh, self._known.seen
        """(env,) whether that frame was of use; (env,) whether it had enough points."""
        self.camera_w = torch.zeros(num_envs, 3, dtype=torch.float64, device=device)
        """(env, 3) where it stands, world frame [m]."""
        self._waiting = torch.zeros(num_envs, POINTS, 3, device=device)
        self._arrival = torch.zeros_like(self.fresh, dtype=torch.int64)  # the step at which the waiting frame is there
        self._count, self._share = torch.zeros_like(self._arrival), torch.ones_like(self.fraction)
        self._palm = PalmMotion(num_envs, device)
        self._shadow = hand_shadow(_required(hand), CLEAR_M).to(device) if cfg.tracks else None
        self._sight = self._shadow.no_sight(num_envs, device) if self._shadow else None  # of the waiting frames

    def look(self, rows: Tensor, names: Sequence[str], pos_w: Tensor, quat_w: Tensor, draws: Episode) -> Tensor:
        """See the objects `names` of `rows` at these poses for the first time; where the palm comes from (row, 3) [m].

        World frame. That is the camera itself unless it stands aside.
        """
        place_w = torch.cat([pos_w[:, :2], torch.zeros_like(pos_w[:, 2:])], dim=1)
        camera_w = place_w + draws.camera_offset
        self._known.begin(rows, self.camera.first(rows, names, pos_w, quat_w, camera_w, draws))
        self.camera_w[rows], self._arrival[rows] = camera_w, 0
        return place_w + draws.approach_offset

    def update(
        self, state: State, draws: Episode, step: Tensor, sensed: Readings, held: Tensor, resting: Tensor
    ) -> None:
        """`step` (env,) control steps have passed; to be called once after each.

        `sensed`: the hand as it is read now. `held` (env,) bool: the object went along with the palm in the last step,
        as far as a policy can know: in lift and hold. `resting` (env,) bool: the palm holds still, in hold.
        """
        if self._cfg.carried:
            self._carry(held.nonzero().squeeze(1), *self._palm.read(sensed.palm_pos_w, sensed.palm_quat_w))
        if not self._cfg.live:
            return
        period = torch.where(resting, self._cfg.held_period_steps, self._cfg.period_steps)
        if self._cfg.latency_steps:  # a frame may arrive as the next is taken
            self._arrive(((step == self._arrival) & (step > 0)).nonzero().squeeze(1))
        self._take(((step % period == 0) & (step > 0)).nonzero().squeeze(1), state, draws, step, sensed)
        if not self._cfg.latency_steps:
            self._arrive(((step == self._arrival) & (step > 0)).nonzero().squeeze(1))

    def look_again(self, rows: Tensor, names: Sequence[str], state: State, draws: Episode, step: Tensor) -> Tensor:
        """Another first view of the objects of `rows`, the hand aside; (row,) bool: there was enough to see.

        All but `rows` is of all environments. Where too little is seen what is known remains.
        """
        count = self.camera.frame(rows, state, self.camera_w[rows], draws, step[rows])[1]
        seen = count >= self._cfg.min_points
        some = rows[seen]
        if len(some):
            shown = [names[int(row)] for row in some]
            pose = state.object_pos_w[some].double(), state.object_quat_w[some].double()
            points_w = self.camera.first(some, shown, *pose, self.camera_w[some], draws.rows(some), again=True)
            self._known.begin(some, points_w)
        self._arrival[rows] = 0
        return seen

    def tracked_w(self) -> Tensor:
        """The first views (env, POINTS, 3) where the tracker has them now, world frame [m]; in modes that track."""
        if self._known.tracker is None:
            raise ValueError(f"view.mode={self._cfg.mode} tracks nothing; tracked and corrected do")
        return self._known.tracker.points_w(torch.arange(len(self.points_w), device=self.points_w.device))

    def terms(self) -> dict[str, Tensor]:
        """What a policy is told about the view, beside the points."""
        if not self._cfg.live:
            return {}
        return {"visible_fraction": self.fraction, "view_fresh": self.fresh}

    def _carry(self, rows: Tensor, shift: Tensor, turn: Tensor) -> None:
        """What is known in `rows`, and the frame on its way, moves with the palm."""
        if not len(rows):
            return
        self._known.carry(rows, shift[rows], turn[rows])
        if self._cfg.live:
            self._waiting[rows] = carried(self._waiting[rows], shift[rows], turn[rows])
        if self._sight:
            self._sight.places_w[rows] = carried(self._sight.places_w[rows], shift[rows], turn[rows])

    def _take(self, rows: Tensor, state: State, draws: Episode, step: Tensor, sensed: Readings) -> None:
        if not len(rows):
            return
        seen = self.camera.frame(rows, state, self.camera_w[rows], draws, step[rows])
        self._waiting[rows], self._count[rows], self._share[rows] = seen
        self._arrival[rows] = step[rows] + self._cfg.latency_steps
        if self._shadow and self._sight:
            hand = sensed.palm_pos_w[rows], sensed.palm_quat_w[rows], sensed.joint_pos[rows]
            self._sight.places_w[rows] = self._shadow.sight(self.camera_w[rows], *hand).places_w

    def _arrive(self, rows: Tensor) -> None:
        if len(rows):
            sight = self._sight[rows] if self._sight else None
            self._known.update(rows, Frame(self._waiting[rows], self._count[rows], self._share[rows], sight))


def _required(hand: HandSpec | None) -> HandSpec:
    if hand is None:
        raise ValueError("a view that tracks the object needs the hand that hides it: pass `hand`")
    return hand


def make_view(cfg: ViewCfg, domain: RandomizeCfg, pool: ModelPool, engine: Engine) -> View:
    """The view that the configuration asks for. Raises OSError where OpenGL is needed and missing."""
    if cfg.camera == "rendered":
        from sim.render import RenderUnavailable  # OpenGL, pictures: only here
        from sim.rendered_camera import RenderedCamera

        try:
            if engine.device.type != "cpu":
                raise ValueError("perception=rendered draws and segments depth on the CPU: use engine=cpu with it")
            return View(cfg, RenderedCamera(pool, engine), engine.num_envs, pool.hand)
        except RenderUnavailable as error:
            raise OSError(f"depth cannot be rendered: {error}; or take perception=model") from error
    camera = SampleCamera(cfg, domain, pool.hand, pool.library, engine.num_envs, engine.device)
    return View(cfg, camera, engine.num_envs, pool.hand, engine.device)
