"""Messages of ROS against values worked out by hand, and those that contradict themselves."""

import array
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp_ros import message_conversions as m
from dexgrasp_ros.message_conversions import (
    depth_from_image,
    estimate_from_message,
    estimate_message,
    image_from_depth,
    info_from_intrinsics,
    intrinsics_from_info,
)
from dexgrasp_ros.object_estimate import ObjectEstimate

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(640, 480, 385.0, 386.0, 319.5, 239.5, "brown_conrady", (0.1, -0.1, 0.001, 0.002, 0.03))
PLAN = PregraspPlan(
    np.array([0.1, 0.2, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]), 0.05, np.arange(16.0), 0.07, -np.arange(16.0)
)


def through_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def millimetres(big_endian=False, padding=3):
    """Two rows 500 1000 0 / 65535 1 2 with bytes beyond the last column."""
    rows = np.array([[500, 1000, 0], [65535, 1, 2]], ">u2" if big_endian else "<u2")
    data = b"".join(row.tobytes() + b"\xff" * padding for row in rows)
    return Image(
        height=2, width=3, encoding="16UC1", is_bigendian=int(big_endian), step=6 + padding, data=array.array("B", data)
    )


@pytest.mark.parametrize("big_endian", [False, True])
def test_millimetres_become_metres_whatever_the_byte_order_and_the_step(big_endian):
    depth_m = depth_from_image(millimetres(big_endian))
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, [[0.5, 1.0, 0.0], [65.535, 0.001, 0.002]], rtol=1e-6)


def test_metres_keep_their_values_and_what_is_not_a_distance_is_a_hole():
    values = np.array([[0.25, np.nan], [np.inf, -1.0]], "<f4")
    message = Image(height=2, width=2, encoding="32FC1", step=8, data=array.array("B", values.tobytes()))
    np.testing.assert_array_equal(depth_from_image(message), [[0.25, 0.0], [0.0, 0.0]])


