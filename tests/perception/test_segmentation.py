"""The pipeline from a depth image to the object's points: scenes with truth, hand-worked cases, and what it says."""

from dataclasses import replace

import numpy as np
import pytest

from dexgrasp.perception.cameras.depth import DepthFrame, Intrinsics
from dexgrasp.perception.cameras.extrinsics import pose_matrix
from dexgrasp.perception.robot_mask import Capsules
from dexgrasp.perception.segmentation.clustering import in_large_parts, on_surfaces, sample_points
from dexgrasp.perception.segmentation.pipeline import NoObjectError, SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.table_plane import NoPlaneError, Plane, fit_plane
from dexgrasp.policies.benchmarks.perception import BenchPerceptionCfg, bench_perception
from dexgrasp.policies.benchmarks.segmentation import BenchSegmentationCfg, measure, summarise
from dexgrasp.policies.cli.main import main
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.sensors.depth_noise import highlight_holes
from dexgrasp.sim.sensors.synthetic_scenes import SCENES, make_scene, overlap

CAMERA = Intrinsics(640, 480, 400.0, 400.0, 319.5, 239.5)
ABOVE = pose_matrix((0.0, 0.0, 0.6), (0.0, 1.0, 0.0, 0.0))
"""0.6 m above the table, looking straight down: pixel to table 1.5 mm, image up is world +y."""
CFG = SegmentationCfg(stride=1)


def look(*boxes, noise_m=0.0, seed=0):
    """Depth from above of boxes (rows, columns, height [m]) in pixels on the table."""
    depth_m = np.full((480, 640), 0.6, np.float32)
    for rows, columns, height_m in boxes:
        depth_m[rows, columns] = 0.6 - height_m
    if noise_m:
        depth_m += np.random.default_rng(seed).normal(0, noise_m, depth_m.shape).astype(np.float32)
    return DepthFrame(depth_m, CAMERA, 0.0, ABOVE)


BOX = (slice(200, 240), slice(300, 360), 0.05)
SMALL = (slice(100, 120), slice(100, 120), 0.05)


@pytest.fixture(scope="module")
def shipped():
    return open_library("shipped")


