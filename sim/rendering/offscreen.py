"""Headless images and videos of an environment.

MuJoCo reads MUJOCO_GL once, when it is first imported; by then it is usually too late for a library to choose. So the
backend is found here by trying each one in a short-lived child process (a failed attempt leaves PyOpenGL bound to the
wrong platform for good), and the winner is handed to `mujoco.Renderer` explicitly.
"""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import imageio.v2 as imageio
import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dexgrasp.utils.files import atomic_path

Rgba = tuple[float, float, float, float]
Mesh = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Vertices (v, 3) [m] and triangles (f, 3)."""

OBJECT: Rgba = (0.96, 0.49, 0.16, 1.0)
HIDDEN: Rgba = (0.0, 0.0, 0.0, 0.0)
FLOOR: Rgba = (0.92, 0.93, 0.95, 1.0)
GRID: Rgba = (0.80, 0.82, 0.86, 1.0)
LAMP_CUTOFF_DEG, SHADOW_HALF_ANGLE_DEG = 180.0, 25.0
FLOOR_HALF_M, GRID_PITCH_M, GRID_LINES = 20.0, 0.1, 13
FOVY_DEG, LOOK_AT_HEIGHT_M = 36.0, 0.15
OBJECT_BODY, ARM_BODY = "object", "arm_base"

APT_PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1", "osmesa": "libosmesa6"}
"""Debian packages of each headless backend, best one first."""

PROBE_TIMEOUT_S = 60.0
_PROBE = "from mujoco.{0} import GLContext as C; c = C(64, 64); c.make_current(); c.free()"


class RenderUnavailable(RuntimeError):  # noqa: N818 - says what it is, like StopIteration
    """No OpenGL backend works here; the message names the packages that bring one."""

    def __init__(self, reasons: dict[str, str]) -> None:
        tried = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
        install = " | ".join(f"apt-get install {APT_PACKAGES[backend]}" for backend in APT_PACKAGES)
        super().__init__(f"no headless OpenGL for pictures and videos ({tried}). Install one of: {install}")


@functools.cache
def backend() -> str:
    """Return the name of the OpenGL backend that works on this machine.

    MUJOCO_GL where it names one, else egl, else osmesa.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    reasons: dict[str, str] = {}
    for name in [asked] if asked in APT_PACKAGES else list(APT_PACKAGES):
        failure = _probe(name)
        if not failure:
            return name
        reasons[name] = failure
    raise RenderUnavailable(reasons)


def open_renderer(model: mujoco.MjModel, width: int, height: int, samples: int = 4) -> mujoco.Renderer:
    """Return a renderer of one model on the working backend; the caller closes it.

    Images have `width` x `height` pixels of `samples` samples.

    Raises RenderUnavailable where no backend works.
    """
    os.environ["PYOPENGL_PLATFORM"] = backend()  # it may be inherited from a process that took the other one
    chosen: Any = importlib.import_module("mujoco.rendering.classic.gl_context")
    chosen.GLContext = importlib.import_module(f"mujoco.{backend()}").GLContext
    _set_optics(model, width, height, samples)
    return mujoco.Renderer(model, height=height, width=width)


class Renderer:
    """Renders images of one environment, `width` x `height` pixels.

    The camera looks at the object's initial position.
    """

    def __init__(self, mesh: Mesh | None = None, width: int = 640, height: int = 480) -> None:
        """`mesh`: the object's visual mesh in the object frame, drawn instead of the convex pieces that collide."""
        self._size, self._mesh = (width, height), mesh
        self._renderer, self._model = None, None

    def shoot(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        """Return an image (height, width, 3) of the present state.

        Raise RenderUnavailable where no backend works.
        """
        if self._renderer is None or self._model is not model:
            self._open(model, data)
        return _shoot(self._renderer, model, data, self._camera)

    def close(self) -> None:
        """Free OpenGL."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None

    def _open(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Load the meshes to draw into OpenGL: the visual one, or all of the model where the hand has meshes too."""
        self.close()
        only_pieces = model.nmesh == (model.geom_bodyid == model.body(OBJECT_BODY).id).sum()
        _set_optics(model, *self._size)
        visual = _still_life(*self._mesh) if self._mesh is not None and only_pieces else model
        self._renderer, self._model = open_renderer(visual, *self._size), model
        x, y, _ = data.body(OBJECT_BODY).xpos
        arm = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, ARM_BODY) >= 0  # from its side, else it hides the hand
        self._camera = _camera((x, y, 0.2), 1.3, -22.0, 75.0) if arm else _camera((x, y, LOOK_AT_HEIGHT_M), 0.68)


