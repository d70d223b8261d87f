"""Take numbers from a caller's value: text, objects and masked entries are refused, never converted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = "iuf"
"""Kinds of numpy types that are numbers."""


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
