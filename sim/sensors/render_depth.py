"""Depth images of a MuJoCo scene, rendered by OpenGL for a pinhole camera of given intrinsics."""

import weakref
from collections import OrderedDict
from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.sim.rendering.offscreen import backend, open_renderer

FAR_M = 5.0
"""Depth beyond which a pixel is empty."""
CONTEXTS = 72
"""Most models whose meshes stay in OpenGL; the least recently rendered is dropped first."""
UNSEEN = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX)
"""Rendering features that cost time and have no depth."""
AWAY_W = (0.0, 0.0, -50.0)


def camera_looking_at(camera_w: ArrayLike, target_w: ArrayLike) -> tuple[mujoco.MjvCamera, NDArray]:
    """Return MuJoCo's camera at `camera_w` upright towards `target_w`, and its T_world_cam (4, 4), OpenCV axes."""
    offset = np.asarray(target_w, float) - np.asarray(camera_w, float)
    distance = float(np.linalg.norm(offset))
    forward = offset / distance
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance = target_w, distance
    azimuth, elevation = np.arctan2(forward[1], forward[0]), np.arcsin(np.clip(forward[2], -1.0, 1.0))
    camera.azimuth, camera.elevation = np.degrees(azimuth), np.degrees(elevation)
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    T_world_cam = np.eye(4)
    T_world_cam[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T_world_cam[:3, 3] = camera_w
    return camera, T_world_cam


class DepthRenderer:
    """Renders depth. Raises RenderUnavailable when made where no OpenGL works; frees OpenGL when collected."""

    def __init__(self, intrinsics: Intrinsics) -> None:
        centre = ((intrinsics.width - 1) / 2, (intrinsics.height - 1) / 2)
        if intrinsics.fx != intrinsics.fy or (intrinsics.cx, intrinsics.cy) != centre or any(intrinsics.coeffs):
            raise ValueError(f"only a plain pinhole with its axis in the middle can be drawn, got {intrinsics}")
        backend()
        self.intrinsics = intrinsics
        self._fovy_deg = float(np.degrees(2 * np.arctan(intrinsics.height / 2 / intrinsics.fy)))
        self._renderers: OrderedDict[int, tuple[mujoco.MjModel, mujoco.Renderer]] = OrderedDict()
        weakref.finalize(self, _free, self._renderers)  # OSMesa crashes at the end of the process when it is not freed

    def draw(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera, hide: Sequence[int] = ()
    ) -> NDArray[np.float64]:
        """Return depth (rows, columns) along the camera's axis [m], 0 in empty pixels; geoms `hide` are left out."""
        renderer = self._open(model)
        model.vis.global_.fovy = self._fovy_deg
        renderer.update_scene(data, camera)
        hidden = set(hide)
        for geom in renderer.scene.geoms[: renderer.scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid in hidden:
                geom.pos[:] = AWAY_W
        depth_m = renderer.render().astype(np.float64)
        depth_m[depth_m > FAR_M] = 0.0
        return depth_m

    def _open(self, model: mujoco.MjModel) -> mujoco.Renderer:
        _, renderer = self._renderers.pop(id(model), (None, None))
        if renderer is None:
            renderer = open_renderer(model, self.intrinsics.width, self.intrinsics.height, samples=0)
            renderer.enable_depth_rendering()
            for flag in UNSEEN:
                renderer.scene.flags[flag] = 0
        self._renderers[id(model)] = model, renderer
        while len(self._renderers) > CONTEXTS:
            self._renderers.popitem(last=False)[1][1].close()
        return renderer


def _free(renderers: OrderedDict[int, tuple[mujoco.MjModel, mujoco.Renderer]]) -> None:
    while renderers:
        renderers.popitem()[1][1].close()
