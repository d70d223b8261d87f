"""Intrinsics, deprojection, folders of frames, and what their errors say."""

import json
from dataclasses import replace

import numpy as np
import pyrealsense2 as rs
import pytest
from PIL import Image

from dexgrasp.perception.cameras.depth import (
    CameraError,
    DepthFrame,
    EndOfFramesError,
    Intrinsics,
    deproject,
    frames,
    take_points,
    to_frame,
)
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_matrix
from dexgrasp.perception.cameras.open import FrameFolder, open_camera, save_folder
from dexgrasp.perception.cameras.temporal_filter import median_depth

CAMERA = Intrinsics(64, 48, 38.5, 38.0, 31.2, 24.1)
COEFFS = (0.12, -0.25, 0.002, -0.003, 0.08)
STATED = {"width": 64, "height": 48, "fx": 38.5, "fy": 38.0, "cx": 31.2, "cy": 24.1}
POSE = pose_matrix((0.1, 0.2, 0.5), (0.0, 1.0, 0.0, 0.0))


def sdk_intrinsics(camera):
    given = rs.intrinsics()
    given.width, given.height, given.fx, given.fy = camera.width, camera.height, camera.fx, camera.fy
    given.ppx, given.ppy, given.coeffs = camera.cx, camera.cy, list(camera.coeffs)
    given.model = getattr(rs.distortion, camera.distortion)
    return given


def frame(value=0.5, pose=None):
    return DepthFrame(np.full((48, 64), value, np.float32), CAMERA, 0.0, pose)


def test_twelve_frames_have_a_third_of_the_noise_and_few_flying_pixels():
    """The median of 12 normal values has a deviation of 0.35; binomial(12, 0.2) is 7 or more in 0.4 % of the pixels."""
    rng = np.random.default_rng(0)
    true = np.full((40, 50), 0.7)
    frames_m = true + rng.normal(0, 0.002, (12, 40, 50))
    assert np.std(median_depth(frames_m) - true) == pytest.approx(0.35 * 0.002, rel=0.05)
    frames_m = np.where(rng.uniform(size=frames_m.shape) < 0.2, 0.8, frames_m)
    assert (np.abs(median_depth(frames_m) - true) > 0.01).mean() < 0.02


def test_the_steady_image_is_the_median_of_what_is_seen():
    rng = np.random.default_rng(1)
    frames_m = rng.uniform(0.3, 1.0, (12, 20, 30)).astype(np.float32)
    frames_m[rng.uniform(size=frames_m.shape) < 0.3] = 0.0
    seen = np.where(frames_m > 0, frames_m, np.nan)
    expected = np.where(2 * (frames_m > 0).sum(axis=0) >= 12, np.nanmedian(seen, axis=0), 0.0)
    found = median_depth(frames_m)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_pixel_with_depth_in_less_than_half_of_the_frames_is_a_hole():
    frames_m = np.array([[0.5, 0.5], [0.52, 0.0], [0.51, 0.0], [0.0, 0.0]])[:, None]
    assert median_depth(frames_m)[0] == pytest.approx([0.51, 0.0])


@pytest.mark.parametrize("kind", ["none", "brown_conrady", "inverse_brown_conrady", "modified_brown_conrady"])
def test_deprojection_equals_that_of_the_camera_sdk_to_a_micrometre(kind):
    camera = Intrinsics(640, 480, 610.0, 612.0, 322.3, 236.8, kind, COEFFS if kind != "none" else (0.0,) * 5)
    depth_m = np.random.default_rng(0).uniform(0.3, 1.5, (480, 640)).astype(np.float32)
    ours = np.full((3, 480, 640), np.nan)
    ours[:, ::53, ::53] = deproject(depth_m[::53, ::53], camera.rays(53))
    if kind == "modified_brown_conrady":  # the SDK projects with this lens, but does not deproject
        pixels = camera.project(ours[:, ::53, ::53].reshape(3, -1).T)
        theirs = [
            rs.rs2_project_point_to_pixel(sdk_intrinsics(camera), list(map(float, point)))
            for point in ours[:, ::53, ::53].reshape(3, -1).T
        ]
        np.testing.assert_allclose(pixels, theirs, atol=1e-3)
        return
    for v in range(0, 480, 53):
        for u in range(0, 640, 53):
            theirs = rs.rs2_deproject_pixel_to_point(sdk_intrinsics(camera), [float(u), float(v)], float(depth_m[v, u]))
            np.testing.assert_allclose(ours[:, v, u], theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "brown_conrady", "inverse_brown_conrady"])
def test_projection_undoes_rays(kind):
    camera = Intrinsics(640, 480, 610.0, 612.0, 322.3, 236.8, kind, COEFFS if kind != "none" else (0.0,) * 5)
    pixels = np.random.default_rng(0).uniform((0, 0), (639, 479), (200, 2))
    rays = camera.rays_at(pixels)
    np.testing.assert_allclose(camera.project(np.concatenate([rays, np.ones((200, 1))], 1)), pixels, atol=1e-6)


