"""Recognition of meshes that describe one thing: facts of a surface, comparison of two, groups."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, MeshFileError
from dexgrasp.sim.objects.mesh_files.reader import read_surface
from dexgrasp.sim.objects.mesh_files.solids import mass_properties

SAME_SURFACE = 0.005
"""Largest distance between surfaces of one thing, as a share of the longest side."""
SAME_VARIANT = 0.05
"""Largest distance, but for a twentieth of the points, between files of one thing by their names."""
MAX_FACES = 20000
"""Finer meshes are simplified: nothing that the hand feels is lost."""
SAME_MEASURES, DOUBTFUL_MEASURES = 0.01, 0.001
"""Largest relative differences of the lengths in `_measures` of surfaces that are compared in all orientations, and of
those that may be one thing though no orientation was found. Scans of two balls differ by more than the latter."""
_SAMPLES, _DENSE_SAMPLES, _NEAR_FACES = 1500, 20000, 8
_COARSE_SAMPLES, _MOST_CORNERS, _MOST_TURNS = 100, 32, 3

Pair = tuple[int, int]


@dataclass(frozen=True)
class SurfaceFacts:
    """Size and shape of a mesh, in the unit of its file."""

    longest: float
    """Longest side of the axis-aligned box."""
    radii: tuple[float, float, float]
    """Standard deviations of the surface along its principal axes, largest first."""
    faces: int
    closed: bool
    """Whether every edge joins two faces."""

    def scaled(self, factor: float) -> "SurfaceFacts":
        """Return the facts with lengths multiplied by `factor`."""
        a, b, c = self.radii
        return replace(self, longest=self.longest * factor, radii=(a * factor, b * factor, c * factor))

    def preference(self, is_rough: bool) -> tuple[bool, bool, bool, int]:
        """Return a key that sorts the best file of one thing first.

        Closed ones first; among these the ones whose names do not say that they are rough; among these the finest of at
        most MAX_FACES faces, else the coarsest of the finer ones.
        """
        too_fine = self.faces > MAX_FACES
        return not self.closed, is_rough, too_fine, self.faces if too_fine else -self.faces


def surface_facts(path: Path) -> SurfaceFacts:
    """Return the facts of a mesh file; raise MeshFileError where it cannot be read."""
    import trimesh

    vertices, faces = read_surface(path)
    mesh = trimesh.Trimesh(vertices, faces, process=True)
    used = mesh.vertices[mesh.faces]
    longest = float(np.ptp(used.reshape(-1, 3), axis=0).max())
    if not 0 < longest < np.inf:
        raise MeshFileError(f"empty: the longest side is {longest:g}")
    return SurfaceFacts(
        longest=longest, radii=_radii(used / longest, longest), faces=len(faces), closed=mesh.is_watertight
    )


def _radii(triangles: Array, longest: float) -> tuple[float, float, float]:
    axes = _principal_axes(triangles)[2]
    a, b, c = (np.sqrt(np.maximum(axes, 0.0)) * longest).tolist()
    return a, b, c


def _principal_axes(triangles: Array) -> tuple[Array, Array, Array]:
    """Return centre (3,), axes (3, 3) in columns and variances (3,), largest first, of a surface (t, 3, 3)."""
    area = np.linalg.norm(_normals(triangles), axis=1)
    share = area / area.sum() if area.sum() > 0 else np.full(len(area), 1 / len(area))
    centre = share @ triangles.mean(axis=1)
    a, b, c = (triangles - centre).transpose(1, 0, 2)
    total = a + b + c
    covariance = sum((share[:, None] * x).T @ x for x in (a, b, c, total)) / 12
    values, axes = np.linalg.eigh(covariance)
    return centre, axes[:, ::-1], values[::-1]


def compare_surfaces(a: Path, b: Path, variants: bool, ratio: float = 1.0) -> Literal["same", "alike", "different"]:
    """Return whether two mesh files describe one surface, moved or turned as a whole.

    "alike": their area, volume and principal moments are equal, and no orientation was found in which one covers the
    other or its mirror image. `variants`: by their names they are files of one thing, which may differ by SAME_VARIANT.
    `ratio`: unit of the second file / unit of the first.
    """
    first, second = _triangles(a), _triangles(b) * ratio
    longest = max(np.ptp(found.reshape(-1, 3), axis=0).max() for found in (first, second))
    limit, quantile = (SAME_VARIANT, 0.95) if variants else (SAME_SURFACE, 1.0)
    (centre_a, axes_a, _), (centre_b, axes_b, _) = _principal_axes(first), _principal_axes(second)
    first, second = first - centre_a, second - centre_b
    turns = [np.eye(3), *_axis_turns(axes_a, axes_b)]
    if any(_within(first, second @ turn.T, limit * longest, quantile) for turn in turns):
        return "same"
    with np.errstate(divide="ignore", invalid="ignore"):  # of a flat surface
        apart = np.abs(_measures(first) / _measures(second) - 1).max()
    if not apart <= SAME_MEASURES:
        return "different"
    for side in (1.0, -1.0):
        mirror = np.diag([side, 1.0, 1.0])
        other = second @ mirror
        turns = [*_axis_turns(axes_a, mirror @ axes_b), *_corner_turns(first, other, limit * longest)]
        if any(_within(first, other @ turn.T, limit * longest, quantile) for turn in turns):
            return "same" if side > 0 else "different"
    return "alike" if apart <= DOUBTFUL_MEASURES else "different"


def _axis_turns(axes_a: Array, axes_b: Array) -> Iterator[Array]:
    """Return the rotations (3, 3) that turn principal axes in columns into others."""
    for signs in product((1.0, -1.0), repeat=3):
        turn = (axes_a * signs) @ axes_b.T
        if np.linalg.det(turn) > 0:
            yield turn


def _measures(triangles: Array) -> Array:
    """Return area (1), volume (1) and principal moments (3) of a surface (t, 3, 3) about its centre, as lengths."""
    area = np.linalg.norm(_normals(triangles), axis=1).sum() / 2
    volume, _, second = mass_properties(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3))
    moments = np.abs(np.linalg.eigvalsh(second if np.isfinite(second).all() else np.eye(3)))
    return np.array([np.sqrt(area), np.cbrt(abs(volume)), *moments**0.2])


def _corner_turns(first: Array, second: Array, tolerance: float) -> list[Array]:
    """Return the rotations (3, 3) of `second` that bring it nearest to `first`, best first; both about their centres.

    The corner farthest from the centre, and the one farthest from the line to it, are laid on all corners of the other
    surface that lie alike: principal axes say nothing where moments are equal, as of a cube or a cylinder.
    """
    from scipy.spatial import KDTree

    a, b = first.reshape(-1, 3), np.unique(second.reshape(-1, 3), axis=0)
    tip = a[np.linalg.norm(a, axis=1).argmax()]
    side = a[np.linalg.norm(np.cross(a, tip), axis=1).argmax()]
    lengths = np.linalg.norm(b, axis=1)
    tips = _spread(b[np.abs(lengths - np.linalg.norm(tip)) <= tolerance])
    sides = b[np.abs(lengths - np.linalg.norm(side)) <= tolerance]
    turns = []
    for other in tips:
        along = (sides @ other) / np.linalg.norm(other) - side @ tip / np.linalg.norm(tip)
        near = _spread(sides[np.abs(along) <= tolerance])
        turns += [_frame(tip, side) @ _frame(other, one).T for one in near]
    if not turns:
        return []
    points, tree = _sample(first, _COARSE_SAMPLES)[0], KDTree(_sample(second, _DENSE_SAMPLES)[0])
    apart = tree.query(np.concatenate([points @ turn for turn in turns]))[0].reshape(len(turns), -1).mean(axis=1)
    return [turns[i] for i in np.argsort(apart)[:_MOST_TURNS]]


def _spread(points: Array) -> Array:
    """Return at most _MOST_CORNERS points (n, 3), evenly from the list."""
    return points[:: max(1, -(-len(points) // _MOST_CORNERS))]


def _frame(tip: Array, side: Array) -> Array:
    """Return a rotation (3, 3): first column along `tip`, second one towards `side`."""
    x, z = tip, np.cross(tip, side)
    x, z = x / np.linalg.norm(x), z / max(np.linalg.norm(z), 1e-300)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _triangles(path: Path) -> Array:
    vertices, faces = read_surface(path)
    return vertices[faces]


def _within(a: Array, b: Array, limit: float, quantile: float) -> bool:
    return bool(all(np.quantile(_distances(x, y), quantile) <= limit for x, y in ((a, b), (b, a))))


def _distances(a: Array, b: Array) -> Array:
    """Return the distances (n,) from points of surface `a` (t, 3, 3) to surface `b`.

    Measured to the faces of the nearest points sampled on b. As these may miss a narrow face, its neighbours are
    extended in their planes by the distance of the samples.
    """
    from scipy.spatial import KDTree
    from trimesh.triangles import closest_point

    points, _ = _sample(a, _SAMPLES)
    others, face = _sample(b, _DENSE_SAMPLES)
    near = b[face[KDTree(others).query(points, k=_NEAR_FACES)[1]].ravel()]
    repeated = np.repeat(points, _NEAR_FACES, axis=0)
    offset = repeated - closest_point(near, repeated)
    normal, area = _normals(near), np.linalg.norm(_normals(b), axis=1).sum() / 2
    along = np.abs((offset * normal).sum(axis=1)) / np.linalg.norm(normal, axis=1)
    within = np.sqrt(np.maximum((offset**2).sum(axis=1) - along**2, 0.0))
    found = np.hypot(along, np.maximum(within - np.sqrt(area / _DENSE_SAMPLES), 0.0))
    return found.reshape(len(points), _NEAR_FACES).min(axis=1)


def _normals(triangles: Array) -> Array:
    """Return normals (t, 3) of twice the area in length."""
    a, b, c = triangles.transpose(1, 0, 2)
    return np.cross(b - a, c - a)


def _sample(triangles: Array, count: int) -> tuple[Array, np.ndarray]:
    """Return `count` points (n, 3) of a surface, even by area, and their faces (n,)."""
    rng = np.random.default_rng(0)
    a, b, c = triangles.transpose(1, 0, 2)
    edges = np.cumsum(np.linalg.norm(_normals(triangles), axis=1))
    face = np.minimum(np.searchsorted(edges, (np.arange(count) + 0.5) / count * edges[-1]), len(triangles) - 1)
    u, v = rng.uniform(size=(2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return a[face] + u * (b[face] - a[face]) + v * (c[face] - a[face]), face


def group_same(
    facts: Sequence[SurfaceFacts],
    things: Sequence[str],
    compare: Callable[[list[Pair]], dict[Pair, bool]],
) -> list[list[int]]:
    """Return groups of meshes that describe one thing, each in the given order.

    `things`: name of the thing of each mesh by its path. `compare`: results of `same_surface` for pairs of numbers,
    first the later one.
    """
    candidates = _candidates(facts, things)
    groups: dict[int, list[int]] = {}
    pending = list(range(len(facts)))
    while pending:
        pairs, waiting = [], []
        for i in pending:
            of_groups = [j for j in candidates[i] if j in groups]
            if of_groups:
                pairs.append((i, of_groups[0]))
            elif any(j in pending and j < i for j in candidates[i]):
                waiting.append(i)
            else:
                groups[i] = [i]
        same = compare(pairs)
        for i, j in pairs:
            if same[i, j]:
                groups[j].append(i)
            else:
                candidates[i].remove(j)
                waiting.append(i)
        pending = sorted(waiting)
    return sorted(sorted(members) for members in groups.values())


def _candidates(facts: Sequence[SurfaceFacts], things: Sequence[str]) -> dict[int, list[int]]:
    """Return for each mesh the earlier ones whose sizes do not exclude that they are one thing."""
    radii = np.array([found.radii for found in facts]).reshape(-1, 3)
    longest, names = np.array([found.longest for found in facts]), np.array(things)
    found = {}
    for i in range(len(facts)):
        tolerance = np.where(names[:i] == names[i], SAME_VARIANT, SAME_SURFACE) * np.maximum(longest[:i], longest[i])
        found[i] = np.flatnonzero(np.abs(radii[:i] - radii[i]).max(axis=1) <= 2 * tolerance).tolist()
    return found
