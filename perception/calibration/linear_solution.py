"""Solve the hand-eye equations linearly (Park and Martin, 1994)."""

from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Mounted = Literal["flange", "table"]
MIN_VIEWS = {"flange": 6, "table": 3}
MIN_TURN_RAD = np.radians(10.0)
"""The flange must turn about a second axis by this much (root mean square over pairs of views)."""


class BadCalibrationError(ValueError):
    """Calibration that failed or is too inaccurate; the message gives the cause and the remedy."""


def linear_solution(
    carriers: NDArray[np.float64], seen: NDArray[np.float64], mounted: Mounted
) -> tuple[NDArray, NDArray]:
    """Return T_world_cam and T_carrier_board. Raises BadCalibrationError where the flange hardly turned."""
    if mounted == "flange":
        return _hand_eye(carriers, seen)
    return _mean_pose(carriers @ np.linalg.inv(seen)), np.eye(4)


def _hand_eye(carriers: NDArray[np.float64], seen: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return T_world_cam and T_flange_board from A X = X B over all pairs of views.

    The rotation is solved first, then the translation.
    """
    pairs = np.array(list(combinations(range(len(seen)), 2)))
    A = carriers[pairs[:, 1]] @ np.linalg.inv(carriers[pairs[:, 0]])
    B = seen[pairs[:, 1]] @ np.linalg.inv(seen[pairs[:, 0]])
    alpha, beta = rotation_vector(A[:, :3, :3]), rotation_vector(B[:, :3, :3])
    turn = np.sqrt(max(float(np.linalg.eigvalsh(alpha.T @ alpha / len(alpha))[1]), 0.0))
    if turn < MIN_TURN_RAD:
        raise BadCalibrationError(
            f"the flange turns about a second axis by {np.degrees(turn):.1f} deg only: turn the board about two "
            "different axes by 20 deg or more between the views"
        )
    R = nearest_rotation(alpha.T @ beta)
    left = (A[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    right = (B[:, :3, 3] @ R.T - A[:, :3, 3]).reshape(-1)
    cam = np.eye(4)
    cam[:3, :3], cam[:3, 3] = R, np.linalg.lstsq(left, right)[0]
    return cam, _mean_pose(np.linalg.inv(carriers) @ cam @ seen)


def _mean_pose(T: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = np.eye(4)
    mean[:3, :3], mean[:3, 3] = nearest_rotation(T[:, :3, :3].sum(0)), np.median(T[:, :3, 3], axis=0)
    return mean


def nearest_rotation(M: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation (3, 3) that is nearest to a matrix."""
    U, _, Vt = np.linalg.svd(M)
    return U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt


def rotation_vector(R: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation vectors (..., 3) [rad] of matrices (..., 3, 3)."""
    return Rotation.from_matrix(R).as_rotvec()
