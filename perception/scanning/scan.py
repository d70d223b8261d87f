"""Frames with poses to a closed mesh, with checks of views, holes and consistency.

`scan_pass` makes the mesh of one pass, `join_passes` that of several between which the thing was turned over.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.scanning.board_poses import PosedFrames
from dexgrasp.perception.scanning.frames import ScanError, ScanFrame
from dexgrasp.perception.scanning.fusion import (
    BELOW_M,
    FLOOR_M,
    Surface,
    closed_surface,
    fuse,
    merged_surface,
    simplified,
    thing_mask,
)
from dexgrasp.perception.scanning.open3d_import import open3d
from dexgrasp.perception.scanning.registration import Registration, SeenSurface, register
from dexgrasp.utils.bounds import Bounds, bounded

COARSE_VOXEL_M = 0.003
MARGIN_M = 0.012
"""Free space around the thing in the fine volume."""
LARGEST_GAP_DEG = 75.0
"""Largest angle around the thing from which no frame was taken."""
MOST_HOLES = 0.4
"""Share of the thing's pixels without depth above which a scan is refused."""
MOST_OFF_M = 0.003
"""Distance of measured points from the mesh, third quartile of a frame, above which the frame contradicts it."""
MOST_CONTRADICTING = 0.15
"""Share of such frames above which a scan is refused."""
STRIDE = 3
"""Stride of the pixels by which holes and consistency are measured."""
MOST_FACES = 12_000


@dataclass(frozen=True)
@bounded
class FusionCfg:
    """Settings of the fusion."""

    voxel_m: Annotated[float, Bounds(0.0005, 0.01)] = 0.0015
    """Side of a voxel; details and walls of three voxels are seen."""
    region_m: Annotated[float, Bounds(0.1, 1.0)] = 0.4
    """Side of the cube on the table in which the thing is looked for."""


@dataclass(frozen=True)
class ScannedMesh:
    """Closed mesh of a thing, and how well it was seen."""

    surface: Surface
    frames: list[ScanFrame] = field(repr=False)
    """Frames that were used."""
    left_out: dict[str, str]
    """Frame that was not used -> reason."""
    scale: float
    """Depth of the camera / depth by the board; corrected."""
    residual_m: float
    """Median distance of measured points from the mesh."""
    holes: float
    """Share of the thing's pixels without depth."""
    largest_gap_deg: float
    """Largest angle around the thing from which no frame was taken."""
    seen: NDArray[np.bool_] = field(repr=False)
    """(f,) faces that a camera has seen; the others close the mesh: the bottom, and hollows that were filled."""
    registered: tuple[Registration, ...] = ()
    """Poses of further passes in the frame of the first one."""

    @property
    def unseen(self) -> float:
        """Return the share of the mesh's area that no camera has seen."""
        return share_of_area(self.surface, ~self.seen)


def scan_pass(posed: PosedFrames, settings: FusionCfg | None = None) -> ScannedMesh:
    """Return the mesh of the thing that stands on the table. Raises ScanError with what to do."""
    settings = settings or FusionCfg()
    gap_deg = _check_views(posed)
    lower_m, side_m = _box(posed, settings)
    surface = closed_surface(fuse(posed.frames, lower_m, side_m, settings.voxel_m))
    checks = _compare_all(surface, posed.frames)
    holes = float(np.average([check.holes for check in checks], weights=[check.pixels + 1e-9 for check in checks]))
    if holes > MOST_HOLES:
        raise ScanError(
            f"depth is missing on {100 * holes:.0f} % of the thing (at most {100 * MOST_HOLES:g} %): shiny, dark or "
            "transparent surfaces have none; dull them (chalk spray, tape, powder) and scan again"
        )
    off = _contradicting(posed.frames, checks)
    if len(off) > MOST_CONTRADICTING * len(posed.frames):
        raise ScanError(
            f"the thing moved on the table: {len(off)} of {len(posed.frames)} frames ({off[0]} to {off[-1]}) "
            f"contradict the others by more than {1000 * MOST_OFF_M:g} mm: fix it (putty, tape), keep board and table "
            "still under it, and scan again"
        )
    few = simplified(surface, MOST_FACES)
    return ScannedMesh(
        surface=few,
        frames=posed.frames,
        left_out=posed.left_out,
        scale=posed.scale,
        residual_m=_residual(checks),
        holes=holes,
        largest_gap_deg=gap_deg,
        seen=seen_faces(few, posed.frames),
    )