def test_exactly_the_pixels_of_a_box_are_found():
    found = Segmenter(CFG, CAMERA)(look(BOX))
    truth = np.zeros((480, 640), bool)
    truth[200:240, 300:360] = True
    assert np.array_equal(found.mask, truth)
    assert found.counts["object"] == 40 * 60 == len(found.cloud_w)
    np.testing.assert_allclose(found.cloud_w[:, 2], 0.05, atol=1e-5)
    # row 219.5 is 20 pixels above the middle, at 0.55 m a pixel is 1.375 mm
    np.testing.assert_allclose(found.cloud_w.mean(0)[:2], (10 * 1.375e-3, 20 * 1.375e-3), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_an_object_of_eight_millimetres_survives_the_noise_of_a_camera(seed):
    frame = look((slice(200, 240), slice(300, 360), 0.008), noise_m=0.0015, seed=seed)
    found = Segmenter(CFG, CAMERA)(frame)
    assert found.mask[200:240, 300:360].mean() > 0.9
    assert found.mask.sum() < 1.05 * 2400


def test_the_largest_object_is_taken_or_the_one_the_caller_masks():
    segmenter = Segmenter(CFG, CAMERA)
    assert segmenter(look(BOX, SMALL)).counts["object"] == 2400
    mask = np.zeros((480, 640), bool)
    mask[90:130, 90:130] = True
    assert segmenter(look(BOX, SMALL), mask=mask).counts["object"] == 400


def test_points_on_the_hand_are_left_out():
    # A finger lies over columns 300 to 330 of the box: a capsule along y at the height of its points.
    x = (np.array([300, 329]) - 319.5) * 0.55 / 400
    middle, radius = x.mean(), (x[1] - x[0]) / 2 + 1e-4
    finger = Capsules(np.array([[middle, -0.1, 0.05]]), np.array([[middle, 0.1, 0.05]]), np.array([radius]))
    found = Segmenter(replace(CFG, hand_margin_m=0.0), CAMERA)(look(BOX), finger)
    assert found.counts["above the table"] - found.counts["not the robot"] == 30 * 40
    assert not found.mask[:, 300:330].any() and found.mask[200:240, 330:360].all()


def test_a_point_lies_in_a_capsule_if_it_is_within_the_radius_of_its_axis():
    capsule = Capsules(np.zeros((1, 3)), np.array([[0.0, 0.0, 0.1]]), np.array([0.02]))
    points = np.float32([[0.019, 0, 0.05], [0.021, 0, 0.05], [0, 0, 0.119], [0, 0, 0.121], [0.015, 0.0, -0.015]]).T
    assert capsule.contain(points, 0.0).tolist() == [True, False, True, False, False]
    assert capsule.contain(points, 0.002).tolist() == [True, True, True, True, True]


@pytest.mark.parametrize("how", ["farthest", "random"])
def test_the_same_seed_gives_the_same_points_and_another_others(how):
    segmenter, frame = Segmenter(replace(CFG, sampling=how), CAMERA), look(BOX, noise_m=0.001)
    first = segmenter(frame, seed=1).points_w
    assert first.shape == (256, 3) and first.dtype == np.float32
    assert np.array_equal(first, segmenter(frame, seed=1).points_w)
    assert not np.array_equal(first, segmenter(frame, seed=2).points_w)


def test_farthest_points_are_those_of_the_definition():
    points = np.random.default_rng(0).normal(size=(3, 300)).astype(np.float32) + np.float32(5)
    chosen = sample_points(points, 40, "farthest", seed=3)
    for step in range(1, 40):
        gap = np.linalg.norm(points[:, :, None] - points[:, None, chosen[:step]], axis=0).min(1)
        assert gap[chosen[step]] == pytest.approx(gap.max(), abs=1e-5)


@pytest.mark.parametrize("how", ["farthest", "random"])
@pytest.mark.parametrize("available", [1, 7, 256, 257, 5000])
def test_any_number_of_points_gives_the_number_asked_for_and_repeats_only_where_it_must(how, available):
    points = np.random.default_rng(0).normal(size=(3, available)).astype(np.float32)
    chosen = sample_points(points, 256, how)
    assert len(chosen) == 256 and len(set(chosen)) == min(256, available)


def test_points_that_coincide_are_sampled_too():
    assert len(set(sample_points(np.ones((3, 50), np.float32), 20, "farthest"))) == 20


def plane_points(normal, offset, count, noise_m, rng):
    across = rng.uniform(-0.3, 0.3, (2, count))
    z = (offset - normal[0] * across[0] - normal[1] * across[1]) / normal[2]
    return np.stack([*across, z + rng.normal(0, noise_m, count)]).astype(np.float32)


@pytest.mark.parametrize("seed", range(10))
def test_a_tilted_noisy_table_is_found_to_a_tenth_of_a_degree_though_half_of_the_points_are_clutter(seed):
    rng = np.random.default_rng(seed)
    normal = np.array([np.sin(0.17), 0.0, np.cos(0.17)])
    table = plane_points(normal, 0.02, 20000, 0.002, rng)
    clutter = rng.uniform((-0.2, -0.2, 0.03), (0.2, 0.2, 0.3), (20000, 3)).T.astype(np.float32)
    plane = fit_plane(np.concatenate([table, clutter], axis=1), seed=seed)
    assert np.degrees(np.arccos(plane.normal_w @ normal)) < 0.1
    assert plane.offset_m == pytest.approx(0.02, abs=5e-4)
    assert plane.roughness_m == pytest.approx(0.002, rel=0.2)


def test_the_top_of_a_box_that_is_larger_than_what_is_seen_of_the_table_is_not_the_table():
    rng = np.random.default_rng(0)
    table = plane_points((0, 0, 1.0), 0.0, 4000, 0.001, rng)
    top = plane_points((0, 0, 1.0), 0.1, 6000, 0.001, rng)
    assert abs(fit_plane(np.concatenate([table, top], axis=1)).offset_m) < 1e-3


def test_a_wall_is_no_table():
    wall = np.random.default_rng(0).uniform(-0.3, 0.3, (3, 2000)).astype(np.float32)
    wall[0] = 0.1
    with pytest.raises(NoPlaneError, match=r"no plane within 20 deg of horizontal among 2,000 points: is the pose"):
        fit_plane(wall)


def test_a_known_plane_is_used_as_it_is():
    table = Plane(np.array([0.0, 0.0, 1.0]), 0.03)
    found = Segmenter(replace(CFG, plane="known"), CAMERA, table)(look(BOX, (slice(300, 400), slice(300, 400), 0.02)))
    assert found.plane is table and found.counts["above the table"] == 2400


def test_flying_pixels_are_dropped_and_pixels_beside_holes_and_on_slopes_are_kept():
    image = np.full((9, 9), 0.6, np.float32)
    image[:, 5:] = 0.5
    image[:, 4] = 0.55  # between the two surfaces
    image[2, 7] = 0  # a hole
    index = np.arange(81)
    kept = on_surfaces(image, index, 0.02).reshape(9, 9)
    assert not kept[:, 4].any() and not kept[2, 7]
    others = np.ones((9, 9), bool)
    others[:, 4] = others[2, 7] = False
    assert kept[others].all()
    slope = np.broadcast_to(np.linspace(0.5, 0.62, 9, dtype=np.float32), (9, 9))
    assert on_surfaces(slope, index, 0.02).all()


def refused(frame, cfg=CFG, **kwargs):
    with pytest.raises(NoObjectError) as caught:
        Segmenter(cfg, CAMERA)(frame, **kwargs)
    return str(caught.value)


def test_what_is_missing_is_said():
    # All of the image is within the workspace: 640 by 480 pixels of 1.5 mm reach 0.48 m to each side, the box 0.4 m.
    rows, columns = 480, np.count_nonzero(np.abs((np.arange(640) - 319.5) * 1.5e-3) < 0.4)
    text = refused(look())
    assert text == f"no object above the table in the workspace (0 of {rows * columns:,} points)"
    assert refused(DepthFrame(np.zeros((480, 640), np.float32), CAMERA, 0.0, ABOVE)) == (
        "no depth within the range (0 of 307,200 pixels): lens covered, too near, or too far?"
    )
    elsewhere = replace(look(), T_world_cam=pose_matrix((2.0, 0.0, 0.6), (0.0, 1.0, 0.0, 0.0)))
    assert refused(elsewhere) == (
        "nothing in the workspace (0 of 307,200 points): is the pose of the camera right, and the workspace?"
    )
    everything = Capsules(np.zeros((1, 3)), np.ones((1, 3)) * 1e-3, np.array([0.2]))
    assert refused(look(BOX), capsules=everything).endswith("2,400 more on the robot)")


def test_a_frame_without_pose_or_of_another_camera_or_a_mask_of_another_shape_is_refused():
    segmenter = Segmenter(CFG, CAMERA)
    with pytest.raises(ValueError, match="run `dexgrasp calibrate camera` and pass the file"):
        segmenter(replace(look(), T_world_cam=None))
    with pytest.raises(ValueError, match="of another camera"):
        Segmenter(CFG, replace(CAMERA, fx=401.0))(look())
    with pytest.raises(ValueError, match=r"a mask is bool of shape \(480, 640\), got bool \(10, 10\)"):
        segmenter(look(BOX), mask=np.zeros((10, 10), bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"range_m": (1.0, 0.5)}, "range_m must satisfy low <= high"),
        ({"range_m": (1.0, 1.0)}, "near < far"),
        ({"box_lower_m": (0.5, -0.4, -0.1)}, "is empty"),
        ({"points": 0}, "points must lie in 1..65536, got 0"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SegmentationCfg(**change)


def test_capsules_of_wrong_shapes_or_from_missing_readings_are_refused():
    with pytest.raises(ValueError, match=r"start_w \(c, 3\)"):
        Capsules(np.zeros((2, 3)), np.zeros((1, 3)), np.zeros(1))
    with pytest.raises(ValueError, match="is a joint reading missing"):
        Capsules(np.full((1, 3), np.nan), np.zeros((1, 3)), np.zeros(1))


def test_a_scene_is_the_same_for_the_same_seed(shipped):
    one, two, other = (make_scene("glossy", shipped, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.frame.depth_m, two.frame.depth_m) and np.array_equal(one.labels, two.labels)
    assert not np.array_equal(one.frame.depth_m, other.frame.depth_m)
    with pytest.raises(ValueError, match=r"no kind of scene 'glosy'; known: plain, flat"):
        make_scene("glosy", shipped, 0)


def test_glossy_holes_cover_about_a_third_of_the_object():
    mask = np.zeros((100, 100), bool)
    mask[20:80, 30:70] = True
    holes = highlight_holes(mask, np.random.default_rng(0))
    assert not holes[~mask].any() and 1 / 3 < holes.sum() / mask.sum() < 0.55


def test_overlap_counts_what_is_missed_and_what_is_too_much():
    labels = np.array([[1, 1, 0, 2]], np.int8)
    assert overlap(np.array([[True, False, True, False]]), labels) == pytest.approx(1 / 3)
    assert overlap(np.array([[True, True, False, False]]), labels) == 1.0
    assert overlap(np.array([[True, True, False, True]]), labels) == pytest.approx(2 / 3)


@pytest.mark.regression
def test_objects_are_found_in_thirty_hard_scenes():
    """Three scenes of each kind; `dexgrasp bench segmentation` measures 500."""
    results = measure(BenchSegmentationCfg(scenes=30))
    assert set(results) == set(SCENES)
    row = summarise("all", [result for kind in results for result in results[kind]])
    assert row["iou_median"] > 0.85 and row["touched"] > 0.9


def test_the_benches_run_and_write_their_tables(tmp_path, capsys):
    assert main(["bench", "segmentation", "scenes=2", "kinds=plain,flat", f"out={tmp_path / 'a'}"]) == 0
    assert main(["bench", "perception", "frames=3", f"out={tmp_path / 'b'}"]) == 0
    text = capsys.readouterr().out
    assert "a box, 8 to 10 mm high" in text and "features of 256 environments" in text
    assert (tmp_path / "a/segmentation.json").is_file() and (tmp_path / "b/bench.json").is_file()
    with pytest.raises(ValueError, match=r"frames must lie in 1\.\.1000000, got 0"):
        bench_perception(BenchPerceptionCfg(frames=0))


def test_points_in_the_air_over_an_object_are_no_part_of_it_but_a_tip_behind_a_finger_is():
    rng = np.random.default_rng(0)
    block = rng.uniform([-0.03, -0.03, 0.0], [0.03, 0.03, 0.05], (300, 3))
    flying = rng.uniform([-0.01, -0.01, 0.28], [0.01, 0.01, 0.3], (5, 3))  # 5 < 8
    tip = rng.uniform([-0.02, -0.02, 0.1], [0.02, 0.02, 0.12], (40, 3))  # 5 cm apart, but 40 > 0.03 x 345
    kept = in_large_parts(np.concatenate([block, flying, tip]).T.astype(np.float32))
    np.testing.assert_array_equal(kept, [True] * 300 + [False] * 5 + [True] * 40)


def test_what_is_all_small_parts_keeps_the_largest():
    points = np.array([[0.0, 0.0, 0.0], [0.001, 0.0, 0.0], [0.3, 0.0, 0.0]], np.float32)
    np.testing.assert_array_equal(in_large_parts(points.T), [True, True, False])
    assert in_large_parts(np.zeros((3, 0), np.float32)).shape == (0,)
