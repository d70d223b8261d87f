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


def find_board(board: BoardCfg, image: NDArray[np.uint8], camera: Intrinsics, name: str) -> BoardDetection:
    """Detect the board in an image, (rows, columns) or (rows, columns, 3 RGB).

    Raises BoardLayoutError for another board, ValueError if too few corners, or only one line of them, are visible.
    """
    cv2 = opencv()
    if image.shape[:2] != (camera.height, camera.width):
        expected = (camera.height, camera.width)
        raise ValueError(f"{name}: the image is {image.shape[:2]} pixels, the camera says {expected}")
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    corners, ids, markers, marker_ids = cv2.aruco.CharucoDetector(opencv_board(board)).detectBoard(gray)
    numbers = np.zeros(0, np.int32) if marker_ids is None else np.asarray(marker_ids, np.int32).ravel()
    seen = len(numbers)
    if seen >= MIN_MARKERS and (misfit := layout_misfit(board, np.reshape(markers, (seen, 4, 2)), numbers)):
        raise BoardLayoutError(f"{name}: {misfit}")
    found = 0 if ids is None else len(ids)
    if ids is None or found < MIN_CORNERS:
        raise ValueError(
            f"{name}: {found} corners and {seen} markers of the board found, {MIN_CORNERS} corners are needed; "
            "check light, sharpness, and that the board is the one described (squares, dictionary)"
        )
    number = ids.reshape(-1).astype(np.int64)
    rays = camera.rays_at(corners.reshape(-1, 2))
    try:
        return BoardDetection(name=name, ids=number, rays=rays, T_cam_board=board_pose(board, number, rays))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def board_pose(board: BoardCfg, ids: NDArray[np.int64], rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pose (4, 4), board to camera, from corners `ids` (n,) on `rays` (n, 2) at unit depth.

    Raises ValueError where the corners lie in one line or give no pose.
    """
    cv2 = opencv()
    camera = np.diag([UNIT, UNIT, 1.0])
    points = board.corners_m()[ids]
    if np.linalg.matrix_rank(points - points[0]) < 2:  # OpenCV returns some pose
        raise ValueError(f"corners {ids.tolist()} lie in one line, which gives no pose of the board")
    # Of the two poses that a plane seen from afar allows, this method returns both and the better one comes first.
    done, turns, moves, _ = cv2.solvePnPGeneric(points, rays * UNIT, camera, None, flags=cv2.SOLVEPNP_IPPE)
    if not done:
        raise ValueError(f"corners {ids.tolist()} give no pose of the board")
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
