"""Image of what the depth camera sees in a trial, with the object points that the policy gets."""

import matplotlib
import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.sim.sensors.depth_camera import CAMERA, MISSING, DepthRenderer, camera_looking_at
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_flaws
from dexgrasp.sim.task.grasp_task import GraspTask

MIDDLE = Intrinsics(CAMERA.width // 2, CAMERA.height // 2, CAMERA.fx, CAMERA.fy, CAMERA.cx / 2 - 0.25, CAMERA.cy / 2 - 0.25)
"""The middle half of the camera's image, in its own pixels."""
NEAR_M, FAR_M = 0.35, 0.12
"""Range of the colours: that much nearer and further than the table's centre."""
POINT, NO_DEPTH = (255, 90, 60), (20, 20, 28)


class DepthInset:
    """Renders the depth camera of one environment, with the camera's errors."""

    def __init__(self) -> None:
        self._renderer = DepthRenderer(MIDDLE)
        self._colours = (255 * matplotlib.colormaps["viridis_r"](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)

    def draw(self, task: GraspTask, row: int) -> NDArray[np.uint8]:
        """Return an image (rows, columns, 3): depth by colour, near is bright; the policy's points as dots."""
        camera_w = task.object_camera.camera_w[row].cpu().double()
        place_w = (camera_w - task.draws.camera_offset[row].cpu()).numpy()
        camera, T_world_cam = camera_looking_at(camera_w.numpy(), place_w)
        depth_m = self._renderer.draw(task.engine.get_model(row), task.engine.get_data(row), camera)
        rng = np.random.default_rng([int(task.trial[row]), int(task.steps_since_reset[row])])
        add_flaws(depth_m, MIDDLE, DepthNoiseDraws.draw(depth_m.shape, rng, MISSING))
        distance_m = float(np.linalg.norm(camera_w.numpy() - place_w))
        share = (depth_m - distance_m + NEAR_M) / (NEAR_M + FAR_M)
        image = self._colours[np.clip(255 * share, 0, 255).astype(np.uint8)]
        image[depth_m <= 0] = NO_DEPTH
        _add_points(image, task.object_camera.points_w[row].cpu().double().numpy(), T_world_cam)
        return image


def _add_points(image: NDArray[np.uint8], points_w: NDArray, T_world_cam: NDArray) -> None:
    """Draw points (n, 3) as dots of 3 x 3 pixels."""
    points_c = (points_w - T_world_cam[:3, 3]) @ T_world_cam[:3, :3]
    scale = np.array([MIDDLE.fx, MIDDLE.fy])
    pixels = np.rint(scale * points_c[:, :2] / points_c[:, 2:] + [MIDDLE.cx, MIDDLE.cy]).astype(int)
    inside = ((pixels > 0) & (pixels < [MIDDLE.width - 1, MIDDLE.height - 1])).all(axis=1)
    for column, line in pixels[inside]:
        image[line - 1 : line + 2, column - 1 : column + 2] = POINT
