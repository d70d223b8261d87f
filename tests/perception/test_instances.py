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
from dexgrasp.perception.segmentation.instances import bends, near_sure
from dexgrasp.perception.segmentation.pipeline import NoObjectError, SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.target import Target, read_labels
from dexgrasp.policies.benchmarks.clutter_segmentation import matches, middle, panoptic_quality, summarise_clutter
from dexgrasp.policies.cli.main import main
from dexgrasp.sim.clutter import AREA_M, CONTACT_GAP_M, contact_classes, draw_clutter
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
TOP = [box((0.022, 0.022, 0.03), (0.0, 0.0, 0.07))]
BASE = [box((0.06, 0.06, 0.02), (0, 0, 0.02))]
MUG = [*wall(0.04, 0.09), bar(0.04, (0, 0, 0), (0, 0, 0.004))]
HANDLE = [
    bar(0.005, (0.04, 0, 0.02), (0.07, 0, 0.03)),
    bar(0.005, (0.07, 0, 0.03), (0.07, 0, 0.065)),
    bar(0.005, (0.07, 0, 0.065), (0.04, 0, 0.075)),
]
BOWL = [*wall(0.07, 0.045, 0.008), bar(0.07, (0, 0, 0), (0, 0, 0.004))]


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


@pytest.mark.parametrize("apart_m", [0.08, 0.16, 0.24])
@pytest.mark.parametrize("stride", [1, 2])
def test_equal_objects_that_lie_apart_are_two(apart_m, stride):
    x, y = CAMERA.rays() * 0.54  # on the tops of two blocks without visible walls
    on_top = (np.abs(y) < 0.03) & (np.abs(np.abs(x) - apart_m / 2) < 0.02)
    frame = DepthFrame(np.where(on_top, 0.54, 0.6).astype(np.float32), CAMERA, 0.0, ABOVE)
    labels = Segmenter(replace(CFG, stride=stride), CAMERA).instances(frame)
    truth = np.where(on_top, np.where(x < 0, 1, 2), 0)[::stride, ::stride]
    assert labels.max() == 2 and min(best(labels, truth, number) for number in (1, 2)) > 0.9


def test_a_plane_has_no_bend_and_a_right_angle_has_one_of_a_right_angle():
    corner, _ = render([box((0.2, 0.01, 0.2), (0, 0, 0.2))])  # a wall on the table, both seen at 45 degrees
    bend = bends(corner.depth_m, corner.depth_m > 0, 385.0, 4)[:, 300:340]
    assert bend[400:].max() < 0.05  # the table alone
    assert np.median(bend.max(0)) == pytest.approx(np.pi / 2, abs=0.2)


FREE = [box((0.02, 0.02, 0.03), (0.15, 0, 0.03))]
SCENE = (LEFT, RIGHT, FREE)


def pixel_of(truth, number):
    row, column = middle(truth == number)
    return f"{column},{row}"


def overlap(frame, truth, number, **settings):
    found = Segmenter(replace(CFG, **settings), CAMERA)(frame).mask
    return (found & (truth == number)).sum() / (found | (truth == number)).sum()


def test_a_pixel_a_point_and_nearness_each_name_one_object():
    frame, truth = render(*SCENE)
    for number in (1, 2, 3):
        assert overlap(frame, truth, number, target=pixel_of(truth, number)) > 0.75
    assert overlap(frame, truth, 3, target="0.15,0,0.06") > 0.75
    assert overlap(frame, truth, 2, target="0.03,0.025,0.08") > 0.75
    nearest = truth[np.unravel_index(np.where(truth > 0, frame.depth_m, np.inf).argmin(), truth.shape)]
    assert overlap(frame, truth, nearest, target="nearest") > 0.75


