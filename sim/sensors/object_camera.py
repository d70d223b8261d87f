"""Simulated camera of the object, with frame delays, that keeps the object points up to date.

frame taken at steps k, 2k, 3k, ... -> arrives some steps later -> replaces the points, moves them, or both;
in lift and hold the points, and a frame that has not arrived, move with the palm between frames
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dexgrasp.perception.tracking.object_points import OUTLINE_MARGIN_M, ObjectFrame, ObjectPoints, PalmMotion
from dexgrasp.sim.engine.base import Engine, Neighbours, State
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg
from dexgrasp.sim.robots.capsules import hand_occlusion
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import ModelPool
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.point_camera import POINTS, PointCamera
from dexgrasp.sim.sensors.proprioception import ProprioceptiveState
from dexgrasp.sim.sensors.surface_table import SurfaceTable
from dexgrasp.utils.rows import rows_of


class CameraModel(Protocol):
    """Returns object points of one frame: surface samples, or rendered depth."""

    def look_at(self, rows: Tensor, target_w: Tensor) -> None:
        """Point the cameras of `rows` at target_w (row, 3), world frame [m]."""
        ...

    def observe_first(
        self,
        rows: Tensor,
        names: Sequence[str],
        pos_w: Tensor,
        quat_w: Tensor,
        camera_w: Tensor,
        draws: EpisodeDraws,
        neighbours: Neighbours | None = None,
    ) -> Tensor:
        """Return points (row, POINTS, 3) of a first view, without the hand.

        `draws` and `neighbours` are of the rows; None: the objects stand alone.
        """
        ...

    def observe(
        self,
        rows: Tensor,
        state: State,
        camera_w: Tensor,
        draws: EpisodeDraws,
        step: Tensor,
        earlier_w: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return points (row, POINTS, 3), their number (row,) and pixels relative to the first view (row,).

        `draws` are of all environments. `earlier_w` (row, point, 3): where the objects are believed to be [m], by which
        they are told from their neighbours; None: they stand alone.
        """
        ...


