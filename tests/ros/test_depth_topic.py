"""Depth images of topics: pose, intrinsics and image belong to one camera, or the image is refused."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_matrix
from dexgrasp_ros.message_conversions import image_from_depth, info_from_intrinsics
from dexgrasp_ros.perception.config import PerceptionCfg
from dexgrasp_ros.perception.depth_topic import DepthTopic, image_kind

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(4, 3, 2.0, 2.0, 1.5, 1.0)
LENS = Intrinsics(4, 3, 2.0, 2.0, 1.5, 1.0, "brown_conrady", (0.3, 0.0, 0.0, 0.0, 0.0))
POSE = pose_matrix((0.1, 0.2, 0.5), (0.0, 1.0, 0.0, 0.0))
T_COLOR_DEPTH = pose_matrix((0.015, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
DEPTH, COLOR = "camera_depth_optical_frame", "camera_color_optical_frame"


def topic(tmp_path, stream=None, known=False, name="/camera/depth/image_rect_raw", **parameters):
    """Input of a node with the pose of a stream from a file, or from parameters."""
    given = {"camera_pos_m": (0.1, 0.2, 0.5), "camera_quat_wxyz": (0.0, 1.0, 0.0, 0.0)}
    if stream:
        given = {"camera_file": str(tmp_path / "camera.yaml")}
        CameraPose(POSE, stream, T_color_depth=T_COLOR_DEPTH if known else None).save(given["camera_file"])
    return DepthTopic(PerceptionCfg(bundle="", **given, **parameters), name)


def image(frame_id):
    return image_from_depth(np.full((3, 4), 0.7), 1.0, frame_id)


@pytest.mark.parametrize(
    ("stream", "frame_id", "setting"),
    [
        ("depth", DEPTH, "auto"),
        ("color", COLOR, "auto"),
        ("color", "rgb_camera_link", "auto"),
        ("depth", "camera_infra1_optical_frame", "auto"),
        ("color", "zed_left_camera_optical_frame", "color"),
    ],
)
def test_a_pose_holds_for_images_of_its_own_camera(tmp_path, stream, frame_id, setting):
    depth_m, T_world_cam = topic(tmp_path, stream, depth_stream=setting).depth(image(frame_id))
    np.testing.assert_allclose(T_world_cam, POSE, atol=1e-12)
    np.testing.assert_allclose(depth_m, 0.7)


@pytest.mark.parametrize(
    ("stream", "frame_id", "setting", "text"),
    [
        ("color", DEPTH, "auto", "is that of the color camera, .* frame of the depth camera: align depth to colour"),
        ("depth", COLOR, "auto", "is that of the depth camera, .* frame of the color camera: do not align depth"),
        ("color", COLOR, "depth", "give T_color_depth in the camera file"),
        (
            "color",
            "camera_optical_frame",
            "auto",
            "frame_id 'camera_optical_frame' .* set depth_stream to depth, or to",
        ),
        ("color", "rgbd_camera_optical_frame", "auto", "frame_id 'rgbd_camera_optical_frame' .* does not say"),
        ("depth", "", "auto", "has no frame_id"),
        ("depth", "", "depth", "has no frame_id"),
        ("depth", "depth_to_rgb_frame", "auto", "does not say"),
    ],
)
def test_a_pose_of_another_camera_is_refused(tmp_path, stream, frame_id, setting, text):
    with pytest.raises(ValueError, match=text):
        topic(tmp_path, stream, depth_stream=setting).depth(image(frame_id))


def test_a_pose_of_the_other_camera_is_moved_where_the_file_says_how(tmp_path):
    """Half a turn about x: the camera's x is that of the world; 15 mm lie between the cameras."""
    for stream, frame_id, x in (("color", DEPTH, 0.115), ("depth", COLOR, 0.085)):
        _, T_world_cam = topic(tmp_path, stream, known=True).depth(image(frame_id))
        np.testing.assert_allclose(T_world_cam[:3, 3], (x, 0.2, 0.5), atol=1e-12)


def test_a_pose_of_parameters_is_that_of_the_depth_images(tmp_path):
    for frame_id in (DEPTH, COLOR, "anything"):
        np.testing.assert_allclose(topic(tmp_path).depth(image(frame_id))[1], POSE, atol=1e-12)


