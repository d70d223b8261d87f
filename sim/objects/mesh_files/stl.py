"""Reader of STL files, binary or ASCII: triangles; names, colours and normals are ignored."""

import re
import struct
from pathlib import Path

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError

_HEADER, _TRIANGLE = 84, 50
_VERTEX, _FACET = re.compile(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", re.I), re.compile(rb"\bfacet\s+normal\b", re.I)
_END, _LONGEST_END = re.compile(rb"\bend\s*solid\b", re.I), 4096


def read_stl(path: Path) -> tuple[Array, Faces]:
    """Return vertices (3 t, 3) and triangles (t, 3); triangles share no vertices, as the format has none."""
    content = path.read_bytes()
    count = struct.unpack_from("<I", content, 80)[0] if len(content) >= _HEADER else 0
    beyond = len(content) - _HEADER - _TRIANGLE * count
    if count and 0 <= beyond < _TRIANGLE:  # the text of an ASCII file is a far larger number
        row = np.dtype([("numbers", "<f4", 12), ("attribute", "<u2")])
        corners = np.frombuffer(content, row, count, _HEADER)["numbers"][:, 3:].reshape(-1, 3).astype(np.float64)
    elif (
        content.removeprefix(b"\xef\xbb\xbf").lstrip()[:5].lower() == b"solid"
        and b"\0" not in content[: _HEADER + _TRIANGLE]
    ):
        corners = _ascii_corners(content)
    else:
        raise MeshFileError(_binary_fault(content, count))
    return corners, np.arange(len(corners), dtype=np.int64).reshape(-1, 3)


def _binary_fault(content: bytes, count: int) -> str:
    """Return why a binary file cannot be read; a header that begins with "solid" makes it no text."""
    if len(content) < _HEADER:
        return f"not an STL file, or cut off: {len(content)} bytes, the header of a binary one takes {_HEADER}"
    there = (len(content) - _HEADER) // _TRIANGLE
    return f"not an STL file, or cut off: its header announces {count} triangles, {there} are there"


def _ascii_corners(content: bytes) -> Array:
    found, facets = _VERTEX.findall(content), len(_FACET.findall(content))
    if not _END.search(content, max(len(content) - _LONGEST_END, 0)):
        raise MeshFileError(f"the STL file is cut off: no 'endsolid' at its end, after {facets} facets")
    if len(found) != 3 * facets:
        raise MeshFileError(f"the STL file is cut off or damaged: {facets} facets, {len(found)} vertices")
    try:
        return np.array(found, dtype=object).astype(np.float64).reshape(-1, 3)
    except ValueError as error:
        raise MeshFileError(f"the STL file has a vertex that is no number: {error}") from error
