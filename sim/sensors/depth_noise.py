"""Stereo depth errors: noise that grows with distance, quantisation, holes, flying pixels at edges."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dexgrasp.perception.cameras.depth import BASELINE_M, DEPTH_STEP_M, DISPARITY_SD_PX, Intrinsics

MATCH_WIDTH_PX = 1.2
"""Correlation length of the noise [pixel]: stereo matching compares windows."""
MIN_EDGE_M = 0.015
"""Least depth step of an edge, at which flying pixels appear."""


@dataclass(frozen=True)
class DepthNoiseDraws:
    """Hold the random numbers of one image; each (rows, columns)."""

    at_edge: NDArray[np.float32]
    """In [0, 1): decides whether a pixel beside an edge becomes a flying pixel, stays or becomes a hole."""
    edge_position: NDArray[np.float32]
    """In [0, 1): position of a flying pixel between near and far side of its edge."""
    hole: NDArray[np.bool_]
    """Pixels without depth."""
    noise: NDArray[np.float32]
    """Noise of standard deviation 1, correlated among neighbours."""

    @classmethod
    def draw(cls, shape: tuple[int, int], rng: np.random.Generator, missing: float) -> "DepthNoiseDraws":
        """Draw the numbers of one image; `missing`: fraction of pixels that become holes."""
        at_edge, edge_position = rng.random((2, *shape), np.float32)
        hole = rng.random(shape, np.float32) < missing
        noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), MATCH_WIDTH_PX)
        return cls(at_edge=at_edge, edge_position=edge_position, hole=hole, noise=noise / noise.std())

    def mirrored(self, rng: np.random.Generator) -> "DepthNoiseDraws":
        """Return one of the four mirror images: another image without another draw."""
        rows, columns = (slice(None, None, int(step)) for step in rng.choice([-1, 1], 2))
        way = rows, columns
        return DepthNoiseDraws(
            at_edge=self.at_edge[way], edge_position=self.edge_position[way], hole=self.hole[way], noise=self.noise[way]
        )


def add_depth_errors(depth_m: NDArray[np.floating], camera: Intrinsics, draws: DepthNoiseDraws) -> NDArray[np.bool_]:
    """Add depth errors to an image (rows, columns) [m] in place. Return the mask of flying pixels."""
    known = depth_m > 0
    near, far = _around(np.where(known, depth_m, np.inf), np.minimum), _around(depth_m, np.maximum)
    step = far - near
    edge = (step > MIN_EDGE_M) & known
    flying = edge & (draws.at_edge < 0.4)
    depth_m[flying] = near[flying] + step[flying] * draws.edge_position[flying]
    depth_m[(edge & (draws.at_edge > 0.8)) | draws.hole] = 0
    depth_m += depth_m**2 * (DISPARITY_SD_PX / (camera.fx * BASELINE_M)) * draws.noise
    np.rint(depth_m / DEPTH_STEP_M, out=depth_m)
    depth_m *= DEPTH_STEP_M
    return flying


def _around(image: NDArray[np.floating], extreme: np.ufunc) -> NDArray[np.floating]:
    """Return the extreme of each pixel (rows, columns) and its eight neighbours."""
    for axis in (0, 1):
        padded = np.pad(np.moveaxis(image, axis, 0), ((1, 1), (0, 0)), "edge")
        image = np.moveaxis(extreme(extreme(padded[:-2], padded[2:]), padded[1:-1]), 0, axis)
    return image


def highlight_holes(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return elliptic holes, as highlights cause, over about a third of `mask` (rows, columns)."""
    row, column = np.nonzero(mask)
    holes = np.zeros_like(mask)
    if not len(row):
        return holes
    v, u = np.mgrid[: mask.shape[0], : mask.shape[1]]
    for _ in range(50):
        if holes.sum() > len(row) / 3:
            break
        at, radius = int(rng.integers(len(row))), np.sqrt(len(row)) * rng.uniform(0.1, 0.25, 2)
        holes |= mask & (((v - row[at]) / radius[0]) ** 2 + ((u - column[at]) / radius[1]) ** 2 < 1)
    return holes


def table_bumps(
    depth_m: NDArray[np.float64],
    camera: Intrinsics,
    T_world_cam: NDArray[np.float64],
    sd_m: float,
    width_m: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the change of depth (rows, columns) [m] that an uneven table causes.

    The table's height (world z) varies with `sd_m` over bumps of `width_m`.
    """
    rays = camera.rays().astype(np.float64)
    slope = np.tensordot(T_world_cam[2, :2], rays, 1) + T_world_cam[2, 2]  # height per depth along each ray
    along = [np.tensordot(row[:2], rays, 1) + row[2] for row in T_world_cam[:2, :3]]
    x, y = (depth_m * part + T_world_cam[axis, 3] for axis, part in enumerate(along))
    grid = rng.standard_normal((64, 64))
    cells = np.stack([x, y]) / width_m + 32
    height = ndimage.map_coordinates(grid, cells, order=3, mode="grid-wrap")
    return np.where(depth_m > 0, height * (sd_m / grid.std()) / slope, 0.0)
