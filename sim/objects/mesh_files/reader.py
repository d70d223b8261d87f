"""One function that reads a mesh file of any known format."""

from pathlib import Path

import numpy as np

from dexgrasp.sim.objects.mesh_files.gltf import read_glb
from dexgrasp.sim.objects.mesh_files.obj import read_obj
from dexgrasp.sim.objects.mesh_files.ply import read_ply
from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError
from dexgrasp.sim.objects.mesh_files.stl import read_stl
from dexgrasp.utils.readers import foreign_file


def read_surface(path: Path) -> tuple[Array, Faces]:
    """Return vertices (v, 3) float64, in the file's unit, and triangles (t, 3) int64 of a mesh file.

    Raises MeshFileError, with the reason, for a file that is damaged, empty or of another format.
    """
    if kind := foreign_file(path):
        raise MeshFileError(f"unreadable: {kind}")
    try:
        vertices, faces = READERS[path.suffix.lower()](path)
    except MeshFileError as error:
        raise MeshFileError(f"unreadable: {error}") from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # damaged files raise many kinds in the readers
        said = " ".join(str(error).split())[:160]
        raise MeshFileError(
            f"unreadable: not a valid {path.suffix[1:].upper()} file: {type(error).__name__}: {said}"
        ) from error
    if len(faces) == 0 or len(vertices) < 4:
        raise MeshFileError(f"empty: {len(vertices)} vertices, {len(faces)} faces")
    if (bad := int((~np.isfinite(vertices)).any(axis=1).sum())) > 0:
        raise MeshFileError(f"not finite: {bad} of {len(vertices)} vertices are NaN or infinite")
    return vertices, faces


READERS = {".obj": read_obj, ".stl": read_stl, ".ply": read_ply, ".glb": read_glb}
SUFFIXES = tuple(READERS)
"""Endings of mesh files, in lower case."""