def test_images_of_another_frame_than_that_of_the_calibration_are_refused(tmp_path):
    second = "camera2_depth_optical_frame"  # its images and camera_info agree
    CameraPose(POSE, frame_id=DEPTH).save(tmp_path / "named.yaml")
    named = {"camera_file": str(tmp_path / "named.yaml")}
    for given, origin in ((named, "frame_id in .*named.yaml"), ({"camera_frame": DEPTH}, "parameter camera_frame")):
        place = {} if "camera_file" in given else {"camera_quat_wxyz": (0.0, 1.0, 0.0, 0.0)}
        depth = DepthTopic(PerceptionCfg(bundle="", **given, **place), "/depth/image_rect_raw")
        depth.intrinsics(info_from_intrinsics(CAMERA, 0.0, second))
        with pytest.raises(ValueError, match=f"is in frame '{second}', expected '{DEPTH}' \\({origin}\\)"):
            depth.depth(image(second))
        depth.intrinsics(info_from_intrinsics(CAMERA, 0.0, DEPTH))
        depth.depth(image(DEPTH))
    other = DepthTopic(PerceptionCfg(bundle="", **named, camera_frame=second), "/depth/image_rect_raw")
    other.depth(image(second))  # the parameter overrides the file


def test_the_frame_of_the_first_images_stays(tmp_path):
    depth = topic(tmp_path, "depth")
    depth.depth(image(DEPTH))
    with pytest.raises(ValueError, match=r"expected 'camera_depth_optical_frame' \(the first images\)"):
        depth.depth(image("depth_of_a_second_camera"))
    depth.depth(image(DEPTH))


def test_a_file_that_names_its_frame_still_serves_the_other_stream_where_it_says_how(tmp_path):
    CameraPose(POSE, "depth", T_color_depth=T_COLOR_DEPTH, frame_id=DEPTH).save(tmp_path / "both.yaml")
    depth = DepthTopic(PerceptionCfg(bundle="", camera_file=str(tmp_path / "both.yaml")), "/image_raw")
    _, T_world_cam = depth.depth(image(COLOR))
    np.testing.assert_allclose(T_world_cam[:3, 3], (0.085, 0.2, 0.5), atol=1e-12)
    fresh = DepthTopic(PerceptionCfg(bundle="", camera_file=str(tmp_path / "both.yaml")), "/image_raw")
    with pytest.raises(ValueError, match="frame_id in"):
        fresh.depth(image("camera2_depth_optical_frame"))


def test_intrinsics_of_another_camera_are_refused(tmp_path):
    depth = topic(tmp_path)
    depth.intrinsics(info_from_intrinsics(CAMERA, 0.0, COLOR))
    with pytest.raises(ValueError, match=f"image is in frame '{DEPTH}', its camera_info in '{COLOR}': .* of different"):
        depth.depth(image(DEPTH))
    depth.intrinsics(info_from_intrinsics(CAMERA, 0.0, DEPTH))
    depth.depth(image(DEPTH))


def test_raw_or_rectified_is_said_by_the_parameter_or_by_the_name_of_the_topic(tmp_path):
    info = info_from_intrinsics(LENS, 0.0, DEPTH)
    assert topic(tmp_path, name="/aligned_depth_to_color/image_raw").intrinsics(info) == LENS
    assert topic(tmp_path, name="/depth_registered/image_rect").intrinsics(info).distortion == "none"
    for name in ("/depth/image_rect_raw", "/depth/image", "/raw/depth"):
        with pytest.raises(ValueError, match="set depth_image to raw or rectified"):
            topic(tmp_path, name=name).intrinsics(info)
        assert topic(tmp_path, name=name, depth_image="raw").intrinsics(info) == LENS
    assert topic(tmp_path, name="/image_raw", depth_image="rectified").intrinsics(info).distortion == "none"
    assert (image_kind("/a/image_rect_color"), image_kind("/a/image_raw/compressed")) == ("rectified", "auto")


def test_the_unit_of_depth_is_a_parameter(tmp_path):
    np.testing.assert_allclose(topic(tmp_path, depth_unit_m=0.0001).depth(image(DEPTH))[0], 0.07, rtol=1e-6)
    with pytest.raises(ValueError, match=r"depth_unit_m must lie in 0\.\.1, got -1"):
        topic(tmp_path, depth_unit_m=-1.0)
