"""Draw scenes with table, light, soft shadows, colours, and the visual mesh of the object."""

from collections.abc import Collection

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dexgrasp.sim.rendering.env_state import NEIGHBOUR_BODY, OBJECT_BODY
from dexgrasp.sim.rendering.offscreen import LAMP_CUTOFF_DEG, open_renderer

Rgba = tuple[float, float, float, float]
Mesh = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Vertices (v, 3) [m] and triangles (f, 3)."""

OBJECT: Rgba = (0.93, 0.49, 0.20, 1.0)
NEIGHBOUR_RGB = (0.45, 0.58, 0.66)
HIDDEN: Rgba = (0.0, 0.0, 0.0, 0.0)
TABLE: Rgba = (0.90, 0.88, 0.85, 1.0)
GRID: Rgba = (0.80, 0.78, 0.75, 1.0)
FLOOR: Rgba = (0.50, 0.55, 0.61, 1.0)
TOUCH: Rgba = (0.10, 0.66, 0.62, 1.0)
"""Colour of the parts of the hand that touch the object."""
LEAST_GREY = 0.42
"""Dark parts of the hand are drawn at this brightness: in black parts no shape is seen."""
TOWARDS_LAMP_W = (0.35, 0.75, 1.6)
PENUMBRA = 1 / 90
"""Blur of the shadows relative to the height of the image."""
TABLE_HALF_M, TABLE_HEIGHT_M, FLOOR_HALF_M = 0.85, 0.75, 20.0
GRID_PITCH_M, GRID_LINES = 0.1, 13
HAND_BODY = "palm"


class Studio:
    """Draws states of one scene with soft shadows. Holds two OpenGL contexts until `close`.

    The shadows are those of one lamp: the ratio of an image with shadows to an image without, at half size, blurred.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int, visual: mujoco.MjModel | None = None) -> None:
        """`visual`: model of the object's visual mesh, drawn instead of the meshes of `model`.

        Raises RenderUnavailable where no OpenGL backend works.
        """
        self._size, self._visual = (width, height), visual
        self._image = open_renderer(visual or model, width, height)
        try:
            self._shadow = open_renderer(visual or model, width // 2, height // 2, samples=0)
        except BaseException:
            self._image.close()
            raise

    def draw(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        camera: mujoco.MjvCamera,
        fovy_deg: float,
        touching: Collection[int] = (),
    ) -> NDArray[np.uint8]:
        """Return an image (height, width, 3); the bodies `touching` are drawn in the colour TOUCH."""
        model.vis.global_.fovy, model.stat.extent = fovy_deg, 1.0  # a depth camera of this model may have set its own
        for renderer in (self._image, self._shadow):
            set_scene(renderer.scene, model, data, camera, self._visual, touching)
        self._image.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        shares = []
        for shadow in (True, False):
            self._shadow.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadow
            shares.append(self._shadow.render().sum(axis=2, dtype=np.float32) + 1.0)
        share = np.rint(255 * np.minimum(shares[0] / shares[1], 1.0)).astype(np.uint8)
        blur = ImageFilter.GaussianBlur(self._size[1] / 2 * PENUMBRA)
        soft = Image.fromarray(share).filter(blur).resize(self._size, Image.Resampling.BILINEAR)
        lit = self._image.render()
        return (lit * np.asarray(soft, np.uint16)[..., None] // 255).astype(np.uint8)

    def close(self) -> None:
        """Free OpenGL."""
        self._image.close()
        self._shadow.close()


def set_scene(
    scene: mujoco.MjvScene,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: mujoco.MjvCamera,
    visual: mujoco.MjModel | None = None,
    touching: Collection[int] = (),
) -> None:
    """Fill `scene` with `data` under our own light, on our own table.

    `visual`: model of the object's visual mesh, drawn instead of the collision pieces.
    """
    everything = mujoco.mjtCatBit.mjCAT_ALL.value
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, everything, scene)
    scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
    scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    object_body = model.body(OBJECT_BODY).id
    others = [i for i in range(model.nbody) if model.body(i).name.startswith(NEIGHBOUR_BODY)]
    for geom in scene.geoms[: scene.ngeom]:
        body = model.geom_bodyid[geom.objid]
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            geom.rgba[:], geom.size[:2], geom.dataid, geom.pos[2] = FLOOR, FLOOR_HALF_M, -1, -TABLE_HEIGHT_M
        elif body in others:
            geom.rgba[:] = (*NEIGHBOUR_RGB, geom.rgba[3])
            geom.dataid = geom.dataid if geom.rgba[3] > 0 else -1
        elif body == object_body:
            drawn = visual is None and geom.rgba[3] > 0
            geom.rgba[:] = OBJECT if drawn else HIDDEN
            geom.dataid = geom.dataid if drawn else -1  # shadows ignore transparency, and the meshes are not loaded
        else:
            _paint_robot(geom, touched=body in touching)
    if visual is not None:
        _add_mesh(scene, visual, data.body(OBJECT_BODY))
    _add_table(scene)
    _light(scene, camera)


def mesh_model(mesh: Mesh, height_m: float = 0.0) -> mujoco.MjModel:
    """Return a model of one mesh, its frame `height_m` above a plane."""
    vertices, faces = mesh
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


def _paint_robot(geom: mujoco.MjvGeom, touched: bool) -> None:
    if touched:
        geom.rgba[:] = TOUCH
    elif (brightest := geom.rgba[:3].max()) < LEAST_GREY:
        geom.rgba[:3] += LEAST_GREY - brightest
    geom.specular, geom.shininess = 0.35, 0.4


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
    geom.specular, geom.shininess = 0.25, 0.3
    scene.ngeom += 1


def _add_table(scene: mujoco.MjvScene) -> None:
    """Add the table top, and thin lines every GRID_PITCH_M on it as a scale."""
    half_m = GRID_PITCH_M * (GRID_LINES - 1) / 2
    boxes = [((0.0, 0.0, -0.015), (TABLE_HALF_M, TABLE_HALF_M, 0.015), TABLE)]
    for offset_m in np.linspace(-half_m, half_m, GRID_LINES):
        boxes += [((offset_m, 0, 0), (0.0006, half_m, 1e-4), GRID), ((0, offset_m, 0), (half_m, 0.0006, 1e-4), GRID)]
    for pos, size, colour in boxes:
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_BOX, size, pos, np.eye(3).ravel(), colour)
        geom.specular = 0.0
        scene.ngeom += 1


def _light(scene: mujoco.MjvScene, camera: mujoco.MjvCamera) -> None:
    """Set soft light from the camera and a lamp above its left shoulder, which casts the shadows."""
    scene.nlight = 2
    fill, lamp = scene.lights[0], scene.lights[1]
    fill.headlight, fill.castshadow, fill.type = True, False, mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    fill.ambient[:], fill.diffuse[:], fill.specular[:] = 0.50, 0.26, 0.1
    lamp.headlight, lamp.castshadow, lamp.type = False, True, mujoco.mjtLightType.mjLIGHT_SPOT
    lamp.ambient[:], lamp.diffuse[:], lamp.specular[:] = 0.0, 0.42, 0.25
    lamp.cutoff, lamp.exponent, lamp.attenuation[:] = LAMP_CUTOFF_DEG, 0.0, (1.0, 0.0, 0.0)
    lamp.pos[:] = camera.lookat + np.array(TOWARDS_LAMP_W)
    lamp.dir[:] = -np.array(TOWARDS_LAMP_W) / np.linalg.norm(TOWARDS_LAMP_W)
