"""Visible surface samples of an object from one depth camera: fast and batched, for training.

A sample is visible when it faces the camera and no other sample of its image cell is clearly nearer.
"""

from itertools import product

import torch
from torch import Tensor

from dexgrasp.perception.transforms import plane_basis

CELL_RAD = 0.012
"""Angular size of an image cell; about 9 mm at 0.76 m, above the spacing of 1,024 samples on a 15 cm object."""
NEARER_M = 0.012
"""Distance behind the nearest sample of its cell beyond which a sample is hidden."""
STEEPEST_M = 0.04
"""Largest value of that distance on surfaces seen at grazing angles."""
EDGE_M, EDGE_CELLS = 0.015, 3
"""Least depth step at an edge, and number of deeper neighbour cells that make one: a single hole makes none."""


def visible(points_w: Tensor, normals_w: Tensor, camera_pos_w: Tensor) -> Tensor:
    """Return the mask (env, point) of the surface samples that a camera at `camera_pos_w` (env, 3) sees.

    `points_w`, `normals_w`: (env, point, 3), world frame; at least one sample per object is always kept (the nearest).
    """
    return visible_and_edge(points_w, normals_w, camera_pos_w, edges=False)[0]


def visible_and_edge(
    points_w: Tensor, normals_w: Tensor, camera_pos_w: Tensor, edges: bool = True, steep: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the mask of `visible` and the mask of samples in edge cells, both (env, point).

    EDGE_CELLS of the eight neighbours of an edge cell are deeper. `steep`: keep surfaces seen at grazing angles. A cell
    covers more of their depth, so that they may lie up to STEEPEST_M behind the nearest sample.
    """
    ray = points_w - camera_pos_w[:, None]
    distance = ray.norm(dim=-1)
    towards = -(ray * normals_w).sum(-1)
    image, cell = _depth_image(ray / distance[..., None], distance)
    limit = image.flatten(1).gather(1, cell) + NEARER_M
    if steep:
        slope = (distance.square() - towards.square()).clamp(min=0.0).sqrt() / towards.clamp(min=1e-6)
        limit = limit + (CELL_RAD * distance * slope).clamp(max=STEEPEST_M)
    mask = (towards > 0.1 * distance) & (distance < limit)
    mask.scatter_(1, distance.argmin(dim=1, keepdim=True), True)
    return mask, _edge_cells(image).flatten(1).gather(1, cell) if edges else torch.zeros_like(mask)


def _edge_cells(image: Tensor) -> Tensor:
    """Return the mask (env, row, column) of the edge cells of a depth image whose border is empty."""
    deeper = torch.zeros(image[:, 1:-1, 1:-1].shape, dtype=torch.int8, device=image.device)
    rows, columns = image.shape[1:]
    limit = image[:, 1:-1, 1:-1] + EDGE_M
    for down, right in product(range(3), repeat=2):
        deeper += image[:, down : rows - 2 + down, right : columns - 2 + right] > limit
    return torch.nn.functional.pad(deeper >= EDGE_CELLS, (1, 1, 1, 1))


def _depth_image(direction: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least distance in each cell (env, row, column), infinite in empty ones, and each sample's cell."""
    side, up = plane_basis(direction.mean(dim=1))
    plane = direction @ torch.stack([side, up], dim=-1)
    place = ((plane - plane.amin(dim=1, keepdim=True)) / CELL_RAD).long() + 1
    width = int(place.max()) + 2
    image = torch.full((len(distance), width * width), torch.inf, device=distance.device, dtype=distance.dtype)
    cell = place[..., 0] * width + place[..., 1]
    image.scatter_reduce_(1, cell, distance, "amin")
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