def test_the_largest_of_single_objects_is_what_it_was_without_a_target():
    frame, _ = render(BASE, FREE)
    plain = Segmenter(SegmentationCfg(), CAMERA)(frame)
    named = Segmenter(SegmentationCfg(target="largest"), CAMERA)(frame)
    assert np.array_equal(plain.points_w, named.points_w) and plain.counts == named.counts
    assert "object" in plain.counts


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_labels_of_a_detector_replace_the_own_search(tmp_path, suffix):
    frame, truth = render(LEFT, RIGHT, FREE)
    given = np.where(truth == 3, 7, np.where(truth > 0, 5, 0)).astype(np.uint8)  # two boxes under one number
    file = tmp_path / f"labels{suffix}"
    np.save(file, given) if suffix == ".npy" else Image.fromarray(given).save(file)
    both = (truth == 1) | (truth == 2)
    for target in ("label:5", pixel_of(truth, 1), "largest"):
        found = Segmenter(replace(CFG, target=target, labels=str(file)), CAMERA)(frame).mask
        assert not found[~both].any() and found.sum() > 0.9 * both.sum()
    assert overlap(frame, truth, 3, target="label:7", labels=str(file)) > 0.9
    with pytest.raises(NoObjectError, match="label 6: the labels with points are 5, 7"):
        Segmenter(replace(CFG, target="label:6", labels=str(file)), CAMERA)(frame)


def test_the_best_object_is_the_one_with_the_highest_promise_and_none_that_cannot_be_grasped():
    frame, truth = render(*SCENE)
    wanted = {2: lambda points, _: points[:, 2].max(), 3: lambda points, _: points[:, 0].mean()}  # tall; to the right
    for number, promise in wanted.items():
        found = Segmenter(replace(CFG, target="best"), CAMERA, promise=promise)(frame).mask
        assert (found & (truth == number)).sum() / (found | (truth == number)).sum() > 0.75
    seen_from = []
    with pytest.raises(NoObjectError, match="target not found at best: no object can be grasped"):
        Segmenter(replace(CFG, target="best"), CAMERA, promise=lambda _, at: seen_from.append(at) or -np.inf)(frame)
    assert len(seen_from) == 3 and all(np.array_equal(at, SLANTED[:3, 3]) for at in seen_from)
    with pytest.raises(ValueError, match="target: best plans a grasp of each object"):
        Segmenter(replace(CFG, target="best"), CAMERA)


def test_a_target_that_is_not_there_is_refused_in_one_line_with_how_far_it_was_missed():
    frame, _ = render(LEFT)
    with pytest.raises(
        NoObjectError, match=r"target not found at pixel \(10, 470\): the nearest object is \d+ pixels away"
    ):
        Segmenter(replace(CFG, target="10,470"), CAMERA)(frame)
    with pytest.raises(NoObjectError, match=r"at point \(0.3, 0, 0\) m: the nearest object is 0\.\d+ m away"):
        Segmenter(replace(CFG, target="0.3,0,0"), CAMERA)(frame)
    with pytest.raises(ValueError, match=r"pixel \(640, 3\) lies outside the image of 640x480 pixels"):
        Segmenter(replace(CFG, target="640,3"), CAMERA)


def test_a_target_on_the_robot_is_refused_and_its_points_are_no_object(tmp_path):
    frame, truth = render(LEFT, FREE)
    np.save(tmp_path / "labels.npy", truth)
    arm = Capsules(np.array([[0.15, 0, 0.0]]), np.array([[0.15, 0, 0.06]]), np.array([0.04]))
    for target in (pixel_of(truth, 2), "0.15,0,0.05"):
        with pytest.raises(NoObjectError, match="is the robot: choose an object"):
            Segmenter(replace(CFG, target=target), CAMERA)(frame, arm)
    with pytest.raises(NoObjectError, match="the target at label 2 is the robot: choose an object"):
        Segmenter(replace(CFG, target="label:2", labels=str(tmp_path / "labels.npy")), CAMERA)(frame, arm)
    labels = Segmenter(CFG, CAMERA).instances(frame, arm)
    assert not labels[truth == 2].any() and labels[truth == 1].any()