def join_passes(passes: list[ScannedMesh], settings: FusionCfg | None = None) -> ScannedMesh:
    """Return one mesh of several passes, between which the thing was turned over.

    Its frame is that of the first pass.

    Raises ScanError where passes do not fit together, or in several ways.
    """
    settings, joined = settings or FusionCfg(), passes[0]
    for number in range(1, len(passes)):
        try:
            found = register(_seen_surface(passes[number]), _seen_surface(joined))
            joined = _merged(passes[: number + 1], (*joined.registered, found), settings)
        except ScanError as error:
            raise ScanError(f"pass {number + 1}: {error}") from error
    return joined


def _seen_surface(scanned: ScannedMesh) -> SeenSurface:
    return SeenSurface(scanned.surface, scanned.seen)


def _merged(passes: list[ScannedMesh], registered: tuple[Registration, ...], settings: FusionCfg) -> ScannedMesh:
    T_first = [np.eye(4), *(one.T_fixed_moving for one in registered)]
    frames = [
        [replace(frame, T_table_cam=T @ frame.T_table_cam) for frame in one.frames]
        for one, T in zip(passes, T_first, strict=True)
    ]
    points = np.concatenate([_moved(one.surface, T).vertices for one, T in zip(passes, T_first, strict=True)])
    low, high = points.min(0), points.max(0)
    side_m = float((high - low).max()) + 2 * MARGIN_M
    lower_m = (low + high - side_m) / 2
    volumes = [fuse(some, lower_m, side_m, settings.voxel_m) for some in frames]
    T_tables = [np.linalg.inv(T) for T in T_first]
    surface = merged_surface(volumes, T_tables)
    checks = []
    for number, (one, T) in enumerate(zip(passes, T_tables, strict=True)):
        some = _compare_all(_moved(surface, T), one.frames)
        off = _contradicting(one.frames, some)
        if len(off) > MOST_CONTRADICTING * len(one.frames):
            raise ScanError(
                f"{len(off)} of the {len(one.frames)} frames of pass {number + 1} contradict the joined passes by more "
                f"than {1000 * MOST_OFF_M:g} mm: does something bend or move in the thing? Then scan one pass only"
            )
        checks += some
    few, all_frames = simplified(surface, MOST_FACES), [frame for some in frames for frame in some]
    return ScannedMesh(
        surface=few,
        frames=all_frames,
        left_out={f"pass {n}, {name}": why for n, one in enumerate(passes, 1) for name, why in one.left_out.items()},
        scale=float(np.mean([one.scale for one in passes])),
        residual_m=_residual(checks),
        holes=float(np.mean([one.holes for one in passes])),
        largest_gap_deg=max(one.largest_gap_deg for one in passes),
        seen=seen_faces(few, all_frames),
        registered=registered,
    )


def _moved(surface: Surface, T: NDArray[np.float64]) -> Surface:
    return replace(surface, vertices=surface.vertices @ T[:3, :3].T + T[:3, 3])


def _check_views(posed: PosedFrames) -> float:
    """Return the largest gap between the azimuths of the cameras [deg]. Raises ScanError for a large one."""
    offsets = np.stack([frame.T_table_cam[:2, 3] for frame in posed.frames]) - posed.middle_m
    azimuth = np.sort(np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0])))
    gaps = np.diff(azimuth, append=azimuth[0] + 360)
    widest = int(gaps.argmax())
    if gaps[widest] > LARGEST_GAP_DEG:
        end = azimuth[(widest + 1) % len(azimuth)]
        raise ScanError(
            f"too few views: nothing was seen from {azimuth[widest]:.0f} to {end:.0f} "
            f"degrees around the thing (a gap of {gaps[widest]:.0f}, at most {LARGEST_GAP_DEG:g}): turn it, or go "
            "around it, by a whole turn"
        )
    return float(gaps[widest])