def test_values_in_another_unit_than_that_of_the_encoding():
    np.testing.assert_allclose(depth_from_image(millimetres(), 0.0001)[0], [0.05, 0.1, 0.0], rtol=1e-6)
    values = np.array([[700.0, np.nan]], ">f4")
    message = Image(
        height=1, width=2, encoding="32FC1", is_bigendian=1, step=9, data=array.array("B", values.tobytes() + b"x")
    )
    np.testing.assert_allclose(depth_from_image(message, 0.001), [[0.7, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_a_depth_image_comes_back_from_the_wire(encoding):
    depth_m = np.array([[0.5, 0.0], [1.234, 2.0]])
    message = through_the_wire(image_from_depth(depth_m, 12.5, "camera", encoding))
    assert (message.header.frame_id, m.seconds(message.header.stamp)) == ("camera", 12.5)
    assert message.is_bigendian == int(sys.byteorder == "big")
    np.testing.assert_allclose(depth_from_image(message), depth_m, rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("encoding", "rgb8", "16UC1 .* got 'rgb8'"),
        ("height", 0, "3x0 image"),
        ("height", 3, "3 rows .* and 18 bytes"),
        ("step", 5, "got step 5"),
        ("data", array.array("B", b"1234"), "and 4 bytes"),
    ],
)
def test_an_image_that_contradicts_itself_is_refused(field, value, text):
    message = millimetres()
    setattr(message, field, value)
    with pytest.raises(m.MessageError, match=text):
        depth_from_image(message)


@pytest.mark.parametrize("count", [0, 4, 5, 8, 12, 14])
def test_intrinsics_come_back_from_the_wire(count):
    coeffs = (*CAMERA.coeffs, 0.01, -0.02, 0.03, 1e-4, 2e-4, 3e-4, 4e-4, 0.01, -0.01)[:count]
    camera = replace(CAMERA, distortion="brown_conrady" if coeffs else "none", coeffs=coeffs or (0.0,) * 5)
    message = through_the_wire(info_from_intrinsics(camera, 1.0, "camera"))
    assert intrinsics_from_info(message, "raw") == camera
    rectified = intrinsics_from_info(message, "rectified")
    assert rectified == replace(camera, distortion="none", coeffs=(0.0,) * 5)
    np.testing.assert_array_equal(message.p, [385, 0, 319.5, 0, 0, 386, 239.5, 0, 0, 0, 1, 0])
    if not coeffs:
        assert intrinsics_from_info(message) == camera
        return
    with pytest.raises(m.MessageError, match=r"differ by up to \d.* px, .* set depth_image to raw or rectified"):
        intrinsics_from_info(message)


def test_a_fisheye_camera_comes_back_from_the_wire_and_is_never_taken_for_a_pinhole():
    for coeffs in ((0.05, -0.01, 0.002, 0.0), (0.0, 0.0, 0.0, 0.0)):
        camera = replace(CAMERA, distortion="equidistant", coeffs=coeffs)
        message = through_the_wire(info_from_intrinsics(camera, 1.0, "camera"))
        assert intrinsics_from_info(message, "raw") == camera
        for p in (message.p, [0.0] * 12):
            message.p = p
            with pytest.raises(m.MessageError, match="set depth_image to raw or rectified"):
                intrinsics_from_info(message)


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial", "", "brown_conrady_of_a_vendor"])
@pytest.mark.parametrize("count", [0, 4, 5, 8, 12, 14])
def test_zero_coefficients_are_no_distortion(model, count):
    message = info_from_intrinsics(Intrinsics(4, 3, 2.0, 2.0, 1.5, 1.0), 0.0, "")
    message.distortion_model, message.d = model, [0.0] * count
    assert intrinsics_from_info(message) == Intrinsics(4, 3, 2.0, 2.0, 1.5, 1.0)


@pytest.mark.parametrize("coeffs", [(-0.056, 0.065, -0.0004, 0.0003, -0.021), (-0.3, 0.09, 5e-4, -3e-4, 0, 0.1, 0, 0)])
def test_rectified_images_have_the_rays_of_p_as_opencv_rectifies(coeffs):
    K, D = np.array([[640.0, 0, 640], [0, 640, 360], [0, 0, 1]]), np.array(coeffs)
    P = np.zeros((3, 4))
    P[:, :3] = cv2.getOptimalNewCameraMatrix(K, D, (1280, 720), 0.0)[0]
    message = CameraInfo(height=720, width=1280, d=D.tolist(), k=K.ravel().tolist(), p=P.ravel().tolist())
    message.distortion_model = "plumb_bob" if len(coeffs) == 5 else "rational_polynomial"
    rectified = np.array([(640.0, 360.0), (900.0, 500.0), (1100.0, 600.0)])
    rays = intrinsics_from_info(message, "rectified").rays_at(rectified)
    np.testing.assert_allclose(rays, (rectified - P[:2, 2]) / (P[0, 0], P[1, 1]), atol=1e-12)
    points = np.concatenate([rays, np.ones((3, 1))], 1)[:, None]
    raw = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, D)[0][:, 0]
    np.testing.assert_allclose(intrinsics_from_info(message, "raw").rays_at(raw), rays, atol=1e-9)
    with pytest.raises(m.MessageError, match="nothing says which one this is: set depth_image to raw or rectified"):
        intrinsics_from_info(message)


def test_a_rectified_image_that_is_turned_against_the_raw_one_is_told_apart():
    message = info_from_intrinsics(Intrinsics(640, 480, 385.0, 385.0, 319.5, 239.5), 0.0, "")
    message.r = [1.0, 0.0, 0.0, 0.0, 0.9998, -0.02, 0.0, 0.02, 0.9998]
    with pytest.raises(m.MessageError, match=r"differ by up to \d"):
        intrinsics_from_info(message)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"k": [0.0] * 9}, "no usable intrinsics"),
        ({"k": [float("nan")] + [1.0] * 8}, "no usable intrinsics"),
        ({"k": [385.0, 2.0, 319.5, 0.0, 385.0, 239.5, 0.0, 0.0, 1.0]}, "without skew"),
        (
            {"distortion_model": "thin_prism"},
            "5 coefficients of distortion_model 'thin_prism' are no known lens; known: ",
        ),
        ({"d": [0.1] * 8}, "8 coefficients of distortion_model 'plumb_bob' are no known lens"),
        ({"d": [0.1] * 3}, "needs 4 or 5 or 8"),
        ({"d": [-9.0, 0.0, 0.0, 0.0, 0.0]}, "no ray reaches pixel .* use rectified images"),
        ({"width": 0}, "positive size"),
        ({"width": 6400, "height": 4800}, r"fx is 385 px, expected 554\.256 to "),
        ({"k": [1e-300, 0.0, 319.5, 0.0, 385.0, 239.5, 0.0, 0.0, 1.0]}, "fx is 1e-300 px, expected"),
        ({"k": [385.0, 0.0, 319.5, 0.0, 1e300, 239.5, 0.0, 0.0, 1.0]}, r"fy is 1e\+300 px, expected"),
        ({"k": [385.0, 0.0, 319.5, 0.0, 800.0, 239.5, 0.0, 0.0, 1.0]}, "fx is 385 px and fy 800 px"),
        ({"k": [385.0, 0.0, 700.0, 0.0, 385.0, 239.5, 0.0, 0.0, 1.0]}, "cx is 700 px, outside the image of 640x480"),
        ({"k": [-385.0, 0.0, 319.5, 0.0, 385.0, 239.5, 0.0, 0.0, 1.0]}, "no usable intrinsics"),
        ({"binning_x": 2}, "binned by 2 x 0"),
        (
            {"roi": RegionOfInterest(x_offset=160, y_offset=120, width=320, height=240)},
            r"320x240 at \(160, 120\) of 640x",
        ),
        ({"roi": RegionOfInterest(width=640)}, "cropped to 640x0"),
        ({"roi": RegionOfInterest(y_offset=1, width=640, height=480)}, r"at \(0, 1\)"),
    ],
)
def test_a_camera_without_usable_intrinsics_is_refused(change, text):
    message = info_from_intrinsics(CAMERA, 0.0, "")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(m.MessageError, match=text):
        intrinsics_from_info(message, "raw")