class VideoRecorder:
    """Records an MP4 of one environment: H.264, yuv420p, real time at `rate_hz` calls of `capture`.

    Frames go to the encoder as they come. The file appears under its name only when `close` has finished it; leaving
    the `with` block by an exception discards it.
    """

    def __init__(
        self, path: str | Path, rate_hz: float, mesh: Mesh | None = None, width: int = 640, height: int = 480
    ) -> None:
        """`mesh`: the object's visual mesh in the object frame, drawn instead of the convex pieces that collide."""
        if Path(path).suffix != ".mp4":
            raise ValueError(f"a recording is an .mp4 file, got {str(path)!r}")
        if width % 16 or height % 16:
            raise ValueError(f"width and height of a video must be multiples of 16 pixels, got {width} x {height}")
        self.path, self.frames = Path(path), 0
        self._photographer = Renderer(mesh, width, height)
        self._output = atomic_path(self.path)
        options = ["-movflags", "+faststart", "-crf", "20", "-threads", "1"]
        self._writer = imageio.get_writer(
            self._output.__enter__(),
            fps=rate_hz,
            codec="libx264",
            pixelformat="yuv420p",
            quality=None,
            output_params=options,
        )

    def capture(self, model: mujoco.MjModel, data: mujoco.MjData, caption: str = "") -> None:
        """Append the present state as one frame, with a caption in the lower left corner."""
        self._writer.append_data(write_caption(self._photographer.shoot(model, data), caption))
        self.frames += 1

    def close(self) -> Path:
        """Finish the file, free OpenGL, return the path."""
        self._photographer.close()
        self._writer.close()
        if not self.frames:
            raise ValueError(f"nothing was captured for {self.path}")
        self._output.__exit__(None, None, None)
        return self.path

    def discard(self) -> None:
        """Free OpenGL and remove what was written."""
        self._photographer.close()
        self._writer.close()
        error = RuntimeError("the recording was discarded")
        self._output.__exit__(RuntimeError, error, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.frames:
            self.close()
        else:
            self.discard()


def write_caption(frame: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    """Write one line of text into the lower left corner of a frame (height, width, 3)."""
    if not caption:
        return frame
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    size = max(frame.shape[0] // 32, 10)
    font = ImageFont.load_default(size=size)
    draw.text((size, frame.shape[0] - 2 * size), caption, font=font, fill=(38, 42, 51))
    return np.asarray(image)


def render_mesh(mesh: Mesh, size: int = 240) -> NDArray[np.uint8]:
    """Return an image (size, size, 3) of a triangle mesh [m] that stands on the table."""
    vertices = mesh[0]
    model = _still_life(*mesh, height_m=-float(vertices[:, 2].min()))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    extent_m = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    centre_m = data.body(OBJECT_BODY).xpos + (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    renderer = open_renderer(model, size, size)
    try:
        return _shoot(renderer, model, data, _camera(centre_m, distance_m=1.75 * extent_m, elevation_deg=-30.0))
    finally:
        renderer.close()


def _set_optics(model: mujoco.MjModel, width: int, height: int, samples: int = 4) -> None:
    """Set lens, clipping and quality, which MuJoCo keeps in the model; no physics."""
    model.stat.extent = 1.0  # clipping and shadow depths are in units of it
    model.vis.global_.fovy = FOVY_DEG
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    model.vis.map.shadowscale = SHADOW_HALF_ANGLE_DEG / LAMP_CUTOFF_DEG
    model.vis.quality.offsamples, model.vis.quality.shadowsize = samples, 1024


def _camera(
    lookat_w: Sequence[float], distance_m: float, elevation_deg: float = -25.0, azimuth_deg: float = 135.0
) -> mujoco.MjvCamera:
    """Return a free camera; the elevation keeps the horizon out of the image."""
    camera = mujoco.MjvCamera()
    camera.lookat[:] = lookat_w
    camera.azimuth, camera.elevation, camera.distance = azimuth_deg, elevation_deg, distance_m
    return camera


def _shoot(
    renderer: mujoco.Renderer, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera
) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) of `data` under our own light.

    Hand and arm keep the colours of the model.
    """
    scene = renderer.scene
    everything = mujoco.mjtCatBit.mjCAT_ALL.value
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, everything, scene)
    scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
    scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    visual = renderer.model if renderer.model is not model else None
    object_body = model.body(OBJECT_BODY).id
    for geom in scene.geoms[: scene.ngeom]:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            geom.rgba[:], geom.size[:2], geom.dataid = FLOOR, FLOOR_HALF_M, -1
        elif model.geom_bodyid[geom.objid] == object_body:
            drawn = visual is None and geom.rgba[3] > 0
            geom.rgba[:] = OBJECT if drawn else HIDDEN
            geom.dataid = geom.dataid if drawn else -1  # shadows ignore transparency, and the meshes are not loaded
    if visual is not None:
        _add_mesh(scene, visual, data.body(OBJECT_BODY))
    _add_grid(scene)
    _light(scene, camera)
    return renderer.render()


def _add_mesh(scene: mujoco.MjvScene, visual: mujoco.MjModel, body: "mujoco._structs._MjDataBodyViews") -> None:
    """Add the visual mesh at the pose of `body`.

    Compiling moved the mesh's own frame to its inertia axes.
    """
    rotation_w_b = body.xmat.reshape(3, 3)
    rotation_b_m = np.empty(9)
    mujoco.mju_quat2Mat(rotation_b_m, visual.geom("mesh").quat)
    geom = scene.geoms[scene.ngeom]
    pos_w = body.xpos + rotation_w_b @ visual.geom("mesh").pos
    mat = (rotation_w_b @ rotation_b_m.reshape(3, 3)).ravel()
    mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_MESH, np.zeros(3), pos_w, mat, OBJECT)
    geom.dataid = 0
    scene.ngeom += 1


def _add_grid(scene: mujoco.MjvScene) -> None:
    """Add thin lines every GRID_PITCH_M on the table, as a scale."""
    half_m = GRID_PITCH_M * (GRID_LINES - 1) / 2
    for offset_m in np.linspace(-half_m, half_m, GRID_LINES):
        for pos, size in (((offset_m, 0, 0), (0.0006, half_m, 1e-4)), ((0, offset_m, 0), (half_m, 0.0006, 1e-4))):
            mujoco.mjv_initGeom(scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_BOX, size, pos, np.eye(3).ravel(), GRID)
            scene.ngeom += 1


def _light(scene: mujoco.MjvScene, camera: mujoco.MjvCamera) -> None:
    """Set soft light from the camera and a lamp above its left shoulder, which casts the shadows."""
    scene.nlight = 2
    fill, lamp = scene.lights[0], scene.lights[1]
    fill.headlight, fill.castshadow, fill.type = True, False, mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    fill.ambient[:], fill.diffuse[:], fill.specular[:] = 0.50, 0.22, 0.0
    lamp.headlight, lamp.castshadow, lamp.type = False, True, mujoco.mjtLightType.mjLIGHT_SPOT
    lamp.ambient[:], lamp.diffuse[:], lamp.specular[:] = 0.0, 0.40, 0.2
    lamp.cutoff, lamp.exponent, lamp.attenuation[:] = LAMP_CUTOFF_DEG, 0.0, (1.0, 0.0, 0.0)
    towards_lamp = np.array([0.35, 0.75, 1.6])
    lamp.pos[:] = camera.lookat + towards_lamp
    lamp.dir[:] = -towards_lamp / np.linalg.norm(towards_lamp)


def _still_life(vertices: NDArray[np.float32], faces: NDArray[np.int32], height_m: float = 0.0) -> mujoco.MjModel:
    """Return a model of one mesh, its frame `height_m` above a plane."""
    spec = mujoco.MjSpec()
    spec.add_mesh(
        name="mesh",
        uservert=vertices.astype(np.float64).ravel(),
        userface=faces.astype(np.int32).ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    body = spec.worldbody.add_body(name=OBJECT_BODY, pos=[0, 0, height_m])
    body.add_geom(name="mesh", type=mujoco.mjtGeom.mjGEOM_MESH, meshname="mesh")
    return spec.compile()


@functools.cache
def _probe(name: str) -> str:
    """Return '' when backend `name` can make a context in a fresh process, else its last message."""
    clean = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}
    command = [sys.executable, "-c", _PROBE.format(name)]
    try:
        done = subprocess.run(
            command, env=clean | {"MUJOCO_GL": name}, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT_S:.0f} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it crashed"])[-1]
