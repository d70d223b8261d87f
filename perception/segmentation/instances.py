"""Search for objects in one depth image: patches between valleys of the surface, then merging.

Patches are merged where their border is no valley. Objects that touch or stand on one another meet in a valley: there
the surface bends towards the camera or steps behind an edge, while the surface of one convex object never does. Bends
are measured in inverse depth, in which a plane is linear whatever its slope and the noise of a stereo camera is equal
everywhere.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

REACH_M, LEAST_REACH_PX = 0.007, 2
"""Distance over which a bend is measured, to each side."""
VALLEY_RAD = 0.6
"""Bend from which on a pixel lies in a valley, and is no part of a patch's core."""
OPEN_RAD = 1.2
"""Bend below which a border between two patches is open."""
STEP_SLOPE = 2.5
"""Depth per distance across from which on a border is a step."""
GAP_PX = 3
"""Patches border on one another across a gap of missing pixels, such as flying pixels leave, up to so wide."""
ENCLOSED_SHARE, LOWER_SHARE = 0.6, 0.7
"""Least share of a part's outline along another one, and of this border along which it is the lower one, of a cavity.
"""
CELL_POINTS = 2
"""Cells with fewer pixels that are sure to be of objects are empty."""
LEAST_PATCH = 8
"""Least number of pixels of a patch without a core."""
CORE_PX = 1.5
"""Least distance of the centre of a patch from valleys and outlines."""
MERGE_WEIGHTS = np.array([1.67, 3.20, -2.59, -1.40])
"""Log odds that two patches are of one object: constant, share of the border that is open, share that is a step, and
log of the size of the smaller one in cm. Fitted by logistic regression to pairs of patches of rendered scenes with
objects of the validation split."""
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
AROUND = np.ones((3, 3), int)
MOST_PATCHES = 400
"""More patches than this are noise, and only the largest are merged: the cost grows with the square."""

Labels = NDArray[np.int32]