class ObjectCamera(ObjectPoints):
    """Feeds the object points with frames of a simulated camera."""

    def __init__(
        self,
        cfg: CameraCfg,
        camera: CameraModel,
        num_envs: int,
        hand: HandSpec | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """`hand`: hides the object; needed by the modes that track."""
        super().__init__(cfg.mode, cfg.min_points, num_envs, POINTS, device)
        self._cfg = cfg
        self.camera = camera
        """Source of the frames."""
        self.camera_w = torch.zeros(num_envs, 3, dtype=torch.float64, device=device)
        """(env, 3) position of the camera, world frame [m]."""
        self._palm_motion = PalmMotion(num_envs, device)
        self._neighbours: dict[int, tuple[str, ...]] = {}  # names by row
        self._occlusion = hand_occlusion(_required(hand), OUTLINE_MARGIN_M).to(device) if cfg.tracks else None
        self._arrival = torch.zeros(num_envs, dtype=torch.int64)  # step at which the pending frame comes, on the host
        self._pending = ObjectFrame(
            points_w=torch.zeros(num_envs if cfg.live else 0, POINTS, 3, device=device),
            count=torch.zeros_like(self._arrival, device=device),
            visible_fraction=torch.ones_like(self.visible_fraction),
            occlusion=self._occlusion.empty(num_envs, device) if self._occlusion else None,
        )

    def observe_first(
        self,
        rows: Tensor,
        names: Sequence[str],
        pos_w: Tensor,
        quat_w: Tensor,
        draws: EpisodeDraws,
        neighbours: Neighbours | None = None,
    ) -> Tensor:
        """Take the first view of the objects `names` of `rows` at these poses, without the hand.

        `neighbours`: other objects beside them.

        Return the origin of the approach direction (row, 3), world frame [m]: the camera, or a point above the object
        for a camera at the side.
        """
        place_w = torch.cat([pos_w[:, :2], torch.zeros_like(pos_w[:, 2:])], dim=1)
        camera_w = place_w + draws.camera_offset
        self.camera.look_at(rows, place_w)
        self.reset(rows, self.camera.observe_first(rows, names, pos_w, quat_w, camera_w, draws, neighbours))
        if neighbours is not None:
            self._neighbours |= dict(zip(rows.tolist(), neighbours.names, strict=True))
        self.camera_w[rows], self._arrival[rows.cpu()] = camera_w, 0
        return place_w + draws.approach_offset

    def observe_first_again(
        self, rows: Tensor, names: Sequence[str], state: State, draws: EpisodeDraws, step: Tensor
    ) -> Tensor:
        """Replace the first view of the objects of `rows` while the hand is aside.

        Return the mask (row,) of objects with at least `min_points` visible points; the points of the others stay.

        `rows` and `names` are of the selected environments, other arguments of all.
        """
        count = self._frame(rows, state, draws, step[rows])[1]
        seen = count >= self._cfg.min_points
        some = rows[seen]
        if len(some):
            shown = [names[int(row)] for row in some]
            pose = state.object_pos_w[some].double(), state.object_quat_w[some].double()
            camera_w, around = self.camera_w[some], self._around(some, state)
            self.reset(some, self.camera.observe_first(some, shown, *pose, camera_w, draws.rows(some), around))
        self._arrival[rows.cpu()] = 0
        return seen

    def _frame(self, rows: Tensor, state: State, draws: EpisodeDraws, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the camera sees of the objects of `rows` now; `step` is of the rows."""
        frame = rows, state, self.camera_w[rows], draws, step
        return self.camera.observe(*frame, self.points_w[rows]) if self._neighbours else self.camera.observe(*frame)

    def _around(self, rows: Tensor, state: State) -> Neighbours | None:
        """Return the neighbours of the objects of `rows` where they are now."""
        if not self._neighbours:
            return None
        names = [self._neighbours[row] for row in rows.tolist()]
        return Neighbours(names=names, pos_w=state.neighbour_pos_w[rows], quat_w=state.neighbour_quat_w[rows])

    def step(
        self,
        state: State,
        draws: EpisodeDraws,
        step: Tensor,
        sensed: ProprioceptiveState,
        held: Tensor,
        resting: Tensor,
        host_step: Tensor | None = None,
    ) -> None:
        """Update the object points after a control step.

        Moves the points with the palm, takes frames and receives those that are due.

        `step` (env,): control steps since the reset. `sensed`: measured hand. On the host: `held` (env,) bool: lift or
        hold, in which the object is assumed to move with the palm. `resting` (env,) bool: hold, in which the palm does
        not move. `host_step`: `step` on the host; None: it is there.
        """
        host_step = step if host_step is None else host_step
        if self._cfg.move_with_palm:
            shift, turn = self._palm_motion.update(sensed.palm_pos_w, sensed.palm_quat_w)
            self._follow_palm(rows_of(held, step.device), shift, turn)
        if not self._cfg.live or self._cfg.frozen:
            return
        period = torch.where(resting, self._cfg.hold_frame_interval_steps, self._cfg.frame_interval_steps)
        if self._cfg.latency_steps:  # a frame may arrive as the next is taken
            self._receive(host_step, step.device)
        taken = (host_step % period == 0) & (host_step > 0)
        self._arrival = torch.where(taken, host_step + self._cfg.latency_steps, self._arrival)
        self._observe(rows_of(taken, step.device), state, draws, step, sensed)
        if not self._cfg.latency_steps:
            self._receive(host_step, step.device)

    def terms(self) -> dict[str, Tensor]:
        """Return the observation terms about the last frame, (env,) each."""
        if not self._cfg.live:
            return {}
        return {"visible_fraction": self.visible_fraction, "view_fresh": self.fresh}

    def _follow_palm(self, rows: Tensor | None, shift: Tensor, turn: Tensor) -> None:
        if rows is None:
            return
        self.move_with_palm(rows, shift[rows], turn[rows])
        if self._cfg.live:
            self._pending.move_with_palm(rows, shift[rows], turn[rows])

    def _observe(
        self, rows: Tensor | None, state: State, draws: EpisodeDraws, step: Tensor, sensed: ProprioceptiveState
    ) -> None:
        if rows is None:
            return
        camera_w, occlusion = self.camera_w[rows], None
        points_w, count, visible_fraction = self._frame(rows, state, draws, step[rows])
        if self._occlusion is not None:
            occlusion = self._occlusion.for_camera(
                camera_w,
                palm_pos_w=sensed.palm_pos_w[rows],
                palm_quat_w=sensed.palm_quat_w[rows],
                joint_pos=sensed.joint_pos[rows],
            )
        frame = ObjectFrame(points_w=points_w, count=count, visible_fraction=visible_fraction, occlusion=occlusion)
        self._pending.write(rows, frame)

    def _receive(self, host_step: Tensor, device: torch.device) -> None:
        rows = rows_of((host_step == self._arrival) & (host_step > 0), device)
        if rows is not None:
            self.update(rows, self._pending[rows])


def _required(hand: HandSpec | None) -> HandSpec:
    if hand is None:
        raise ValueError("camera.mode=tracked and tracked_updated need the hand that hides the object: pass `hand`")
    return hand


def make_object_camera(
    cfg: CameraCfg, domain: RandomizationCfg, pool: ModelPool, engine: Engine, surfaces: SurfaceTable
) -> ObjectCamera:
    """Return the camera that `cfg` describes. Raise OSError where OpenGL is needed and missing."""
    if cfg.model == "rendered":
        from dexgrasp.sim.rendering.offscreen import RenderUnavailable  # OpenGL, pictures: only here
        from dexgrasp.sim.sensors.depth_camera import DepthCamera

        try:
            if engine.device.type != "cpu":
                raise ValueError(
                    "task.camera.model=rendered draws and segments depth on the CPU: use engine=cpu with it"
                )
            return ObjectCamera(cfg, DepthCamera(pool, engine), engine.num_envs, pool.hand)
        except RenderUnavailable as error:
            raise OSError(f"depth cannot be rendered: {error}; or set task.camera.model=points") from error
    camera = PointCamera(cfg, domain, pool.hand, surfaces, engine.num_envs, engine.device)
    return ObjectCamera(cfg, camera, engine.num_envs, pool.hand, engine.device)
