"""Objects as DexGraspBench reads them: convex pieces as OBJ files, and the volume."""

from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull

from dexgrasp.sim.objects import ObjectModel
from dexgrasp.utils.files import write_json, write_text


def write_object(folder: Path, obj: ObjectModel) -> None:
    """Write convex pieces and volume of an object; one that is there stays."""
    if (folder / "info/simplified.json").is_file():
        return
    for name in ("urdf/meshes", "info"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    volume = 0.0
    for i, piece in enumerate(obj.pieces):
        text, piece_m3 = _hull_text(piece.astype(np.float64))
        write_text(folder / f"urdf/meshes/convex_piece_{i:03d}.obj", text)
        volume += piece_m3
    write_json(folder / "info/simplified.json", {"density": 1.0, "scale": 1.0, "mass": volume})  # last: it is whole


def _hull_text(points: np.ndarray) -> tuple[str, float]:
    """Return the hull of points (n, 3) that all lie on it as the text of an OBJ file, and its volume."""
    hull = ConvexHull(points)
    faces = hull.simplices.copy()
    first, second, third = (points[faces[:, i]] for i in range(3))
    inward = np.einsum("ij,ij->i", np.cross(second - first, third - first), hull.equations[:, :3]) < 0
    faces[inward] = faces[inward][:, ::-1]
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in points]
    lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
    return "\n".join(lines) + "\n", float(hull.volume)