def test_thinned_rays_are_those_of_the_pixels_that_are_left():
    assert np.array_equal(CAMERA.rays(3), CAMERA.rays()[:, ::3, ::3])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_points_are_taken_as_by_an_index_to_the_bit_and_in_its_layout(kind, order):
    """Sums over points depend on their layout in memory, and recordings are compared bit for bit."""
    points = np.array(np.random.default_rng(0).normal(size=(3, 5000)), kind, order=order)
    where = np.flatnonzero(points[2] > 0)
    taken, indexed = take_points(points, where), points[:, where]
    assert np.array_equal(taken, indexed) and (taken.dtype, taken.strides) == (indexed.dtype, indexed.strides)
    assert np.array_equal(taken.mean(1), indexed.mean(1))


def test_a_point_below_a_camera_that_looks_down_is_there_in_the_world():
    # Half a turn about x: the camera looks down, its x is the world's. 0.5 m below it, 0.1 m along x.
    np.testing.assert_allclose(to_frame(POSE, np.float32([[0.1], [0.0], [0.5]])), [[0.2], [0.2], [0.0]], atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": 0.0}, "positive focal length"),
        ({"width": 0}, "positive size in whole pixels"),
        ({"height": 48.0}, "positive size in whole pixels"),
        ({"distortion": "fisheye"}, "unknown distortion 'fisheye'; known: none, brown_conrady"),
        ({"coeffs": (0.1,)}, "distortion none does not use the coefficients"),
        ({"cx": float("nan")}, r"cx must be a number \(finite\), got nan"),
        ({"fx": "600"}, r"fx must be a number \(finite\), got the text '600': write it without quotes"),
        ({"fy": None}, r"fy must be a number \(finite\), got None"),
        ({"cy": True}, r"cy must be a number \(finite\), got True"),
        ({"cx": [31.2]}, r"cx must be a number \(finite\), got \[31.2\]"),
        ({"coeffs": "00000"}, "coeffs must be a list of numbers, got '00000'"),
        ({"coeffs": ("0", 0.0, 0.0, 0.0, 0.0)}, r"coeffs\[0\] must be a number \(finite\), got the text '0'"),
        # the mean side of 64x48 is sqrt(3072) = 55.426 px, of which a tenth and fifty times
        ({"fx": 1e-300}, r"fx is 1e-300 px, expected 5\.54256 to 2771\.28 px .* for an image of 64x48; check"),
        ({"fx": 5.54, "fy": 6.0}, "fx is 5.54 px, expected"),
        ({"fy": 1e300}, "fy is 1e.300 px, expected"),
        ({"fy": 2771.3, "fx": 2000.0}, r"fy is 2771\.3 px, expected"),
        ({"fx": -38.5}, r"fx is -38\.5 px, expected"),
        ({"fx": 38.0, "fy": 77.0}, "fx is 38 px and fy 77 px, expected a ratio of at most 2"),
        ({"fx": 77.0, "fy": 38.0}, "fx is 77 px and fy 38 px"),
        ({"cx": -0.51}, r"cx is -0\.51 px, outside the image of 64x48; expected -0\.5 to 63\.5"),
        ({"cx": 63.6}, "cx is 63.6 px, outside"),
        ({"cy": 47.6}, r"cy is 47\.6 px, outside the image of 64x48; expected -0\.5 to 47\.5"),
        ({"cy": 1e9}, "cy is 1e.09 px, outside"),
        ({"width": 16385}, r"an image of \(16385, 48\) pixels, at most 16384 a side"),
    ],
)
def test_impossible_intrinsics_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Intrinsics(**{**CAMERA.__dict__, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"fx": 5.55, "fy": 5.55},
        {"fx": 2771.0, "fy": 2771.0},
        {"fx": 38.0, "fy": 76.0},
        {"cx": -0.5, "cy": 47.5},
        {"fx": 38, "fy": np.float32(38)},
    ],
)
def test_intrinsics_up_to_their_limits_are_taken(change):
    Intrinsics(**{**CAMERA.__dict__, **change})


def test_a_frame_of_another_shape_kind_or_pose_is_refused():
    with pytest.raises(ValueError, match=r"float32 metres of shape \(48, 64\), got float64"):
        DepthFrame(np.zeros((48, 64)), CAMERA, 0.0)
    with pytest.raises(ValueError, match="T_world_cam is not a rotation"):
        frame(pose=2 * np.eye(4))


def test_a_folder_gives_back_what_was_saved_and_then_ends(tmp_path):
    images = [frame(0.25 * n, POSE) for n in range(3)]
    save_folder(tmp_path, images, rate_hz=10.0)
    with open_camera(str(tmp_path)) as source:
        read = list(frames(source))
        with pytest.raises(EndOfFramesError, match="has no more than 3 frames"):
            source.read()
    assert [image.stamp_s for image in read] == [0.0, 0.1, 0.2]
    for image, saved in zip(read, images, strict=True):
        assert image.intrinsics == CAMERA
        np.testing.assert_allclose(image.depth_m, saved.depth_m, atol=1e-6)
        np.testing.assert_allclose(image.T_world_cam, POSE, atol=1e-12)


