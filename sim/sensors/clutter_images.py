"""Depth images of several objects on a table, with the errors of a D435 and the object in each pixel."""

from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import DepthFrame
from dexgrasp.perception.cameras.temporal_filter import FIRST_VIEW_FRAMES, median_depth
from dexgrasp.sim.clutter import ContactClass, Layout, PlacedObject, draw_clutter
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_depth_errors
from dexgrasp.sim.sensors.synthetic_scenes import CAMERA, TABLE_M, View, add_visual, cast, draw_camera

HOLES = 0.02
"""Share of pixels without depth in one frame."""
VIEW = View(distance_m=(0.6, 0.9), elevation_deg=(35, 75), pixel=((290, 210), (350, 270)))


@dataclass(frozen=True)
class ClutterImage:
    """First view of a robot on a table of several objects, with its truth."""

    layout: Layout
    frame: DepthFrame
    labels: NDArray[np.int8] = field(repr=False)
    """(rows, columns) number of the object seen in each pixel, from 1; 0 = table, hole, flying pixel."""
    contacts: tuple[ContactClass, ...]
    """Class of contact of each object."""


def make_clutter_image(library: ObjectLibrary, layout: Layout, count: tuple[int, int], seed: int) -> ClutterImage:
    """Return the image of a table of objects, as many as the range `count` allows.

    The same seed gives the same image.
    """
    rng = np.random.default_rng(seed)
    placed = draw_clutter(library, int(rng.integers(count[0], count[1] + 1)), layout, rng)
    T_world_cam = draw_camera(rng, VIEW)
    depth_m, numbers = cast(_visible_scene(placed), CAMERA, T_world_cam)
    frames = np.stack([depth_m] * FIRST_VIEW_FRAMES)
    flying = [add_depth_errors(one, CAMERA, DepthNoiseDraws.draw(one.shape, rng, HOLES)) for one in frames]
    measured_m = median_depth(frames)
    labels = np.maximum(numbers, 0).astype(np.int8)
    labels[(measured_m == 0) | (np.mean(flying, axis=0) > 0.5)] = 0
    frame = DepthFrame(measured_m.astype(np.float32), CAMERA, stamp_s=0.0, T_world_cam=T_world_cam)
    return ClutterImage(layout=layout, frame=frame, labels=labels, contacts=tuple(one.contact for one in placed))


def _visible_scene(placed: list[PlacedObject]) -> mujoco.MjModel:
    """Return the table and the objects' meshes, object n named `objectn`."""
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=(*TABLE_M, 0.01), pos=(0, 0, -0.01))
    for number, one in enumerate(placed, start=1):
        add_visual(spec, one.model, number, one.pos_w, one.quat_w)
    return spec.compile()
