"""Reader of Wavefront OBJ files: vertices and polygons; materials, normals and textures are ignored."""

from pathlib import Path

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError, triangulate_faces


def read_obj(path: Path) -> tuple[Array, Faces]:
    """Return vertices (v, 3) and triangles (t, 3).

    Indices may be negative (relative to the last vertex read), lines may end in a backslash, the text may begin with a
    byte order mark.
    """
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        try:
            if words[:1] == ["v"]:
                vertices.append([float(word) for word in words[1:4]])
            elif words[:1] == ["f"]:
                faces.append([_index(word, len(vertices)) for word in words[1:]])
        except ValueError as error:
            raise MeshFileError(f"line {number} cannot be read: '{line[:60]}' ({error})") from error
        if (words[:1] == ["v"] and len(vertices[-1]) < 3) or (words[:1] == ["f"] and len(faces[-1]) < 3):
            raise MeshFileError(f"line {number} has fewer than three values: '{line[:60]}'")
    points = np.array(vertices, np.float64).reshape(-1, 3)
    return points, triangulate_faces(points, faces)


def _lines(path: Path) -> list[str]:
    """Return the lines without comments; a line that ends in a backslash goes on in the next."""
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding, errors="replace").replace("\\\r\n", " ").replace("\\\n", " ")
    return [line.partition("#")[0] for line in text.splitlines()]


def _index(word: str, count: int) -> int:
    """Return the vertex index, from 0, in a corner `v`, `v/vt`, `v//vn` or `v/vt/vn`."""
    index = int(word.partition("/")[0])
    if index == 0:
        raise ValueError("indices start at 1")
    return index - 1 if index > 0 else count + index
