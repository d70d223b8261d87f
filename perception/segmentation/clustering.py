"""Removal of flying pixels, clustering of object points, and sampling of points for the policy."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dexgrasp.perception.cameras.depth import take_points
from dexgrasp.perception.segmentation.table_plane import Plane
from dexgrasp.perception.transforms import plane_basis

MIN_SUPPORT = 2
"""Least number of a pixel's eight neighbours on its surface; with fewer it is noise."""

MIN_CELL_POINTS = 2
"""Cells with fewer points are empty."""

PART_CELL_M, PART_SHARE, PART_POINTS = 0.02, 0.03, 8
"""Parts of an object that lie further apart than such a cell, and have fewer points than both, are no parts of it."""

IMAGE_AXES = ((0, 1), (1, 0), (1, 1), (1, -1))

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
CANDIDATES = 2048
"""Farthest-point sampling looks at no more points than this, drawn at random: its cost grows with both numbers."""
Sampling = Literal["farthest", "random"]


def on_surfaces(image: NDArray[np.float32], index: NDArray[np.int64], jump_m: float) -> NDArray[np.bool_]:
    """Return the mask (n,) of pixels (flat indices into a depth image) that are no flying pixels or noise.

    A flying pixel lies on the ramp from one surface to another behind it: on some line through it the depth jumps in
    the same direction before and behind it. Holes are no jumps, so that missing pixels do not eat their neighbours.
    """
    if not len(index):
        return np.zeros(0, bool)
    row, column = np.divmod(index, image.shape[1])
    top, left = row.min(), column.min()
    patch = np.pad(image, 1)[top : row.max() + 3, left : column.max() + 3]  # one pixel more on each side
    centre = patch[1:-1, 1:-1]
    flying, support = np.zeros(centre.shape, bool), np.zeros(centre.shape, np.int8)
    for down, right in IMAGE_AXES:
        after = _jump(patch, centre, down, right)
        before = _jump(patch, centre, -down, -right)
        flying |= ((after > jump_m) & (before < -jump_m)) | ((after < -jump_m) & (before > jump_m))
        support += np.abs(after) < jump_m
        support += np.abs(before) < jump_m
    return (~flying & (support >= MIN_SUPPORT))[row - top, column - left]


def _jump(patch: NDArray[np.float32], centre: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """Return the depth of a neighbour minus that of the centre; NaN where the neighbour is a hole."""
    rows, columns = centre.shape
    neighbour = patch[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
    return np.where(neighbour > 0, neighbour - centre, np.float32(np.nan))


def largest_cluster(
    points_w: NDArray[np.float32], sure: NDArray[np.bool_], plane: Plane, cell_m: float
) -> NDArray[np.bool_]:
    """Return the mask of the points (3, n) of the object with most `sure` (n,) points.

    Parts closer than two cells are one object.

    Sure points decide where the object is, the others of its footprint are added: low parts that by themselves could
    be noise of the table. Seen from above, because what is missing of an object (a highlight) rarely parts it there.
    """
    if not sure.any():
        return np.zeros(len(sure), bool)
    across = np.stack(plane_basis(torch.from_numpy(plane.normal_w))).astype(np.float32) @ points_w
    cell = ((across - across.min(1, keepdims=True)) / np.float32(cell_m)).astype(np.int64)
    shape = tuple(cell.max(1) + 1)
    flat = cell[0] * shape[1] + cell[1]
    filled = np.bincount(flat[sure], minlength=shape[0] * shape[1]).reshape(shape)
    wide = ndimage.binary_dilation(filled >= MIN_CELL_POINTS, EIGHT_NEIGHBOURS)
    labels, _ = ndimage.label(wide, EIGHT_NEIGHBOURS)  # pyright: ignore[reportGeneralTypeIssues]
    footprint = np.where(ndimage.binary_erosion(wide, EIGHT_NEIGHBOURS, border_value=1), labels, 0).reshape(-1)
    sizes = np.bincount(footprint[flat[sure]], minlength=1)
    sizes[0] = 0
    return footprint[flat] == sizes.argmax() if sizes.any() else np.zeros(len(sure), bool)


def in_large_parts(points_w: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the mask (n,) of the points (3, n) of one object outside small detached groups.

    Along the outline of a hand that hovers over the object pixels fly between the two; seen from above they belong.
    """
    if not points_w.shape[1]:
        return np.zeros(0, bool)
    cell = ((points_w - points_w.min(1, keepdims=True)) / np.float32(PART_CELL_M)).astype(np.int64)
    filled = np.zeros(cell.max(1) + 1, bool)
    filled[tuple(cell)] = True
    labels: Any = ndimage.label(filled, np.ones((3, 3, 3), bool))[0]  # pyright: ignore[reportIndexIssue]
    part = np.asarray(labels, np.int64)[tuple(cell)]
    sizes = np.bincount(part)
    large = sizes >= min(max(PART_POINTS, PART_SHARE * len(part)), int(sizes.max()))
    return large[part]


def sample_points(points: NDArray[np.float32], count: int, how: Sampling, seed: int = 0) -> NDArray[np.int64]:
    """Return indices (count,) of sampled points (3, n), without repetition where there are enough points.

    Fewer points are repeated in turn.

    `farthest`: each point is the one farthest from those before it, so that any prefix is well spread.
    """
    available = points.shape[1]
    if available == 0:
        raise ValueError("no point to sample from")
    rng = np.random.default_rng(seed)
    if available <= count:
        return np.resize(rng.permutation(available), count)
    if how == "random":
        return rng.choice(available, count, replace=False, shuffle=False)
    few = rng.choice(available, max(CANDIDATES, count), replace=False) if available > CANDIDATES else None
    candidates = points if few is None else take_points(points, few)
    chosen = _farthest(candidates, count, int(rng.integers(min(available, CANDIDATES))))
    return chosen if few is None else few[chosen]


def _farthest(points: NDArray[np.float32], count: int, first: int) -> NDArray[np.int64]:
    """Return the indices of greedy farthest points.

    |p - q|² is expanded, so that each step is one product of a matrix and a vector.
    """
    centred = points - points.mean(1, keepdims=True)  # near the origin the difference of squares keeps its digits
    rows = np.ascontiguousarray(centred.T)
    doubled = -2 * rows
    square = (centred**2).sum(0)
    nearest = np.full(points.shape[1], np.inf, np.float32)
    distance = np.empty_like(nearest)
    chosen = np.empty(count, np.int64)
    for step in range(count):
        chosen[step] = first
        np.dot(doubled, rows[first], out=distance)
        distance += square
        distance += square[first]
        np.minimum(nearest, distance, out=nearest)
        nearest[first] = -np.inf
        first = int(nearest.argmax())
    return chosen
