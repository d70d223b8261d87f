"""Evaluation camera: rendered depth with a D435's errors, through the perception pipeline.

The pipeline receives the image, the camera's pose with its calibration error, and the capsules of hand and arm; no mask
and no pose of the object. The first frame is taken without the hand.

Among neighbours the pipeline tells the objects apart: the wanted one is pointed at in the first frame, at the pixel in
the middle of what is visible of it, and followed from there on.
"""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics, deproject, to_frame
from dexgrasp.perception.cameras.temporal_filter import FIRST_VIEW_FRAMES, median_depth
from dexgrasp.perception.robot_mask import Capsules
from dexgrasp.perception.segmentation.pipeline import NoObjectError, SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.table_plane import NoPlaneError
from dexgrasp.perception.segmentation.target import middle
from dexgrasp.sim.engine.base import Engine, Neighbours, State
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.rendering.offscreen import backend, open_renderer
from dexgrasp.sim.robots.capsules import robot_capsules, visible_geoms
from dexgrasp.sim.scene import ModelPool, object_bodies
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_depth_errors
from dexgrasp.sim.sensors.point_camera import POINTS

MAX_DEPTH_M = 5.0
"""Depth beyond which a pixel is empty."""

MAX_RENDERERS = 72
"""Most models whose meshes stay in OpenGL; the least recently rendered is dropped first."""

UNUSED_FLAGS = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX)
"""Rendering features that cost time and have no depth."""

OUT_OF_VIEW_W = (0.0, 0.0, -50.0)
log = logging.getLogger("dexgrasp")
CAMERA = Intrinsics(width=640, height=480, fx=385.0, fy=385.0, cx=319.5, cy=239.5)
"""Pinhole model of a D435 at this size."""
SAME_SURFACE_M = 0.001
"""Difference of two exact depth images below which a pixel shows one surface."""
HOLE_FRACTION = 0.02
"""Fraction of pixels without depth."""


