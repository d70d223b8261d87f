"""Reader of PLY files, ASCII or binary: vertices, polygons and triangle strips."""

from pathlib import Path

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError, strip_triangles, triangulate_faces
from dexgrasp.utils.text import one_line


def read_ply(path: Path) -> tuple[Array, Faces]:
    """Return vertices (v, 3) and triangles (t, 3)."""
    from plyfile import PlyData, PlyParseError

    try:
        data = PlyData.read(path)
    except (PlyParseError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise MeshFileError(f"not a PLY file: {one_line(error)}") from error
    elements = {element.name: element for element in data.elements}
    if "vertex" not in elements or not {"x", "y", "z"} <= set(elements["vertex"].data.dtype.names or ()):
        raise MeshFileError("the PLY file has no vertices with x, y and z")
    vertex = elements["vertex"].data
    points = np.stack([vertex[axis].astype(np.float64) for axis in "xyz"], axis=1)
    return points, triangulate_faces(points, _faces(elements))


def _faces(elements: dict) -> list[list[int]]:
    if "face" in elements:
        name = next(
            (word for word in ("vertex_indices", "vertex_index") if word in elements["face"].data.dtype.names), ""
        )
        if not name:
            raise MeshFileError("the faces of the PLY file have no vertex_indices")
        faces = [np.asarray(face, np.int64).tolist() for face in elements["face"].data[name]]
        return [face for face in faces if len(face) >= 3]
    if "tristrips" in elements:
        strips = np.concatenate([np.asarray(strip, np.int64) for strip in elements["tristrips"].data["vertex_indices"]])
        parts = np.split(strips, np.flatnonzero(strips == -1))
        return [face for part in parts for face in strip_triangles(part[part >= 0]).tolist()]
    raise MeshFileError("the PLY file holds points without faces; a mesh is needed")
