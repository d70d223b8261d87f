"""Closing of holes in a surface, where they are small against the body behind them."""

from dataclasses import dataclass

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError, newell_normal, triangulate_faces
from dexgrasp.utils.text import counted

LARGEST_SHARE = 0.1
"""Largest share of the cross-section behind a hole that it may take, and of the surface that all holes may take.
Patches that a scanner misses take a few percent; the opening of a tube, a bowl or a box without a lid 100 %."""
NEGLIGIBLE_SHARE = 0.001
"""Share of the surface below which a hole is closed whatever lies behind it. The end of a tube that is thick enough to
be imported takes more."""
DEPTHS = (0.25, 0.5, 1.0)
"""Depths of the cross-sections behind a hole, on either side, as shares of the radius of a disc of its area."""


@dataclass(frozen=True)
class ClosedHoles:
    """Holes of one surface that were closed."""

    count: int = 0
    area_share: float = 0.0
    """Area that was added / area of the closed surface."""
    section_share: float = 0.0
    """Largest area of a hole / cross-section behind it; 0 where all holes are negligible."""

    def merged(self, other: "ClosedHoles") -> "ClosedHoles":
        """Return both together: the shares of the worse one."""
        return ClosedHoles(
            self.count + other.count,
            max(self.area_share, other.area_share),
            max(self.section_share, other.section_share),
        )

    def __str__(self) -> str:
        holes = f"{counted(self.count, 'hole')}, {_percent(self.area_share)} of its surface"
        if not self.section_share:
            return holes
        return f"{holes}, the largest {_percent(self.section_share)} of the cross-section behind it"


def close_holes(vertices: Array, faces: Faces) -> tuple[Faces, ClosedHoles]:
    """Return triangles that close the holes of a surface, and their measures.

    `vertices` (v, 3); `faces` (f, 3) of consistent orientation. Edges that form no loop stay open. Raises
    MeshFileError where the holes are an opening of the body, so that closed it would be another body.
    """
    loops = _loops(faces)
    if not loops:
        return np.zeros((0, 3), np.int64), ClosedHoles()
    patches = [triangulate_faces(vertices, [loop]) for loop in loops]
    areas = np.array([_areas(vertices, patch).sum() for patch in patches])
    closed = np.concatenate([faces, *patches])
    total = _areas(vertices, closed).sum()
    if areas.sum() > LARGEST_SHARE * total:
        raise MeshFileError(
            f"not closed: {_percent(areas.sum() / total)} of the surface is missing in "
            f"{counted(len(loops), 'hole')}, at most {_percent(LARGEST_SHARE)} is closed; {_REMEDY}"
        )
    shares = [0.0]
    for patch, area in zip(patches, areas, strict=True):
        if area <= NEGLIGIBLE_SHARE * total:
            continue
        section = _largest_section(vertices, closed, patch, float(area))
        if area > LARGEST_SHARE * section:
            of_it = f"takes {_percent(area / section)} of the" if section else "has no"
            raise MeshFileError(
                f"not closed: a hole of {_percent(area / total)} of the surface {of_it} cross-section behind it, "
                f"at most {_percent(LARGEST_SHARE)} is closed; {_REMEDY}"
            )
        shares.append(float(area / section))
    return np.concatenate(patches), ClosedHoles(len(loops), float(areas.sum() / total), max(shares))


_REMEDY = "close it, or give its walls a thickness, in the program that made it"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _loops(faces: Faces) -> list[list[int]]:
    """Return the simple loops of the edges that belong to one face, each against the direction of its faces."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    _, first, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    following: dict[int, list[int]] = {}
    for end, start in edges[first[count == 1]].tolist():
        following.setdefault(start, []).append(end)
    loops: list[list[int]] = []
    while following:
        loops += _walk(following)
    return loops


def _walk(following: dict[int, list[int]]) -> list[list[int]]:
    """Return the loops of one walk along edges, which are taken out of `following`: vertex -> vertices after it.

    Where the walk comes to a vertex again, the loop since then is cut out: loops may meet at a vertex.
    """
    path = [next(iter(following))]
    loops = []
    while path[-1] in following:
        ends = following[path[-1]]
        at = ends.pop()
        if not ends:
            del following[path[-1]]
        if at in path:
            loop = path[path.index(at) :]
            del path[len(path) - len(loop) + 1 :]
            loops += [loop] if len(loop) > 2 else []
        else:
            path.append(at)
    return loops


def _areas(vertices: Array, faces: Faces) -> Array:
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def _largest_section(vertices: Array, faces: Faces, patch: Faces, area: float) -> float:
    """Return the area of the largest cross-section behind a hole, parallel to it; 0 where there is none."""
    weights = _areas(vertices, patch)
    centre = weights @ vertices[patch].mean(axis=1) / area
    normal = sum((newell_normal(vertices[triangle]) for triangle in patch), np.zeros(3))
    if not (length := np.linalg.norm(normal)) > 0:
        return 0.0
    normal /= length
    depths = [sign * depth * np.sqrt(area / np.pi) for depth in DEPTHS for sign in (1, -1)]
    return max(_section(vertices, faces, centre + depth * normal, normal) for depth in depths)


def _section(vertices: Array, faces: Faces, point: Array, normal: Array) -> float:
    """Return the area of the outline around `point` (3,) where a plane through it cuts a closed surface, or 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    height = (vertices - point) @ normal
    above = height[faces] > 0
    cut, above = faces[above.any(axis=1) & ~above.all(axis=1)], above[above.any(axis=1) & ~above.all(axis=1)]
    if not len(cut):
        return 0.0
    rows = np.arange(len(cut))
    falls, rises = above & ~np.roll(above, -1, axis=1), ~above & np.roll(above, -1, axis=1)  # one edge of each
    ends = [np.stack([cut[rows, k], cut[rows, (k + 1) % 3]], axis=1) for k in (falls.argmax(axis=1), rises.argmax(1))]
    x = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    x /= np.linalg.norm(x)
    axes = np.stack([x, np.cross(normal, x)], axis=1)
    p, q = (_crossings(vertices - point, height, edges) @ axes for edges in ends)
    nodes = np.unique(np.sort(np.concatenate(ends), axis=1), axis=0, return_inverse=True)[1].reshape(2, -1)
    outline = connected_components(coo_array((np.ones(len(cut)), (nodes[0], nodes[1])), shape=(nodes.max() + 1,) * 2))
    doubled = p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]
    of_segment = outline[1][nodes[0]]
    turns = np.bincount(of_segment, np.arctan2(doubled, (p * q).sum(axis=1)))
    areas = np.abs(np.bincount(of_segment, doubled)) / 2
    return float(areas[np.abs(turns) > np.pi].max(initial=0.0))


def _crossings(vertices: Array, height: Array, edges: Faces) -> Array:
    """Return the points (n, 3) of height 0 on edges (n, 2)."""
    a, b = edges.T
    share = height[a] / (height[a] - height[b])
    return vertices[a] + share[:, None] * (vertices[b] - vertices[a])