def find_instances(
    depth_m: NDArray[np.float32],
    height_m: NDArray[np.float32],
    focal_px: float,
    min_points: int,
) -> Labels:
    """Return the number of the object, from 1, of every pixel (rows, columns); 0 where none is.

    `height_m` (rows, columns): height over the table [m] of the pixels of objects, 0 at table and robot; `focal_px`:
    focal length in pixels of this image. Groups of fewer pixels than `min_points` are no objects.
    """
    labels = np.zeros(depth_m.shape, np.int32)
    rows, columns = (np.flatnonzero((height_m > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        return labels
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    near_m, height_m = depth_m[window], height_m[window]
    inside = height_m > 0
    pitch_m = float(near_m[inside].mean()) / focal_px
    bend_rad = bends(near_m, inside, focal_px, max(LEAST_REACH_PX, round(REACH_M / pitch_m)))
    patches = split(inside, bend_rad)
    parts = _with_cavities(_merged(patches, bend_rad, near_m, pitch_m), height_m)
    labels[window] = _numbered(parts, min_points)
    return labels


def near_sure(
    row: NDArray[np.int64], column: NDArray[np.int64], sure: NDArray[np.bool_], cell_px: int, min_points: int
) -> NDArray[np.bool_]:
    """Return the mask (n,) of pixels near groups of pixels that are sure to be of objects.

    Near is in a cell of `cell_px` pixels of such a group, or beside it; a group has at least `min_points` of `sure`
    (n,). Low parts of an object belong to it; by themselves they could be noise of the table.
    """
    columns = int(column.max(initial=0)) // cell_px + 1
    flat = row // cell_px * columns + column // cell_px
    rows = int(row.max(initial=0)) // cell_px + 1
    count = np.bincount(flat[sure], minlength=rows * columns).reshape(rows, columns)
    groups, _ = _label(count >= CELL_POINTS)
    size = np.bincount(groups.reshape(-1), count.reshape(-1))
    return _widened((groups > 0) & (size >= min_points)[groups]).reshape(-1)[flat]


def bends(
    depth_m: NDArray[np.float32], inside: NDArray[np.bool_], focal_px: float, reach_px: int
) -> NDArray[np.float32]:
    """Return the largest bend towards the camera (rows, columns) [rad] over four directions.

    0 where the surface is flat, convex, or `inside` lacks both neighbours at a distance of `reach_px`.
    """
    weight = inside.astype(np.float32)
    sums = (
        ndimage.uniform_filter(part, 3, mode="constant") for part in (weight / np.where(inside, depth_m, 1), weight)
    )
    total, count = (np.asarray(part, np.float32) for part in sums)
    inverse = total / np.maximum(count, np.float32(1e-6))
    known, padded = np.pad(inside, reach_px), np.pad(inverse, reach_px)
    scale = np.float32(focal_px / reach_px) * depth_m
    largest = np.zeros(depth_m.shape, np.float32)
    for down, right in DIRECTIONS:
        there, back = (_shifted(depth_m.shape, reach_px, sign * down, sign * right) for sign in (1, -1))
        bend = np.arctan((padded[there] - inverse) * scale) + np.arctan((padded[back] - inverse) * scale)
        np.maximum(largest, bend, out=largest, where=inside & known[there] & known[back])
    return largest


def split(inside: NDArray[np.bool_], bend_rad: NDArray[np.float32]) -> Labels:
    """Return patches (rows, columns) of the pixels `inside`, from 1, parted along valleys and at necks."""
    flat = inside & (bend_rad < VALLEY_RAD)
    distance = np.asarray(ndimage.distance_transform_edt(np.pad(flat, 1)), np.float32)[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(distance, 1.0)
    peaks = (ndimage.maximum_filter(smooth, 5) == smooth) & (distance >= CORE_PX)
    markers, _ = _label(_widened(peaks) & flat)
    markers[~inside] = -1
    height = np.clip(200 - 8 * smooth + np.where(flat, 0, 20), 0, 250).astype(np.uint8)
    height[~inside] = 255
    labels = np.asarray(ndimage.watershed_ift(height, markers, AROUND), np.int32)
    apart, count = _label(inside)  # scipy's flood crosses what is not inside; 0 is left of parts too thin for a core
    pair = np.maximum(labels, 0) * (count + 1) + apart
    pair[~inside] = 0
    size = np.bincount(pair.reshape(-1))
    size[0] = 0
    kept = size >= np.where(np.arange(len(size)) > count, 1, LEAST_PATCH)
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[pair]


def _shifted(shape: tuple[int, ...], reach_px: int, down: int, right: int) -> tuple[slice, slice]:
    """Return the window of an image padded by `reach_px` that shows each pixel's neighbour."""
    top, left = reach_px * (1 + down), reach_px * (1 + right)
    return slice(top, top + shape[0]), slice(left, left + shape[1])


def _label(mask: NDArray[np.bool_]) -> tuple[Labels, int]:
    """Return the connected parts of a mask, from 1, and their number."""
    found: Any = ndimage.label(mask, AROUND)
    return np.asarray(found[0], np.int32), int(found[1])


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask with the eight neighbours of its pixels; faster than a binary dilation."""
    return np.asarray(ndimage.maximum_filter(mask.view(np.uint8), 3)) > 0


def _merged(patches: Labels, bend_rad: NDArray, depth_m: NDArray, pitch_m: float) -> Labels:
    """Merge the pair of patches that most likely is one object, until none likely is; return the labels."""
    size = np.bincount(patches.reshape(-1)).astype(float)
    size[0] = 0
    if len(size) > MOST_PATCHES:
        number = np.zeros(len(size), np.int32)
        largest = np.argsort(-size, kind="stable")[: MOST_PATCHES - 1]
        number[largest] = np.arange(1, MOST_PATCHES)
        patches, size = number[patches], np.concatenate([[0.0], size[largest]])
    constant, opened, stepped, small = MERGE_WEIGHTS
    length, open_length, step_length = _borders(patches, bend_rad, depth_m, pitch_m)
    borders = np.stack([length, opened * open_length + stepped * step_length])
    side = constant + small * (np.log(100 * pitch_m) + np.log(np.maximum(size, 1)) / 2)  # falls with the size
    root = np.arange(len(size))
    odds = _log_odds(borders, side[:, None], side)
    while True:
        kept, gone = divmod(int(odds.argmax()), len(size))
        if odds[kept, gone] <= 0:
            return root[patches].astype(np.int32)
        borders[:, kept] += borders[:, gone]
        borders[:, :, kept] = borders[:, kept]
        borders[:, gone] = borders[:, :, gone] = borders[:, kept, kept] = 0
        size[kept] += size[gone]
        side[kept] = constant + small * (np.log(100 * pitch_m) + np.log(size[kept]) / 2)
        root[root == gone] = kept
        odds[gone] = odds[:, gone] = -np.inf
        odds[kept] = odds[:, kept] = _log_odds(borders[:, kept], side[kept], side)


def _log_odds(borders: NDArray, side: NDArray, sides: NDArray) -> NDArray[np.float64]:
    """Return the log odds (..., patch) that patches are of one object; -inf without a border.

    `borders` (2, ..., patch): length, and weighted length of what is open or a step; `side`, `sides`: terms of the
    patches' sizes, larger for the smaller one.
    """
    odds = np.maximum(side, sides) + borders[1] / np.maximum(borders[0], 1)
    odds[borders[0] == 0] = -np.inf
    return odds


def _borders(patches: Labels, bend_rad: NDArray, depth_m: NDArray, pitch_m: float) -> NDArray[np.float64]:
    """Return the borders of all patches (3, patch, patch): pixels, those that are open, those that are steps."""
    count = int(patches.max()) + 1
    bend_rad = np.asarray(ndimage.maximum_filter(bend_rad, 3))
    borders = np.zeros((3, count * count))
    for turned in (False, True):
        label, bend, depth = (image.T if turned else image for image in (patches, bend_rad, depth_m))
        for gap in (1, GAP_PX):
            a, b = label[:-gap], label[gap:]
            beside = (a != b) & (a > 0) & (b > 0)
            if gap > 1:
                beside &= (label[1 : 1 - gap] == 0) | (label[gap - 1 : -1] == 0)
            at = np.flatnonzero(beside)
            ends = [
                np.stack([part[:-gap].reshape(-1)[at], part[gap:].reshape(-1)[at]]) for part in (label, bend, depth)
            ]
            pair = ends[0][0].astype(np.int64) * count + ends[0][1]
            step = np.abs(ends[2][0] - ends[2][1]) > STEP_SLOPE * gap * pitch_m
            for row, weight in enumerate((None, ends[1].max(0) < OPEN_RAD, step)):
                borders[row] += np.bincount(pair, weight, count * count)
    borders = borders.reshape(3, count, count)
    return borders + borders.transpose(0, 2, 1)


def _with_cavities(labels: Labels, height_m: NDArray[np.float32]) -> Labels:
    """Merge the bottom of a bowl or a mug with its wall: it is enclosed by one part and lies below it all around.

    An object on a plate is enclosed too, and lies above.
    """
    while True:
        count = int(labels.max()) + 1
        contour, borders, below = np.zeros(count), np.zeros(count * count), np.zeros(count * count)
        for label, height in ((labels, height_m), (labels.T, height_m.T)):
            for a, b in ((slice(None, -GAP_PX), slice(GAP_PX, None)), (slice(GAP_PX, None), slice(None, -GAP_PX))):
                at = np.flatnonzero((label[a] != label[b]) & (label[a] > 0))
                own, other = label[a].reshape(-1)[at].astype(np.int64), label[b].reshape(-1)[at]
                lower = height[a].reshape(-1)[at] < height[b].reshape(-1)[at]
                contour += np.bincount(own, minlength=count)
                borders += np.bincount(own * count + other, minlength=count * count)
                below += np.bincount(own * count + other, lower, count * count)
        borders, below = borders.reshape(count, count), below.reshape(count, count)
        enclosed = np.where(below > LOWER_SHARE * borders, borders, 0)
        enclosed[:, 0] = 0
        share = enclosed / np.maximum(contour[:, None], 1)
        own, other = divmod(int(share.argmax()), count)
        if share[own, other] < ENCLOSED_SHARE:
            return labels
        labels = np.where(labels == own, other, labels)


def _numbered(labels: Labels, min_points: int) -> Labels:
    """Return the labels of at least `min_points` pixels, numbered from 1 by falling size."""
    size = np.bincount(labels.reshape(-1))
    size[0] = 0
    order = np.argsort(-size, kind="stable")
    order = order[size[order] >= max(min_points, 1)]
    number = np.zeros(len(size), np.int32)
    number[order] = np.arange(1, len(order) + 1)
    return number[labels]
