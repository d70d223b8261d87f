"""Progress of a scan on the terminal and, with a preview, in the browser: the sides that are missing."""

import time
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.calibration.board_layout import BoardCfg
from dexgrasp.perception.calibration.charuco import find_covered_board
from dexgrasp.perception.cameras.depth import DepthFrame
from dexgrasp.perception.scanning.board_poses import table_from_board
from dexgrasp.perception.scanning.coverage import ABOVE, BANDS_DEG, SECTORS, SIDES, Coverage
from dexgrasp.perception.scanning.frames import RANGE_M, ScanFrame
from dexgrasp.policies.viewer.drawing import BAD, GOOD, box_html, note_html
from dexgrasp.policies.viewer.page import Page
from dexgrasp.utils.progress import Progress

LOOK_S = 0.3
"""Least time between two frames of a live camera in which the board is looked for."""
DOME_M = 0.16
"""Radius of the dome of sides in the preview."""
STRIDE = 6
"""Stride of the pixels that the preview shows."""
CLOUD_EVERY = 4
"""Frames between two whose points are shown."""
MOST_POINTS = 60_000
"""Points that the preview shows at most."""
REGION_M, ABOVE_M = 0.15, 0.004
"""The preview shows points up to REGION_M from the middle of the table and higher than ABOVE_M."""
EYE_M, EYE_FOV_RAD = (0.34, -0.34, 0.36), 0.9
"""First view of the preview."""
SEEN, MISSING = (40, 150, 90), (220, 60, 50)


class ScanWatch:
    """Counts the sides that were seen in one pass; a context manager that closes the page."""

    def __init__(self, *, preview: bool, port: int) -> None:
        """`preview`: serve a page on `port`, 0 = any free one. Raises OSError where the port is taken."""
        self._page = Page("127.0.0.1", port) if preview else None
        if self._page is not None:
            first = self._page.server.initial_camera
            first.position, first.look_at, first.fov = EYE_M, (0.0, 0.0, 0.04), EYE_FOV_RAD
            self._panel = self._page.server.gui.add_html("")
            print(f"preview: {self._page.url}", flush=True)
        self.coverage = Coverage()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._page is not None:
            self._page.close()

    def begin(self, what: str, total: int) -> Progress:
        """Start a pass: no side was seen; return the progress line of its poses."""
        self.coverage, self._what = Coverage(), what
        self._dome: dict[tuple[str, int], bool] = {}
        self._points, self._colors, self._count = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), 0
        self._progress = Progress(total, what)
        self._draw()
        return self._progress

    def frame(self, frame: ScanFrame) -> None:
        """Count a frame whose pose is known."""
        self.coverage.add(frame.T_table_cam)
        self._progress.advance(note=self.coverage.text())
        self._count += 1
        if self._page is not None and self._count % CLOUD_EVERY == 1:
            self._add_points(frame)
        self._draw()

    def _draw(self) -> None:
        if self._page is None:
            return
        scene, text = self._page.server.scene, self.coverage.text()
        for side in SIDES:
            if self._dome.get(side) != (side in self.coverage.seen):
                self._dome[side] = side in self.coverage.seen
                vertices, faces = side_patch(side)
                scene.add_mesh_simple(
                    f"/sides/{side[0]} {side[1]}",
                    vertices,
                    faces,
                    color=SEEN if self._dome[side] else MISSING,
                    opacity=0.12 if self._dome[side] else 0.5,
                    side="double",
                )
        done = len(self.coverage.seen) == len(SIDES)
        self._panel.content = box_html(f"<b>{self._what}</b>") + note_html(text, GOOD if done else BAD)

    def _add_points(self, frame: ScanFrame) -> None:
        assert self._page is not None
        points, colors = frame.points(STRIDE), frame.color[::STRIDE, ::STRIDE][frame.depth_m[::STRIDE, ::STRIDE] > 0]
        near = (points[:, 2] > ABOVE_M) & (np.abs(points[:, :2]).max(1) < REGION_M)
        self._points = np.concatenate([self._points, points[near]])[-MOST_POINTS:]
        self._colors = np.concatenate([self._colors, colors[near]])[-MOST_POINTS:]
        self._page.server.scene.add_point_cloud("/thing", self._points, self._colors, point_size=0.0015)


class LiveWatch:
    """Finds the board in frames of a live camera while they are read, and tells the watch its poses."""

    def __init__(self, watch: ScanWatch, board: BoardCfg) -> None:
        self._watch, self._board, self._last_s = watch, board, -np.inf

    def __call__(self, frame: DepthFrame) -> None:
        """Look for the board where the last look is old enough; a frame without it shows nothing new."""
        if time.monotonic() < self._last_s + LOOK_S or frame.color is None:
            return
        self._last_s = time.monotonic()
        try:
            view = find_covered_board(self._board, frame.color, frame.intrinsics, "frame")
        except ValueError:
            return
        near = (frame.depth_m > RANGE_M[0]) & (frame.depth_m < RANGE_M[1])
        T = table_from_board(self._board) @ np.linalg.inv(view.T_cam_board)
        depth_m = np.where(near, frame.depth_m, np.float32(0))
        self._watch.frame(
            ScanFrame(
                name="live",
                depth_m=depth_m,
                color=frame.color,
                camera=frame.intrinsics,
                hole=frame.depth_m == 0,
                T_table_cam=T,
            )
        )


def side_patch(side: tuple[str, int]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return vertices (n, 3) [m] and triangles (m, 3) of one side on the dome around the thing."""
    band, sector = side
    low, high = BANDS_DEG.get(band, (max(end for _, end in BANDS_DEG.values()), 90.0))
    width = 360 / SECTORS
    span = (0.0, 360.0) if band == ABOVE else (sector * width + 1, (sector + 1) * width - 1)
    azimuth = np.radians(np.linspace(*span, 25 if band == ABOVE else 5))
    elevation = np.radians(np.linspace(low + 1, high - (band != ABOVE), 5))
    around, up = np.meshgrid(azimuth, elevation, indexing="ij")
    vertices = DOME_M * np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1)
    corner = np.arange(len(azimuth) * 5).reshape(-1, 5)
    a, b, c, d = (part.reshape(-1) for part in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return vertices.reshape(-1, 3).astype(np.float32), faces.astype(np.int32)