@pytest.mark.parametrize(
    ("p", "text"),
    [
        ({}, "no usable projection of rectified images"),
        ({0: 385.0, 5: 385.0, 10: 1.0, 3: -19.25}, r"moves the camera by \(-0.05, 0\) m"),
        ({0: 385.0, 5: float("inf"), 10: 1.0}, "no usable projection"),
        ({0: 385.0, 5: 385.0, 1: 1.0, 10: 1.0}, "p must be"),
    ],
)
def test_a_projection_that_is_none_of_rectified_images_is_refused(p, text):
    message = info_from_intrinsics(CAMERA, 0.0, "")
    message.p = [p.get(at, 0.0) for at in range(12)]
    with pytest.raises(m.MessageError, match=text):
        intrinsics_from_info(message, "rectified")


@pytest.mark.parametrize("size", [(0, 0), (640, 480)])
def test_a_region_that_is_the_whole_image_is_accepted(size):
    message = info_from_intrinsics(CAMERA, 0.0, "")
    message.roi, message.binning_x, message.binning_y = RegionOfInterest(width=size[0], height=size[1]), 1, 1
    assert intrinsics_from_info(message, "raw") == CAMERA


def test_an_empty_camera_info_is_refused():
    with pytest.raises(m.MessageError, match="calibrate the camera"):
        intrinsics_from_info(CameraInfo())


def test_points_come_back_from_the_wire_with_what_is_known_of_the_view():
    points_w = np.random.default_rng(0).normal(size=(512, 3)).astype(np.float32)
    message = through_the_wire(estimate_message(ObjectEstimate(points_w, 0.25, False, 3.5), "world"))
    found = estimate_from_message(message)
    np.testing.assert_array_equal(found.points_w, points_w)
    assert (found.visible_fraction, found.view_fresh, found.stamp_s, message.header.frame_id) == (
        0.25,
        False,
        3.5,
        "world",
    )


def test_a_foreign_cloud_is_read_by_the_names_of_its_fields():
    rows = np.zeros(2, np.dtype({"names": ["rgb", "z", "y", "x"], "formats": ["<f4"] * 4, "offsets": [0, 4, 8, 12]}))
    rows["x"], rows["y"], rows["z"] = [1, 2], [3, 4], [5, 6]
    fields = [PointField(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(("rgb", "z", "y", "x"))]
    message = PointCloud2(
        height=1, width=2, fields=fields, point_step=16, row_step=32, data=array.array("B", rows.tobytes())
    )
    found = estimate_from_message(message)
    np.testing.assert_array_equal(found.points_w, [[1, 3, 5], [2, 4, 6]])
    assert (found.visible_fraction, found.view_fresh) == (1.0, True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fields": [PointField(name="x", datatype=7, count=1)]}, "missing"),
        ({"width": 3}, "3 points of 20 bytes needs 60 bytes, got 40"),
        ({"point_step": 8}, "points of 8 bytes"),
        ({"data": array.array("B", np.full(10, np.nan, "<f4").tobytes())}, "finite"),
    ],
)
def test_a_cloud_that_contradicts_itself_is_refused(change, text):
    message = estimate_message(ObjectEstimate(np.zeros((2, 3), np.float32)), "world")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(m.MessageError, match=text):
        estimate_from_message(message)


def test_a_pose_has_its_scalar_last_in_the_message_and_first_here():
    message = through_the_wire(m.pose_message([1, 2, 3], [0.5, -0.5, 0.5, 0.5], 9.0, "world"))
    assert (message.pose.orientation.w, message.pose.orientation.x, message.pose.orientation.z) == (0.5, -0.5, 0.5)
    pos, quat = m.pose_from_message(message)
    assert pos.tolist() == [1, 2, 3]
    assert quat.tolist() == [0.5, -0.5, 0.5, 0.5]


