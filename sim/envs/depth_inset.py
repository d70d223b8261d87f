"""Depth images of a trial as an inset of its film, with the object points of the policy as dots."""

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.sim.sensors.depth_camera import CAMERA, HOLE_FRACTION, DepthRenderer, camera_looking_at
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_depth_errors
from dexgrasp.sim.task.grasp_task import GraspTask

MIDDLE = Intrinsics(width=480, height=360, fx=CAMERA.fx, fy=CAMERA.fy, cx=239.5, cy=179.5)
"""The middle of the camera's image, in its own pixels."""
NEAR_M, FAR_M = 0.35, 0.12
"""Range of the colours: that much nearer and further than the table's centre."""
COLOURS = np.array([[253, 231, 90], [96, 196, 104], [34, 140, 141], [58, 88, 140], [58, 22, 92]])
"""From near to far; between them colours are interpolated."""
POINT, NO_DEPTH = (255, 90, 60), (20, 20, 28)


class DepthInset:
    """Renders the depth camera of one environment, with the camera's errors, as often as it takes frames."""

    def __init__(self, task: GraspTask, row: int) -> None:
        """Raises RenderUnavailable where no OpenGL backend works."""
        self._task, self._row = task, row
        self._renderer = DepthRenderer(MIDDLE)
        self._image, self._taken = np.zeros((MIDDLE.height, MIDDLE.width, 3), np.uint8), -np.inf
        self._camera_w = task.object_camera.camera_w[row].cpu().numpy()
        self._place_w = self._camera_w - task.draws.camera_offset[row].cpu().numpy()
        self._camera, self._T_world_cam = camera_looking_at(self._camera_w, self._place_w)

    def draw(self) -> NDArray[np.uint8]:
        """Return an image (rows, columns, 3): depth by colour, near is bright; the policy's points as dots."""
        step = int(self._task.steps_since_reset[self._row])
        if step - self._taken >= self._task.cfg.camera.frame_interval_steps:
            self._image, self._taken = self._depth_image(step), step
        image = self._image.copy()
        _add_points(image, self._task.object_camera.points_w[self._row].cpu().numpy(), self._T_world_cam)
        return image

    def _depth_image(self, step: int) -> NDArray[np.uint8]:
        engine, row = self._task.engine, self._row
        depth_m = self._renderer.render(engine.get_model(row), engine.get_data(row), self._camera)
        rng = np.random.default_rng([int(self._task.trial[row]), step])
        add_depth_errors(depth_m, MIDDLE, DepthNoiseDraws.draw(depth_m.shape, rng, HOLE_FRACTION))
        distance_m = np.linalg.norm(self._camera_w - self._place_w)
        share = (depth_m - distance_m + NEAR_M) / (NEAR_M + FAR_M)
        places = np.linspace(0, 1, len(COLOURS))
        image = np.stack([np.interp(share, places, channel) for channel in COLOURS.T], axis=-1).astype(np.uint8)
        image[depth_m <= 0] = NO_DEPTH
        return image


def _add_points(image: NDArray[np.uint8], points_w: NDArray, T_world_cam: NDArray) -> None:
    """Draw points (n, 3) as dots of 2 x 2 pixels."""
    points_c = (points_w - T_world_cam[:3, 3]) @ T_world_cam[:3, :3]
    scale = np.array([MIDDLE.fx, MIDDLE.fy])
    pixels = np.rint(scale * points_c[:, :2] / points_c[:, 2:] + [MIDDLE.cx, MIDDLE.cy]).astype(int)
    inside = ((pixels > 0) & (pixels < [MIDDLE.width - 1, MIDDLE.height - 1])).all(axis=1)
    for column, line in pixels[inside]:
        image[line : line + 2, column : column + 2] = POINT
