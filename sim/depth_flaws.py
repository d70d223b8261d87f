"""What a stereo camera gets wrong: noise that grows with distance, steps, holes, pixels that fly behind an edge."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Chance:
    """All that is drawn for one image; each (rows, columns)."""

    at_edge: NDArray[np.float32]
    """In [0, 1): what becomes of a pixel beside an edge."""
    part: NDArray[np.float32]
    """In [0, 1): how far behind the edge it flies."""
    hole: NDArray[np.bool_]
    """Holes anywhere."""
    noise: NDArray[np.float32]
    """Of standard deviation 1, alike among neighbours."""

    @classmethod
    def draw(cls, shape: tuple[int, int], rng: np.random.Generator, missing: float) -> "Chance":
        """`missing`: share of pixels that become holes."""
        at_edge, part = rng.random((2, *shape), np.float32)
        hole = rng.random(shape, np.float32) < missing
        noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), MATCH_WIDTH)
        return cls(at_edge, part, hole, noise / noise.std())

    def turned(self, rng: np.random.Generator) -> "Chance":
        """The same seen in one of four ways: another image for the price of a view."""
        rows, columns = (slice(None, None, int(step)) for step in rng.choice([-1, 1], 2))
        way = rows, columns
        return Chance(self.at_edge[way], self.part[way], self.hole[way], self.noise[way])


def add_flaws(depth_m: NDArray[np.floating], camera: Intrinsics, chance: Chance) -> NDArray[np.bool_]:
    """Spoils a depth image (rows, columns) [m] in place. Returns which pixels fly."""
    known = depth_m > 0
    near, far = _around(np.where(known, depth_m, np.inf), np.minimum), _around(depth_m, np.maximum)
    step = far - near
    edge = (step > EDGE_M) & known
    flying = edge & (chance.at_edge < 0.4)
    depth_m[flying] = near[flying] + step[flying] * chance.part[flying]
    depth_m[(edge & (chance.at_edge > 0.8)) | chance.hole] = 0
    depth_m += depth_m**2 * (DISPARITY_SD / (camera.fx * BASELINE_M)) * chance.noise
    np.rint(depth_m / UNIT_M, out=depth_m)
    depth_m *= UNIT_M
    return flying


def _around(image: NDArray[np.floating], extreme: np.ufunc) -> NDArray[np.floating]:
    """The extreme of each pixel (rows, columns) and its eight neighbours."""
    for axis in (0, 1):
        padded = np.pad(np.moveaxis(image, axis, 0), ((1, 1), (0, 0)), "edge")
        image = np.moveaxis(extreme(extreme(padded[:-2], padded[2:]), padded[1:-1]), 0, axis)
    return image


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