@pytest.mark.parametrize(
    "text", ["", "left", "1", "1,2,3,4", "nan,1", "label:0", "label:1.5", "label:x", "label:1,2", "1,,2"]
)
def test_a_text_that_names_no_target_is_refused(text):
    with pytest.raises(ValueError, match="target: "):
        Target.parse(text)
    with pytest.raises(ValueError, match="needs an image of the objects' numbers: give labels"):
        SegmentationCfg(target="label:3")


def test_label_images_of_other_sizes_and_kinds_are_refused(tmp_path):
    file = tmp_path / "labels.npy"
    np.save(file, np.zeros((10, 20), np.uint8))
    with pytest.raises(ValueError, match="a label image of 20x10 pixels, expected 640x480 as the depth image"):
        Segmenter(replace(CFG, labels=str(file)), CAMERA)
    for values in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.full((4, 4), -1)):
        np.save(file, values)
        with pytest.raises(ValueError, match="damaged or no label image: expected"):
            read_labels(file)
    with file.open("wb") as archive:
        np.savez(archive, labels=np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="damaged or no label image"):
        read_labels(file)
    file.write_bytes(b"no array")
    with pytest.raises(ValueError, match="damaged or no label image"):
        read_labels(file)
    with pytest.raises(FileNotFoundError, match="give a PNG or NPY image"):
        read_labels(tmp_path / "none.png")


def test_an_object_is_followed_by_its_points_when_the_wanted_pixel_shows_another():
    frame, truth = render(LEFT, FREE)
    segmenter = Segmenter(replace(CFG, target=pixel_of(truth, 1)), CAMERA)
    first = segmenter(frame)
    moved, after = render([box((0.02, 0.02, 0.03), (-0.03, 0, 0.03))], [LEFT[0] | {"pos": (0.075, 0.0, 0.02)}])
    here = first.points_w + np.array([0.1, 0, 0], np.float32)  # as the tracker has it
    found = segmenter(moved, earlier_w=here).mask
    assert (found & (after == 2)).sum() / (found | (after == 2)).sum() > 0.75
    # a hand at the wanted pixel hides nothing of what is followed
    hand = Capsules(np.array([[-0.03, 0, 0.0]]), np.array([[-0.03, 0, 0.06]]), np.array([0.04]))
    held = segmenter(moved, hand, earlier_w=here).mask
    assert (held & (after == 2)).sum() > 0.5 * (after == 2).sum()
    with pytest.raises(NoObjectError, match="is the robot: choose an object"):
        segmenter(moved, hand)
    with pytest.raises(NoObjectError, match="no object is where it was"):
        segmenter(moved, earlier_w=here + np.float32(1))


def test_panoptic_quality_of_a_hand_worked_image():
    truth = np.repeat([[1, 2, 3, 0]], 4, 0).repeat(4, 1)  # three stripes of 16 pixels
    labels = np.where(truth == 1, 1, 0)
    labels[:3, 4:8] = 2  # 12 of 16 pixels of the second: 0.75
    labels[:, 12:] = 3  # on nothing
    got = matches(labels, truth, least=4)
    assert got == {"iou": 1.75, "pairs": 2, "wrong": 1, "missed": 1}
    assert panoptic_quality([{"panoptic": {"instances": got}}], "instances") == pytest.approx(1.75 / 3)
    assert matches(labels, truth, least=13) == {"iou": 1.0, "pairs": 1, "wrong": 1, "missed": 2}
    assert middle(truth == 2)[1] in (5, 6)


def test_a_summary_counts_targets_by_contact():
    one = {"contact": "free", "instances": 0.8, "largest": 0.0}
    none = {"iou": 0.0, "pairs": 0, "wrong": 1, "missed": 1}
    row = {"objects": [one], "panoptic": {"instances": none, "largest": none}, "ms": 3.0, "error": ""}
    summary = summarise_clutter([row, row | {"ms": 5.0}], seed=0)
    assert summary["instances"]["scenes_found"] == 2 and summary["largest"]["scenes_found"] == 0
    assert summary["instances"]["by_contact"] == {"free": {"n": 2, "iou_mean": 0.8, "found": 1.0}}
    assert summary["cpu_ms"]["median"] == 4.0


