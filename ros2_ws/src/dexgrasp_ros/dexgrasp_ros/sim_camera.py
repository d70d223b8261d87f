"""The camera of the simulated robot: depth drawn by MuJoCo with the errors of a D435."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros import config
from dexgrasp_ros.sim_robot import SceneSnapshot, SimRobotCfg
from perception.depth import Intrinsics
from perception.extrinsics import CameraPose
from sim.depth_flaws import Chance, add_flaws
from sim.render_depth import DepthRenderer, camera_looking_at
from sim.rendered_camera import CAMERA, MISSING

UPRIGHT_TOLERANCE = 1e-3
DRAWN = 8
"""Drawings of a camera's chance, each used in four ways: drawing one takes longer than the picture."""
Array = NDArray[np.float64]
Image = NDArray[np.float32]


class SimDepthCamera:
    """Draws scenes as a D435 would take them. Belongs to the thread that made it, because OpenGL does."""

    def __init__(self, cfg: SimRobotCfg) -> None:
        """Raises RenderUnavailable where no OpenGL works."""
        self.intrinsics = pinhole(cfg.width, cfg.height)
        self.pose = upright(CameraPose.load(config(cfg.camera)).T_world_cam, cfg.camera)
        self._rng = np.random.default_rng([cfg.seed, 2])
        shape = self.intrinsics.height, self.intrinsics.width
        self._chances = [Chance.draw(shape, self._rng, MISSING) for _ in range(DRAWN * cfg.flaws)]
        self._renderer = DepthRenderer(self.intrinsics)
        self._drawn: tuple[mujoco.MjModel, mujoco.MjData] | None = None

    def take(self, scene: SceneSnapshot) -> Image:
        """Depth (rows, columns) [m], 0 = hole."""
        if self._drawn is None or self._drawn[0] is not scene.model:
            self._drawn = scene.model, mujoco.MjData(scene.model)
        data = self._drawn[1]
        data.qpos[:] = scene.qpos
        mujoco.mj_kinematics(scene.model, data)
        depth_m = self._renderer.draw(scene.model, data, self.pose).astype(np.float32)
        if self._chances:
            chance = self._chances[self._rng.integers(DRAWN)].turned(self._rng)
            add_flaws(depth_m, self.intrinsics, chance)
        return depth_m


def pinhole(width: int, height: int) -> Intrinsics:
    """A D435's depth camera at this size; the field of view is that of its width."""
    focal = CAMERA.fx * width / CAMERA.width
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def upright(T_world_cam: Array, name: str) -> mujoco.MjvCamera:
    """MuJoCo's camera at a pose. Raises ValueError where the picture would be tilted: MuJoCo's stand upright."""
    place, ahead = T_world_cam[:3, 3], T_world_cam[:3, 2]
    camera, T_level = camera_looking_at(place, place + ahead)
    if np.abs(T_level[:3, :3] - T_world_cam[:3, :3]).max() > UPRIGHT_TOLERANCE:
        raise ValueError(f"{name}: the simulated camera stands upright, its x axis level; got {T_world_cam.tolist()}")
    return camera