def test_arrays_of_metres_are_read_as_metres_and_what_is_not_finite_as_holes(tmp_path):
    save_folder(tmp_path, [frame()])
    values = np.full((48, 64), 0.7)
    values[0, :3] = np.nan, np.inf, -1.0
    np.save(tmp_path / "000000.npy", values)
    read = FrameFolder(tmp_path).read().depth_m
    assert read[0, 0] == read[0, 1] == read[0, 2] == 0 and read[1, 1] == np.float32(0.7)


def test_a_calibrated_pose_outranks_that_of_the_folder(tmp_path):
    save_folder(tmp_path, [frame(pose=POSE)])
    assert np.array_equal(FrameFolder(tmp_path, CameraPose(np.eye(4))).read().T_world_cam, np.eye(4))


def test_the_pose_of_the_colour_camera_does_not_hold_for_depth_images_unless_the_file_says_how(tmp_path):
    save_folder(tmp_path, [frame()])
    for pose, stream in ((CameraPose(POSE, "color"), "depth"), (CameraPose(POSE, "depth"), "color")):
        (tmp_path / "camera.json").write_text(json.dumps(STATED | {"stream": stream}))
        with pytest.raises(CameraError, match=f"is that of the {pose.stream} camera, .*calibrate with stream={stream}"):
            FrameFolder(tmp_path, pose)
        T_color_depth = pose_matrix((0.015, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
        read = FrameFolder(tmp_path, replace(pose, T_color_depth=T_color_depth)).read()
        # POSE is half a turn about x: x of the camera is x of the world
        side = 0.015 if stream == "depth" else -0.015
        np.testing.assert_allclose(read.T_world_cam[:3, 3], POSE[:3, 3] + (side, 0.0, 0.0), atol=1e-12)
        (tmp_path / "camera.json").write_text(json.dumps(STATED | {"stream": pose.stream}))
        assert np.array_equal(FrameFolder(tmp_path, pose).read().T_world_cam, POSE)
        assert FrameFolder(tmp_path, pose).read().stream == pose.stream


def broken(path, name, content):
    (path / name).write_bytes(content)
    with pytest.raises(CameraError) as caught:
        FrameFolder(path).read()
    return str(caught.value)


def test_a_file_that_is_no_depth_image_is_an_error_with_its_name(tmp_path):
    save_folder(tmp_path, [frame()])
    png = (tmp_path / "000000.png").read_bytes()
    assert "000000.png cannot be read" in broken(tmp_path, "000000.png", png[: len(png) // 2])
    assert "000000.png cannot be read" in broken(tmp_path, "000000.png", b"no image")
    (tmp_path / "000000.png").unlink()
    assert "0.npy cannot be read" in broken(tmp_path, "0.npy", b"no array")
    np.save(tmp_path / "0.npy", np.zeros((4, 4), np.uint16))
    with pytest.raises(CameraError, match=r"\(4, 4\) pixels, but camera.json says \(48, 64\)"):
        FrameFolder(tmp_path).read()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "0.npy").unlink()
    with pytest.raises(CameraError, match="expected 16 bit depth or metres as floats, got uint8"):
        FrameFolder(tmp_path).read()


def test_a_camera_file_that_is_wrong_says_how(tmp_path):
    save_folder(tmp_path, [frame()])
    values = json.loads((tmp_path / "camera.json").read_text())
    without = {key: value for key, value in values.items() if key != "fx"}
    assert "missing ['fx'], unknown ['f']" in broken(tmp_path, "camera.json", json.dumps(without | {"f": 1}).encode())
    assert "camera.json is damaged or no JSON file" in broken(tmp_path, "camera.json", b"{")
    assert "which model are they of?" in broken(tmp_path, "camera.json", json.dumps(values | {"coeffs": [1]}).encode())
    wrong = json.dumps(values | {"depth_unit_m": 0}).encode()
    assert "depth_unit_m must be a number (m per unit of the image) from 1e-05 to 0.01, got 0" in broken(
        tmp_path, "camera.json", wrong
    )
    for key, value in (("stream", "left"), ("rate_hz", 1e300), ("T_world_cam", [1]), ("depth_unit_m", True)):
        assert f"camera.json: {key} must" in broken(tmp_path, "camera.json", json.dumps(values | {key: value}).encode())
    (tmp_path / "camera.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"camera.json is missing: it holds width, height, fx"):
        FrameFolder(tmp_path)


def test_a_source_that_is_nothing_known_lists_what_is_known():
    with pytest.raises(FileNotFoundError, match=r"no source of frames 'webcam'; known: realsense, realsense:SERIAL"):
        open_camera("webcam")
