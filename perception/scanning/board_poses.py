"""Camera poses of a scan from the ChArUco board on which the thing stands."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.calibration.board_layout import BoardCfg, BoardLayoutError, find_dictionary
from dexgrasp.perception.calibration.charuco import CoveredBoard, find_covered_board
from dexgrasp.perception.scanning.frames import LEAST_FRAMES, ScanError, ScanFrame
from dexgrasp.utils.text import counted

MOST_RESIDUAL_PX = 2.0
"""Reprojection error of a board above which its frame is left out: blurred, or bent paper."""
MOST_SCALE = 0.03
"""Difference of depth and board, relative, that is corrected; a larger one is refused."""
MOST_JUMP = 0.02
"""Relative difference of one frame from all above which it is left out: depth and colour of different moments."""

OTHER_BOARD_FRAMES = 3
"""First frames that must show another board for the scan to end at once."""


@dataclass(frozen=True)
class PosedFrames:
    """Frames with poses in the table frame."""

    frames: list[ScanFrame]
    left_out: dict[str, str]
    """Frame -> reason."""
    scale: float
    """Depth of the camera / depth by the board; the frames are corrected by it. 1 without a board."""
    middle_m: tuple[float, float] = (0.0, 0.0)
    """Place of the thing on the table, roughly."""


def table_from_board(board: BoardCfg) -> NDArray[np.float64]:
    """Return T_table_board (4, 4): the table frame has its origin in the middle of the board and z up."""
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:2, 3] = -board.columns * board.square_m / 2, board.rows * board.square_m / 2
    return T


def ignore(frame: ScanFrame) -> None:
    """Do nothing with a frame."""


def poses_from_board(
    frames: list[ScanFrame], board: BoardCfg, watch: Callable[[ScanFrame], None] = ignore
) -> PosedFrames:
    """Find the board in each frame; return the frames with poses, their depth scaled to the board.

    `watch` is called with each frame whose pose was found, as soon as it is.

    Raises ScanError where the board is in too few frames, or where depth and board differ in scale.
    """
    T_table_board, posed = table_from_board(board), []
    found, left_out = [], {}
    for frame, view in _boards(frames, board, left_out):
        found.append((frame, view))
        watch(replace(frame, T_table_cam=T_table_board @ np.linalg.inv(view.T_cam_board)))
    _demand_frames(len(found), len(frames), left_out)
    ratios = {frame.name: _depth_ratio(frame, view) for frame, view in found}
    known = np.array([ratio for ratio in ratios.values() if np.isfinite(ratio)])
    if not len(known):
        raise ScanError("the board has no depth in any frame: is the depth image that of the colour camera (aligned)?")
    scale = float(np.median(known))
    if abs(scale - 1) > MOST_SCALE:
        raise ScanError(
            f"wrong scale: depth is {scale:.3f} times what the board says (at most {100 * MOST_SCALE:g} % off): "
            f"measure a square on the print (board.square_m={board.square_m:g}), check depth_unit_m and "
            "the focal length in camera.json"
        )
    for frame, view in found:
        ratio = ratios[frame.name]
        if not abs(ratio / scale - 1) < MOST_JUMP:
            off = "no depth on the board" if np.isnan(ratio) else f"depth and board differ by {100 * (ratio - 1):.1f} %"
            left_out[frame.name] = f"{off}: moved during the exposure?"
            continue
        T = T_table_board @ np.linalg.inv(view.T_cam_board)
        posed.append(replace(frame, depth_m=frame.depth_m / np.float32(scale), T_table_cam=T))
    _demand_frames(len(posed), len(frames), left_out)
    return PosedFrames(frames=posed, left_out=left_out, scale=scale)


def _boards(
    frames: list[ScanFrame], board: BoardCfg, left_out: dict[str, str]
) -> Iterator[tuple[ScanFrame, CoveredBoard]]:
    """Yield the frames in which the board is found; add the others to `left_out`."""
    found = 0
    for frame in frames:
        try:
            view = find_covered_board(board, frame.color, frame.camera, frame.name)
        except BoardLayoutError as error:
            left_out[frame.name] = str(error).removeprefix(f"{frame.name}: ")
            if not found and len(left_out) == OTHER_BOARD_FRAMES:  # the search for the board that fits takes long
                raise ScanError(
                    f"the board is in none of the first {len(left_out)} frames: {left_out[frame.name]}"
                ) from error
            continue
        except ValueError as error:
            left_out[frame.name] = str(error).removeprefix(f"{frame.name}: ")
            continue
        if view.residual_px > MOST_RESIDUAL_PX:
            left_out[frame.name] = f"the board is off by {view.residual_px:.1f} pixels: blurred, or its paper is bent"
        else:
            found += 1
            yield frame, view
    if not found:
        other = find_dictionary([frame.color[..., 1] for frame in frames[:2]], board.dictionary)
        raise ScanError(
            f"the board is in none of {counted(len(frames), 'frame')}: {other or next(iter(left_out.values()))}"
        )


def _demand_frames(count: int, total: int, left_out: dict[str, str]) -> None:
    if count < LEAST_FRAMES:
        first = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:1])
        raise ScanError(
            f"lost track: the pose is known in {count} of {counted(total, 'frame')}, at least {LEAST_FRAMES} are "
            f"needed (the first left out: {first or 'none'})"
        )


def _depth_ratio(frame: ScanFrame, view: CoveredBoard) -> float:
    """Return measured depth / depth by the pose of the board, at its corners; NaN where none has depth."""
    u, v = np.rint(view.pixels).astype(int).T
    inside = (u >= 0) & (v >= 0) & (u < frame.camera.width) & (v < frame.camera.height)
    measured = frame.depth_m[v[inside], u[inside]]
    seen = measured > 0
    return float(np.median(measured[seen] / view.depth_m[inside][seen])) if seen.any() else np.nan
