"""Mass properties of closed meshes, and checks of stated ones against the mesh that they belong to."""

import numpy as np

DENSEST = 30_000.0
"""[kg/m^3]; no metal is denser."""
LIGHTEST = 0.5
"""[kg/m^3]; air weighs more."""
LIGHT_KG = 0.1
"""Masses up to this one are taken for any small thing: imports give the least mass to thin ones."""
CENTRE_SHARE, PIECES_SHARE, POINTS_SHARE = 0.003, 0.08, 0.15
"""Largest distances of the centre of mass from the origin, and of the boxes of pieces and surface samples from the
mesh's, as shares of the longest side. Those of 2,000 generated and imported objects: 0.0005, 0.012 and 0.05."""
INERTIA_SHARE = 0.015
"""Largest difference of the inertia from a uniform body's, as a share of its largest moment; of the same: 0.003."""
NORMAL_LEVER_M, SAMPLE_SHARE, SAMPLE_SLACK_M = 0.05, 1e-3, 1e-4
"""Weight of a normal's direction beside the distance of its plane, and the largest sum of both differences, as a share
of the longest side and absolute. Normals are stored with three digits; of 180 objects: at most 0.08 mm together."""
COVERED_POINTS = 256
"""Surface samples that are looked for in the pieces; the first ones are well spread."""
PIECES_SLACK_M, REST_SLACK_M = 0.002, 1e-4
"""Rounding of pieces and of heights at rest."""


