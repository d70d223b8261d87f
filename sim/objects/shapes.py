"""Geometry of parts: closed solids, and the convex pieces that represent them in the physics.

Visual mesh = union of the solids.  The pieces are known from the construction, so nothing has to be decomposed:
convex parts are one piece, solids of revolution are cut where their profile is concave, walls are cut into wedges.
Lengths in metres, z up, angles in radians.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from manifold3d import CrossSection, Manifold, OpType

from dexgrasp.sim.objects.model_builder import sphere_directions

ROUND = 40
"""Corners of a circle in visual meshes."""
PIECE_ROUND = 24
"""Corners of a circle in convex pieces, before their 64 support points are taken."""

SIMPLIFY_M = 2e-5
"""Visual meshes may differ from the exact union by this much [m]."""

Points = np.ndarray


@dataclass(frozen=True)
class Shape:
    """Closed solids and convex pieces of a shape.

    The union of the solids is the visual mesh; the pieces are the hulls of point sets (n, 3).
    """

    solids: tuple[Manifold, ...]
    pieces: tuple[Points, ...]

    def __add__(self, other: "Shape") -> "Shape":
        return Shape(self.solids + other.solids, self.pieces + other.pieces)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> "Shape":
        """Return the shape shifted by (x, y, z)."""
        return self.mapped(np.eye(3), np.array([x, y, z], float))

    def turned(self, axis: str, angle: float) -> "Shape":
        """Return the shape turned about a coordinate axis through the origin, right-handed."""
        return self.mapped(rotation(axis, angle), np.zeros(3))

    def scaled(self, x: float, y: float, z: float) -> "Shape":
        """Return the shape stretched along the axes by positive factors."""
        return self.mapped(np.diag([x, y, z]), np.zeros(3))

    def mapped(self, matrix: np.ndarray, offset: np.ndarray) -> "Shape":
        """Return the shape under the map x -> matrix x + offset."""
        affine = np.column_stack([matrix, offset])
        solids = tuple(solid.transform(affine) for solid in self.solids)
        return Shape(solids, tuple(points @ matrix.T + offset for points in self.pieces))

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (v, 3) [m] and faces (f, 3) of the union of the solids.

        One closed surface, faces outward.
        """
        solid = Manifold.batch_boolean(list(self.solids), OpType.Add)
        mesh = solid.simplify(SIMPLIFY_M).to_mesh64()
        return np.asarray(mesh.vert_properties)[:, :3], np.asarray(mesh.tri_verts, np.int32)


def join(shapes: Sequence[Shape]) -> Shape:
    """Return all parts as one shape."""
    return Shape(tuple(s for shape in shapes for s in shape.solids), tuple(p for shape in shapes for p in shape.pieces))


def rotation(axis: str, angle: float) -> np.ndarray:
    """Return (3, 3) rotation about "x", "y" or "z", right-handed."""
    c, s = np.cos(angle), np.sin(angle)
    rows = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]]}
    return np.array(rows.get(axis, [[c, -s, 0], [s, c, 0], [0, 0, 1]]), float)


def convex(points: Points) -> Shape:
    """Return the convex hull of points (n, 3)."""
    points = np.asarray(points, float)
    return Shape((Manifold.hull_points(points),), (points,))


