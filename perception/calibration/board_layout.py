"""Layouts of ChArUco boards, and which of them the markers in an image belong to."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.text import install_command

NEAR = 0.12
"""Distance between a marker corner in the image and in the layout below which it fits [squares]."""
FITTING = 0.7
"""Fraction of marker corners that must fit."""
RATIO_TOLERANCE = 0.15
"""Accepted relative difference of the marker size in squares; that of small markers is found up to 6 % too small."""
LEAST_CENTRES = 8
"""Number of markers from which their centres alone decide, and their size in squares is judged."""
NARROWEST_BORDER = 0.7
"""Least width of the white round a marker, in dots of the marker: OpenCV overlooks markers with less."""
MOST_SQUARES = 20
FAMILIES = ("4X4_1000", "5X5_1000", "6X6_1000", "7X7_1000", "ARUCO_ORIGINAL", "APRILTAG_16h5", "APRILTAG_36h11")
"""Dictionaries that contain all others of OpenCV that are in use."""

log = logging.getLogger("dexgrasp")


class BoardLayoutError(ValueError):
    """Raised for an image of another board than the described one; the text names the board that fits."""


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
    legacy: bool = False
    """Pattern of OpenCV before 4.6: with an even number of rows its top left square is white, not black."""

    def __post_init__(self) -> None:
        if self.marker_m >= self.square_m:
            raise ValueError(f"markers ({self.marker_m} m) must be smaller than squares ({self.square_m} m)")

    def corners_m(self) -> NDArray[np.float64]:
        """Return the inner corners (corner, 3) by number, board frame [m]."""
        y, x = np.mgrid[1 : self.rows, 1 : self.columns]
        flat = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
        return flat * self.square_m


def layout_misfit(board: BoardCfg, markers: NDArray[np.float32], ids: NDArray[np.int32]) -> str:
    """Return why markers (marker, 4, 2) [pixel] with ids (marker,) are of another board; empty if not."""
    fit, ratio = _fit(board, markers, ids)
    if fit >= FITTING:
        stated = board.marker_m / board.square_m
        if len(ids) < LEAST_CENTRES or abs(ratio / stated - 1) < RATIO_TOLERANCE:
            return ""
        return (
            f"the markers are about {ratio:.2f} times as wide as the squares, board.marker_m={board.marker_m:g} and "
            f"board.square_m={board.square_m:g} say {stated:.2f}: measure both on the print"
        )
    said = f"{len(ids)} markers found, but not in the places of a board with {_words(board)}"
    for other in _alternatives(board, int(ids.max())):
        if _fit(other, markers, ids)[0] >= FITTING:
            return f"{said}; {_words(other)} fits: set {_settings(board, other)}"
    return f"{said}; no other layout of one board fits either: is it one flat ChArUco board, and not mirrored?"


def find_dictionary(images: Iterable[NDArray[np.uint8]], known: str) -> str:
    """Return in words the dictionary of most markers in images (rows, columns); empty if that is `known`."""
    cv2 = opencv()
    found: dict[str, list[int]] = {name: [] for name in (*FAMILIES, known)}
    for name, ids_of_name in found.items():
        detector = cv2.aruco.ArucoDetector(_dictionary(name))
        for image in images:
            ids = detector.detectMarkers(image)[1]
            ids_of_name += [] if ids is None else ids.ravel().tolist()
    best = max(FAMILIES, key=lambda name: len(found[name]))
    count = len(found[best])
    if count < 4 or count <= 2 * len(found[known]):
        return ""
    sizes = [size for size in (50, 100, 250, 1000) if size > max(found[best])]
    name = best.replace("1000", str(sizes[0]))
    return f"{count} markers of dictionary {name} found, {len(found[known])} of {known}: set board.dictionary={name}"


def _fit(board: BoardCfg, markers: NDArray[np.float32], ids: NDArray[np.int32]) -> tuple[float, float]:
    """Return the fraction of markers that fit the layout, and the width of the markers [squares]."""
    cv2 = opencv()
    layout = opencv_board(board)
    places = dict(zip(layout.getIds().ravel().tolist(), layout.getObjPoints(), strict=True))
    inside = [at for at, number in enumerate(ids.tolist()) if number in places]
    if len(inside) < max(4, FITTING * len(ids)):
        return 0.0, 0.0
    theirs = np.stack([np.asarray(places[int(ids[at])])[:, :2] for at in inside]) / board.square_m
    image = markers[inside].astype(np.float64)
    if len(inside) >= LEAST_CENTRES:  # centres do not depend on the size of the markers
        source, target = image.mean(1), theirs.mean(1)
    else:
        source, target = image.reshape(-1, 2), theirs.reshape(-1, 2)
    H, fitting = cv2.findHomography(source, target, cv2.RANSAC, NEAR, maxIters=300, confidence=0.99)
    if H is None or np.linalg.det(H[:2, :2]) <= 0:
        return 0.0, 0.0
    flat = cv2.perspectiveTransform(image.reshape(-1, 1, 2), H).reshape(-1, 4, 2)
    sides = np.linalg.norm(flat - np.roll(flat, 1, axis=1), axis=-1)
    return float(fitting.mean() * len(inside) / len(ids)), float(np.median(sides))


def _alternatives(board: BoardCfg, largest_id: int) -> Iterator[BoardCfg]:
    """Yield other layouts, the likely ones first: other pattern, columns and rows swapped, other sizes."""
    columns, rows = board.columns, board.rows
    sizes = [(columns, rows), (rows, columns)]
    sizes += [(c, rows + more) for c in range(3, MOST_SQUARES + 1) for more in (0, 1)]
    for across, down in sizes:
        for legacy in (board.legacy, not board.legacy):
            while across * down // 2 <= largest_id and down <= MOST_SQUARES:
                down += 2  # the pattern depends on whether the number of rows is even
            other = replace(board, columns=across, rows=down, legacy=legacy)
            try:
                opencv_board(other)
            except ValueError:  # more markers than the dictionary has
                continue
            if other != board:
                yield other


def _words(board: BoardCfg) -> str:
    return f"columns={board.columns} rows={board.rows} legacy={str(board.legacy).lower()}"


def _settings(board: BoardCfg, other: BoardCfg) -> str:
    changed = [key for key in ("columns", "rows", "legacy") if getattr(board, key) != getattr(other, key)]
    return " ".join(f"board.{key}={str(getattr(other, key)).lower()}" for key in changed)


def _dictionary(name: str) -> Any:
    return opencv().aruco.getPredefinedDictionary(getattr(opencv().aruco, f"DICT_{name}"))


def opencv_board(board: BoardCfg) -> Any:
    """Return the board of OpenCV. Raises ValueError for an unknown dictionary or one with too few markers."""
    cv2 = opencv()
    name = f"DICT_{board.dictionary}"
    if not hasattr(cv2.aruco, name):
        known = sorted(word[5:] for word in dir(cv2.aruco) if word.startswith("DICT_"))
        raise ValueError(f"no dictionary '{board.dictionary}' of markers; known: {', '.join(known)}")
    family = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
    needed, known = board.columns * board.rows // 2, len(family.bytesList)
    if needed > known:
        raise ValueError(
            f"a board of {board.columns} by {board.rows} squares needs {needed} markers, {name} has {known}: take "
            "fewer squares or a larger dictionary"
        )
    dot_m, border_m = board.marker_m / (family.markerSize + 2), (board.square_m - board.marker_m) / 2
    if border_m < NARROWEST_BORDER * dot_m:
        _warn_of_narrow_border(1e3 * border_m, 1e3 * dot_m)
    opencv_log = cv2.utils.logging
    level = opencv_log.setLogLevel(opencv_log.LOG_LEVEL_ERROR)  # else it says that for every image, in its own words
    try:
        made = cv2.aruco.CharucoBoard((board.columns, board.rows), board.square_m, board.marker_m, family)
    finally:
        opencv_log.setLogLevel(level)
    made.setLegacyPattern(board.legacy)
    return made


@cache
def _warn_of_narrow_border(border_mm: float, dot_mm: float) -> None:
    log.warning(
        "board: %.1f mm of white lie round each marker, whose dots are %.1f mm wide; expected at least %.1f mm, or "
        "markers are overlooked: lower board.marker_m",
        *(border_mm, dot_mm, NARROWEST_BORDER * dot_mm),
    )


def opencv() -> ModuleType:
    """Return OpenCV. Raises ImportError with the package to install."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"calibration needs OpenCV: {install_command('calibrate')} ({error})") from error
    return cv2
