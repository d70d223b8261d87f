"""Images of a simulated environment, seen by a camera that follows the hand, and of single meshes."""

from collections.abc import Collection

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.sim.rendering.env_state import OBJECT_BODY
from dexgrasp.sim.rendering.follow_camera import FOVY_DEG, FollowCamera
from dexgrasp.sim.rendering.studio import HAND_BODY, Mesh, Studio, mesh_model

ARM_BODY = "arm_base"
AZIMUTH_DEG, ARM_AZIMUTH_DEG, ELEVATION_DEG = 135.0, 75.0, -24.0
"""Directions of the camera; an arm is seen from its side, otherwise it hides the hand."""


class Renderer:
    """Renders images of one environment, `width` x `height` pixels, from a camera that follows the hand."""

    def __init__(
        self,
        mesh: Mesh | None = None,
        width: int = 640,
        height: int = 480,
        rate_hz: float = 20.0,
        azimuth_deg: float | None = None,
    ) -> None:
        """`mesh`: the object's visual mesh in the object frame, drawn instead of the convex pieces that collide.

        `rate_hz`: images per second of simulated time. `azimuth_deg`: direction of the camera; None: a default.
        """
        self._size, self._mesh, self._rate_hz, self._azimuth_deg = (width, height), mesh, rate_hz, azimuth_deg
        self._studio: Studio | None = None
        self._model: mujoco.MjModel | None = None

    def shoot(self, model: mujoco.MjModel, data: mujoco.MjData, touching: Collection[int] = ()) -> NDArray[np.uint8]:
        """Return an image (height, width, 3) of the present state.

        The bodies `touching` are drawn in another colour. Raise RenderUnavailable where no OpenGL backend works.
        """
        if self._studio is None or self._model is not model:
            self._open(model)
        assert self._studio is not None
        hand = self._hand
        self.camera.update(data.geom_xpos[hand], model.geom_rbound[hand], data.body(OBJECT_BODY).xpos)
        return self._studio.draw(model, data, self.camera.camera, FOVY_DEG, touching)

    def close(self) -> None:
        """Free OpenGL."""
        if self._studio is not None:
            self._studio.close()
        self._studio = None

    def _open(self, model: mujoco.MjModel) -> None:
        """Load the meshes to draw into OpenGL: the visual one, or all of the model where the hand has meshes too."""
        self.close()
        width, height = self._size
        only_pieces = model.nmesh == (model.geom_bodyid == model.body(OBJECT_BODY).id).sum()
        visual = mesh_model(self._mesh) if self._mesh is not None and only_pieces else None
        self._studio, self._model = Studio(model, width, height, visual), model
        self._hand = hand_geoms(model)
        has_arm = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, ARM_BODY) >= 0
        usual_deg = ARM_AZIMUTH_DEG if has_arm else AZIMUTH_DEG
        azimuth_deg = usual_deg if self._azimuth_deg is None else self._azimuth_deg
        self.camera = FollowCamera(azimuth_deg, ELEVATION_DEG, width / height, self._rate_hz)


def hand_geoms(model: mujoco.MjModel) -> list[int]:
    """Return the visible geoms of the hand, which is the body "palm" and all that hangs on it."""
    palm = model.body(HAND_BODY).id
    bodies = {palm}
    for body in range(palm + 1, model.nbody):  # parents come first
        if model.body_parentid[body] in bodies:
            bodies.add(body)
    return [i for i in range(model.ngeom) if model.geom_bodyid[i] in bodies and model.geom_rgba[i, 3] > 0]


def render_mesh(mesh: Mesh, size: int = 240) -> NDArray[np.uint8]:
    """Return an image (size, size, 3) of a triangle mesh [m] that stands on the table."""
    vertices = mesh[0]
    model = mesh_model(mesh, height_m=-float(vertices[:, 2].min()))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = data.body(OBJECT_BODY).xpos + (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    camera.azimuth, camera.elevation = AZIMUTH_DEG, -30.0
    camera.distance = 1.75 * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    studio = Studio(model, size, size)
    try:
        return studio.draw(model, data, camera, FOVY_DEG)
    finally:
        studio.close()
