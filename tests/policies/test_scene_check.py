"""Scene check: ordinary scenes are ok, ten kinds of bad scene are named; the command's table and exit status."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dexgrasp.perception.cameras.open import save_folder
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.scene_items import scene_items
from dexgrasp.policies.cli.main import main
from dexgrasp.sim.sensors.synthetic_scenes import make_scene
from tests.helpers import synthetic_scan

VIEW = synthetic_scan.ring(1, 45, 0.6)[0]
HALF_M = (0.03, 0.025, 0.035)


def lights(frames):
    return {item.name: item for item in scene_items(frames[0], [frame.stamp_s for frame in frames])}


def frame_of(scene, T=VIEW, **kwargs):
    """Return a depth frame of a scene, with the pose of its camera."""
    from dexgrasp.perception.cameras.depth import DepthFrame

    scan = synthetic_scan.render(scene, [T], camera=synthetic_scan.DEPTH_CAMERA, board=None, **kwargs)
    return DepthFrame(scan.depth_m[0].astype(np.float32), scan.camera, 0.0, T_world_cam=T)


@pytest.fixture(scope="module")
def good():
    return frame_of(synthetic_scan.box_scene(HALF_M))


def moved(frame, lift_m=0.0, tilt_deg=0.0):
    """Return the frame with an error of the camera's pose."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("x", tilt_deg, degrees=True).as_matrix()
    T[2, 3] = lift_m
    return replace(frame, T_world_cam=T @ frame.T_world_cam)


def changed(frame, change):
    """Return the frame with another depth image."""
    return replace(frame, depth_m=change(frame.depth_m.copy()).astype(np.float32))


def noisy(depth_m):
    rng = np.random.default_rng(0)
    return np.where(depth_m > 0, depth_m + rng.normal(0, 0.006, depth_m.shape), 0)


def without(share):
    return lambda depth_m: np.where(np.random.default_rng(0).random(depth_m.shape) < share, 0, depth_m)


def holes_of_the_object(frame):
    x, y, z = synthetic_scan.points_of(frame.depth_m, frame.intrinsics, frame.T_world_cam)
    thing = (z > 0.006) & (np.hypot(x, y) < 0.06)
    rows = np.arange(len(z))[:, None]
    return changed(frame, lambda depth_m: np.where(thing & (rows % 9 < 5), 0, depth_m))


def occluded(frame):
    """Something narrow 26 cm before the left third of the object."""
    x, y, z = synthetic_scan.points_of(frame.depth_m, frame.intrinsics, frame.T_world_cam)
    rows, columns = np.nonzero((z > 0.006) & (np.hypot(x, y) < 0.06) & (frame.depth_m > 0))
    depth_m = frame.depth_m.copy()
    depth_m[rows.min() : rows.max(), columns.min() - 2 : columns.min() + 12] -= 0.26
    return replace(frame, depth_m=depth_m)


FAR, ASIDE = synthetic_scan.ring(1, 50, 1.3)[0], synthetic_scan.ring(1, 45, 0.6, target=(0, 0.48, 0.04))[0]
BAD = {
    "table tilt": (lambda good: [moved(good, tilt_deg=8)], "bad"),
    "table height": (lambda good: [moved(good, lift_m=0.02)], "bad"),
    "depth noise": (lambda good: [changed(good, noisy)], "bad"),
    "holes": (lambda good: [changed(good, without(0.5))], "bad"),
    "objects": (lambda good: [frame_of(synthetic_scan.table_scene())], "bad"),
    "frames": (lambda good: [replace(good, stamp_s=0.4 * i) for i in range(3)], "bad"),
    "camera pose": (lambda good: [replace(good, T_world_cam=None)], "bad"),
    "object in view": (lambda good: [frame_of(synthetic_scan.box_scene(HALF_M), ASIDE)], "bad"),
    "object holes": (lambda good: [holes_of_the_object(good)], "bad"),
    "object size": (lambda good: [frame_of(synthetic_scan.box_scene((0.05, 0.03, 0.004)))], "warn"),
    "occlusion": (lambda good: [occluded(good)], "bad"),
    "object distance": (
        lambda good: [frame_of(synthetic_scan.box_scene(HALF_M), FAR)],
        "warn",
    ),
}


def test_an_ordinary_scene_is_ok(good):
    items = lights([replace(good, stamp_s=i / 30) for i in range(5)])
    assert {item.light for item in items.values()} == {"ok"}, items
    assert not any(item.advice for item in items.values()) and len(items) == 12


@pytest.mark.parametrize("name", BAD)
def test_a_bad_scene_is_named_with_what_to_do(name, good):
    make, light = BAD[name]
    item = lights(make(good))[name]
    assert item.light == light and item.advice, item


def test_scenes_of_the_generator_give_no_false_alarm(household):
    for seed in range(2):
        items = lights([make_scene("plain", household, seed).frame])
        assert {item.light for item in items.values() if item.name != "camera direction"} == {"ok"}, items
    two = make_scene("two", household, 1).frame
    assert lights([two])["objects"].light == "warn"
    x, y, z = Segmenter(SegmentationCfg(), two.intrinsics)(two).points_w[0]
    for target in ("best", "nearest", f"{x:.3f},{y:.3f},{z:.3f}"):
        items = {item.name: item for item in scene_items(two, [0.0], SegmentationCfg(target=target))}
        assert items["objects"].light == "warn" and items["object in view"].light == "ok"


def test_the_command_prints_the_table_and_fails_where_something_is_bad(good, tmp_path, capsys):
    save_folder(tmp_path / "good", [good] * 3)
    assert main(["check", "scene", str(tmp_path / "good")]) == 0
    assert "12 ok, 0 warn, 0 bad" in capsys.readouterr().out
    save_folder(tmp_path / "slow", [moved(good, tilt_deg=8)] * 3, rate_hz=2)
    assert main(["check", "scene", str(tmp_path / "slow")]) == 1
    told = capsys.readouterr().out
    assert "bad: table tilt: level the table" in told and "bad: frames: use a USB 3 port" in told
