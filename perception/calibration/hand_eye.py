"""Hand-eye calibration of a fixed camera from images of a board on the robot's flange or on the table.

The pose of flange or board in the world is known for each image.

flange:  T_world_flange[i] @ T_flange_board = T_world_cam @ T_cam_board[i]     both constants unknown
table:   T_world_board[i]                   = T_world_cam @ T_cam_board[i]     the camera alone unknown

A linear solution (Park and Martin, 1994) initializes a least-squares fit of all corners in all images. A set of
images that does not determine the result is refused with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares
from scipy.spatial.transform import Rotation

from dexgrasp.perception.calibration.charuco import BoardCfg, BoardDetection
from dexgrasp.perception.cameras.depth import check_rigid
from dexgrasp.utils.bounds import Bounds, bounded

Mounted = Literal["flange", "table"]
MIN_VIEWS = {"flange": 6, "table": 3}
MIN_TURN_RAD = np.radians(10.0)
"""The flange must turn about a second axis by this much (root mean square over pairs of views)."""
OUTLIER_RATIO = 4.0
"""Ratio of a view's error to the median of all views above which the error message names the view."""


class BadCalibrationError(ValueError):
    """Calibration that failed or is too inaccurate; the message gives the cause and the remedy."""


@dataclass(frozen=True)
@bounded
class LimitsCfg:
    """Error limits above which a calibration is refused."""

    reprojection_px: Annotated[float, Bounds(1e-6, 100)] = 0.8
    """Root mean square distance between detected and reprojected corners."""
    position_mm: Annotated[float, Bounds(1e-6, 1000)] = 5.0
    """Largest distance between the board position from one image and that from all images."""
    uncertainty_mm: Annotated[float, Bounds(1e-6, 1000)] = 1.5
    """Standard deviation of the camera's position that follows from the images."""
    uncertainty_deg: Annotated[float, Bounds(1e-6, 90)] = 0.15
    """Standard deviation of the camera's orientation that follows from the images."""


@dataclass(frozen=True)
class Calibration:
    """Pose of the camera with its residuals and standard deviations."""

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
    sd_m: float
    """Standard deviation of the camera's position in its worst direction."""
    sd_rad: float

    def summary(self) -> dict[str, Any]:
        """Return the residuals as plain numbers in px, mm and degrees."""
        return {
            "views": len(self.names),
            "reprojection_px_rms": round(float(np.sqrt((self.reprojection_px**2).mean())), 4),
            "reprojection_px_worst": round(float(self.reprojection_px.max()), 4),
            "position_mm_median": round(1e3 * float(np.median(self.position_m)), 4),
            "position_mm_worst": round(1e3 * float(self.position_m.max()), 4),
            "rotation_deg_worst": round(float(np.degrees(self.rotation_rad.max())), 4),
            "uncertainty_mm": round(1e3 * self.sd_m, 4),
            "uncertainty_deg": round(float(np.degrees(self.sd_rad)), 4),
        }


def calibrate(
    views: Sequence[BoardDetection],
    T_world_carrier: NDArray[np.float64],
    board: BoardCfg,
    focal_px: float,
    mounted: Mounted,
    limits: LimitsCfg | None = None,
) -> Calibration:
    """Compute the camera's pose from views of the board and the flange or board poses (view, 4, 4).

    `focal_px` turns errors of rays into pixels. Raises BadCalibrationError for sets that give no result or a bad one.
    """
    _check_set(views, T_world_carrier, mounted)
    seen = np.stack([view.T_cam_board for view in views])
    if mounted == "flange":
        cam, mount = _hand_eye(T_world_carrier, seen)
    else:
        cam, mount = _mean_pose(T_world_carrier @ np.linalg.inv(seen)), np.eye(4)
    problem = _Problem(views, T_world_carrier, board, focal_px, cam, mount, mounted == "flange")
    fit = least_squares(problem.residuals, problem.start(), loss="soft_l1", x_scale="jac")
    result = _assess(problem, fit, seen)
    _check_limits(result, limits or LimitsCfg())
    return result


