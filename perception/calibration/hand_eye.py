"""Hand-eye calibration of a fixed camera from images of a board on the robot's flange or on the table.

The pose of flange or board in the world is known for each image.

flange:  T_world_flange[i] @ T_flange_board = T_world_cam @ T_cam_board[i]     both constants unknown
table:   T_world_board[i]                   = T_world_cam @ T_cam_board[i]     the camera alone unknown

A linear solution (Park and Martin, 1994) initializes two fits of all corners in all images: one with corrections of the
intrinsics, which checks them and gives the uncertainty, and one with the stated intrinsics, which gives the pose. A set
of images that does not determine the result, or contradicts the stated intrinsics or board, is refused with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dexgrasp.perception.calibration.charuco import BoardCfg, BoardDetection
from dexgrasp.perception.calibration.contradictions import LimitsCfg, contradictions
from dexgrasp.perception.calibration.conventions import explain_misfit
from dexgrasp.perception.calibration.linear_solution import (
    MIN_VIEWS,
    BadCalibrationError,
    Mounted,
    linear_solution,
    rotation_vector,
)
from dexgrasp.perception.calibration.mixed_fit import BOARD, INTRINSICS, BoardViews, MixedFit, MixedModel
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.numbers import CARRIER, check_rigid

OUTLIER_RATIO = 4.0
"""Ratio of a view's error to the median of all views above which the error message names the view."""
COVERED = 0.98
"""Probability from which the stated uncertainty is computed; of 95 % that it promises, the rest is for few views."""


@dataclass(frozen=True)
class Calibration:
    """Pose of the camera with its residuals and uncertainty."""

    T_world_cam: NDArray[np.float64]
    T_flange_board: NDArray[np.float64]
    """(4, 4) board to flange; identity if the board lies on the table."""
    names: tuple[str, ...]
    """Names of the views, in the order of the arrays below."""
    reprojection_px: NDArray[np.float64]
    """(view,) root mean square over its corners."""
    position_m: NDArray[np.float64]
    """(view,) distance between the board position from this view and that from all views."""
    rotation_rad: NDArray[np.float64]
    """(view,) angle between the board orientation from this view and that from all views."""
    uncertainty_m: float
    """Distance from the true position of the camera that is not exceeded with probability COVERED."""
    uncertainty_rad: float
    """Angle to the true orientation of the camera that is not exceeded with probability COVERED."""
    notes: tuple[str, ...] = ()
    """Significant differences from the stated intrinsics and board that are within the limits."""

    def summary(self) -> dict[str, Any]:
        """Return the residuals as plain numbers in px, mm and degrees; uncertainties are those of 95 %."""
        return {
            "views": len(self.names),
            "reprojection_px_rms": round(float(np.sqrt((self.reprojection_px**2).mean())), 4),
            "reprojection_px_worst": round(float(self.reprojection_px.max()), 4),
            "position_mm_median": round(1e3 * float(np.median(self.position_m)), 4),
            "position_mm_worst": round(1e3 * float(self.position_m.max()), 4),
            "rotation_deg_worst": round(float(np.degrees(self.rotation_rad.max())), 4),
            "uncertainty_mm": round(1e3 * self.uncertainty_m, 4),
            "uncertainty_deg": round(float(np.degrees(self.uncertainty_rad)), 4),
        }


def calibrate(
    views: Sequence[BoardDetection],
    T_world_carrier: NDArray[np.float64],
    board: BoardCfg,
    camera: Intrinsics,
    mounted: Mounted,
    limits: LimitsCfg | None = None,
    stated_sd: float = 0.1,
) -> Calibration:
    """Compute the camera's pose from views of the board and the flange or board poses (view, 4, 4).

    `camera` gave the rays of the views; `stated_sd`: relative standard deviation of its focal length and of the square
    size before the images are seen. Raises BadCalibrationError for sets that give no result or a bad one, or that
    contradict camera or board.
    """
    limits = limits or LimitsCfg()
    _check_set(views, T_world_carrier, mounted)
    if advice := explain_misfit(T_world_carrier, np.stack([view.T_cam_board for view in views]), mounted):
        raise BadCalibrationError(f"calibration refused: {advice}")
    return _calibrate(views, T_world_carrier, board, camera, mounted, limits, stated_sd)


def _calibrate(
    views: Sequence[BoardDetection],
    T_world_carrier: NDArray[np.float64],
    board: BoardCfg,
    camera: Intrinsics,
    mounted: Mounted,
    limits: LimitsCfg,
    stated_sd: float,
) -> Calibration:
    seen = np.stack([view.T_cam_board for view in views])
    cam, mount = linear_solution(T_world_carrier, seen, mounted)
    data = BoardViews(
        view=np.concatenate([np.full(len(view.ids), number) for number, view in enumerate(views)]),
        corners_m=board.corners_m()[np.concatenate([view.ids for view in views])],
        rays=np.concatenate([view.rays for view in views]),
        carriers=T_world_carrier,
    )
    prior = {name: factor * stated_sd for name, factor in (INTRINSICS | BOARD).items()}
    of_board = {name: prior[name] for name in BOARD}
    flange = mounted == "flange"
    try:
        free = MixedModel(data, cam, mount, flange, prior).fit()
        fixed = MixedModel(data, free.T_world_cam, free.T_carrier_board, flange, of_board).fit(free.log_sd)
    except np.linalg.LinAlgError as error:
        raise BadCalibrationError(
            "calibration refused: no camera pose fits the images; check the poses (metres, wxyz, world frame), the "
            "order of the images, and the size of the squares"
        ) from error
    result = _assess(data, tuple(view.name for view in views), camera, free, fixed)
    # position errors that remain with corrected intrinsics are those of the poses
    if _position_errors(data, free.view_errors, mount).max() > 1e-3 * limits.position_mm:
        robust = MixedModel(data, cam, mount, flange, {}).robust_view_errors()
        _refuse_odd_views(_position_errors(data, robust, mount), result.names, limits)
        _check_limits(result, limits)
    grave, slight = contradictions(free, data.rays, camera, board, limits)
    if grave:
        raise BadCalibrationError("calibration refused: " + "; ".join(grave))
    result = replace(result, notes=tuple(slight))
    _check_limits(result, limits)
    return result


