"""Synthetic calibration sets of a board on the flange or on the table, with one kind of error each."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from dexgrasp.perception.calibration.board_layout import BoardCfg
from dexgrasp.perception.calibration.charuco import BoardDetection, board_pose
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import pose_matrix

BOARD = BoardCfg()
CAMERA = Intrinsics(640, 480, 610.0, 612.0, 322.3, 236.8, "brown_conrady", (0.06, -0.12, 0.001, -0.0015, 0.05))
T_WORLD_CAM = pose_matrix((0.62, -0.11, 0.55), (0.2705981, 0.6532815, 0.6532815, 0.2705981))
T_FLANGE_BOARD = pose_matrix((-0.1, 0.02, 0.09), (0.1830127, 0.6830127, -0.1830127, 0.6830127))
KINDS = ("good", "focal", "centre", "distortion", "square", "bent", "noise", "all")


@dataclass(frozen=True)
class CalibrationSet:
    """What `calibrate` gets; T_WORLD_CAM is the truth."""

    views: list[BoardDetection]
    carriers: np.ndarray
    """(view, 4, 4) measured poses of the flange, or of the board on the table."""
    camera: Intrinsics
    """Intrinsics as stated."""


def synthetic_set(kind: str, seed: int, mounted: str = "flange") -> CalibrationSet:
    """Return a set of 8 to 20 views with an error of one kind, of random size, beside noise of corners and robot."""
    rng = np.random.default_rng([KINDS.index(kind), seed, mounted == "table"])
    stated, board_m = _stated(kind, rng), _board(kind, rng)
    corner_px, turn_rad, shift_m = rng.uniform(0.05, 0.3), np.radians(rng.uniform(0, 0.05)), rng.uniform(0, 0.0005)
    if kind in ("noise", "all"):
        turn_rad, shift_m = np.radians(rng.uniform(0.03, 0.2)), rng.uniform(0.0003, 0.0015)
    middle = np.array([BOARD.columns, BOARD.rows, 0]) * BOARD.square_m / 2
    views, carriers, count = [], [], rng.integers(8, 21)
    while len(views) < count:
        T = _pose(rng.uniform(-0.6, 0.6, 3), rng.uniform((-0.15, -0.1, 0.4), (0.15, 0.1, 0.8)))
        T[:3, 3] -= T[:3, :3] @ middle
        pixels = CAMERA.project(board_m @ T[:3, :3].T + T[:3, 3])
        ids = np.flatnonzero(((pixels > 3) & (pixels < (636, 476))).all(1))
        if len(ids) < 8:
            continue
        rays = stated.rays_at(pixels[ids] + rng.normal(0, corner_px, (len(ids), 2)))
        views.append(BoardDetection(f"{len(views)}.png", ids, rays, board_pose(BOARD, ids, rays)))
        error = _pose(rng.normal(0, turn_rad, 3), rng.normal(0, shift_m, 3))
        carrier = T_WORLD_CAM @ T if mounted == "table" else T_WORLD_CAM @ T @ np.linalg.inv(T_FLANGE_BOARD)
        carriers.append(carrier @ error)
    return CalibrationSet(views, np.stack(carriers), stated)


def _stated(kind, rng):
    """The intrinsics that the user states."""
    values = vars(CAMERA).copy()
    if kind in ("focal", "all"):
        factor = 1 + rng.choice([-1, 1]) * rng.uniform(0.005, 0.08)
        values["fx"], values["fy"] = values["fx"] * factor, values["fy"] * factor
    if kind in ("centre", "all"):
        values["cx"], values["cy"] = values["cx"] + rng.uniform(-20, 20), values["cy"] + rng.uniform(-20, 20)
    if kind in ("distortion", "all"):
        k1, k2, *others = values["coeffs"]
        values["coeffs"] = (k1 + rng.uniform(-0.1, 0.1), k2 + rng.uniform(-0.1, 0.1), *others)
    return replace(CAMERA, **values)


def _board(kind, rng):
    """Corners (corner, 3) of the real board [m]."""
    corners = BOARD.corners_m()
    x, y = ((corners - corners.mean(0)) / (np.ptp(corners, axis=0).max() / 2)).T[:2]
    if kind in ("square", "all"):
        corners *= 1 + rng.choice([-1, 1]) * rng.uniform(0.002, 0.05)
    if kind in ("bent", "all"):
        a, b, c = rng.uniform(-0.003, 0.003, 3)
        corners[:, 2] += a * x * x + b * x * y + c * y * y
    return corners


def _pose(rotvec, pos):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), pos
    return T