def camera_looking_at(camera_w: ArrayLike, target_w: ArrayLike) -> tuple[mujoco.MjvCamera, NDArray]:
    """Return a MuJoCo camera at `camera_w`, upright towards `target_w`, and its T_world_cam (4, 4).

    T_world_cam has OpenCV axes.
    """
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
    """Renders depth images of a MuJoCo scene.

    Raises RenderUnavailable when made where no OpenGL works; frees OpenGL when collected.
    """

    def __init__(self, intrinsics: Intrinsics) -> None:
        centre = ((intrinsics.width - 1) / 2, (intrinsics.height - 1) / 2)
        if intrinsics.fx != intrinsics.fy or (intrinsics.cx, intrinsics.cy) != centre or any(intrinsics.coeffs):
            raise ValueError(
                "rendering needs a pinhole camera with fx = fy, a centred principal point and no distortion, got "
                f"{intrinsics}"
            )
        backend()
        self.intrinsics = intrinsics
        self._fovy_deg = float(np.degrees(2 * np.arctan(intrinsics.height / 2 / intrinsics.fy)))
        self._renderers: OrderedDict[int, tuple[mujoco.MjModel, mujoco.Renderer]] = OrderedDict()
        weakref.finalize(self, _free, self._renderers)  # OSMesa crashes at the end of the process when it is not freed

    def render(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera, hide: Sequence[int] = ()
    ) -> NDArray[np.float64]:
        """Return depth (rows, columns) along the camera's axis [m], 0 in empty pixels.

        The geoms `hide` are left out.
        """
        renderer = self._open(model)
        model.vis.global_.fovy = self._fovy_deg
        renderer.update_scene(data, camera)
        hidden = set(hide)
        for geom in renderer.scene.geoms[: renderer.scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid in hidden:
                geom.pos[:] = OUT_OF_VIEW_W
        depth_m = renderer.render().astype(np.float64)
        depth_m[depth_m > MAX_DEPTH_M] = 0.0
        return depth_m

    def _open(self, model: mujoco.MjModel) -> mujoco.Renderer:
        _, renderer = self._renderers.pop(id(model), (None, None))
        if renderer is None:
            renderer = open_renderer(model, self.intrinsics.width, self.intrinsics.height, samples=0)
            renderer.enable_depth_rendering()
            for flag in UNUSED_FLAGS:
                renderer.scene.flags[flag] = 0
        self._renderers[id(model)] = model, renderer
        while len(self._renderers) > MAX_RENDERERS:
            self._renderers.popitem(last=False)[1][1].close()
        return renderer


def _free(renderers: OrderedDict[int, tuple[mujoco.MjModel, mujoco.Renderer]]) -> None:
    while renderers:
        renderers.popitem()[1][1].close()


class DepthCamera:
    """Renders and segments depth. The trial's random numbers alone decide the errors of its images."""

    def __init__(self, pool: ModelPool, engine: Engine, depth_errors: bool = True) -> None:
        """`depth_errors`: add the errors of a D435; without them images are exact."""
        self._pool, self._engine, self._depth_errors = pool, engine, depth_errors
        self._renderer = DepthRenderer(CAMERA)
        among = {"target": "nearest", "stride": 1} if pool.neighbours else {}  # any but largest tells objects apart
        self._segmenter = Segmenter(SegmentationCfg(points=POINTS, **among), CAMERA)
        self._seeds = np.zeros(engine.num_envs, np.int64)
        self._first_pixels = torch.ones(engine.num_envs)
        self._look_at_w = np.zeros((engine.num_envs, 3))
        model = pool.get(pool.library.names[0])
        self._object_q = model.joint("object").qposadr[0]
        self._not_object = [i for i in range(model.ngeom) if model.geom_bodyid[i] != model.body("object").id]
        not_robot = {0, *object_bodies(model)}
        self._robot_geoms = [i for i in visible_geoms(model) if model.geom_bodyid[i] not in not_robot]

    def look_at(self, rows: Tensor, target_w: Tensor) -> None:
        """Point the cameras of `rows` at target_w (row, 3), world frame [m]."""
        self._look_at_w[rows.numpy()] = target_w.numpy()

    def observe_first(
        self,
        rows: Tensor,
        names: Sequence[str],
        pos_w: Tensor,
        quat_w: Tensor,
        camera_w: Tensor,
        draws: EpisodeDraws,
        neighbours: Neighbours | None = None,
    ) -> Tensor:
        """Return points (row, POINTS, 3) of the objects `names` at the given poses, without the hand.

        `camera_w` (row, 3): camera position, world frame [m].
        """
        points = torch.zeros(len(rows), POINTS, 3)
        self._seeds[rows.numpy()] = TrialRandom(draws.key).integers("image", 2**31).numpy()
        for i, row in enumerate(rows.tolist()):
            model = self._pool.get(names[i], float(draws.size[i]), neighbours.names[i] if neighbours else ())
            data = mujoco.MjData(model)
            poses = torch.cat([pos_w[i], quat_w[i]])
            if neighbours is not None:
                around = torch.cat([neighbours.pos_w[i], neighbours.quat_w[i]], dim=1)
                poses = torch.cat([around.flatten().to(poses), poses])
            data.qpos[self._object_q + 7 - len(poses) : self._object_q + 7] = poses.numpy()
            mujoco.mj_kinematics(model, data)
            bias_w = draws.camera_bias[i]
            earlier_w = None if neighbours is None else self._pointed_at(row, model, data, camera_w[i], bias_w)
            points[i], count = self._segment(row, model, data, camera_w[i], bias_w=bias_w, step=0, earlier_w=earlier_w)
            self._first_pixels[row] = max(count, 1)
            if not count:
                log.warning(
                    "no object in the first frame of %s: the grasp is planned at the point that the camera looks at",
                    names[i],
                )
        return points

    def observe(
        self,
        rows: Tensor,
        state: State,
        camera_w: Tensor,
        draws: EpisodeDraws,
        step: Tensor,
        earlier_w: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points that the hands leave visible after `step` (row,) control steps.

        Points (row, POINTS, 3), the number of distinct ones (row,), and the object's pixels relative to the first frame
        (row,). `draws` are of all environments; `earlier_w`: see `CameraModel.observe`.
        """
        points, pixels = torch.zeros(len(rows), POINTS, 3), torch.zeros(len(rows))
        for i, row in enumerate(rows.tolist()):
            model, data = self._engine.get_model(row), self._engine.get_data(row)
            points[i], pixels[i] = self._segment(
                row,
                model,
                data,
                camera_w[i],
                bias_w=draws.camera_bias[row],
                step=int(step[i]),
                earlier_w=None if earlier_w is None else earlier_w[i].numpy(),
            )
        return points, pixels.clamp(max=POINTS).long(), (pixels / self._first_pixels[rows]).clamp(max=1.0)

    def render(
        self, row: int, model: mujoco.MjModel, data: mujoco.MjData, camera_w: Tensor, *, bias_w: Tensor, step: int
    ) -> tuple[DepthFrame, Capsules | None]:
        """Return a frame of one scene after `step` control steps, and the robot's capsules in it.

        In the first frame, step 0, there is no robot. `camera_w` (3,): position of the camera; `bias_w` (3,):
        calibration error [m].
        """
        camera, T_world_cam = camera_looking_at(camera_w.numpy(), self._look_at_w[row])
        depth_m = self._renderer.render(model, data, camera, self._robot_geoms if step == 0 else ())
        if self._depth_errors:
            depth_m = self._with_depth_errors(depth_m, np.random.default_rng([int(self._seeds[row]), step]), step == 0)
        T_world_cam[:3, 3] += bias_w.numpy()
        frame = DepthFrame(depth_m=depth_m.astype(np.float32), intrinsics=CAMERA, stamp_s=0.0, T_world_cam=T_world_cam)
        return frame, robot_capsules(model, data, self._robot_geoms) if step else None

    def seed(self, row: int) -> int:
        """Return the random seed of the pipeline in one episode."""
        return int(self._seeds[row])

    def _pointed_at(
        self, row: int, model: mujoco.MjModel, data: mujoco.MjData, camera_w: Tensor, bias_w: Tensor
    ) -> NDArray[np.float32]:
        """Return the measured point (1, 3) in the middle of what is visible of the object without the hand [m].

        Where nothing is visible, the point that the camera looks at.
        """
        camera, T_world_cam = camera_looking_at(camera_w.numpy(), self._look_at_w[row])
        seen_m = self._renderer.render(model, data, camera, self._robot_geoms)
        alone_m = self._renderer.render(model, data, camera, self._not_object)
        visible = (alone_m > 0) & (np.abs(alone_m - seen_m) < SAME_SURFACE_M)
        if not visible.any():
            return self._look_at_w[row, None].astype(np.float32)
        line, column = middle(visible)
        ray = CAMERA.rays_at([column, line]).astype(np.float32)[:, None]
        point_w = to_frame(T_world_cam, deproject(seen_m[line, column, None].astype(np.float32), ray))
        return point_w.T + bias_w.numpy().astype(np.float32)

    def _segment(
        self,
        row: int,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        camera_w: Tensor,
        *,
        bias_w: Tensor,
        step: int,
        earlier_w: NDArray[np.float32] | None = None,
    ) -> tuple[Tensor, int]:
        """Return points (POINTS, 3) and the number of object pixels; without an object the camera's target and 0."""
        frame, capsules = self.render(row, model, data, camera_w, bias_w=bias_w, step=step)
        try:
            found = self._segmenter(frame, capsules, seed=self.seed(row), earlier_w=earlier_w)
        except (NoObjectError, NoPlaneError):
            return torch.from_numpy(self._look_at_w[row]).float().expand(POINTS, 3), 0
        return torch.from_numpy(found.points_w), len(found.cloud_w)

    @staticmethod
    def _with_depth_errors(depth_m: NDArray[np.float64], rng: np.random.Generator, still: bool) -> NDArray[np.float64]:
        """Return one frame with a D435's errors; the median of several where `still`."""
        frames = np.stack([depth_m] * (FIRST_VIEW_FRAMES if still else 1))
        for frame in frames:
            add_depth_errors(frame, CAMERA, DepthNoiseDraws.draw(frame.shape, rng, HOLE_FRACTION))
        return median_depth(frames) if still else frames[0]
