"""Read lengths, rates, focal lengths and poses of cameras, with their units and ranges.

Text, booleans, NaN, masked and complex values are refused, never converted. Errors name the key, the unit, the range
and, where a power of ten brings a length into its range, the unit in which it seems to be given.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.number_arrays import number_array
from dexgrasp.utils.text import shown

Array = NDArray[np.float64]

RIGID_TOLERANCE = 1e-5
"""Tolerance of the orthonormality of rotation matrices read from text."""
UNIT_TOLERANCE = 1e-3
"""Tolerance of the unit length of quaternions read from text."""
FACTORS = {1000.0: "millimetres", 100.0: "centimetres"}


@dataclass(frozen=True)
class Quantity:
    """Unit and range of a number."""

    unit: str
    """Unit in words."""
    low: float
    high: float

    def read(self, value: Any, name: str) -> float:
        """Return one number in the range. Raises ValueError that names `name`, unit, range and value."""
        numbers = _numbers(value)
        if numbers is None or numbers.ndim or not self.low <= float(numbers) <= self.high:
            raise ValueError(f"{name} must be a number {self}, got {_said(value)}{self._remedy(numbers)}")
        return float(numbers)

    def read_all(self, value: Any, name: str, size: int) -> Array:
        """Return `size` numbers in the range. Raises ValueError like `read`."""
        numbers = _numbers(value)
        good = numbers is not None and numbers.shape == (size,)
        if numbers is None or not good or not ((self.low <= numbers) & (numbers <= self.high)).all():
            raise ValueError(f"{name} must be {size} numbers {self}, got {_said(value)}{self._remedy(numbers)}")
        return numbers

    def __str__(self) -> str:
        return f"({self.unit}) from {self.low:g} to {self.high:g}" if self.high < 1e300 else f"({self.unit})"

    def _remedy(self, numbers: Array | None) -> str:
        """Return the unit in which a length seems to be given."""
        if self.unit != "m" or numbers is None or not numbers.size or not np.isfinite(numbers).all():
            return ""
        for factor, unit in reversed(FACTORS.items()):
            if np.abs(numbers).max() <= factor * self.high:
                return f": in {unit}? divide by {factor:g}"
        return ""


POSITION = Quantity("m", -10.0, 10.0)
"""Position of a camera or board in the world."""
BASELINE = Quantity("m", -0.5, 0.5)
"""Position of the depth camera in the frame of the colour camera of one device."""
CARRIER = Quantity("length", -1e5, 1e5)
"""Position of a flange or board for a calibration, whose images tell its unit."""
DEPTH_UNIT = Quantity("m per unit of the image", 1e-5, 0.01)
"""Depth unit of images of whole numbers: 0.0001 to 0.001 of the cameras on the market, 0.01 of some files."""
FRAME_RATE = Quantity("Hz", 1e-3, 10_000.0)
"""Rate of a folder of frames."""
FINITE = Quantity("finite", -1.7e308, 1.7e308)
QUATERNION = Quantity("unit quaternion, w first", -1.001, 1.001)
DEPTH_RANGE_M = 0.01, 20.0
"""Range of the median of a depth image with valid pixels [m]."""


def check_rigid(T: Any, name: str, position: Quantity = POSITION) -> None:
    """Raise ValueError unless T is the (4, 4) matrix of a rotation and a translation in the range."""
    matrix = _numbers(T)
    if matrix is None or matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be a finite (4, 4) matrix, got shape {np.shape(T)}: {_said(T)}")
    R = matrix[:3, :3]
    off = np.abs(R @ R.T - np.eye(3)).max()
    last = np.abs(matrix[3] - (0, 0, 0, 1)).max()
    if off > RIGID_TOLERANCE or np.linalg.det(R) < 0 or last > RIGID_TOLERANCE:
        raise ValueError(
            f"{name} is not a rotation with a translation (off by {max(off, last):.1e}){_fault(matrix)}: "
            f"{np.round(matrix, 4).tolist()}"
        )
    position.read_all(matrix[:3, 3], f"{name}: its position", 3)


def unit_quaternion(value: Any, name: str) -> Array:
    """Return a quaternion (4,) wxyz of exactly unit length.

    Raises ValueError where it is far from unit length.
    """
    quat = QUATERNION.read_all(value, name, 4)
    length = float(np.linalg.norm(quat))
    if abs(length - 1) > UNIT_TOLERANCE:
        raise ValueError(f"{name}: the quaternion wxyz {quat.tolist()} has length {length:.4f}, expected 1")
    return quat / length


def check_depth(depth_m: NDArray[np.float32], name: str) -> None:
    """Raise ValueError where a depth image [m] is in another unit than it says: its median shows that.

    A fraction of the pixels is looked at; an image of holes alone passes.
    """
    part = depth_m[::4, ::4]
    valid = part[part > 0]
    if not valid.size:
        return
    median, (low, high) = float(np.median(valid)), DEPTH_RANGE_M
    if not low <= median <= high:
        factor = 0.001 if median > high else 1000.0
        raise ValueError(
            f"{name}: its median depth is {median:.3g} m, expected {low:g} to {high:g} m: is the depth unit "
            f"{factor:g} of the stated one, or the byte order the other one?"
        )


def _numbers(value: Any) -> Array | None:
    """Return finite or infinite numbers of any shape; None for everything else."""
    items = np.ravel(np.array(value, object)).tolist() if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(item, (bool, np.bool_)) for item in items):
        return None
    try:
        return number_array(value).astype(np.float64)
    except ValueError:
        return None


def _said(value: Any) -> str:
    return f"the text {value!r}: write it without quotes" if isinstance(value, str) else shown(value)


def _fault(matrix: Array) -> str:
    """Return what was done to a matrix of a pose, in words; empty where nothing explains it."""
    R = matrix[:3, :3]
    if np.abs(matrix[3, :3]).max() > RIGID_TOLERANCE and np.abs(matrix[:3, 3]).max() <= RIGID_TOLERANCE:
        return ": it is transposed, its last row must be 0 0 0 1"
    square = R @ R.T
    scale = np.sqrt(np.trace(square) / 3)
    if scale > 0 and np.abs(square / scale**2 - np.eye(3)).max() <= RIGID_TOLERANCE:
        if np.linalg.det(R) < 0:
            return ": its axes are left-handed"
        if abs(scale - 1) > RIGID_TOLERANCE:
            return f": its axes have length {scale:.4g}, expected 1"
    return ""