def box(x: float, y: float, z: float, round_m: float = 0.0) -> Shape:
    """Return a box of full side lengths about the origin; edges rounded with radius `round_m`."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    if round_m <= 0:
        return convex(signs * np.array([x, y, z]) / 2)
    corners = signs * (np.array([x, y, z]) / 2 - round_m)
    ball = sphere_points(round_m, rings=4, around=8)
    return convex((corners[:, None] + ball[None]).reshape(-1, 3))


def prism(outline: np.ndarray, height: float) -> Shape:
    """Return a convex outline (n, 2) in x, y, raised from z = -height/2 to height/2."""
    flat = np.asarray(outline, float)
    ends = [np.column_stack([flat, np.full(len(flat), z)]) for z in (-height / 2, height / 2)]
    return convex(np.concatenate(ends))


def ellipsoid(x: float, y: float, z: float) -> Shape:
    """Return an ellipsoid of full axis lengths about the origin."""
    return convex(sphere_points(0.5, rings=11, around=22) * [x, y, z])


def superquadric(x: float, y: float, z: float, e1: float, e2: float) -> Shape:
    """Return a convex superquadric of full axis lengths.

    `e1` bends the profile, `e2` the outline (0.1 boxy, 1 round).
    """
    u = np.linspace(-np.pi / 2, np.pi / 2, 15)[:, None]
    v = np.linspace(-np.pi, np.pi, 28, endpoint=False)[None]

    def bent(value: np.ndarray, power: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** power

    unit = np.stack(
        [
            bent(np.cos(u), e1) * bent(np.cos(v), e2),
            bent(np.cos(u), e1) * bent(np.sin(v), e2),
            bent(np.sin(u), e1) + 0 * v,
        ]
    )
    return convex(unit.reshape(3, -1).T * np.array([x, y, z]) / 2)


def chain(
    centres: np.ndarray, radii: np.ndarray | Sequence[float] | float, stretch: Sequence[float] = (1, 1, 1)
) -> Shape:
    """Return spheres at centres (n, 3) joined by their hulls, pair by pair.

    Used for tapered capsules, limbs, handles, bent tubes.
    """
    centres = np.asarray(centres, float)
    radii = np.broadcast_to(np.asarray(radii, float), len(centres))
    ball = sphere_points(1.0, rings=7, around=12) * np.asarray(stretch, float)
    balls = [c + r * ball for c, r in zip(centres, radii, strict=True)]
    return loft(balls)


def loft(sections: Sequence[Points]) -> Shape:
    """Return cross-sections, each a set of points (n, 3), joined by their hulls, pair by pair."""
    return join([convex(np.concatenate(pair)) for pair in pairwise(sections)])


def oval(x: float, width: float, low: float, high: float, power: float = 0.6) -> Points:
    """Return a rounded cross-section (16, 3) across the x axis at x.

    Its width is along y; it extends from low to high along z.
    """
    turn = np.arange(16) * np.pi / 8
    c, s = np.cos(turn), np.sin(turn)
    y = np.sign(c) * np.abs(c) ** power * width / 2
    z = (low + high) / 2 + np.sign(s) * np.abs(s) ** power * (high - low) / 2
    return np.column_stack([np.full(16, x), y, z])


def lathe(profile: np.ndarray) -> Shape:
    """Return a solid of revolution about z; profile (n, 2) rows (radius, z) from bottom to top.

    Pieces are the runs of the profile that are convex.
    """
    profile = np.asarray(profile, float)
    outline = [(0.0, profile[0, 1]), *map(tuple, profile), (0.0, profile[-1, 1])]
    solid = CrossSection([_distinct(outline)]).revolve(ROUND)
    runs = [_circles(profile[a : b + 1]) for a, b in convex_runs(profile)]
    return Shape((solid,), tuple(runs))


def convex_runs(profile: np.ndarray, slack: float = 0.03) -> list[tuple[int, int]]:
    """Return the index ranges (first, last) of a profile's runs that turn into convex solids.

    `profile` (n, 2): rows (radius, z).
    """
    edges = np.diff(profile, axis=0)
    edges = edges / np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-12)
    runs, first = [], 0
    for k in range(1, len(edges)):
        if edges[k - 1, 0] * edges[k, 1] - edges[k - 1, 1] * edges[k, 0] < -slack:  # turns outward: concave
            runs.append((first, k))
            first = k
    return [*runs, (first, len(profile) - 1)]


def ring(section: np.ndarray, sectors: int) -> Shape:
    """Return a solid of revolution about z of a convex section (n, 2), rows (radius, z).

    Pieces are wedges, as thick as the section.
    """
    section = np.asarray(section, float)
    solid = CrossSection([_counter_clockwise(section)]).revolve(ROUND)
    return Shape((solid,), tuple(wedges(section, sectors)))


def shell(outer: np.ndarray, inner: np.ndarray, sectors: int, rows: Sequence[int] = ()) -> Shape:
    """Return a hollow vessel about z, open at the top, closed by a floor.

    outer, inner (n, 2): rows (radius, z) from the floor to the rim, index by index across the wall; outer[0] and
    inner[0] are the edges of the floor.  Pieces: the floor, and for each row between the indices `rows` a ring of
    `sectors` wedges.
    """
    outer, inner = np.asarray(outer, float), np.asarray(inner, float)
    outline = [(0.0, outer[0, 1]), *map(tuple, outer), *map(tuple, inner[::-1]), (0.0, inner[0, 1])]
    solid = CrossSection([_distinct(outline)]).revolve(ROUND)
    marks = [0, *rows, len(outer) - 1]
    pieces = [_circles(np.array([outer[0], inner[0]]))]
    for a, b in pairwise(marks):
        pieces += wedges(_straightened(outer[a : b + 1], inner[[b, a]]), sectors)
    return Shape((solid,), tuple(pieces))


def wedges(section: np.ndarray, sectors: int) -> list[Points]:
    """Return the point sets of the sectors of a ring with the given section (n, 2) rows (radius, z).

    Corners stand a little outside the circle, so that the polygon has the circle's area.
    """
    half = np.pi / sectors
    grow = np.sqrt(half / (np.sin(half) * np.cos(half)))
    corner = np.arange(sectors + 1) * 2 * half
    rim = np.stack([np.cos(corner), np.sin(corner)], axis=1) * grow
    points = np.concatenate(
        [section[None, :, :1] * rim[:, None], np.broadcast_to(section[None, :, 1:], (sectors + 1, len(section), 1))],
        axis=2,
    )
    return [points[k : k + 2].reshape(-1, 3) for k in range(sectors)]


def cut(shape: Shape, tool: Shape) -> Shape:
    """Return the solids of `shape` without those of `tool`; its pieces must already leave out the tool."""
    solid = Manifold.batch_boolean(list(shape.solids), OpType.Add)
    for other in tool.solids:
        solid = solid - other
    return Shape((solid,), shape.pieces)


def sphere_points(radius: float, rings: int, around: int) -> Points:
    """Return points on a sphere by latitude and longitude, poles included."""
    lat = np.linspace(-np.pi / 2, np.pi / 2, rings)[1:-1, None]
    lon = np.linspace(0, 2 * np.pi, around, endpoint=False)[None]
    grid = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat) + 0 * lon]).reshape(3, -1).T
    return radius * np.concatenate([[[0, 0, -1]], grid, [[0, 0, 1]]])


def bumpy_points(rng: np.random.Generator, count: int, depth: float) -> Points:
    """Return unit directions with random radii 1 - depth .. 1: the corners of a random rock."""
    return sphere_directions(count) * rng.uniform(1 - depth, 1, size=(count, 1))


def _straightened(outer: np.ndarray, inner_ends: np.ndarray) -> np.ndarray:
    """Return four corners of a bent wall as one straight wall of equal thickness.

    The wall is moved halfway out to the bend.
    """
    chord = outer[-1] - outer[0]
    normal = np.array([chord[1], -chord[0]]) / np.linalg.norm(chord)
    bend = (outer - outer[0]) @ normal
    shift = normal * (bend.max() + bend.min()) / 2
    return np.concatenate([outer[[0, -1]], inner_ends]) + shift


def _circles(profile: np.ndarray) -> Points:
    angle = np.arange(PIECE_ROUND) * 2 * np.pi / PIECE_ROUND
    x, y = profile[:, :1] * np.cos(angle), profile[:, :1] * np.sin(angle)
    return np.stack([x, y, np.broadcast_to(profile[:, 1:], x.shape)], axis=2).reshape(-1, 3)


def _distinct(outline: Sequence[tuple[float, float]]) -> np.ndarray:
    points = np.array(outline, float)
    keep = np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1) > 1e-7
    return _counter_clockwise(points[keep])


def _counter_clockwise(outline: np.ndarray) -> np.ndarray:
    x, y = outline.T
    return outline if np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)) > 0 else outline[::-1]
