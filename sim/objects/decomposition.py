"""Convex decomposition of meshes with thin walls, and merging of convex parts.

A convex piece that spans a hollow fills it, and a filled bowl cannot be grasped at its rim. The criterion is therefore
the volume of the hulls relative to the volume of the mesh. Planes cut the piece with the largest excess volume where
that lowers the hulls' volume most, until the ratio is reached or the limit of pieces. Vessels are cut into sectors
first: halving a ring gains nothing, eight sectors do. If the ratio is still far too high, CoACD is run as well, and the
result with the lower ratio is taken.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from manifold3d import Error, Manifold, Mesh
from scipy.spatial import ConvexHull

from dexgrasp.sim.objects.library import MAX_PIECES
from dexgrasp.sim.objects.mesh_files import mass_properties, sphere_directions
from dexgrasp.sim.objects.model_builder import hull_volume

TARGET_RATIO = 1.05
"""Hull volume / mesh volume at which no more cuts are made: every piece costs simulation time."""

HOLLOW_RATIO = 1.15
"""Ratio above which the mesh counts as hollow, so that sectors are tried as well."""

TOO_THICK_RATIO = 1.5
"""Ratio above which CoACD is run as well (Wei et al. 2022); it is slow and rarely better."""

SECTORS = (8, 16)

FLOORS = (None, 0.05, 0.1, 0.9, 0.95)
"""Heights at which a vessel's floor is cut off before the sectors, as fractions of its height; None: not at all."""

VESSELS_TRIED = 2

CUTS_PER_DIRECTION = 4

MIN_EXTENT_M = 0.004
"""Parts thinner than this across a plane's normal are not cut by it."""

IMBALANCE_COST = 0.02
"""Cost of a cut into unequal hulls, per difference of their volumes; decides between cuts of equal gain."""

METHODS = ("auto", "cuts", "coacd")
CONVEX_RATIO = 1.001
"""A part counts as convex where its hull's volume is less than this times its own."""
NEAR_M = 0.001
"""Largest distance between the boxes of parts that are merged, while such pairs exist."""


@dataclass(frozen=True)
class Part:
    """Closed part of the mesh, with the volume of its hull."""

    solid: Manifold
    hull_volume: float
    excess: float
    """Hull volume - volume [m^3]: volume that the convex piece fills beyond the part."""

    @staticmethod
    def from_solid(solid: Manifold) -> "Part":
        """Return the part with its volumes."""
        hull = solid.hull().volume()
        return Part(solid, hull, max(hull - solid.volume(), 0.0))


def decompose(
    vertices: np.ndarray, faces: np.ndarray, limit: int = MAX_PIECES, method: str = "auto"
) -> list[np.ndarray]:
    """Return at most `limit` point sets (n, 3) whose convex hulls approximate a closed mesh.

    `vertices` (v, 3), `faces` (f, 3).
    """
    if method not in METHODS:
        raise ValueError(f"unknown decomposition method '{method}'; methods: {', '.join(METHODS)}")
    solid = as_manifold(vertices, faces)
    if method == "coacd" or solid is None:
        return coacd_pieces(vertices, faces, limit)
    pieces = cut_pieces(solid, limit)
    if method == "auto" and _ratio(pieces, solid) > TOO_THICK_RATIO:
        pieces = min(pieces, coacd_pieces(vertices, faces, limit), key=lambda found: _ratio(found, solid))
    return pieces


def as_manifold(vertices: np.ndarray, faces: np.ndarray) -> Manifold | None:
    """Return the mesh as a manifold solid, or None when it is none."""
    solid = Manifold(Mesh(np.asarray(vertices, np.float32), np.asarray(faces, np.uint32)))
    return solid if solid.status() == Error.NoError and solid.volume() > 0 else None


def cut_pieces(solid: Manifold, limit: int = MAX_PIECES) -> list[np.ndarray]:
    """Return the vertices (n, 3) of the parts that plane cuts leave.

    Sectors about the three axes are tried when the solid is hollow.
    """
    axes = _axes(solid)
    best = _cut_down([Part.from_solid(solid)], axes, limit)
    if _hulls(best) > HOLLOW_RATIO * solid.volume():
        openings = sorted(_vessel_openings(solid, limit), key=_hulls)[:VESSELS_TRIED]
        best = min([best, *(_cut_down(parts, axes, limit) for parts in openings)], key=_hulls)
    return [points for part in best if len(points := _points(part.solid)) >= 4 and part.hull_volume > 0]


