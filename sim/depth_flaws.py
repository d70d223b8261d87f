"""What a stereo camera gets wrong: noise that grows with distance, steps, holes, pixels that fly behind an edge."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from perception.depth import Intrinsics

BASELINE_M = 0.05
"""Of a D435."""
DISPARITY_SD = 0.08
"""Error of matching [pixel]: the vendor's tuning guide gives 0.05 to 0.1 for textured surfaces."""
MATCH_WIDTH = 1.2
"""Neighbouring pixels share their error over about so many pixels: matching looks at windows."""
UNIT_M = 0.001
EDGE_M = 0.015
"""A step in depth that makes pixels fly."""


def add_flaws(depth_m: NDArray[np.float64], camera: Intrinsics, rng: np.random.Generator, missing: float) -> NDArray:
    """Spoils a depth image in place; `missing` is the share of pixels that become holes. Returns which pixels fly."""
    near = ndimage.minimum_filter(np.where(depth_m > 0, depth_m, np.inf), 3)
    far = ndimage.maximum_filter(depth_m, 3)
    edge = (far - near > EDGE_M) & (depth_m > 0)
    chance = rng.uniform(size=depth_m.shape)
    flying = edge & (chance < 0.4)
    depth_m[flying] = near[flying] + (far - near)[flying] * rng.uniform(size=int(flying.sum()))
    depth_m[edge & (chance > 0.8)] = 0
    depth_m[rng.uniform(size=depth_m.shape) < missing] = 0
    noise = ndimage.gaussian_filter(rng.standard_normal(depth_m.shape).astype(np.float32), MATCH_WIDTH)
    sd_m = depth_m**2 * (DISPARITY_SD / (camera.fx * BASELINE_M))
    depth_m += noise / noise.std() * sd_m
    np.rint(depth_m / UNIT_M, out=depth_m)
    depth_m *= UNIT_M
    return flying


def glossy_holes(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Ellipses over about a third of the pixels of `mask` (rows, columns): what a highlight leaves."""
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


def bumps(
    depth_m: NDArray[np.float64],
    camera: Intrinsics,
    T_world_cam: NDArray[np.float64],
    sd_m: float,
    width_m: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Change of depth where the table's height (world z) varies smoothly: standard deviation and width of bumps."""
    rays = camera.rays().astype(np.float64)
    slope = np.tensordot(T_world_cam[2, :2], rays, 1) + T_world_cam[2, 2]  # height per depth along each ray
    along = [np.tensordot(row[:2], rays, 1) + row[2] for row in T_world_cam[:2, :3]]
    x, y = (depth_m * part + T_world_cam[axis, 3] for axis, part in enumerate(along))
    grid = rng.standard_normal((64, 64))
    cells = np.stack([x, y]) / width_m + 32
    height = ndimage.map_coordinates(grid, cells, order=3, mode="grid-wrap")
    return np.where(depth_m > 0, height * (sd_m / grid.std()) / slope, 0.0)
