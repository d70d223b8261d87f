"""Object points over time: the first view, the newest frame, or the tracked first view.

Batched, one object per row, for simulator and robot. The caller decides where frames come from and when.

In lift and hold the object is assumed to move with the palm: each palm reading moves its points by the motion of the
palm since the last reading, and frames correct them. The motions of an episode multiply to the motion from its first to
its last reading, so that noise of the readings does not accumulate.
"""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from dexgrasp.perception.occlusion import CameraOcclusion
from dexgrasp.perception.tracking.icp import (
    DEFAULT,
    IcpCfg,
    Reference,
    add_unexplained_points,
    register,
    shifts_on,
    surface_normals,
    transform,
)
from dexgrasp.perception.transforms import matrix_from_quat, quat_conjugate, quat_multiply, quat_rotate
from dexgrasp.utils.rows import Rows

Mode = Literal["first_frame", "latest", "tracked", "tracked_updated"]
"""first_frame: the first view only. latest: the visible points of each new frame, none behind the hand. tracked:
the first view, moved with the object as new frames show it. tracked_updated: the tracked first view, and the points
of the newest frame that it does not explain."""
RESTARTS_IN_VAIN = 2
"""Frames in succession whose restarts leave an object lost; from then on every second frame restarts."""
OUTLINE_MARGIN_M = 0.012
"""Margin around the hand's outline [m]; an object point beside it should be visible."""


class PalmMotion:
    """Computation of each palm's rigid motion since its last reading, in world coordinates."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        self._pos_w = torch.zeros(num_envs, 3, dtype=torch.float64, device=device)
        self._quat_w = torch.zeros(num_envs, 4, dtype=torch.float64, device=device)
        self._quat_w[:, 0] = 1.0

    def update(self, palm_pos_w: Tensor, palm_quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return shift (env, 3) [m] and turn (env, 4), float32, of the palm's motion: x -> turn x + shift.

        `palm_pos_w` (env, 3) [m] and `palm_quat_w` (env, 4) are the new readings. The first result of an episode is
        invalid: it is relative to the last reading of another episode.
        """
        turn = quat_multiply(palm_quat_w, quat_conjugate(self._quat_w))
        shift = palm_pos_w - quat_rotate(turn, self._pos_w)
        self._pos_w.copy_(palm_pos_w)
        self._quat_w.copy_(palm_quat_w)
        return shift.float(), turn.float()


