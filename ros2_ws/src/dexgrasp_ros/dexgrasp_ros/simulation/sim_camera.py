"""Depth camera of the simulated robot: rendered by MuJoCo, with the errors of a RealSense D435."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.sim.sensors.depth_camera import CAMERA, MISSING
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_flaws
from dexgrasp.sim.sensors.render_depth import DepthRenderer, camera_looking_at
from dexgrasp_ros import config
from dexgrasp_ros.simulation.sim_robot import SceneSnapshot, SimRobotCfg

UPRIGHT_TOLERANCE = 1e-3
"""Accepted deviation of the rotation matrix of the camera from an upright one."""
NOISE_DRAWS = 8
"""Number of noise draws, each used in four orientations: a draw takes longer than rendering."""
Array = NDArray[np.float64]
Image = NDArray[np.float32]


class SimDepthCamera:
    """Renders scenes as a D435 images them; to be used in the thread that created it, because of OpenGL."""

    def __init__(self, cfg: SimRobotCfg) -> None:
        """Raise RenderUnavailable without OpenGL."""
        self.intrinsics = pinhole(cfg.width, cfg.height)
        self.pose = upright(CameraPose.load(config(cfg.camera)).T_world_cam, cfg.camera)
        self._rng = np.random.default_rng([cfg.seed, 2])
        shape = self.intrinsics.height, self.intrinsics.width
        self._chances = [DepthNoiseDraws.draw(shape, self._rng, MISSING) for _ in range(NOISE_DRAWS * cfg.flaws)]
        self._renderer = DepthRenderer(self.intrinsics)
        self._drawn: tuple[mujoco.MjModel, mujoco.MjData] | None = None

    def capture(self, scene: SceneSnapshot) -> Image:
        """Return the depth image of a scene (row, column) [m], 0 = hole."""
        if self._drawn is None or self._drawn[0] is not scene.model:
            self._drawn = scene.model, mujoco.MjData(scene.model)
        data = self._drawn[1]
        data.qpos[:] = scene.qpos
        mujoco.mj_kinematics(scene.model, data)
        depth_m = self._renderer.draw(scene.model, data, self.pose).astype(np.float32)
        if self._chances:
            chance = self._chances[self._rng.integers(NOISE_DRAWS)].turned(self._rng)
            add_flaws(depth_m, self.intrinsics, chance)
        return depth_m


def pinhole(width: int, height: int) -> Intrinsics:
    """Return the intrinsics of a D435 at this size, with its horizontal field of view."""
    focal = CAMERA.fx * width / CAMERA.width
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def upright(T_world_cam: Array, name: str) -> mujoco.MjvCamera:
    """Return the MuJoCo camera at a pose. Raises ValueError for a rolled camera."""
    position, forward = T_world_cam[:3, 3], T_world_cam[:3, 2]
    camera, T_level = camera_looking_at(position, position + forward)
    if np.abs(T_level[:3, :3] - T_world_cam[:3, :3]).max() > UPRIGHT_TOLERANCE:
        raise ValueError(f"{name}: the x axis of the simulated camera must be horizontal; got {T_world_cam.tolist()}")
    return camera
