"""Reader of Wavefront OBJ files: vertices and polygons; materials, normals and textures are ignored."""

import re
from pathlib import Path
from typing import TypeVar

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError, triangulate_faces

Number = TypeVar("Number", int, float)


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
                vertices.append(_point(words[1:]))
            elif words[:1] in (["f"], ["fo"]):
                faces.append([_index(word, len(vertices)) for word in words[1:]])
        except ValueError as error:
            raise MeshFileError(f"line {number} cannot be read: '{line[:60]}' ({error})") from error
        if (words[:1] == ["v"] and len(vertices[-1]) < 3) or (words[:1] in (["f"], ["fo"]) and len(faces[-1]) < 3):
            raise MeshFileError(f"line {number} has fewer than three values: '{line[:60]}'")
    points = np.array(vertices, np.float64).reshape(-1, 3)
    return points, triangulate_faces(points, faces)


def _lines(path: Path) -> list[str]:
    """Return the lines without comments; a vertex or face whose line ends in a backslash goes on in the next.

    Comments and names of files end so as well ("# from C:\\parts\\"), and swallow no line.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding, errors="replace")
    if "\0" in text:
        raise MeshFileError("it holds NUL bytes, as an interrupted copy leaves them: fetch it again")
    lines, goes_on = list[str](), False
    for whole in re.split("\r\n|\n|\r", text):
        line = whole.partition("#")[0]
        line = f"{lines.pop()} {line}" if goes_on else line
        goes_on = line.endswith("\\") and line[:-1].split()[:1] in ([], ["v"], ["f"], ["fo"])
        lines.append(line[:-1] if goes_on else line)
    return lines


def _point(words: list[str]) -> list[float]:
    """Return x, y, z of a vertex: x y z, x y z w with the weight w that divides them, or x y z and a colour."""
    numbers = [_number(word, float) for word in words]
    if len(numbers) != 4 or numbers[3] == 1.0:
        return numbers[:3]
    if not abs(numbers[3]) > 1e-12:
        raise ValueError(f"the weight w of a vertex must not be {numbers[3]:g}")
    return [number / numbers[3] for number in numbers[:3]]


def _number(word: str, kind: type[Number]) -> Number:
    """Return a number in plain digits: Python alone reads 1_000 and digits of other scripts."""
    if "_" in word or not word.isascii():
        raise ValueError(f"'{word[:20]}' is no number")
    return kind(word)


def _index(word: str, count: int) -> int:
    """Return the vertex index, from 0, in a corner `v`, `v/vt`, `v//vn` or `v/vt/vn`."""
    index = _number(word.partition("/")[0], int)
    if index == 0:
        raise ValueError("indices start at 1")
    return index - 1 if index > 0 else count + index