def _box(posed: PosedFrames, settings: FusionCfg) -> tuple[NDArray[np.float64], float]:
    """Return the lower corner (3,) and the side of a cube around the thing [m], from a coarse volume."""
    side_m = settings.region_m
    lower_m = np.array([posed.middle_m[0] - side_m / 2, posed.middle_m[1] - side_m / 2, -BELOW_M])
    coarse = fuse(posed.frames[:: max(1, len(posed.frames) // 40)], lower_m, side_m, COARSE_VOXEL_M)
    cells = np.argwhere(thing_mask(coarse))
    low, high = cells.min(0) * coarse.voxel_m, (cells.max(0) + 1) * coarse.voxel_m
    fine_m = float((high - low).max()) + 2 * MARGIN_M
    corner_m = lower_m + (low + high) / 2 - fine_m / 2
    corner_m[2] = -BELOW_M
    return corner_m, fine_m


@dataclass(frozen=True)
class _Comparison:
    """One frame beside the mesh."""

    pixels: int
    """Pixels that the mesh fills."""
    holes: float
    """Share of them without depth."""
    middle_m: float
    """Median distance of the thing's measured points from the mesh."""
    quartile_m: float
    """Third quartile of these distances."""


def _compare(surface: Surface, scene: Any, frame: ScanFrame) -> _Comparison:
    o3d = open3d()
    hit = np.isfinite(cast_depth(scene, frame, STRIDE)[0])
    holes = float(frame.hole[::STRIDE, ::STRIDE][hit].mean()) if hit.any() else 0.0
    points = frame.points(STRIDE)
    low, high = surface.vertices.min(0) - MARGIN_M, surface.vertices.max(0) + MARGIN_M
    low[2] = 2 * FLOOR_M
    near = points[((points > low) & (points < high)).all(1)]
    if not len(near):
        return _Comparison(pixels=int(hit.sum()), holes=holes, middle_m=0.0, quartile_m=0.0)
    away = scene.compute_distance(o3d.core.Tensor(np.ascontiguousarray(near))).numpy()
    middle, quartile = np.percentile(away, [50, 75])
    return _Comparison(pixels=int(hit.sum()), holes=holes, middle_m=float(middle), quartile_m=float(quartile))


def _compare_all(surface: Surface, frames: list[ScanFrame]) -> list[_Comparison]:
    scene = surface.raycasting_scene()
    return [_compare(surface, scene, frame) for frame in frames]


def _residual(checks: list[_Comparison]) -> float:
    return float(np.median([check.middle_m for check in checks if check.pixels]))


def _contradicting(frames: list[ScanFrame], checks: list[_Comparison]) -> list[str]:
    """Return the names of frames whose points are far from the mesh."""
    return [frame.name for frame, check in zip(frames, checks, strict=True) if check.quartile_m > MOST_OFF_M]


def cast_depth(scene: Any, frame: ScanFrame, stride: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return depth [m] and number of the face (rows, columns) of the surface in every `stride`-th pixel.

    Depth is infinite where the surface is not.
    """
    x, y = frame.camera.rays(stride)
    rays_c = np.stack([x, y, np.ones_like(x)], -1)
    T = frame.T_table_cam.astype(np.float32)
    origins = np.broadcast_to(T[:3, 3], rays_c.shape)
    rays = np.concatenate([origins, rays_c @ T[:3, :3].T], -1)
    found = scene.cast_rays(open3d().core.Tensor(np.ascontiguousarray(rays)))
    return found["t_hit"].numpy(), found["primitive_ids"].numpy().astype(np.int64)


def seen_faces(surface: Surface, frames: list[ScanFrame]) -> NDArray[np.bool_]:
    """Return the faces (f,) that are in the view of a camera and hidden from it by no other face."""
    o3d, scene = open3d(), surface.raycasting_scene()
    cross = surface.area_normals()
    normals = cross / np.maximum(np.linalg.norm(cross, axis=1), 1e-15)[:, None]
    centres = surface.vertices[surface.faces].mean(1) + 0.0005 * normals
    seen = np.zeros(len(centres), bool)
    for frame in frames:
        towards = frame.T_table_cam[:3, 3] - centres
        rays = np.concatenate([centres, towards], -1).astype(np.float32)
        free = ~scene.test_occlusions(o3d.core.Tensor(rays), tfar=1.0).numpy()
        seen |= free & ((towards * cross).sum(1) > 0)
    return seen


def share_of_area(surface: Surface, faces: NDArray[np.bool_]) -> float:
    """Return the share of a surface's area that chosen faces (f,) have."""
    area = np.linalg.norm(surface.area_normals(), axis=1)
    return float(area[faces].sum() / area.sum())
