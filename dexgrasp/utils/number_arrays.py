"""Take numbers from a caller's value or an .npz file: text, objects and masked entries are refused."""

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.text import one_line

NUMBERS = "iuf"
"""Kinds of numpy types that are numbers."""
MAX_HEADER_BYTES = 1000
"""Largest header of an array in an .npz file; that of NumPy takes 118."""


def number_array(value: Any, kinds: str = NUMBERS) -> NDArray[Any]:
    """Return a copy of an array-like of numbers; `kinds`: accepted kinds of numpy types.

    Raises ValueError for text, objects, complex numbers, dates, masked values and what is no array.
    """
    try:
        parts = value if isinstance(value, (list, tuple)) else ()
        masked = np.ma.is_masked(value) or any(map(np.ma.is_masked, parts))
        array = np.array(value)
    except Exception as error:  # an object may raise anything where it is converted
        raise ValueError(f"expected an array of numbers, got {type(value).__name__}") from error
    if masked:
        raise ValueError("it has masked values")
    if array.dtype.kind not in kinds:
        raise ValueError(f"expected numbers, got {type(value).__name__} of type {array.dtype}")
    return array


def finite_vector(value: Any, size: int) -> NDArray[np.float64] | None:
    """Return finite numbers (size,) of plausible magnitude, or None."""
    try:
        array = number_array(value).astype(np.float64)
    except ValueError:
        return None
    return array if array.shape == (size,) and (np.abs(array) < 1e6).all() else None


def number(value: Any) -> float:
    """Return one number; NaN for everything else."""
    try:
        array = number_array(value)
    except ValueError:
        return float("nan")
    return float(array) if array.ndim == 0 else float("nan")


def parse_npz(content: bytes, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name, in C order and this machine's byte order.

    Arrays of numbers and truth values of any version, order of axes and byte order are read; nothing is unpickled, and
    nothing is allocated that the file does not hold. Raises ValueError for anything else, and for arrays of more than
    `most_bytes` together.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            items = archive.infolist()
            size = sum(item.file_size for item in items)
            if size > most_bytes:
                raise ValueError(f"its arrays take {size} bytes, at most {most_bytes} are read")
            if len({item.filename for item in items}) < len(items):
                raise ValueError("an entry occurs twice")
            if foreign := [item.filename for item in items if not item.filename.endswith(".npy")]:
                raise ValueError(f"entry {foreign[0]!r} is no .npy array")
            return {item.filename[: -len(".npy")]: _array(item.filename, archive.read(item)) for item in items}
    except Exception as error:  # zip and npy readers raise whatever broken bytes lead to, SyntaxError among them
        raise ValueError(one_line(error, 300) or type(error).__name__) from error


def _array(name: str, content: bytes) -> NDArray[Any]:
    """Return the array of a .npy entry; its header is compared with its size before anything is allocated."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER_BYTES)
        elif version in ((2, 0), (3, 0)):  # 3.0 differs in names of fields alone, and arrays with fields are refused
            header = np.lib.format.read_array_header_2_0(file, max_header_size=MAX_HEADER_BYTES)
        else:
            raise ValueError(f"version {version} of the format, expected 1.0, 2.0 or 3.0")
    except (Exception, RecursionError) as error:
        raise ValueError(f"entry {name!r} is no .npy array: {one_line(error, 300)}") from error
    shape, is_fortran, dtype = header
    if dtype.kind not in "biuf" or dtype.subdtype is not None:
        raise ValueError(f"entry {name!r}: expected numbers or truth values, got {str(dtype)[:60]}")
    values = content[file.tell() :]
    if not all(side >= 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"entry {name!r}: {len(values)} bytes of values, its header states {dtype} of shape {shape}")
    flat = np.frombuffer(values, dtype)
    return np.array(flat.reshape(shape, order="F" if is_fortran else "C"), dtype.newbyteorder("="), order="C")