def move_rigidly(points_w: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
    """Move points (env, point, 3) by `shift` (env, 3) [m] and `turn` (env, 4): x -> turn x + shift."""
    return torch.baddbmm(shift[:, None], points_w, matrix_from_quat(turn).transpose(1, 2))


@dataclass(frozen=True, eq=False)
class ObjectFrame:
    """Hold the object points of one depth image; first dimension: row."""

    points_w: Tensor
    """(row, point, 3) world frame [m]."""
    count: Tensor
    """(row,) number of distinct points; further rows repeat them or are invalid."""
    visible_fraction: Tensor
    """(row,) pixels of the object, divided by those of its first view."""
    occlusion: CameraOcclusion | None = None
    """Camera and hand when the frame was taken; needed by the modes that track."""

    def __getitem__(self, rows: Tensor) -> Self:
        """Return a copy of some rows."""
        occlusion = None if self.occlusion is None else self.occlusion[rows]
        return type(self)(
            points_w=self.points_w[rows],
            count=self.count[rows],
            visible_fraction=self.visible_fraction[rows],
            occlusion=occlusion,
        )

    def write(self, rows: Tensor, frame: "ObjectFrame") -> None:
        """Overwrite `rows` with the rows of `frame`."""
        self.points_w[rows], self.count[rows], self.visible_fraction[rows] = (
            frame.points_w,
            frame.count,
            frame.visible_fraction,
        )
        if self.occlusion is not None and frame.occlusion is not None:
            self.occlusion.places_w[rows] = frame.occlusion.places_w

    def move_with_palm(self, rows: Tensor, shift: Tensor, turn: Tensor) -> None:
        """Move `rows`, with camera and hand, by `shift` (row, 3) [m] and `turn` (row, 4): x -> turn x + shift."""
        self.points_w[rows] = move_rigidly(self.points_w[rows], shift, turn)
        if self.occlusion is not None:
            self.occlusion.places_w[rows] = move_rigidly(self.occlusion.places_w[rows], shift, turn)


class ObjectPoints:
    """Own the points of all objects, the poses of the tracked ones, and the quality of the last frame."""

    def __init__(
        self,
        mode: Mode,
        min_points: int,
        num_envs: int,
        points: int,
        device: torch.device | str = "cpu",
        icp: IcpCfg = DEFAULT,
    ) -> None:
        """`min_points`: frames with fewer points change nothing. `points`: of each object."""
        self._mode, self._min_points, self._icp = mode, min_points, icp
        self.points_w = torch.zeros(num_envs, points, 3, device=device)
        """(env, point, 3) world frame [m]."""
        self.visible_fraction = torch.ones(num_envs, device=device)
        """(env,) pixels of the object in the last frame, relative to its first view."""
        self.fresh = torch.ones(num_envs, dtype=torch.bool, device=device)
        """(env,) the last frame had enough points and, in the modes that track, the object is on track."""
        self.seen = torch.ones(num_envs, dtype=torch.bool, device=device)
        """(env,) the last frame had enough points."""
        if self.tracks:
            shifts_on(icp, self.points_w.device)  # now, not with the first bad fit
        tracked = num_envs if self.tracks else 0
        self._first = torch.zeros(tracked, points, 3, device=device)  # first view about its centre
        self._normals = torch.zeros(tracked, min(icp.model_points, points), 3, device=device)
        self._radius = torch.ones(tracked, device=device)
        self._pos_w, self._quat = torch.zeros(tracked, 3, device=device), torch.zeros(tracked, 4, device=device)
        self._in_vain = torch.zeros(tracked, dtype=torch.int64, device=device)  # frames in succession

    @property
    def tracks(self) -> bool:
        """Whether the first view is registered to new frames, which must come with an occlusion."""
        return self._mode in ("tracked", "tracked_updated")

    def reset(self, rows: Tensor, points_w: Tensor) -> None:
        """Set the first views (row, point, 3) of the objects of `rows` [m]."""
        self.points_w[rows] = points_w
        self.visible_fraction[rows], self.fresh[rows], self.seen[rows] = 1.0, True, True
        if self.tracks:
            self._reset_tracking(rows, self.points_w[rows])

    def move_with_palm(self, rows: Tensor, shift: Tensor, turn: Tensor) -> None:
        """Move the objects of `rows` by `shift` (row, 3) [m] and `turn` (row, 4): x -> turn x + shift."""
        self.points_w[rows] = move_rigidly(self.points_w[rows], shift, turn)
        if self.tracks:
            self._pos_w[rows] = quat_rotate(turn, self._pos_w[rows]) + shift
            self._quat[rows] = quat_multiply(turn, self._quat[rows])

    def update(self, rows: Tensor, frame: ObjectFrame) -> None:
        """Update the objects of `rows` from a frame with one row for each."""
        enough = frame.count >= self._min_points
        self.visible_fraction[rows], self.fresh[rows], self.seen[rows] = frame.visible_fraction, enough, enough
        some = Rows.where(enough)
        if not len(some):
            return
        frame, some = frame[some.index], some.of(rows)
        points_w = frame.points_w
        if self.tracks:
            some.write(self.fresh, self._track(some, frame))
            tracked_w = self.tracked_w(some.index)
            is_corrected = self._mode == "tracked_updated"
            points_w = add_unexplained_points(tracked_w, points_w, self._icp) if is_corrected else tracked_w
        some.write(self.points_w, points_w)

    def tracked_w(self, rows: Tensor | None = None) -> Tensor:
        """Return the first views (row, point, 3) at the tracked poses, world frame [m]; `rows` None: of all.

        Raise ValueError in a mode that does not track.
        """
        if not self.tracks:
            raise ValueError(f"camera.mode={self._mode} tracks nothing; tracked and tracked_updated do")
        rows = torch.arange(len(self.points_w), device=self.points_w.device) if rows is None else rows
        return transform(self._pos_w[rows], self._quat[rows], self._first[rows])

    def _reset_tracking(self, rows: Tensor, points_w: Tensor) -> None:
        centre_w = points_w.mean(dim=1)
        points = points_w - centre_w[:, None]
        self._first[rows], self._pos_w[rows] = points, centre_w
        self._normals[rows] = surface_normals(points, self._icp.normal_neighbors)[:, : self._icp.model_points]
        self._quat[rows] = points.new_tensor([1.0, 0.0, 0.0, 0.0])
        self._in_vain[rows] = 0
        self._radius[rows] = points.square().sum(-1).mean(dim=1).sqrt().clamp(min=0.01)

    def _track(self, some: Rows, frame: ObjectFrame) -> Tensor:
        """Register the objects of some rows to a frame; return which are on track (row,). Lost ones keep poses."""
        if frame.occlusion is None:
            raise ValueError(f"camera.mode={self._mode} needs the occlusion by the hand: pass a frame with `occlusion`")
        rows = some.index
        reference = Reference(self._first[rows, : self._icp.model_points], self._normals[rows], self._radius[rows])
        pose = self._pos_w[rows], self._quat[rows]
        in_vain = self._in_vain[rows]
        may_restart = in_vain < RESTARTS_IN_VAIN
        pos_w, quat, fit = register(self._icp, reference, *pose, frame.points_w, frame.occlusion, may_restart)
        on_track, visible = fit >= self._icp.on_track_above_fit, frame.count > 0
        some.write(self._in_vain, torch.where(may_restart, in_vain + 1, 1).masked_fill(on_track, 0))
        keep = (fit >= self._icp.keep_above_fit) & visible
        some.write(self._pos_w, pos_w, keep)
        some.write(self._quat, quat, keep)
        return on_track & visible
