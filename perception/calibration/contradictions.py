"""Description of significant differences between stated and fitted intrinsics and board."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dexgrasp.perception.calibration.charuco import BoardCfg
from dexgrasp.perception.calibration.mixed_fit import MixedFit, correct_rays
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.utils.bounds import Bounds, bounded

SIGNIFICANCE = 1e-3
"""Probability of a difference by chance below which it is named."""


@dataclass(frozen=True)
@bounded
class LimitsCfg:
    """Error limits above which a calibration is refused."""

    reprojection_px: Annotated[float, Bounds(1e-6, 100)] = 1.0
    """Root mean square distance between detected and reprojected corners."""
    position_mm: Annotated[float, Bounds(1e-6, 1000)] = 5.0
    """Largest distance between the board position from one image and that from all images."""
    uncertainty_mm: Annotated[float, Bounds(1e-6, 1000)] = 5.0
    """Distance from the true position of the camera that is not exceeded with 95 % probability."""
    uncertainty_deg: Annotated[float, Bounds(1e-6, 90)] = 1.5
    """Angle to the true orientation of the camera that is not exceeded with 95 % probability."""
    intrinsics_px: Annotated[float, Bounds(1e-6, 1000)] = 1.5
    """Largest significant displacement of image points between stated and fitted intrinsics."""
    square_percent: Annotated[float, Bounds(1e-6, 100)] = 1.0
    """Largest significant difference between stated and fitted size of the squares."""
    bend_mm: Annotated[float, Bounds(1e-6, 1000)] = 1.5
    """Largest significant height of the board above its plane."""


def contradictions(
    fit: MixedFit, rays: NDArray[np.float64], camera: Intrinsics, board: BoardCfg, limits: LimitsCfg
) -> tuple[list[str], list[str]]:
    """Return the significant differences beyond the limits, and those within, the gravest first."""
    found = []
    for names, measure, limit in (
        (("focal", "aspect"), _focal, limits.intrinsics_px),
        (("centre_x", "centre_y"), _centre, limits.intrinsics_px),
        (("k1", "k2", "p1", "p2"), _distortion, limits.intrinsics_px),
        (("scale", "stretch"), _square, limits.square_percent),
        (("bend_xx", "bend_xy", "bend_yy"), _bend, limits.bend_mm),
    ):
        if _chance(fit, names) < SIGNIFICANCE:
            size, text = measure(fit.corrections, rays, camera, board)
            found.append((size / limit, text))
    found.sort(reverse=True)
    return [text for size, text in found if size > 1], [text for size, text in found if size <= 1]


def _chance(fit: MixedFit, names: Sequence[str]) -> float:
    """Return the probability of larger corrections by chance (Hotelling)."""
    at = [list(fit.corrections).index(name) for name in names]
    values = np.array([fit.corrections[name] for name in names])
    square = values @ np.linalg.solve(fit.covariance[np.ix_(at, at)], values)
    return float(stats.f.sf(square / len(at), len(at), max(fit.degrees_of_freedom, 1.0)))


Corrections = dict[str, float]


def _focal(c: Corrections, rays: NDArray[np.float64], camera: Intrinsics, _: BoardCfg) -> tuple[float, str]:
    fitted = camera.fx * (1 + c["focal"] + c["aspect"]), camera.fy * (1 + c["focal"] - c["aspect"])
    radius = float(np.linalg.norm(rays, axis=1).max())
    size = max(abs(camera.fx - fitted[0]), abs(camera.fy - fitted[1])) * radius
    if abs(c["focal"]) > abs(c["aspect"]):
        off = 100 * (2 * camera.fx / (fitted[0] + fitted[1] * camera.fx / camera.fy) - 1)
        way = f"{abs(off):.1f} % too {'long' if off > 0 else 'short'}"
    else:
        way = "wrong in one direction"
    return size, (
        f"the focal length in camera.json is {way}: fx, fy {camera.fx:.1f}, {camera.fy:.1f} px instead of "
        f"{fitted[0]:.1f}, {fitted[1]:.1f} px by the poses; calibrate the intrinsics at the resolution of the images"
    )


def _centre(c: Corrections, _: NDArray[np.float64], camera: Intrinsics, __: BoardCfg) -> tuple[float, str]:
    off = c["centre_x"] * camera.fx, c["centre_y"] * camera.fy
    return float(np.hypot(*off)), (
        f"the image centre in camera.json is off by ({-off[0]:+.1f}, {-off[1]:+.1f}) px: cx, cy {camera.cx:.1f}, "
        f"{camera.cy:.1f} instead of {camera.cx + off[0]:.1f}, {camera.cy + off[1]:.1f} by the poses; calibrate the "
        "intrinsics, or check whether the images were cropped"
    )


def _distortion(c: Corrections, rays: NDArray[np.float64], camera: Intrinsics, _: BoardCfg) -> tuple[float, str]:
    only = {name: c[name] for name in ("k1", "k2", "p1", "p2")}
    moves = (correct_rays(rays, only) - rays) * (camera.fx, camera.fy)
    sizes = np.linalg.norm(moves, axis=1)
    outward = "more" if (moves[sizes.argmax()] * rays[sizes.argmax()]).sum() > 0 else "less"
    return float(sizes.max()), (
        f"the lens distortion in camera.json is wrong by up to {sizes.max():.1f} px at the edge: image points lie "
        f"{outward} far from the centre than it says; calibrate the intrinsics, or check whether the images are "
        "rectified already"
    )


def _square(c: Corrections, _: NDArray[np.float64], __: Intrinsics, board: BoardCfg) -> tuple[float, str]:
    sides = board.square_m * (1 + c["scale"] + c["stretch"]), board.square_m * (1 + c["scale"] - c["stretch"])
    size = 100 * max(abs(side / board.square_m - 1) for side in sides)
    return size, (
        f"the squares measure {1e3 * sides[0]:.2f} by {1e3 * sides[1]:.2f} mm by the poses, not "
        f"{1e3 * board.square_m:g} mm: measure the print and set board.square_m (a print has often been scaled)"
    )


def _bend(c: Corrections, _: NDArray[np.float64], __: Intrinsics, ___: BoardCfg) -> tuple[float, str]:
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    z = c["bend_xx"] * x * x + c["bend_xy"] * x * y + c["bend_yy"] * y * y
    size = 1e3 * float(np.ptp(z))
    return size, f"the board is bent by {size:.1f} mm: glue it to a flat plate"
