"""Unit of mesh files: stated by the format, or guessed from the sizes of a folder, with its doubts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

UNITS_M = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
"""Units of length that meshes are made in [m]."""
USUAL = ("m", "cm", "mm")
"""Units that are guessed; the others are rare, but raise a doubt."""
LONGEST_M = 0.35
"""Largest longest side of an object; beyond it nothing fits a hand on a table."""
MIN_LONGEST_M = 0.01
"""Smallest longest side of an object."""
TYPICAL_M = 0.12
"""Longest side of a typical thing for the hand; the unit that brings a folder nearest to it is taken."""
DOUBTFUL_FACTOR = 4.0
"""A folder whose median size is further than this factor from TYPICAL_M, in every unit, needs scale=..."""


def states_metres(path: Path) -> bool:
    """Return whether the format of a mesh file fixes its unit, the metre, as glTF does."""
    return path.suffix.lower() == ".glb"


def guess_unit(longest: Sequence[float]) -> str:
    """Return the unit ("m", "cm", "mm") that fits the meshes of a folder best.

    `longest`: longest side of each mesh in the files' unit. The median comes nearest to a hand's size. Raises
    ValueError where no unit brings it near.
    """
    middle = float(np.median(longest))
    unit = min(USUAL, key=lambda unit: _misfit(middle, unit))
    if _misfit(middle, unit) > np.log(DOUBTFUL_FACTOR) + 1e-6:
        raise ValueError(
            f"the unit of these meshes cannot be guessed: their median longest side is {middle:.4g}, which is "
            + ", ".join(f"{middle * factor:.3g} m in {name}" for name, factor in UNITS_M.items())
            + ": give unit=..., scale=..., the metres of one unit of the files, or size=..., the longest side of each "
            "mesh [m]"
        )
    return unit


def unit_doubt(longest: Sequence[float], unit: str) -> str:
    """Return why another unit than the guessed one is likely as well, with the size in each, or nothing."""
    middle = float(np.median(longest))
    others = [name for name in UNITS_M if name != unit and _is_likely(middle, name)]
    if others:
        sizes = ", ".join(f"{middle * UNITS_M[name]:.3f} m in {name}" for name in (unit, *others))
        return f"the median longest side is {sizes}; give unit=... if the first is wrong"
    strange = sum(not MIN_LONGEST_M <= side * UNITS_M[unit] <= LONGEST_M for side in longest)
    if 10 * strange > len(longest):
        return f"{strange} of {len(longest)} meshes have no size for a hand in {unit}: do the files have one unit?"
    return ""


def file_doubt(longest: float, unit: str) -> str:
    """Return the sizes of a file in the guessed unit and in a likelier one, or nothing.

    `longest`: longest side in the file's unit. A file that nothing could grasp in the guessed unit is refused, with the
    units that fit it.
    """
    size = longest * UNITS_M[unit]
    if not MIN_LONGEST_M <= size < TYPICAL_M / DOUBTFUL_FACTOR:
        return ""
    likely = [name for name in USUAL if TYPICAL_M / DOUBTFUL_FACTOR <= longest * UNITS_M[name] <= LONGEST_M]
    others = ", ".join(f"{length_text(longest * UNITS_M[name])} as {name}" for name in likely)
    return f"{length_text(size)} as {unit}, {others}: if it is in another unit, import it alone" if others else ""


def length_text(length_m: float) -> str:
    """Return a length in millimetres below 0.1 m, else in metres."""
    return f"{1000 * length_m:.3g} mm" if length_m < 0.0995 else f"{length_m:.3g} m"


def shared_units(longest: Sequence[float]) -> str:
    """Return the units in which every mesh of a folder could be grasped, or nothing.

    `longest`: longest side of each mesh in the files' unit.
    """
    fitting = [name for name, factor in UNITS_M.items() if all(_is_graspable(side * factor) for side in longest)]
    return " or ".join(f"unit={name}" for name in fitting)


def _is_graspable(longest_m: float) -> bool:
    return MIN_LONGEST_M <= longest_m <= LONGEST_M


def fitting_units(longest: float) -> str:
    """Return the units in which a mesh of this longest side could be grasped, with the sizes, or nothing."""
    fitting = {name: longest * factor for name, factor in UNITS_M.items()}
    return " or ".join(f"unit={name} ({size:.3g} m)" for name, size in fitting.items() if _is_graspable(size))


def _is_likely(longest: float, unit: str) -> bool:
    """Return whether the median of a folder may have this unit: a rare unit counts only for a usual size."""
    least, most = TYPICAL_M / DOUBTFUL_FACTOR, LONGEST_M
    if unit in USUAL:
        least, most = MIN_LONGEST_M, TYPICAL_M * DOUBTFUL_FACTOR
    return least * (1 - 1e-6) <= longest * UNITS_M[unit] <= most * (1 + 1e-6)


def _misfit(size: float, unit: str) -> float:
    return float(abs(np.log(size * UNITS_M[unit] / TYPICAL_M)))
