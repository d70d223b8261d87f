"""One function that reads a mesh file of any known format."""

import re
import struct
from pathlib import Path

from dexgrasp.sim.objects.mesh_files.gltf import read_glb
from dexgrasp.sim.objects.mesh_files.obj import read_obj
from dexgrasp.sim.objects.mesh_files.ply import read_ply
from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError, NotFiniteError, check_finite
from dexgrasp.sim.objects.mesh_files.stl import read_stl
from dexgrasp.utils.readers import HEAD_BYTES, foreign_file
from dexgrasp.utils.text import counted, one_line


def read_surface(path: Path) -> tuple[Array, Faces]:
    """Return vertices (v, 3) float64, in the file's unit, and triangles (t, 3) int64 of a mesh file.

    Raises MeshFileError, with the reason, for a file that is damaged, empty or of another format.
    """
    if kind := foreign_file(path):
        raise MeshFileError(f"unreadable: {kind}")
    if (ending := _true_ending(path)) not in ("", path.suffix.lower()):
        raise MeshFileError(f"unreadable: by its content it is a {ending[1:].upper()} file: rename it to {ending}")
    try:
        vertices, faces = READERS[path.suffix.lower()](path)
    except NotFiniteError:
        raise
    except MeshFileError as error:
        raise MeshFileError(f"unreadable: {error}") from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # damaged files raise many kinds in the readers
        kind = f"{path.suffix[1:].upper()} file: {type(error).__name__}"
        raise MeshFileError(f"unreadable: not a valid {kind}: {one_line(error, 160)}") from error
    if len(faces) == 0 or len(vertices) < 4:
        raise MeshFileError(
            f"empty: {counted(len(vertices), 'vertex', 'vertices')}, {counted(len(faces), 'face')}; expected the "
            "closed surface of a body: export its faces, or leave it out"
        )
    check_finite(vertices)
    return vertices, faces


def _true_ending(path: Path) -> str:
    """Return the ending that belongs to the first bytes of a file, "" where they do not tell; OBJ has no mark."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    count = struct.unpack_from("<I", head, 80)[0] if len(head) > 84 else 0
    if count and path.stat().st_size == 84 + 50 * count:
        return ".stl"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"solid\b[^\n\r]*\s+facet\b", text, re.I):
        return ".stl"
    return ".glb" if head[:4] == b"glTF" else ".ply" if re.match(rb"ply\s+(format|comment)\b", text) else ""


READERS = {".obj": read_obj, ".stl": read_stl, ".ply": read_ply, ".glb": read_glb}
SUFFIXES = tuple(READERS)
"""Endings of mesh files, in lower case."""
