"""Find the convention of robot poses that explains why poses and images differ.

Each reading of the given poses is judged by the linear solution that it has with the images. The stated reading is
blamed where another one explains the images well and the stated one does not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dexgrasp.perception.calibration.linear_solution import (
    MIN_VIEWS,
    BadCalibrationError,
    Mounted,
    linear_solution,
    nearest_rotation,
    rotation_vector,
)

Array = NDArray[np.float64]

GOOD_M, RATIO = 0.02, 5.0
"""Median error of a reading that explains the images, and how many times the stated one's must exceed it."""
SIMPLER = 3.0
"""How many times smaller the error of a reading must be than that of one with fewer changes."""
ARM_M = 0.3
"""Length that turns errors of orientation into errors of position, about that of a forearm [m]."""
POSITIONS_M = 0.005
"""Error of the positions alone below which the rotations alone are blamed."""
LEAST_VIEWS = 6
"""Number of images from which the positions alone tell anything: each gives three numbers, nine are fitted."""

UNITS = {1.0: "", 0.001: "millimetres", 0.01: "centimetres", 0.0254: "inches"}
"""Units of positions by their size [m]."""

BOARDS = {"flange": "a board on the flange, whose poses they give", "table": "a board on the table"}
SWAPPED = {place: f"those of {board}: set mounted={place}" for place, board in BOARDS.items()}
"""Readings with the board at the other place."""


def _inverted(T: Array) -> Array:
    return np.linalg.inv(T).astype(np.float64)


def _reordered(T: Array) -> Array:
    """Return the poses whose quaternions were written x, y, z, w and read as w, x, y, z."""
    x, y, z, w = Rotation.from_matrix(T[:, :3, :3]).as_quat().T  # of scipy, scalar last
    return _turned(T, Rotation.from_quat(np.stack([w, x, y, z], 1)))


def _misordered(T: Array) -> Array:
    """Return the poses whose quaternions were written w, x, y, z and read as x, y, z, w."""
    x, y, z, w = Rotation.from_matrix(T[:, :3, :3]).as_quat().T
    return _turned(T, Rotation.from_quat(np.stack([y, z, w, x], 1)))


def _transposed(T: Array) -> Array:
    return _turned(T, Rotation.from_matrix(T[:, :3, :3]).inv())


def _in_degrees(T: Array) -> Array:
    """Return the poses whose rotation vectors in radians were taken for degrees."""
    return _turned(T, Rotation.from_rotvec(np.degrees(rotation_vector(T[:, :3, :3]))))


def _turned(T: Array, rotation: Rotation) -> Array:
    changed = T.copy()
    changed[:, :3, :3] = rotation.as_matrix()
    return changed


ROTATIONS: dict[str, Callable[[Array], Array]] = {
    "quaternions that were written x, y, z, w: give w, x, y, z": _reordered,
    "quaternions that were read as x, y, z, w and written so: give w, x, y, z as they are": _misordered,
    "rotations of the world in the {place}: invert the rotations": _transposed,
    "angles in radians that were taken for degrees: convert them": _in_degrees,
}
"""Readings of rotations."""


@dataclass(frozen=True)
class Reading:
    """One way to read the given poses."""

    mounted: Mounted
    carriers: Array
    """(view, 4, 4) poses in this reading [m]."""
    changes: tuple[str, ...]
    """What differs from the stated reading, in words."""


def explain_misfit(carriers: Array, seen: Array, mounted: Mounted) -> str:
    """Return which convention of the poses explains images that contradict them; empty where none does.

    `carriers` (view, 4, 4): poses of the flange or board as given; `seen` (view, 4, 4): board to camera.
    """
    if len(seen) < MIN_VIEWS[mounted]:
        return ""
    stated_m = _error_m(Reading(mounted, carriers, ()), seen)
    if stated_m < GOOD_M:
        return ""
    best, best_m = None, np.inf
    for reading in sorted(_readings(carriers, mounted), key=lambda one: len(one.changes)):
        error_m = _error_m(reading, seen)
        if error_m * (SIMPLER if best is not None and len(reading.changes) > len(best.changes) else 1.0) < best_m:
            best, best_m = reading, error_m
    if best is not None and best_m < GOOD_M and stated_m > RATIO * best_m:
        if best.changes[0] in SWAPPED.values():
            return (
                f"the poses fit {BOARDS[best.mounted]} (median error {1e3 * best_m:.2g} mm), not one on the {mounted} "
                f"({_millimetres(stated_m)}): set mounted={best.mounted}"
            )
        errors = f"(median error {1e3 * best_m:.2g} mm, as given {_millimetres(stated_m)})"
        return f"the poses look like {' and '.join(best.changes)} {errors}"
    return _blame_rotations(carriers, seen, mounted, stated_m)