def _assess(
    data: BoardViews, names: tuple[str, ...], camera: Intrinsics, free: MixedFit, fixed: MixedFit
) -> Calibration:
    square = ((fixed.residuals * (camera.fx, camera.fy)) ** 2).sum(1)
    between = np.linalg.inv(free.T_world_cam) @ fixed.T_world_cam
    covariance, freedom = free.pose_covariance, free.degrees_of_freedom
    return Calibration(
        T_world_cam=fixed.T_world_cam,
        T_flange_board=fixed.T_carrier_board,
        names=names,
        reprojection_px=np.sqrt(np.bincount(data.view, square) / np.bincount(data.view)),
        position_m=_position_errors(data, fixed.view_errors, fixed.T_carrier_board),
        rotation_rad=np.linalg.norm(fixed.view_errors[:, :3], axis=1),
        uncertainty_m=covered_distance(between[:3, 3], covariance[3:, 3:], freedom),
        uncertainty_rad=covered_distance(rotation_vector(between[:3, :3]), covariance[:3, :3], freedom),
    )


def covered_distance(offset: NDArray[np.float64], covariance: NDArray[np.float64], freedom: float) -> float:
    """Return the COVERED quantile of the length of `offset` (3,) plus a normal error (3,).

    The square of that length is taken for a scaled chi-squared variable with its mean and variance, and the covariance
    for an estimate with `freedom` degrees of freedom.
    """
    mean = offset @ offset + np.trace(covariance)
    variance = 2 * (covariance**2).sum() + 4 * offset @ covariance @ offset
    spread = max(float(2 * mean**2 / variance), 1e-3)
    return float(np.sqrt(mean * stats.f.ppf(COVERED, spread, max(freedom, 1.0))))


def _check_set(views: Sequence[BoardDetection], carriers: NDArray[np.float64], mounted: Mounted) -> None:
    least = MIN_VIEWS[mounted]
    if len(views) < least:
        raise BadCalibrationError(
            f"{len(views)} usable views of the board; {least} are needed with it on the {mounted}"
        )
    if len(views) != len(carriers):
        raise ValueError(f"{len(views)} views, but {len(carriers)} poses of the {mounted}")
    for view, T in zip(views, carriers, strict=True):
        check_rigid(T, f"{view.name}: pose of the {mounted}", CARRIER)


def _position_errors(data: BoardViews, view_errors: NDArray[np.float64], mount: NDArray[np.float64]) -> NDArray:
    """Return how far (view,) [m] the middle of the board is in each image from where its carrier pose puts it."""
    middle = (mount @ np.append(data.corners_m.mean(0), 1.0))[:3]
    return np.linalg.norm(view_errors[:, 3:] + np.cross(view_errors[:, :3], middle), axis=1)


def _refuse_odd_views(position_m: NDArray[np.float64], names: Sequence[str], limits: LimitsCfg) -> None:
    """Refuse a set in which few images contradict all others: their poses are wrong, not the camera."""
    least = max(OUTLIER_RATIO * float(np.median(position_m)), 1e-3 * limits.position_mm)
    if odd := [name for name, error_m in zip(names, position_m, strict=True) if error_m > least]:
        raise BadCalibrationError(
            f"calibration refused: position_mm_worst is {1e3 * position_m.max():.3g}, at most {limits.position_mm:g} "
            f"is accepted; the odd ones are {', '.join(odd)}: take them again or leave them out"
        )


def _check_limits(result: Calibration, limits: LimitsCfg) -> None:
    summary = result.summary()
    reasons = []
    for key, limit in (
        ("reprojection_px_rms", limits.reprojection_px),
        ("position_mm_worst", limits.position_mm),
        ("uncertainty_mm", limits.uncertainty_mm),
        ("uncertainty_deg", limits.uncertainty_deg),
    ):
        if not summary[key] <= limit:  # also where it is not a number
            reasons.append(f"{key} is {summary[key]:.3g}, at most {limit:g} is accepted")
    if not reasons:
        return
    if reasons[0].startswith("uncertainty"):
        advice = (
            "take more views with the board in other places, nearer to the camera, tilted by 20 to 45 degrees, or set "
            "stated_sd if focal length and square size are known to be better"
        )
    else:
        advice = "check the poses (metres, wxyz, world frame), the size of the squares, and the intrinsics"
    raise BadCalibrationError(f"calibration refused: {', '.join(reasons)}; {advice}")
