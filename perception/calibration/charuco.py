"""Detection of ChArUco calibration boards in images, with OpenCV.

A ChArUco board is a chessboard with numbered markers, so that a partial view is enough.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.calibration.board_layout import (
    BoardCfg,
    BoardLayoutError,
    layout_misfit,
    opencv,
    opencv_board,
)
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.utils.text import one_line

MIN_MARKERS = 4
"""Least number of markers by which the layout of a board is checked."""
MIN_CORNERS = 8
"""Least number of corners from which the pose of a board is estimated."""
UNIT = 1000.0
"""Focal length of the virtual camera in whose pixels OpenCV receives rays at unit depth."""


@dataclass(frozen=True)
class BoardDetection:
    """Detection of the board in one image."""

    name: str
    ids: NDArray[np.int64]
    """(n,) numbers of the corners that were found."""
    rays: NDArray[np.float64]
    """(n, 2) rays to these corners at unit depth, lens distortion removed."""
    T_cam_board: NDArray[np.float64]
    """(4, 4) board to camera, from this image alone."""


@dataclass(frozen=True)
class CoveredBoard:
    """Pose of a board that things hide in part, from its inner corners and the corners of its markers."""

    T_cam_board: NDArray[np.float64]
    """(4, 4) board to camera."""
    pixels: NDArray[np.float64]
    """(n, 2) = (column, row) of the corners that were found."""
    depth_m: NDArray[np.float64]
    """(n,) distance of these corners along the camera's axis, by the pose."""
    residual_px: float
    """Root mean square of the reprojection errors."""


def find_board(board: BoardCfg, image: NDArray[np.uint8], camera: Intrinsics, name: str) -> BoardDetection:
    """Detect the board in an image, (rows, columns) or (rows, columns, 3 RGB).

    Raises BoardLayoutError for another board, ValueError if too few corners, or only one line of them, are visible.
    """
    found = _detect(board, image, camera, name)
    if len(found.ids) < MIN_CORNERS:
        raise ValueError(
            f"{name}: {len(found.ids)} corners and {len(found.marker_ids)} markers of the board found, {MIN_CORNERS} "
            "corners are needed; check light, sharpness, and that the board is the one described (squares, dictionary)"
        )
    number, rays = found.ids, camera.rays_at(found.corners)
    try:
        return BoardDetection(name=name, ids=number, rays=rays, T_cam_board=board_pose(board, number, rays))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def find_covered_board(board: BoardCfg, image: NDArray[np.uint8], camera: Intrinsics, name: str) -> CoveredBoard:
    """Find a board on which things stand, in an image (rows, columns) or (rows, columns, 3 RGB).

    Raises BoardLayoutError for another board, ValueError where fewer than MIN_MARKERS markers are visible.
    """
    found = _detect(board, image, camera, name)
    if len(found.marker_ids) < MIN_MARKERS:
        raise ValueError(
            f"{name}: {len(found.marker_ids)} markers of the board found, {MIN_MARKERS} are needed; check light, "
            "sharpness, that the board is the one described, and that the thing does not hide it"
        )
    layout = opencv_board(board)
    places = dict(zip(layout.getIds().ravel().tolist(), layout.getObjPoints(), strict=True))
    known = [i for i, number in enumerate(found.marker_ids.tolist()) if number in places]
    of_markers = [np.asarray(places[int(found.marker_ids[i])], float) for i in known]
    points = np.concatenate([board.corners_m()[found.ids], *of_markers])
    pixels = np.concatenate([found.corners, *found.markers[known]])
    T = _plane_pose(points, camera.rays_at(pixels), f"{name}: the markers")
    points_c = points @ T[:3, :3].T + T[:3, 3]
    residual_px = np.sqrt(((camera.project(points_c) - pixels) ** 2).sum(-1).mean())
    return CoveredBoard(T_cam_board=T, pixels=pixels, depth_m=points_c[:, 2], residual_px=float(residual_px))


def board_pose(board: BoardCfg, ids: NDArray[np.int64], rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pose (4, 4), board to camera, from corners `ids` (n,) on `rays` (n, 2) at unit depth.

    Raises ValueError where the corners lie in one line or give no pose.
    """
    return _plane_pose(board.corners_m()[ids], rays, f"corners {ids.tolist()}")


@dataclass(frozen=True)
class _Corners:
    """Corners [pixel] and markers that OpenCV finds in an image."""

    corners: NDArray[np.float64]
    """(n, 2) inner corners."""
    ids: NDArray[np.int64]
    markers: NDArray[np.float64]
    """(m, 4, 2)"""
    marker_ids: NDArray[np.int32]


def _detect(board: BoardCfg, image: NDArray[np.uint8], camera: Intrinsics, name: str) -> _Corners:
    """Return corners and markers. Raises BoardLayoutError for markers in the places of another board."""
    cv2 = opencv()
    if image.shape[:2] != (camera.height, camera.width):
        expected = (camera.height, camera.width)
        raise ValueError(f"{name}: the image is {image.shape[:2]} pixels, the camera says {expected}")
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    corners, ids, markers, marker_ids = cv2.aruco.CharucoDetector(opencv_board(board)).detectBoard(gray)
    numbers = np.zeros(0, np.int32) if marker_ids is None else np.asarray(marker_ids, np.int32).ravel()
    places = np.reshape(markers if len(numbers) else [], (len(numbers), 4, 2)).astype(np.float32)
    if len(numbers) >= MIN_MARKERS and (misfit := layout_misfit(board, places, numbers)):
        raise BoardLayoutError(f"{name}: {misfit}")
    return _Corners(
        corners=np.reshape([] if ids is None else corners, (-1, 2)).astype(float),
        ids=np.reshape([] if ids is None else ids, -1).astype(np.int64),
        markers=places.astype(float),
        marker_ids=numbers,
    )


def _plane_pose(points: NDArray[np.float64], rays: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Return the pose (4, 4), board to camera, from points (n, 3) of the board on rays (n, 2) at unit depth."""
    cv2 = opencv()
    camera = np.diag([UNIT, UNIT, 1.0])
    if np.linalg.matrix_rank(points - points[0]) < 2:  # OpenCV returns some pose
        raise ValueError(f"{what} lie in one line, which gives no pose of the board")
    # Of the two poses that a plane seen from afar allows, this method returns both and the better one comes first.
    done, turns, moves, _ = cv2.solvePnPGeneric(points, rays * UNIT, camera, None, flags=cv2.SOLVEPNP_IPPE)
    if not done:
        raise ValueError(f"{what} give no pose of the board")
    turn, move = cv2.solvePnPRefineLM(points, rays * UNIT, camera, None, turns[0], moves[0])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(turn)[0], move.reshape(3)
    return T


def draw_board(board: BoardCfg, pixels_per_m: float) -> NDArray[np.uint8]:
    """Return a printable image of the board, (rows, columns) gray, with a white margin of one square.

    Raises ValueError where markers would be too small to be drawn, or are more than the dictionary has.
    """
    cv2 = opencv()
    width, height = (round((count + 2) * board.square_m * pixels_per_m) for count in (board.columns, board.rows))
    try:
        return opencv_board(board).generateImage((width, height), marginSize=round(board.square_m * pixels_per_m))
    except cv2.error as error:
        raise ValueError(
            f"board: OpenCV cannot draw {board.columns} by {board.rows} squares with markers of "
            f"{board.marker_m * pixels_per_m:.1f} dots of dictionary {board.dictionary} ({one_line(error)}): "
            "raise dpi or board.marker_m, or take fewer squares or a larger dictionary"
        ) from error
