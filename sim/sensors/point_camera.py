"""Training camera: visible surface samples of the objects with depth errors, batched.

A frame holds the samples that face the camera and are hidden neither by other samples of the object, nor by those of
its neighbours, nor by the hand. A sample is hidden by an object if a sample of that in its image cell is clearly
nearer. Occlusion by an arm is not modelled: cameras stand where an arm does not hide the object.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from dexgrasp.perception.transforms import matrix_from_quat, plane_basis, quat_rotate, quat_rotate_inverse
from dexgrasp.sim.engine.base import Neighbours, State
from dexgrasp.sim.objects import SURFACE_POINTS
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.robots.capsules import hand_occlusion
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.surface_table import SurfaceTable

CELL_RAD = 0.012
"""Angular size of an image cell; about 9 mm at 0.76 m, above the spacing of 1,024 samples on a 15 cm object."""

HIDDEN_BEHIND_M = 0.012
"""Distance behind the nearest sample of its cell beyond which a sample is hidden."""

MAX_HIDDEN_BEHIND_M = 0.04
"""Largest value of HIDDEN_BEHIND_M on surfaces seen at grazing angles."""

MIN_EDGE_M, MIN_EDGE_CELLS = 0.015, 3
"""Least depth step at an edge, and number of deeper neighbour cells that make one: a single hole makes none."""
POINTS = 256
"""Object points per environment, of the visible side and of the whole surface."""
FRAME_SAMPLES, MAX_FRAME_POINTS = 512, 96
"""Samples per frame after the first that are tested for visibility, and most visible samples that are kept."""
FOCAL_PX, BASELINE_M = 385.0, 0.05
"""Focal length and baseline of a D435 at 640 columns, from its data sheet."""
MAX_FLYING_M = 0.03
"""Largest distance of flying edge points behind the object."""
IMAGE_CELLS = 64
"""Width of a depth image on a GPU, which is not asked for the width of what it sees; 0.42 m at 0.55 m."""
RANDOM_TABLE_SIZE = 1 << 16
"""Length of the tables of random numbers."""
FRAME_STRIDE = 40503
"""Offset between the table entries of successive frames; odd, so that each frame of an episode reads others."""


def visible(points_w: Tensor, normals_w: Tensor, camera_pos_w: Tensor) -> Tensor:
    """Return the mask (env, point) of the surface samples that a camera at `camera_pos_w` (env, 3) sees.

    `points_w`, `normals_w`: (env, point, 3), world frame; at least one sample per object is always kept (the nearest).
    """
    return visible_and_edge(points_w, normals_w, camera_pos_w, edges=False)[0]


def visible_and_edge(
    points_w: Tensor,
    normals_w: Tensor,
    camera_pos_w: Tensor,
    edges: bool = True,
    steep: bool = False,
    around_w: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mask of `visible` and the mask of samples in edge cells, both (env, point).

    EDGE_CELLS of the eight neighbours of an edge cell are deeper. `steep`: keep surfaces seen at grazing angles. A cell
    covers more of their depth, so that they may lie up to STEEPEST_M behind the nearest sample. `around_w` (env, other,
    3): samples of other objects, which hide those behind them.
    """
    ray = points_w - camera_pos_w[:, None]
    distance = ray.norm(dim=-1)
    towards = -(ray * normals_w).sum(-1)
    image, cell = _depth_image(
        ray / distance[..., None], distance, None if around_w is None else around_w - camera_pos_w[:, None]
    )
    limit = image.flatten(1).gather(1, cell) + HIDDEN_BEHIND_M
    if steep:
        slope = (distance.square() - towards.square()).clamp(min=0.0).sqrt() / towards.clamp(min=1e-6)
        limit = limit + (CELL_RAD * distance * slope).clamp(max=MAX_HIDDEN_BEHIND_M)
    mask = (towards > 0.1 * distance) & (distance < limit)
    mask.scatter_(1, distance.argmin(dim=1, keepdim=True), True)
    return mask, _edge_cells(image).flatten(1).gather(1, cell) if edges else torch.zeros_like(mask)


