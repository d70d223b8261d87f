"""Picture of a hand: open and half closed in both grasp styles, with palm frame and keypoints."""

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dexgrasp.sim.hand_setup.hand_probe import CLOSING_STEPS, HandProbe
from dexgrasp.sim.rendering.offscreen import open_renderer
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import STYLES

TILE_PX, LEGEND_PX = 420, 40
MARGIN = 1.05
"""Distance of the camera over the least one at which the whole hand is in view."""
KEYPOINT_M, AXIS_M, AXIS_WIDTH_M = 0.004, 0.07, 0.0018
"""Radius of a keypoint, length and radius of the axes of the palm frame."""
AXIS_COLOURS = ((0.85, 0.1, 0.1, 1), (0.1, 0.65, 0.1, 1), (0.1, 0.25, 0.9, 1))
"""Colours of x (palm normal), y and z (fingers)."""
OPACITY = 0.55
"""Opacity of the hand, through which frame and keypoints show."""
VIEWS = (("open", 0.0, 205.0), ("closing", 0.63, 205.0), ("open, from the side", 0.0, 270.0))
"""(title, share of the closing path, azimuth [deg]) of the columns."""


def draw_hand(hand: HandSpec) -> NDArray[np.uint8]:
    """Return the picture (height, width, 3): rows power and pinch grasp, columns VIEWS.

    Raises RenderUnavailable without OpenGL.
    """
    model = _decorated(hand)
    data = mujoco.MjData(model)
    qpos = [int(model.joint(name).qposadr[0]) for name in hand.joint_names]
    probe, camera = HandProbe(hand), mujoco.MjvCamera()
    sheet = Image.new("RGB", (len(VIEWS) * TILE_PX, len(STYLES) * TILE_PX + LEGEND_PX), "white")
    write = ImageDraw.Draw(sheet)
    renderer = open_renderer(model, TILE_PX, TILE_PX)
    try:
        for row, style in enumerate(STYLES):
            path = probe.closing(getattr(hand, style)).joint_pos
            for column, (title, share, azimuth) in enumerate(VIEWS):
                data.qpos[qpos] = path[round(share * (CLOSING_STEPS - 1))]
                mujoco.mj_forward(model, data)
                camera.azimuth, camera.elevation = azimuth, -20.0
                if column == 0:
                    camera.lookat[:], camera.distance = _view_of_all(model, data)
                renderer.update_scene(data, camera)
                at = (column * TILE_PX, row * TILE_PX)
                sheet.paste(Image.fromarray(renderer.render()), at)
                write.text((at[0] + 10, at[1] + 8), f"{style}: {title}", fill=(30, 36, 46), font_size=18)
    finally:
        renderer.close()
    write.text(
        (10, sheet.height - 28),
        "palm frame: red x, normal; green y; blue z, fingers. Dots: keypoints",
        (90, 90, 90),
        font_size=16,
    )
    return np.asarray(sheet)


def _view_of_all(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[NDArray[np.float64], float]:
    """Return the point (3,) to look at and the distance [m] from which keypoints and geoms are in view."""
    points = np.concatenate([data.site_xpos, data.geom_xpos])
    radii = np.concatenate([np.full(model.nsite, KEYPOINT_M), model.geom_rbound])[:, None]
    centre = 0.5 * ((points - radii).min(axis=0) + (points + radii).max(axis=0))
    reach = float((np.linalg.norm(points - centre, axis=1) + radii[:, 0]).max())
    return centre, MARGIN * reach / float(np.sin(np.radians(model.vis.global_.fovy) / 2))


def _decorated(hand: HandSpec) -> mujoco.MjModel:
    """Return the model, translucent, with light, palm frame and keypoints that do not collide."""
    spec = hand.to_mjspec()
    palm = spec.body("palm")
    palm.quat = hand.palm_quat_b * [1, -1, -1, -1]  # palm frame and picture agree: fingers up
    for name, axis, colour in zip("xyz", hand.palm_axes, AXIS_COLOURS, strict=True):
        palm.add_geom(
            name=f"palm_{name}",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[*hand.palm_pos_b, *(hand.palm_pos_b + AXIS_M * axis)],
            size=[AXIS_WIDTH_M, 0, 0],
            rgba=colour,
            contype=0,
            conaffinity=0,
            mass=0,
        )
    for site in hand.keypoint_names:
        found = spec.site(site)
        found.type, found.size, found.rgba, found.group = (
            mujoco.mjtGeom.mjGEOM_SPHERE,
            [KEYPOINT_M] * 3,
            [1, 0.6, 0, 1],
            0,
        )
    for x, y in ((0.6, -0.4), (-0.6, 0.5)):
        spec.worldbody.add_light(pos=[x, y, 0.8], dir=[-x, -y, -0.8], diffuse=[0.6] * 3, castshadow=False)
    spec.visual.headlight.ambient = [0.45] * 3
    spec.add_texture(
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        width=8,
        height=8,
        rgb1=[0.96, 0.96, 0.95],
        rgb2=[0.96, 0.96, 0.95],
    )
    model = spec.compile()
    axes = [model.geom(f"palm_{axis}").id for axis in "xyz"]
    opacity = np.where(np.isin(np.arange(model.ngeom), axes), 1.0, OPACITY)
    model.geom_rgba[:, 3] *= opacity
    model.mat_rgba[:, 3] *= OPACITY
    return model
