"""Fit of camera pose, board and intrinsics to board corners and flange poses with errors.

A corner is seen at   ray = lens(inverse(T_world_cam) @ T_world_carrier @ error @ T_carrier_board @ corner) + noise

where lens is a small correction of the stated intrinsics, corner belongs to a board that may be scaled and bent, and
each carrier pose (flange, or board on the table) has a random error. Carrier poses are metric, so that a wrong focal
length, centre, distortion or square size shows. Their standard deviations and that of the corners are estimated from
the residuals (restricted maximum likelihood of a linear mixed model); the covariance of the pose contains all of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

INTRINSICS = {
    "focal": 1.0,
    "aspect": 0.2,
    "centre_x": 1.0,
    "centre_y": 1.0,
    "k1": 3.0,
    "k2": 5.0,
    "p1": 0.1,
    "p2": 0.1,
}
"""Corrections of the intrinsics, and their standard deviations in multiples of that of the focal length.

Relative lengths (focal, aspect), rays at unit depth (centre), coefficients of Brown."""
BOARD = {"scale": 0.5, "stretch": 0.1, "bend_xx": 0.03, "bend_xy": 0.03, "bend_yy": 0.03}
"""Corrections of the board and their standard deviations in these multiples: relative lengths, edge heights [m]."""
ROUNDS = 8
LEAST_GROUPS = 3
"""Least number of different carrier poses from which their errors are estimated; fewer are exact."""
START_LOG_SD = np.log([2e-4, 5e-4, 3e-4])
"""Logarithms of usual standard deviations: corners at unit depth, rotations [rad] and shifts [m] of a flange."""
SPREAD_LOG_SD = 1.0
"""Standard deviation of the logarithms of the latter two among robots; few views do not tell them from 0."""
LEAST_LOG_SD, MOST_LOG_SD = np.array([-10.5, -18.0, -18.0]), 0.0
"""Range of the logarithms; no corner is found better than to 3e-5 of the focal length."""
ROBUST = 1.5e-3
"""Residual at unit depth above which a corner weighs less in the robust fit."""
_STEP = 1e-6


@dataclass(frozen=True)
class BoardViews:
    """Corners of the board in all images."""

    view: NDArray[np.int64]
    """(corner,) image of each corner."""
    corners_m: Array
    """(corner, 3) board frame."""
    rays: Array
    """(corner, 2) rays at unit depth by the stated intrinsics."""
    carriers: Array
    """(view, 4, 4) flange (or board) to world."""


@dataclass(frozen=True)
class MixedFit:
    """Estimate of poses and corrections with their covariance."""

    T_world_cam: Array
    T_carrier_board: Array
    corrections: dict[str, float]
    """Corrections by the names of INTRINSICS and BOARD."""
    pose_covariance: Array
    """(6, 6) covariance of the rotation vector [rad] and shift [m] of T_world_cam, in the camera frame."""
    covariance: Array
    """Covariance of the corrections, in their order."""
    residuals: Array
    """(corner, 2) at unit depth, with errors of carriers in it."""
    view_errors: Array
    """(view, 6) error of each carrier pose (rotation, shift) that its image shows."""
    log_sd: Array
    """(3,) logarithms of the standard deviations of corners at unit depth, carrier rotations [rad] and shifts [m]."""
    degrees_of_freedom: float
    """Number of measured values of the coarsest kind beyond the unknown poses."""


class MixedModel:
    """Gauss-Newton steps with variances estimated in each round."""

    def __init__(
        self, views: BoardViews, cam: Array, mount: Array, mount_free: bool, prior_sd: dict[str, float]
    ) -> None:
        self._data, self._cam, self._mount, self._mount_free = views, cam, mount, mount_free
        self._names = tuple(prior_sd)
        self._poses = 12 if mount_free else 6
        sd = np.array(list(prior_sd.values()))
        self._precision = np.concatenate([np.zeros(self._poses), 1 / sd**2])
        self._flat = np.c_[views.corners_m, np.ones(len(views.corners_m))]
        span = np.ptp(views.corners_m[:, :2], axis=0).max() / 2
        self._middle = views.corners_m.mean(0)
        self._across = (views.corners_m - self._middle)[:, :2] / span
        _, first = np.unique(views.carriers.reshape(len(views.carriers), 16).round(9), axis=0, return_inverse=True)
        self._group = first.reshape(-1)[views.view]
        self._groups = int(self._group.max()) + 1
        images = np.bincount(first.reshape(-1))  # of one place: their corners have the same errors, so they count once
        self._weight = 1 / images[self._group]
        self._carriers_vary = self._groups >= LEAST_GROUPS and 6 * self._groups > self._poses

    def fit(self, log_sd: Array | None = None) -> MixedFit:
        """Return the estimate; `log_sd` (3,): known variances, else they are estimated.

        Raises LinAlgError where the images do not determine the poses.
        """
        theta = np.zeros(self._poses + len(self._names))
        found = START_LOG_SD.copy() if log_sd is None else log_sd
        for _ in range(ROUNDS):
            grams = self._grams(*self._linearize(theta))
            if log_sd is None:
                found = self._variances(grams, theta, found)
            step, covariance = self._step(grams, theta, found)
            theta = theta + step
            if np.abs(step).max() < 1e-6:
                break
        if not np.isfinite(theta).all():
            raise np.linalg.LinAlgError("the fit diverged")
        r, _, B = self._linearize(theta)
        cam, mount = self._moved(theta)
        n = self._poses
        return MixedFit(
            T_world_cam=cam,
            T_carrier_board=mount,
            corrections=dict(zip(self._names, theta[n:].tolist(), strict=True)),
            pose_covariance=covariance[:6, :6],
            covariance=covariance[n:, n:],
            residuals=r,
            view_errors=self._view_errors(r, B),
            log_sd=found,
            degrees_of_freedom=float(
                6 * self._groups - n if self._carriers_vary else max(2 * self._weight.sum() - len(theta), 4.0)
            ),
        )

    def robust_view_errors(self) -> Array:
        """Return the error (view, 6) of each carrier pose after a robust fit of the two constant poses."""
        none = np.zeros(len(self._names))
        fit = least_squares(
            lambda x: ((self._predict(np.r_[x, none]) - self._data.rays) / ROBUST).reshape(-1),
            np.zeros(self._poses),
            loss="soft_l1",
            x_scale="jac",
        )
        r, _, B = self._linearize(np.r_[fit.x, none])
        return self._view_errors(r, B)

    def _view_errors(self, r: Array, B: Array) -> Array:
        found = [np.linalg.lstsq(B[at].reshape(-1, 6), -r[at].reshape(-1))[0] for at in self._rows_of_views()]
        return np.stack(found).astype(np.float64)

    def _rows_of_views(self) -> list[NDArray[np.int64]]:
        return [np.flatnonzero(self._data.view == number) for number in range(len(self._data.carriers))]

    def _moved(self, theta: Array) -> tuple[Array, Array]:
        mount = self._mount @ small_motion(theta[6:12]) if self._mount_free else self._mount
        return self._cam @ small_motion(theta[:6]), mount

    def _predict(self, theta: Array, error: Array | None = None) -> Array:
        """Return the rays (corner, 2) that the stated intrinsics give the corners; `error` (6,) of every carrier."""
        cam, mount = self._moved(theta)
        c = dict(zip(self._names, theta[self._poses :], strict=True))
        points = self._flat.copy()
        points[:, 0] *= 1 + c.get("scale", 0.0) + c.get("stretch", 0.0)
        points[:, 1] *= 1 + c.get("scale", 0.0) - c.get("stretch", 0.0)
        x, y = self._across.T
        points[:, 2] += c.get("bend_xx", 0.0) * x * x + c.get("bend_xy", 0.0) * x * y + c.get("bend_yy", 0.0) * y * y
        carriers = self._data.carriers if error is None else self._data.carriers @ small_motion(error)
        chain = np.linalg.inv(cam) @ carriers @ mount
        points_c = np.einsum("nij,nj->ni", chain[self._data.view], points)
        return correct_rays(points_c[:, :2] / points_c[:, 2:3], c)

    def _linearize(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return residuals (corner, 2), their derivatives by theta (corner, 2, n) and carrier error (corner, 2, 6)."""
        here = self._predict(theta)
        J = np.stack([(self._predict(theta + move) - here) / _STEP for move in np.eye(len(theta)) * _STEP], -1)
        B = np.stack([(self._predict(theta, move) - here) / _STEP for move in np.eye(6) * _STEP], -1)
        return here - self._data.rays, J, B

    def _grams(self, r: Array, J: Array, B: Array) -> Array:
        """Return the products (group, n + 7, n + 7) of the columns of J, r and B."""
        columns = np.concatenate([J, r[..., None], B], -1) * np.sqrt(self._weight)[:, None, None]
        rows = (columns[self._group == number].reshape(-1, columns.shape[-1]) for number in range(self._groups))
        return np.stack([part.T @ part for part in rows])

    def _normal(self, grams: Array, theta: Array, log_sd: Array) -> tuple[Array, Array, float]:
        """Return normal matrix, gradient, and twice the negative log-likelihood at theta without the determinant."""
        n, sd = len(theta), np.exp(log_sd)
        scale = np.repeat(sd[1:], 3) / sd[0]
        inner = np.eye(6) + scale[:, None] * grams[:, n + 1 :, n + 1 :] * scale
        cross = grams[:, : n + 1, n + 1 :] * scale
        left = grams[:, : n + 1, : n + 1] - cross @ np.linalg.solve(inner, cross.transpose(0, 2, 1))
        whitened = left.sum(0) / sd[0] ** 2
        H = whitened[:n, :n] + np.diag(self._precision)
        g = whitened[:n, n] + self._precision * theta
        value = whitened[n, n] + theta**2 @ self._precision + np.linalg.slogdet(inner)[1].sum()
        return H, g, float(value + 4 * self._weight.sum() * log_sd[0])

    def _step(self, grams: Array, theta: Array, log_sd: Array) -> tuple[Array, Array]:
        H, g, _ = self._normal(grams, theta, log_sd)
        covariance: Array = np.linalg.inv(H).astype(np.float64)
        return -covariance @ g, covariance

    def _variances(self, grams: Array, theta: Array, start: Array) -> Array:
        """Return the logarithms of the standard deviations of corners, carrier rotations and shifts."""

        def cost(log_sd: Array) -> float:
            log_sd = np.clip(log_sd, LEAST_LOG_SD, MOST_LOG_SD)
            H, g, value = self._normal(grams, theta, log_sd)
            unusual = (((log_sd - START_LOG_SD)[1:] / SPREAD_LOG_SD) ** 2).sum() if self._carriers_vary else 0.0
            return value - g @ np.linalg.solve(H, g) + np.linalg.slogdet(H)[1] + unusual

        options = {"xatol": 0.02, "fatol": 0.02, "maxfev": 200}
        if self._carriers_vary:
            return np.clip(minimize(cost, start, method="Nelder-Mead", options=options).x, LEAST_LOG_SD, MOST_LOG_SD)
        exact = LEAST_LOG_SD[1:]
        found = minimize(lambda x: cost(np.r_[x, exact]), start[:1], method="Nelder-Mead", options=options)
        return np.clip(np.r_[found.x, exact], LEAST_LOG_SD, MOST_LOG_SD)


def correct_rays(rays: Array, c: dict[str, float]) -> Array:
    """Apply corrections by name to true rays (..., 2): the rays by the stated intrinsics."""
    x, y = rays[..., 0], rays[..., 1]
    r2 = x * x + y * y
    gain = r2 * (c.get("k1", 0.0) + r2 * c.get("k2", 0.0))
    p1, p2 = c.get("p1", 0.0), c.get("p2", 0.0)
    focal, aspect = c.get("focal", 0.0), c.get("aspect", 0.0)
    u = x * (1 + focal + aspect + gain) + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + c.get("centre_x", 0.0)
    v = y * (1 + focal - aspect + gain) + 2 * p2 * x * y + p1 * (r2 + 2 * y * y) + c.get("centre_y", 0.0)
    return np.stack([u, v], -1)


def small_motion(change: Array) -> Array:
    """Return the matrix (4, 4) of a rotation vector [rad] and a shift [m]."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(change[:3]).as_matrix()
    T[:3, 3] = change[3:6]
    return T