def _edge_cells(image: Tensor) -> Tensor:
    """Return the mask (env, row, column) of the edge cells of a depth image whose border is empty."""
    deeper = torch.zeros(image[:, 1:-1, 1:-1].shape, dtype=torch.int8, device=image.device)
    rows, columns = image.shape[1:]
    limit = image[:, 1:-1, 1:-1] + MIN_EDGE_M
    for down, right in product(range(3), repeat=2):
        deeper += image[:, down : rows - 2 + down, right : columns - 2 + right] > limit
    return torch.nn.functional.pad(deeper >= MIN_EDGE_CELLS, (1, 1, 1, 1))


def _depth_image(direction: Tensor, distance: Tensor, around: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the least distance in each cell (env, row, column), infinite in empty ones, and each sample's cell.

    `around` (env, other, 3): rays to samples of other objects [m]; those beyond the image do not count.
    """
    side, up = plane_basis(direction.mean(dim=1))
    basis = torch.stack([side, up], dim=-1)
    plane = direction @ basis
    corner = plane.amin(dim=1, keepdim=True)
    place = ((plane - corner) / CELL_RAD).long() + 1
    if place.device.type == "cpu":
        width = int(place.max()) + 2
    else:
        width = IMAGE_CELLS
        place = place.clamp(max=width - 2)
    image = torch.full((len(distance), width * width), torch.inf, device=distance.device, dtype=distance.dtype)
    cell = place[..., 0] * width + place[..., 1]
    image.scatter_reduce_(1, cell, distance, "amin")
    if around is not None:
        away = around.norm(dim=-1)
        other = ((around / away[..., None] @ basis - corner) / CELL_RAD).floor().long() + 1
        inside = ((other >= 0) & (other < width)).all(dim=-1)
        other = torch.where(inside[..., None], other, 0)
        image.scatter_reduce_(1, other[..., 0] * width + other[..., 1], away.masked_fill(~inside, torch.inf), "amin")
    return image.unflatten(1, (width, width)), cell


def pick_points(mask: Tensor, count: int) -> Tensor:
    """Return the indices (env, count) of the first `count` visible samples; fewer are repeated in turn.

    Samples are stored in farthest-point order, so that the first ones are spread over the whole visible side.
    """
    rank = mask.cumsum(dim=1)
    seen = rank[:, -1:].clamp(min=1)
    width = mask.shape[1]
    order = torch.zeros(len(mask), width + 1, dtype=torch.int64, device=mask.device)
    number = torch.arange(width, device=mask.device).expand(len(mask), width)
    order.scatter_(1, torch.where(mask, rank - 1, width), number)  # unseen ones go to the last place
    return order.gather(1, torch.arange(count, device=mask.device) % seen)


class PointCamera:
    """Returns visible surface samples. The trial's random numbers alone decide the errors of an episode."""

    def __init__(
        self,
        cfg: CameraCfg,
        domain: RandomizationCfg,
        hand: HandSpec,
        surfaces: SurfaceTable,
        num_envs: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._cfg, self._domain, self._surfaces = cfg, domain, surfaces
        self._noise = torch.zeros(num_envs if domain.points_noise_m else 0, POINTS, 3, device=device)
        self._kept = torch.ones(
            num_envs if domain.points_dropout else 0, SURFACE_POINTS, dtype=torch.bool, device=device
        )
        self._table_offset = torch.zeros(num_envs, dtype=torch.int64, device=device)  # of each episode
        generator = torch.Generator().manual_seed(0)
        self._normal = torch.randn(RANDOM_TABLE_SIZE + SURFACE_POINTS, generator=generator).to(device)
        self._uniform = torch.rand(RANDOM_TABLE_SIZE + SURFACE_POINTS, generator=generator).to(device)
        fresh = num_envs if cfg.live else 0
        self._points_o, self._normals_o = (torch.zeros(fresh, FRAME_SAMPLES, 3, device=device) for _ in range(2))
        self._first_count = torch.ones(fresh, device=device)
        self._around_o = torch.zeros(0, 0, SURFACE_POINTS, 3, device=device)  # of neighbours, in their own frames
        self._occlusion = hand_occlusion(hand, cfg.hand_margin_m).to(device)

    def look_at(self, rows: Tensor, target_w: Tensor) -> None:
        """Do nothing: the field of view is not limited."""

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
        """Return points (row, POINTS, 3) of the objects `names` at the given poses, without the hand.

        `camera_w` (row, 3): camera position, world frame [m].
        """
        self._draw_errors(rows, TrialRandom(draws.key))
        numbers = self._surfaces.find(names)
        points, normals = self._surfaces.points[numbers].double(), self._surfaces.normals[numbers].double()
        points = points * draws.size[:, None, None]
        points_w = quat_rotate(quat_w[:, None], points) + pos_w[:, None]
        normals_w = quat_rotate(quat_w[:, None], normals)
        around_w = None
        if neighbours is not None:
            around_w = self._neighbours_seen_first(rows, neighbours).double()
        mask, edge = visible_and_edge(
            points_w, normals_w, camera_w, not self._cfg.exact, self._cfg.include_grazing_angles, around_w
        )
        if self._domain.points_dropout:
            mask = _without(mask, ~self._kept[rows])
        visible = mask[:, :FRAME_SAMPLES].sum(dim=1)
        if not self._cfg.exact:
            points_w, kept = self._add_depth_errors(rows, points_w, edge, camera_w, torch.zeros_like(rows))
            mask = _without(mask, ~kept)
        if self._cfg.live:
            self._points_o[rows] = points[:, :FRAME_SAMPLES].float()
            self._normals_o[rows] = normals[:, :FRAME_SAMPLES].float()
            self._first_count[rows] = visible.clamp(min=1).float()
        seen_w = (_gather_points(points_w, pick_points(mask, POINTS)) + draws.camera_bias[:, None]).float()
        return seen_w + self._noise[rows] if self._domain.points_noise_m else seen_w

    def _neighbours_seen_first(self, rows: Tensor, neighbours: Neighbours) -> Tensor:
        """Keep the surface samples of the neighbours of `rows`; return them in the world (row, sample, 3) [m]."""
        count = neighbours.pos_w.shape[1]
        if not len(self._around_o):
            self._around_o = self._noise.new_zeros(len(self._table_offset), count, SURFACE_POINTS, 3)
        for row, names in zip(rows.tolist(), neighbours.names, strict=True):
            known = self._surfaces.find([name for name in names if name])  # those without a name lie below the table
            self._around_o[row, : len(known)] = self._surfaces.points[known]
        return self._around_w(rows, neighbours.pos_w, neighbours.quat_w)

    def _around_w(self, rows: Tensor, pos_w: Tensor, quat_w: Tensor) -> Tensor:
        """Return the surface samples of the neighbours of `rows` at poses (row, neighbour, 3), (row, neighbour, 4)."""
        turn = matrix_from_quat(quat_w.float()).transpose(2, 3)
        return (self._around_o[rows] @ turn + pos_w.float()[:, :, None]).flatten(1, 2)

    def _draw_errors(self, rows: Tensor, random: TrialRandom) -> None:
        """Draw the errors of the new episodes in `rows`."""
        domain = self._domain
        if domain.points_noise_m:
            self._noise[rows] = random.normal("points", domain.points_noise_m, (POINTS, 3)).float()
        if domain.points_dropout:
            fraction = random.uniform("dropout", 0.0, domain.points_dropout, (1,))
            self._kept[rows] = random.uniform("points lost", size=(SURFACE_POINTS,)) >= fraction
        self._table_offset[rows] = random.integers("flaws", RANDOM_TABLE_SIZE)

    def observe(
        self,
        rows: Tensor,
        state: State,
        camera_w: Tensor,
        draws: EpisodeDraws,
        step: Tensor,
        earlier_w: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points that hands and neighbours leave visible after `step` (row,) control steps.

        Points (row, POINTS, 3), the number of distinct ones (row,), and the visible fraction of the first view (row,).
        `draws` are of all environments. `earlier_w` is not read: each sample is known to be the object's.
        """
        camera_w, pos_w = camera_w.float(), state.object_pos_w[rows].float()
        quat = state.object_quat_w[rows].float()
        camera_o = quat_rotate_inverse(quat, camera_w - pos_w)  # visibility does not depend on the frame
        samples = self._points_o[rows], self._normals_o[rows]
        around_o = None
        if len(self._around_o):
            around_w = self._around_w(rows, state.neighbour_pos_w[rows], state.neighbour_quat_w[rows])
            around_o = (around_w - pos_w[:, None]) @ matrix_from_quat(quat)
        mask, edge = visible_and_edge(
            *samples, camera_o, not self._cfg.exact, self._cfg.include_grazing_angles, around_o
        )
        if self._domain.points_dropout:
            mask &= self._kept[rows, :FRAME_SAMPLES]
        facing = mask.sum(dim=1)
        index = pick_points(mask, MAX_FRAME_POINTS)
        points_o = _gather_points(samples[0], index)
        points_w = torch.baddbmm(pos_w[:, None], points_o, matrix_from_quat(quat).transpose(1, 2))
        hand = state.palm_pos_w[rows], state.palm_quat_w[rows], state.joint_pos[rows]
        clear = self._occlusion.for_camera(camera_w, *hand).visible(points_w)
        clear &= torch.arange(MAX_FRAME_POINTS, device=rows.device) < facing[:, None]
        fraction = (
            clear.sum(dim=1)
            / facing.clamp(min=1, max=MAX_FRAME_POINTS)
            * (facing / self._first_count[rows]).clamp(max=1.0)
        )
        if not self._cfg.exact:
            points_w, kept = self._add_depth_errors(rows, points_w, edge.gather(1, index), camera_w, step)
            clear &= kept
        seen_w = _gather_points(points_w, pick_points(clear, POINTS)) + draws.camera_bias[rows, None].float()
        if self._domain.points_noise_m:
            turn = (
                torch.arange(POINTS, device=rows.device) + 37 * step[:, None]
            ) % POINTS  # noise of a point changes between frames
            seen_w = seen_w + self._noise[rows[:, None], turn]
        return seen_w, clear.sum(dim=1), fraction

    def _add_depth_errors(
        self, rows: Tensor, points_w: Tensor, edge: Tensor, camera_w: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return points (row, point, 3) with depth errors along their rays, and the mask (row, point) of those kept."""
        cfg, ray = self._cfg, points_w - camera_w[:, None]
        start = (self._table_offset[rows] + FRAME_STRIDE * step) % RANDOM_TABLE_SIZE
        place = start[:, None] + torch.arange(points_w.shape[1], device=rows.device)
        uniform = self._uniform[place]
        distance = ray.norm(dim=-1)
        spread = cfg.disparity_sd_px / (FOCAL_PX * BASELINE_M)
        measured = distance + distance.square() * (spread * self._normal[place].to(distance))
        behind = MAX_FLYING_M / cfg.flying_pixel_rate if cfg.flying_pixel_rate else 0.0
        measured = measured + torch.where(edge & (uniform < cfg.flying_pixel_rate), uniform * behind, 0.0)
        if cfg.depth_unit_m:
            measured = (measured / cfg.depth_unit_m).round() * cfg.depth_unit_m
        lost = edge & (uniform > 1.0 - cfg.edge_dropout)
        return torch.addcmul(camera_w[:, None], ray, (measured / distance)[..., None]), ~lost


def _gather_points(points_w: Tensor, index: Tensor) -> Tensor:
    return points_w.gather(1, index[..., None].expand(-1, -1, 3))


def _without(mask: Tensor, dropped: Tensor) -> Tensor:
    """Return the mask (row, point) without `dropped`; unchanged where nothing would be left."""
    rest = mask & ~dropped
    return torch.where(rest.any(dim=1, keepdim=True), rest, mask)