def _readings(carriers: Array, mounted: Mounted) -> Iterator[Reading]:
    """Yield the readings of given poses, but for the stated one."""
    other: Mounted = "table" if mounted == "flange" else "flange"
    place = {"flange": "flange", "table": "board"}[mounted]
    inverse = f"poses of the world in the {place}: invert them"
    rotations = {"": lambda T: T} | {text.format(place=place): made for text, made in ROTATIONS.items()}
    for size_m, unit in UNITS.items():
        scaled = carriers.copy()
        scaled[:, :3, 3] *= size_m
        unit_words = (f"{unit} (factor {1 / size_m:.4g}): give positions in metres",) if unit else ()
        for words, rotate in rotations.items():
            for backwards in (False, True):
                poses = rotate(scaled)
                changes = (*unit_words, *((words,) if words else ()), *((inverse,) if backwards else ()))
                if changes:
                    yield Reading(mounted, _inverted(poses) if backwards else poses, changes)
        yield Reading(other, scaled, (*unit_words, SWAPPED[other]))


def _error_m(reading: Reading, seen: Array) -> float:
    """Return the median error of poses and images [m], with rotations at ARM_M; infinite without a solution."""
    if len(seen) < MIN_VIEWS[reading.mounted]:
        return np.inf
    try:
        cam, mount = linear_solution(reading.carriers, seen, reading.mounted)
    except (BadCalibrationError, np.linalg.LinAlgError):
        return np.inf
    off = np.linalg.inv(reading.carriers) @ cam @ seen @ np.linalg.inv(mount)
    angle = np.linalg.norm(rotation_vector(off[:, :3, :3]), axis=1)
    return float(np.median(np.linalg.norm(off[:, :3, 3], axis=1) + ARM_M * angle))


def _millimetres(error_m: float) -> str:
    return f"{1e3 * error_m:.3g} mm" if np.isfinite(error_m) else "no solution"


def _blame_rotations(carriers: Array, seen: Array, mounted: Mounted, stated_m: float) -> str:
    """Return that the rotations of the poses are wrong where their positions alone fit the images."""
    if len(seen) < LEAST_VIEWS:
        return ""
    for size_m, unit in UNITS.items():
        error_m = _position_error_m(carriers[:, :3, 3] * size_m, seen, mounted)
        if error_m < POSITIONS_M and stated_m > RATIO * error_m:
            units = f" in {unit}" if unit else ""
            return (
                f"the positions{units} of the poses fit the images (median error {1e3 * error_m:.2g} mm), their "
                f"rotations do not ({_millimetres(stated_m)}): were angles in degrees taken for radians, or Euler "
                "angles in another order?"
            )
    return ""


def _position_error_m(pos: Array, seen: Array, mounted: Mounted) -> float:
    """Return the median error [m] of positions (view, 3) alone: any rotations of the carriers are allowed.

    The carrier is at a constant place of the board's frame: pos = T_world_cam @ seen @ place.
    """
    if np.linalg.matrix_rank(pos - pos.mean(0), tol=0.02) < 3:
        return np.inf

    def residuals(place: Array) -> Array:
        there = np.einsum("nij,j->ni", seen[:, :3, :3], place) + seen[:, :3, 3]
        centred, wanted = there - there.mean(0), pos - pos.mean(0)
        R = nearest_rotation(wanted.T @ centred)
        return (centred @ R.T - wanted).reshape(-1)

    place = np.zeros(3)
    if mounted == "flange":
        place = least_squares(residuals, place, loss="soft_l1", f_scale=0.005).x
    return float(np.median(np.linalg.norm(residuals(place).reshape(-1, 3), axis=1)))