def coacd_pieces(vertices: np.ndarray, faces: np.ndarray, limit: int = MAX_PIECES) -> list[np.ndarray]:
    """Return CoACD's pieces, with fewer search steps than its default.

    A tenth of the time, an equal volume ratio within 3 %.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import coacd

    coacd.set_log_level("error")
    found = coacd.run_coacd(
        coacd.Mesh(np.asarray(vertices, float), np.asarray(faces, np.int32)),
        threshold=0.05, max_convex_hull=limit, preprocess_mode="auto", resolution=1000,
        mcts_nodes=12, mcts_iterations=40, seed=1,
    )  # fmt: skip
    return [np.asarray(points, float) for points, _ in found]


def _cut_down(parts: list[Part], axes: np.ndarray, limit: int) -> list[Part]:
    total = sum(p.solid.volume() for p in parts)
    done: list[Part] = []
    while parts and len(parts) + len(done) < limit:
        if _hulls(parts + done) < TARGET_RATIO * total:
            break
        worst = max(parts, key=lambda p: p.excess)
        parts.remove(worst)
        halves = _best_cut(worst, axes)
        if halves is None:
            done.append(worst)
        else:
            parts += halves
    return parts + done


def _best_cut(part: Part, axes: np.ndarray) -> list[Part] | None:
    points = _points(part.solid)
    best, best_cost = None, np.inf
    for normal in axes:
        along = points @ normal
        low, high = along.min(), along.max()
        if high - low < MIN_EXTENT_M:
            continue
        for level in np.linspace(low, high, CUTS_PER_DIRECTION + 2)[1:-1]:
            halves = [s for s in part.solid.split_by_plane(normal, level) if not s.is_empty()]
            if len(halves) < 2:
                continue
            volumes = [half.hull().volume() for half in halves]
            cost = sum(volumes) + IMBALANCE_COST * abs(volumes[0] - volumes[1])
            if cost < best_cost:
                best, best_cost = halves, cost
    return None if best is None else [Part.from_solid(half) for half in best]


def _vessel_openings(solid: Manifold, limit: int) -> Iterator[list[Part]]:
    """Return the first cuts of a vessel: about each axis, with and without its floor cut off, into sectors."""
    for axis, count, floor in product(range(3), SECTORS, FLOORS):
        parts = [Part.from_solid(part) for part in _sectors(solid, axis, count, floor)]
        if len(parts) <= limit:
            yield parts


def _sectors(solid: Manifold, axis: int, count: int, floor: float | None) -> list[Manifold]:
    """Return the floor, if any, and `count` sectors of the rest.

    Cutting planes go through the middle, along a coordinate axis.
    """
    box = np.reshape(solid.bounding_box(), (2, 3))
    middle = box.mean(axis=0)
    along, side, up = np.roll(np.eye(3), -axis, axis=0)
    kept: list[Manifold] = []
    parts = [solid]
    if floor is not None:
        level = box[0, axis] + floor * (box[1, axis] - box[0, axis])
        above, below = solid.split_by_plane(along, float(level))
        kept, parts = ([below], [above]) if floor < 0.5 else ([above], [below])
    for angle in np.arange(count // 2) * 2 * np.pi / count:
        normal = np.cos(angle) * side + np.sin(angle) * up
        cut = [half for part in parts for half in part.split_by_plane(normal, float(normal @ middle))]
        parts = [half for half in cut if not half.is_empty()]
    return kept + parts


def _hulls(parts: Sequence[Part]) -> float:
    return sum(part.hull_volume for part in parts)


def _axes(solid: Manifold) -> np.ndarray:
    """Return directions (k, 3) of the planes to try: mesh axes, principal axes, some between."""
    points = _points(solid)
    centred = points - points.mean(axis=0)
    half_sphere = sphere_directions(16)[:8]
    return np.concatenate([np.eye(3), np.linalg.eigh(centred.T @ centred)[1].T, half_sphere])


def _points(solid: Manifold) -> np.ndarray:
    return np.asarray(solid.to_mesh().vert_properties[:, :3], float)


def _ratio(pieces: Sequence[np.ndarray], solid: Manifold) -> float:
    return sum(hull_volume(points) for points in pieces) / solid.volume()


def are_convex(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Return whether all closed parts, vertices (v, 3) and faces (f, 3), are convex."""
    return all(hull_volume(points) <= CONVEX_RATIO * mass_properties(points, faces)[0] for points, faces in parts)


def merge_convex_parts(parts: Sequence[np.ndarray], limit: int) -> list[np.ndarray]:
    """Return at most `limit` point sets (n, 3), merged from convex parts.

    The two parts whose common hull adds the least volume are merged, until the limit is reached. Pairs whose boxes are
    at most `near_m` apart are compared; that distance grows where there are none.
    """
    hulls = {i: np.asarray(points, float) for i, points in enumerate(parts)}
    near_m, added = NEAR_M / 10, {}
    while len(hulls) > limit:
        while not added:
            near_m *= 10
            near = [(i, j) for i, j in combinations(hulls, 2) if _boxes_within(hulls[i], hulls[j], near_m)]
            added = {(i, j): _added_volume(hulls[i], hulls[j]) for i, j in near}
        pair = min(added, key=added.__getitem__)
        points = np.concatenate([hulls.pop(i) for i in pair])
        points = points[ConvexHull(points).vertices]
        added = {key: volume for key, volume in added.items() if not set(key) & set(pair)}
        new = max([*hulls, *pair]) + 1
        added |= {
            (i, new): _added_volume(other, points) for i, other in hulls.items() if _boxes_within(other, points, near_m)
        }
        hulls[new] = points
    return list(hulls.values())


def _boxes_within(a: np.ndarray, b: np.ndarray, gap_m: float) -> bool:
    """Return whether the boxes around two point sets are at most `gap_m` apart along each axis."""
    return bool((a.min(axis=0) <= b.max(axis=0) + gap_m).all() and (b.min(axis=0) <= a.max(axis=0) + gap_m).all())


def _added_volume(a: np.ndarray, b: np.ndarray) -> float:
    """Return the volume that the common hull of two point sets has beyond theirs [m^3]."""
    return hull_volume(np.concatenate([a, b])) - hull_volume(a) - hull_volume(b)