def test_clutter_rests_in_the_area_and_knows_its_contacts():
    library = open_library("shipped")
    spread = draw_clutter(library, 3, "spread", np.random.default_rng(0))
    assert [one.contact for one in spread] == ["free"] * 3
    packed = draw_clutter(library, 4, "packed", np.random.default_rng(1))
    assert sum(one.contact != "free" for one in packed) >= 2
    for one in (*spread, *packed):
        assert np.linalg.norm(one.pos_w[:2]) <= AREA_M and np.linalg.norm(one.quat_w) == pytest.approx(1)
    again = draw_clutter(library, 4, "packed", np.random.default_rng(1))
    assert all(np.array_equal(a.pos_w, b.pos_w) for a, b in zip(packed, again, strict=True))


@pytest.mark.parametrize(("axis", "contact"), [((1, 0, 0), "touching"), ((0.8, 0, 0.6), "stacked")])
def test_objects_within_the_gap_touch_and_a_steep_normal_is_a_stack(axis, contact):
    for apart_m, expected in ((0.99 * CONTACT_GAP_M, contact), (1.01 * CONTACT_GAP_M, "free")):
        spec = mujoco.MjSpec()
        for at in (np.zeros(3), (0.02 + apart_m) * np.array(axis)):
            body = spec.worldbody.add_body(pos=at)
            body.add_freejoint()
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.01, 0, 0))
        scene = spec.compile()
        assert contact_classes(scene, mujoco.MjData(scene), 2) == [expected] * 2


def test_the_bench_measures_clutter(tmp_path, capsys):
    options = ["scene=clutter", "scenes=1", "count=[3,3]", "layouts=spread", f"out={tmp_path / 'a'}"]
    assert main(["bench", "segmentation", *options]) == 0
    text = capsys.readouterr().out
    assert "panoptic quality" in text and "depth image to instances" in text
    assert (tmp_path / "a/segmentation.json").is_file()


@pytest.mark.parametrize("scene", ["single", "clutter"])
@pytest.mark.parametrize("option", ["labels=MISSING", "target=640,3"])
def test_a_bench_that_is_refused_leaves_no_folder(tmp_path, capsys, scene, option):
    out = tmp_path / "run"
    assert main(["bench", "segmentation", f"scene={scene}", "scenes=1", f"segment.{option}", f"out={out}"]) != 0
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not out.exists()


def test_noise_of_the_table_is_no_object_and_low_parts_beside_sure_ones_are():
    row, column = (part.reshape(-1) for part in np.mgrid[:40, :60])
    sure = (row >= 10) & (row < 16) & (column >= 10) & (column < 16)  # 36 pixels
    lone = (row == 30) & (column >= 40) & (column < 44)  # 4 pixels of noise
    near = near_sure(row, column, sure | lone, cell_px=4, min_points=20).reshape(40, 60)
    rows, columns = (np.flatnonzero(near.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (4, 19, 4, 19)  # cells 2 and 3, and one beside them
    assert near[4:20, 4:20].all()


def test_a_single_noisy_frame_shows_the_objects_and_no_noise():
    frame, truth = render(*SCENE, T_world_cam=ABOVE)
    noisy = frame.depth_m.copy()
    add_depth_errors(noisy, CAMERA, DepthNoiseDraws.draw(noisy.shape, np.random.default_rng(0), missing=0.02))
    labels = Segmenter(CFG, CAMERA).instances(replace(frame, depth_m=noisy))
    assert labels.max() <= 4 and min(best(labels, truth, number) for number in (1, 2, 3)) > 0.7
