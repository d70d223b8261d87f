"""Archive of a JSON header and named tensors in a zip file.

Writing is atomic; reading runs no code.

header.json           a JSON object (NaN and Infinity as Python writes them)
tensors.safetensors   the tensors in the safetensors format, which other tools read, too: 8 bytes with the length of its
                      index, the index as JSON (type, shape, place of each tensor), then the values

The format is read and written here in a few lines, so that no pickle and no further dependency is needed.
"""

import json
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexgrasp.utils.files import atomic_path
from dexgrasp.utils.readers import foreign_file
from dexgrasp.utils.text import one_line

HEADER, TENSORS = "header.json", "tensors.safetensors"
DTYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "BOOL": np.bool_}
"""Types of tensors that an archive may hold, by their names in the safetensors format."""
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
LARGEST_INDEX = 2**24
"""Bytes that the index of the tensors may take."""


class ArchiveError(ValueError):
    """A file that is no archive, or a damaged or hostile one; the message says what is wrong, in one line."""


def write_archive(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the archive; the file appears complete or not at all."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    ends = np.cumsum([array.nbytes for array in arrays.values()]).tolist()
    index = {
        name: {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [end - array.nbytes, end]}
        for (name, array), end in zip(arrays.items(), ends, strict=True)
    }
    text = json.dumps(index).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(zipfile.ZipInfo(HEADER), json.dumps(header, indent=1))  # fixed date: equal data, equal bytes
        with archive.open(zipfile.ZipInfo(TENSORS), "w", force_zip64=True) as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for array in arrays.values():
                file.write(array.tobytes())


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors. Raises ArchiveError; OSError where the file cannot be read."""
    try:
        entries = read_entries(path)
        if set(entries) != {HEADER, TENSORS}:
            raise ArchiveError(f"its entries are {sorted(entries)[:8]}, expected {[HEADER, TENSORS]}")
        return _header(entries[HEADER]), _tensors(entries[TENSORS])
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, MemoryError, NotImplementedError) as error:
        said = "it is no whole zip file: empty, cut off, changed, or of another kind"
        said = said if isinstance(error, zipfile.BadZipFile) else one_line(error, 300)
        raise ArchiveError(f"{path}: {foreign_file(path, is_zip=True) or said}") from error


def entry_names(path: Path) -> list[str]:
    """Return the names of the entries of a zip file; empty where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return []


def read_entries(path: Path) -> dict[str, bytes]:
    """Return the entries of a zip file without compression; nothing is unpacked to disk."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if len({info.filename for info in infos}) < len(infos):
            raise ArchiveError("an entry occurs twice")
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
            raise ArchiveError("its entries are compressed or encrypted")
        if sum(info.file_size for info in infos) > os.path.getsize(path):
            raise ArchiveError("its entries claim to be larger than the file")
        return {info.filename: archive.read(info) for info in infos}


def _header(content: bytes) -> dict[str, Any]:
    header = json.loads(content)
    if not isinstance(header, dict):
        raise ArchiveError(f"{HEADER} holds a {type(header).__name__}, expected an object")
    return header


def _tensors(content: bytes) -> dict[str, Tensor]:
    if len(content) < 8:
        raise ArchiveError(f"{TENSORS} is cut short")
    (length,) = struct.unpack_from("<Q", content)
    if length > min(LARGEST_INDEX, len(content) - 8):
        raise ArchiveError(f"{TENSORS} claims an index of {length} bytes and has {len(content) - 8}")
    values = memoryview(content)[8 + length :]
    index = json.loads(content[8 : 8 + length])
    if not isinstance(index, dict):
        raise ArchiveError(f"the index of {TENSORS} holds a {type(index).__name__}, expected an object")
    index.pop("__metadata__", None)
    places = {name: _place(name, entry) for name, entry in index.items()}
    bounds = [(0, 0), *sorted((begin, end) for _, _, begin, end in places.values()), (len(values), len(values))]
    if any(end != begin for (_, end), (begin, _) in pairwise(bounds)):
        raise ArchiveError(f"the tensors of {TENSORS} overlap, leave gaps or do not fill it")
    return {
        name: torch.from_numpy(np.frombuffer(values[begin:end], dtype).reshape(shape).copy())
        for name, (dtype, shape, begin, end) in places.items()
    }


def _place(name: str, entry: Any) -> tuple[Any, list[int], int, int]:
    """Return type, shape, begin and end of a tensor, if its entry in the index makes sense."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if str(dtype) not in DTYPES or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ArchiveError(f"tensor '{name[:80]}': expected dtype ({', '.join(DTYPES)}), shape and data_offsets")
    size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != size:
        raise ArchiveError(
            f"tensor '{name[:80]}': shape {shape} takes {size} bytes, its place has {offsets[1] - offsets[0]}"
        )
    return DTYPES[dtype], shape, offsets[0], offsets[1]


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 8 and all(type(value) is int and value >= 0 for value in values)