class _Problem:
    """Reprojection errors over small changes (rotation vector, shift) of the unknown poses."""

    def __init__(
        self,
        views: Sequence[BoardDetection],
        T_world_carrier: NDArray[np.float64],
        board: BoardCfg,
        focal_px: float,
        cam: NDArray[np.float64],
        mount: NDArray[np.float64],
        mount_free: bool,
    ) -> None:
        self.views, self._carriers, self._focal_px = views, T_world_carrier, focal_px
        self._cam, self._mount, self._mount_free = cam, mount, mount_free
        self.view = np.concatenate([np.full(len(view.ids), number) for number, view in enumerate(views)])
        corners = board.corners_m()[np.concatenate([view.ids for view in views])]
        self._corners = np.concatenate([corners, np.ones((len(corners), 1))], axis=1)
        self._rays = np.concatenate([view.rays for view in views])

    def start(self) -> NDArray[np.float64]:
        """Return the parameters of no change."""
        return np.zeros(12 if self._mount_free else 6)

    def poses(self, change: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return T_world_cam and T_flange_board after a change."""
        mount = self._mount @ _small(change[6:]) if self._mount_free else self._mount
        cam = self._cam @ _small(change[:6])
        return cam, mount

    def residuals(self, change: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the errors (2 corners,) [pixel]."""
        cam, mount = self.poses(change)
        chain = np.linalg.inv(cam) @ self._carriers @ mount
        points_c = np.einsum("nij,nj->ni", chain[self.view], self._corners)
        return ((points_c[:, :2] / points_c[:, 2:3] - self._rays) * self._focal_px).reshape(-1)


def _assess(problem: _Problem, fit: OptimizeResult, seen: NDArray[np.float64]) -> Calibration:
    cam, mount = problem.poses(fit.x)
    square = (problem.residuals(fit.x).reshape(-1, 2) ** 2).sum(1)
    per_view = np.bincount(problem.view, square) / np.bincount(problem.view)
    off = np.linalg.inv(cam @ seen) @ problem._carriers @ mount  # identity if all agree
    middle = np.append(problem._corners[:, :3].mean(0), 1.0)
    noise = square.sum() / max(1, 2 * len(square) - len(fit.x))
    covariance = noise * np.linalg.pinv(fit.jac.T @ fit.jac)[:6, :6]
    sd_rad, sd_m = (float(np.sqrt(np.linalg.eigvalsh(block)[-1])) for block in (covariance[:3, :3], covariance[3:, 3:]))
    return Calibration(
        T_world_cam=cam,
        T_flange_board=mount,
        names=tuple(view.name for view in problem.views),
        reprojection_px=np.sqrt(per_view),
        position_m=np.linalg.norm((off @ middle - middle)[:, :3], axis=1),
        rotation_rad=np.linalg.norm(_rotvec(off[:, :3, :3]), axis=1),
        sd_m=sd_m,
        sd_rad=sd_rad,
    )


def _check_set(views: Sequence[BoardDetection], carriers: NDArray[np.float64], mounted: Mounted) -> None:
    least = MIN_VIEWS[mounted]
    if len(views) < least:
        raise BadCalibrationError(
            f"{len(views)} usable views of the board; {least} are needed with it on the {mounted}"
        )
    if len(views) != len(carriers):
        raise ValueError(f"{len(views)} views, but {len(carriers)} poses of the {mounted}")
    for view, T in zip(views, carriers, strict=True):
        check_rigid(T, f"{view.name}: pose of the {mounted}")


def _check_limits(result: Calibration, limits: LimitsCfg) -> None:
    summary = result.summary()
    typical = max(float(np.median(result.reprojection_px)), 0.05)
    odd = [name for name, px in zip(result.names, result.reprojection_px, strict=True) if px > OUTLIER_RATIO * typical]
    blame = f"; the odd ones are {', '.join(odd)}: take them again or leave them out" if odd else ""
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
        advice = "; take more views, nearer to the camera, with the board tilted by 20 to 45 degrees"
    else:
        advice = blame or "; check the size of the squares, the poses (metres, wxyz, world frame), the intrinsics"
    raise BadCalibrationError("calibration refused: " + ", ".join(reasons) + advice)


def _hand_eye(carriers: NDArray[np.float64], seen: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return T_world_cam and T_flange_board from A X = X B over all pairs of views.

    The rotation is solved first, then the translation.
    """
    pairs = np.array(list(combinations(range(len(seen)), 2)))
    A = carriers[pairs[:, 1]] @ np.linalg.inv(carriers[pairs[:, 0]])
    B = seen[pairs[:, 1]] @ np.linalg.inv(seen[pairs[:, 0]])
    alpha, beta = _rotvec(A[:, :3, :3]), _rotvec(B[:, :3, :3])
    turn = np.sqrt(np.linalg.eigvalsh(alpha.T @ alpha / len(alpha))[1])
    if turn < MIN_TURN_RAD:
        raise BadCalibrationError(
            f"the flange turns about a second axis by {np.degrees(turn):.1f} deg only: turn the board about two "
            "different axes by 20 deg or more between the views"
        )
    R = _nearest_rotation(alpha.T @ beta)
    left = (A[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    right = (B[:, :3, 3] @ R.T - A[:, :3, 3]).reshape(-1)
    cam = np.eye(4)
    cam[:3, :3], cam[:3, 3] = R, np.linalg.lstsq(left, right)[0]
    return cam, _mean_pose(np.linalg.inv(carriers) @ cam @ seen)


def _mean_pose(T: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = np.eye(4)
    mean[:3, :3], mean[:3, 3] = _nearest_rotation(T[:, :3, :3].sum(0)), np.median(T[:, :3, 3], axis=0)
    return mean


def _nearest_rotation(M: NDArray[np.float64]) -> NDArray[np.float64]:
    U, _, Vt = np.linalg.svd(M)
    return U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt


def _rotvec(R: NDArray[np.float64]) -> NDArray[np.float64]:
    return Rotation.from_matrix(R).as_rotvec()


def _small(change: NDArray[np.float64]) -> NDArray[np.float64]:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(change[:3]).as_matrix()
    T[:3, 3] = change[3:6]
    return T