def mass_properties(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return volume [m^3], centroid (3,) [m] and inertia (3, 3) [m^5] of a closed mesh.

    The inertia is about the centroid, at density 1. Integrals of a mesh far from its origin are taken about its middle.

    Sums signed tetrahedra (origin, a, b, c): their integral of x x^T is det/120 ((sum)(sum)^T + sum of x x^T).
    """
    vertices = np.asarray(vertices, float)
    middle = (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    if np.abs(middle).max() <= np.ptp(vertices, axis=0).max():
        middle = np.zeros(3)  # nothing to gain, and sums stay the same bit by bit
    a, b, c = (vertices - middle)[faces].transpose(1, 0, 2)
    det = np.einsum("ni,ni->n", a, np.cross(b, c))
    volume = det.sum() / 6
    total = a + b + c
    with np.errstate(divide="ignore", invalid="ignore"):  # a flat mesh
        centroid = (det[:, None] * total).sum(axis=0) / 24 / volume
    second = (total * det[:, None]).T @ total
    for corner in (a, b, c):
        second += (corner * det[:, None]).T @ corner
    second = second / 120 - volume * np.outer(centroid, centroid)
    return float(volume), centroid + middle, np.trace(second) * np.eye(3) - second


def check_density(mass: float, volume: float) -> None:
    """Raise ValueError for a mass that no thing of this volume has."""
    least, most = LIGHTEST * volume, max(LIGHT_KG, DENSEST * volume) * 1.001
    if not least <= mass <= most:
        raise ValueError(
            f"mass {mass:.4g} kg of {volume * 1e6:.4g} cm^3 is {mass / volume:.3g} kg/m^3, expected {least:.3g}.."
            f"{most:.3g} kg ({LIGHTEST:g}..{DENSEST:g} kg/m^3)"
        )


def check_mass_properties(
    found: tuple[float, np.ndarray, np.ndarray], longest: float, mass: float, inertia: np.ndarray
) -> None:
    """Raise ValueError unless mass and inertia are those of a uniform body.

    `found`: result of `mass_properties`; `longest`: longest side of the mesh [m]; `mass` [kg]; `inertia` (3, 3) about
    the origin [kg m^2].
    """
    volume, centre, second = found
    if not volume > 0:
        raise ValueError(f"faces enclose a volume of {volume:.3g} m^3, expected a closed mesh with faces outward")
    check_density(mass, volume)
    most = CENTRE_SHARE * longest
    if np.abs(centre).max() > most:
        raise ValueError(
            f"vertices have their centre of mass at {_row(centre)} m, expected at the origin, within {most:.2g} m"
        )
    expected = second * mass / volume
    moments, wanted = np.linalg.eigvalsh(inertia), np.linalg.eigvalsh(expected)
    if np.abs(moments - wanted).max() > INERTIA_SHARE * wanted[2]:
        raise ValueError(
            f"inertia has the principal moments {_row(moments)} kg m^2, expected {_row(wanted)}, within "
            f"{100 * INERTIA_SHARE:g} %: those of a uniform body of {mass:.4g} kg with this mesh"
        )
    if np.abs(inertia - expected).max() > INERTIA_SHARE * wanted[2]:
        raise ValueError(
            f"inertia is turned against the mesh: it is {_row(inertia[np.triu_indices(3)])} kg m^2 (xx xy xz yy yz zz),"
            f" expected {_row(expected[np.triu_indices(3)])}"
        )


def sphere_directions(count: int) -> np.ndarray:
    """Return (count, 3) unit vectors of the Fibonacci lattice, evenly spread over the sphere."""
    i = np.arange(count) + 0.5
    polar = np.arccos(1 - 2 * i / count)
    azimuth = np.pi * (1 + 5**0.5) * i
    return np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)


def check_pieces(vertices: np.ndarray, pieces: np.ndarray, points: np.ndarray) -> None:
    """Raise ValueError unless convex pieces (p, n, 3) and surface samples (n, 3) fill the hull of a mesh.

    Compared is how far they reach in 64 directions and along the axes; each sample must lie in a piece or near one.
    """
    directions = np.concatenate([np.eye(3), -np.eye(3), sphere_directions(64)]).T
    reach = (vertices @ directions).max(axis=0)
    longest = float(np.ptp(vertices, axis=0).max())
    of_pieces = (pieces @ directions).max(axis=1)
    most_m = PIECES_SHARE * longest + PIECES_SLACK_M
    for key, found, most in (
        ("pieces", of_pieces.max(axis=0), most_m),
        ("points", (points @ directions).max(axis=0), POINTS_SHARE * longest),
    ):
        off = np.abs(found - reach)
        if (worst := off.argmax()) >= 0 and off[worst] > most:
            raise ValueError(
                f"{key} reach {found[worst]:.4f} m in the direction {_row(directions[:, worst])}, expected the mesh's "
                f"{reach[worst]:.4f} within {most:.3f} m"
            )
    points = points[:COVERED_POINTS]
    outside = ((points @ directions)[:, None] - of_pieces).max(axis=2).min(axis=1)
    if (worst := outside.argmax()) >= 0 and outside[worst] > most_m:
        raise ValueError(
            f"pieces are {outside[worst]:.4f} m away from the mesh at {_row(points[worst])} m, expected within "
            f"{most_m:.3f} m"
        )


def check_samples(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, normals: np.ndarray) -> None:
    """Raise ValueError unless each surface sample lies in the plane of a face, with its outward normal.

    `points`, `normals` (n, 3).
    """
    from scipy.spatial import KDTree

    vertices = np.asarray(vertices, float)
    a, b, c = vertices[faces].transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    doubled = np.linalg.norm(cross, axis=1, keepdims=True)
    solid = doubled[:, 0] > 0
    outward = cross[solid] / doubled[solid]
    planes = np.concatenate([NORMAL_LEVER_M * outward, (outward * a[solid]).sum(axis=1, keepdims=True)], axis=1)
    longest = float(np.ptp(vertices, axis=0).max())
    most = SAMPLE_SLACK_M + SAMPLE_SHARE * longest
    points, normals = np.asarray(points, float), np.asarray(normals, float)
    stated = np.concatenate([NORMAL_LEVER_M * normals, (normals * points).sum(axis=1, keepdims=True)], axis=1)
    # away from zero: a split there has a denormal neighbour, and training flushes these to zero: endless recursion
    off = KDTree(np.unique(planes + 1.0, axis=0)).query(stated + 1.0)[0]
    if wrong := int((off > most).sum()):
        first = int((off > most).argmax())
        raise ValueError(
            f"normals: {wrong} of {len(points)} samples lie in no face with this outward normal, the first at "
            f"{_row(points[first])} m with {_row(normals[first])}"
        )


def check_rest(pieces: np.ndarray, rest_height: np.ndarray, rest_quat: np.ndarray) -> None:
    """Raise ValueError unless the pieces touch the table at each resting pose.

    `pieces` (p, n, 3), `rest_height` (r,) [m], `rest_quat` (r, 4) wxyz.
    """
    w, x, y, z = rest_quat.T
    up = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])  # third row of the rotation
    lowest = -(pieces.reshape(-1, 3) @ up).min(axis=0)
    wrong = np.abs(rest_height - lowest) > REST_SLACK_M
    if wrong.any():
        raise ValueError(
            f"rest_height is {rest_height[wrong][0]:.4f} m, expected {lowest[wrong][0]:.4f} within {REST_SLACK_M:g}: "
            "the lowest point touches the table"
        )


def _row(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.3g}" for number in np.ravel(numbers))
