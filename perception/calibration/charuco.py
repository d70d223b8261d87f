"""Detection of ChArUco calibration boards in images, with OpenCV.

A ChArUco board is a chessboard with numbered markers, so that a partial view is enough.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.utils.bounds import Bounds, bounded

MIN_CORNERS = 8
"""Least number of corners from which the pose of a board is estimated."""
UNIT = 1000.0
"""Focal length of the virtual camera in whose pixels OpenCV receives rays at unit depth."""


@dataclass(frozen=True)
@bounded
class BoardCfg:
    """Layout of a ChArUco board.

    Board frame: origin at the top left corner of the print, x right, y down, z into the board.
    """

    columns: Annotated[int, Bounds(3, 100)] = 7
    """Squares per row."""
    rows: Annotated[int, Bounds(3, 100)] = 5
    """Rows of squares."""
    square_m: Annotated[float, Bounds(0.001, 1)] = 0.035
    """Side of a square; measure it on the print."""
    marker_m: Annotated[float, Bounds(0.0005, 1)] = 0.026
    """Side of a marker."""
    dictionary: str = "5X5_100"
    """Family of markers, by its name in OpenCV."""

    def __post_init__(self) -> None:
        if self.marker_m >= self.square_m:
            raise ValueError(f"markers ({self.marker_m} m) must be smaller than squares ({self.square_m} m)")

    def corners_m(self) -> NDArray[np.float64]:
        """Return the inner corners (corner, 3) by number, board frame [m]."""
        y, x = np.mgrid[1 : self.rows, 1 : self.columns]
        flat = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
        return flat * self.square_m


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

    Raises ValueError if too few corners are visible.
    """
    cv2 = _opencv()
    if image.shape[:2] != (camera.height, camera.width):
        expected = (camera.height, camera.width)
        raise ValueError(f"{name}: the image is {image.shape[:2]} pixels, the camera says {expected}")
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    corners, ids, _, markers = cv2.aruco.CharucoDetector(_opencv_board(board)).detectBoard(gray)
    found = 0 if ids is None else len(ids)
    if ids is None or found < MIN_CORNERS:
        seen = 0 if markers is None else len(markers)
        raise ValueError(
            f"{name}: {found} corners and {seen} markers of the board found, {MIN_CORNERS} corners are needed; "
            "check light, sharpness, and that the board is the one described (squares, dictionary)"
        )
    number = ids.reshape(-1).astype(np.int64)
    rays = camera.rays_at(corners.reshape(-1, 2))
    return BoardDetection(name=name, ids=number, rays=rays, T_cam_board=board_pose(board, number, rays))


def board_pose(board: BoardCfg, ids: NDArray[np.int64], rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pose (4, 4), board to camera, from corners `ids` (n,) on `rays` (n, 2) at unit depth."""
    cv2 = _opencv()
    camera = np.diag([UNIT, UNIT, 1.0])
    points = board.corners_m()[ids]
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
    cv2 = _opencv()
    width, height = (round((count + 2) * board.square_m * pixels_per_m) for count in (board.columns, board.rows))
    try:
        return _opencv_board(board).generateImage((width, height), marginSize=round(board.square_m * pixels_per_m))
    except cv2.error as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"board: OpenCV cannot draw {board.columns} by {board.rows} squares with markers of "
            f"{board.marker_m * pixels_per_m:.1f} dots of dictionary {board.dictionary} ({why}): raise dpi or "
            "board.marker_m, or take fewer squares or a larger dictionary"
        ) from error


def _opencv_board(board: BoardCfg) -> Any:
    cv2 = _opencv()
    name = f"DICT_{board.dictionary}"
    if not hasattr(cv2.aruco, name):
        known = sorted(word[5:] for word in dir(cv2.aruco) if word.startswith("DICT_"))
        raise ValueError(f"no dictionary '{board.dictionary}' of markers; known: {', '.join(known)}")
    family = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
    return cv2.aruco.CharucoBoard((board.columns, board.rows), board.square_m, board.marker_m, family)


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"calibration needs OpenCV: pip install 'dexgrasp[calibrate]' ({error})") from error
    return cv2
