"""Several objects in one depth image: told apart, chosen, refused; hand-made scenes with known pixels."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from PIL import Image

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics
from dexgrasp.perception.cameras.extrinsics import pose_matrix
from dexgrasp.perception.cameras.temporal_filter import median_depth
from dexgrasp.perception.robot_mask import Capsules
from dexgrasp.perception.segmentation.instances import bends
from dexgrasp.perception.segmentation.pipeline import NoObjectError, SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.target import Target, read_labels
from dexgrasp.policies.benchmarks.clutter_segmentation import matches, middle, panoptic_quality, summarise_clutter
from dexgrasp.policies.cli.main import main
from dexgrasp.sim.clutter import AREA_M, draw_clutter
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_depth_errors
from dexgrasp.sim.sensors.synthetic_scenes import cast

CAMERA = Intrinsics(640, 480, 385.0, 385.0, 319.5, 239.5)
ABOVE = pose_matrix((0.0, 0.0, 0.6), (0.0, 1.0, 0.0, 0.0))
SLANTED = pose_matrix((0.0, -0.45, 0.45), (np.cos(3 * np.pi / 8), -np.sin(3 * np.pi / 8), 0.0, 0.0))
"""From the front, 45 degrees down, towards the origin."""
CFG = SegmentationCfg(stride=1, target="nearest")
BOX, CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER


def box(half, at):
    return {"type": BOX, "size": half, "pos": at}


def bar(radius, start, end):
    return {"type": CYLINDER, "size": (radius, 0, 0), "fromto": (*start, *end)}


def wall(radius, height_m, thickness=0.003, pieces=24):
    """Boxes on a circle: the wall of a vessel around the origin."""
    angles = 2 * np.pi * np.arange(pieces) / pieces
    half = (thickness / 2, radius * np.tan(np.pi / pieces) + 1e-4, height_m / 2)
    return [
        box(half, (radius * np.cos(a), radius * np.sin(a), height_m / 2 + 0.003))
        | {"quat": (np.cos(a / 2), 0, 0, np.sin(a / 2))}
        for a in angles
    ]


def render(*objects, T_world_cam=SLANTED, noise_seed=None):
    """Return the frame of objects, each a list of geoms, and the number of the object in every pixel, from 1."""
    spec, owner = mujoco.MjSpec(), {-1: 0}
    spec.worldbody.add_geom(type=BOX, size=(0.6, 0.6, 0.01), pos=(0, 0, -0.01))
    for number, geoms in enumerate(objects, start=1):
        for geom in geoms:
            owner[len(owner)] = number
            spec.worldbody.add_geom(name=f"object{len(owner) - 1}", **geom)
    depth_m, geom = cast(spec.compile(), CAMERA, T_world_cam)
    owner[0] = 0
    truth = np.vectorize(owner.get)(geom).astype(np.int32)
    if noise_seed is not None:
        rng, frames = np.random.default_rng(noise_seed), np.stack([depth_m] * 4)
        for one in frames:
            add_depth_errors(one, CAMERA, DepthNoiseDraws.draw(one.shape, rng, missing=0.02))
        depth_m = median_depth(frames)
        truth[depth_m == 0] = 0
    return DepthFrame(depth_m.astype(np.float32), CAMERA, 0.0, T_world_cam), truth


def best(labels, truth, number):
    """Return the largest intersection over union of a found object with a true one."""
    mask = truth == number
    return max(((labels == k) & mask).sum() / ((labels == k) | mask).sum() for k in range(1, labels.max() + 1))


LEFT, RIGHT = [box((0.03, 0.03, 0.02), (-0.03, 0, 0.02))], [box((0.03, 0.03, 0.04), (0.03, 0.025, 0.04))]
TOP = [box((0.018, 0.018, 0.02), (0.0, 0.0, 0.06))]
BASE = [box((0.05, 0.05, 0.02), (0, 0, 0.02))]
MUG = [*wall(0.04, 0.09), bar(0.04, (0, 0, 0), (0, 0, 0.004))]
HANDLE = [
    bar(0.005, (0.04, 0, 0.02), (0.07, 0, 0.03)),
    bar(0.005, (0.07, 0, 0.03), (0.07, 0, 0.065)),
    bar(0.005, (0.07, 0, 0.065), (0.04, 0, 0.075)),
]
BOWL = [*wall(0.07, 0.045), bar(0.07, (0, 0, 0), (0, 0, 0.004))]


@pytest.mark.parametrize("noise_seed", [None, 0])
@pytest.mark.parametrize(("objects"), [(LEFT, RIGHT), (BASE, TOP)], ids=["side by side", "stacked"])
def test_two_boxes_that_touch_are_two_objects_and_the_largest_cluster_is_both(objects, noise_seed):
    frame, truth = render(*objects, noise_seed=noise_seed)
    labels = Segmenter(CFG, CAMERA).instances(frame)
    assert min(best(labels, truth, 1), best(labels, truth, 2)) > 0.75
    both = Segmenter(replace(CFG, target="largest"), CAMERA)(frame).mask
    assert (both & (truth > 0)).sum() > 0.9 * (truth > 0).sum()


@pytest.mark.parametrize("noise_seed", [None, 0])
@pytest.mark.parametrize("geoms", [MUG, [*MUG, *HANDLE], BOWL, BASE], ids=["cup", "mug", "bowl", "box"])
def test_one_object_with_a_cavity_or_a_handle_stays_one(geoms, noise_seed):
    frame, truth = render(geoms, noise_seed=noise_seed)
    labels = Segmenter(CFG, CAMERA).instances(frame)
    assert best(labels, truth, 1) > 0.75