def test_a_pose_without_a_direction_is_refused():
    message = PoseStamped()
    message.pose.orientation.w = 0.0
    with pytest.raises(m.MessageError, match="unit quaternion"):
        m.pose_from_message(message)


def test_joints_are_found_by_name():
    message = through_the_wire(m.joint_message(["b", "a"], [1.0, 2.0], 4.0, velocity=[3.0, 4.0]))
    assert m.joints_from_message(message) == {"a": 2.0, "b": 1.0}
    assert m.joints_from_message(message, "velocity") == {"a": 4.0, "b": 3.0}


def test_only_the_reader_of_a_joint_judges_its_value():
    message = through_the_wire(m.joint_message(["a", "b", "c", "c"], [1.0, float("nan"), 2.0, 3.0], 4.0))
    found = m.joints_from_message(message)
    assert found.pop("a") == 1.0
    assert np.isnan(found.pop("b")) and not found
    with pytest.raises(m.MessageError, match="1 values for the 2 names"):
        m.joints_from_message(JointState(name=["a", "b"], position=[1.0]))
    for names, values in ((["a", "b"], [1.0, float("nan")]), (["a", "b", "b"], [1.0, 2.0, 2.0])):
        with pytest.raises(m.MessageError, match=r"values of \['b'.*\] are not finite, or the names occur twice"):
            m.trajectory_point(m.trajectory_message(names, values, 0.1))


def test_a_streamed_trajectory_has_one_point():
    message = through_the_wire(m.trajectory_message(["a", "b"], [0.1, 0.2], 0.15))
    assert (message.header.stamp.sec, message.points[0].time_from_start.nanosec) == (0, 150_000_000)
    assert m.trajectory_point(message) == ({"a": 0.1, "b": 0.2}, 0.15)
    with pytest.raises(m.MessageError, match="one point, got 0"):
        m.trajectory_point(JointTrajectory())


def test_a_command_without_names_has_the_right_length_and_is_finite():
    assert m.array_from_message(m.array_message([1, 2]), 2).tolist() == [1.0, 2.0]
    for values in ([1.0], [1.0, float("inf")]):
        with pytest.raises(m.MessageError, match="2 finite values"):
            m.array_from_message(m.array_message(values), 2)


def test_a_plan_describes_itself():
    message = through_the_wire(m.plan_message(PLAN, 7.25))
    assert [(d.label, d.size) for d in message.layout.dim] == [
        ("stamp_s", 1),
        ("palm_pos_w", 3),
        ("palm_quat_w", 4),
        ("depth_m", 1),
        ("closing", 16),
        ("floor_m", 1),
        ("joint_pos", 16),
    ]
    plan, stamp_s = m.plan_from_message(message)
    assert stamp_s == 7.25
    for name, value in vars(PLAN).items():
        np.testing.assert_array_equal(getattr(plan, name), value)


@pytest.mark.parametrize("plan_id", [None, 0, 1_795_904_363_404])  # milliseconds since 1970
def test_the_id_of_a_plan_is_exact_and_changes_nothing_else(plan_id):
    message = through_the_wire(m.plan_message(PLAN, 7.25, plan_id))
    assert m.plan_id_of(message) == plan_id
    plan, stamp_s = m.plan_from_message(message)
    assert stamp_s == 7.25
    np.testing.assert_array_equal(plan.joint_pos, PLAN.joint_pos)


def test_a_plan_that_contradicts_itself_is_refused():
    with pytest.raises(m.MessageError, match="fields"):
        m.plan_from_message(Float64MultiArray(data=[1.0]))
    short = m.plan_message(PLAN, 0.0)
    short.data = short.data[:-1]
    with pytest.raises(m.MessageError, match="for 41 values"):
        m.plan_from_message(short)
    broken = m.plan_message(PLAN, 0.0)
    broken.data[2] = float("nan")
    with pytest.raises(m.MessageError, match=r"\['palm_pos_w'\] are not"):
        m.plan_from_message(broken)


def test_stamps_keep_nanoseconds_of_a_short_clock_and_a_microsecond_of_todays():
    assert m.seconds(m.to_stamp(1.000000001)) == pytest.approx(1.000000001, abs=1e-12)
    assert m.seconds(m.to_stamp(1_800_000_000.123456)) == pytest.approx(1_800_000_000.123456, abs=1e-6)
    assert m.to_duration(0.999999999999).sec == 1


def test_diagnostics_hold_numbers_as_text():
    status = m.diagnostic("grasp", m.WARN, "late", {"age_s": 0.123456789, "steps": 3})
    message = through_the_wire(m.diagnostics_message([status], 1.0))
    assert message.status[0].level == b"\x01"
    assert [(row.key, row.value) for row in message.status[0].values] == [("age_s", "0.123457"), ("steps", "3")]
