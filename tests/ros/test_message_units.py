"""Units, byte orders, sizes and frames of messages: converted as worked out by hand, or refused with their field."""

import array
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from geometry_msgs.msg import PoseStamped
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp_ros.message_conversions import (
    MessageError,
    depth_from_image,
    estimate_from_message,
    image_from_depth,
    info_from_intrinsics,
    intrinsics_from_info,
    pose_from_message,
)
from dexgrasp_ros.perception.config import PerceptionCfg

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(640, 480, 385.0, 386.0, 319.5, 239.5)


def depth_image(depth, encoding="16UC1", big_endian=False, padding=0, **fields):
    """An image of raw values, by hand."""
    kind = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}[encoding]
    values = np.asarray(depth).astype((">" if big_endian else "<") + kind)
    data = b"".join(row.tobytes() + b"\x7f" * padding for row in values)
    given = {
        "height": values.shape[0],
        "width": values.shape[1],
        "encoding": encoding,
        "is_bigendian": int(big_endian),
        "step": values.shape[1] * values.itemsize + padding,
        "data": array.array("B", data),
    }
    return Image(**given | fields)


def test_any_image_is_converted_as_its_fields_say():
    """200 random images: size, encoding, unit, byte order and padding against the values that went in."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows, columns = rng.integers(1, 30, 2)
        truth_m = rng.uniform(0.2, 3.0, (rows, columns)).round(3)
        truth_m[rng.uniform(size=truth_m.shape) < 0.2] = 0.0
        encoding, unit_m = [("16UC1", 0.001), ("mono16", 0.0001), ("32FC1", 1.0), ("32FC1", 0.001)][rng.integers(4)]
        raw = (truth_m / unit_m).round(0 if encoding != "32FC1" else 3)
        stored = raw if encoding == "32FC1" else np.minimum(raw, 65535)
        message = depth_image(stored, encoding, bool(rng.integers(2)), int(rng.integers(0, 5)))
        given = 0.0 if (encoding, unit_m) in (("16UC1", 0.001), ("32FC1", 1.0)) else unit_m
        np.testing.assert_allclose(depth_from_image(message, given), stored * unit_m, rtol=1e-6)


@pytest.mark.parametrize("unit_m", [-1.0, -0.001, float("nan"), float("inf"), 1e-9, 10.0, "0.001", True])
@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_a_depth_unit_that_no_camera_has_is_refused(unit_m, encoding):
    with pytest.raises(MessageError, match=r"depth_unit_m must be a number .m per unit of the image. from 1e-05 to"):
        depth_from_image(depth_image(np.full((4, 4), 0.5), encoding), unit_m)
    with pytest.raises(ValueError, match="depth_unit_m"):
        PerceptionCfg(bundle="", camera_quat_wxyz=(1.0, 0.0, 0.0, 0.0), depth_unit_m=unit_m)


def test_a_wrong_byte_order_is_told():
    """500 mm are 0x01F4; with the bytes swapped 0xF401, 62465 mm. With noise the high byte jumps."""
    flat = depth_image(np.full((48, 64), 500), is_bigendian=1)
    with pytest.raises(MessageError, match=r"its median depth is 62\.5 m, expected 0\.01 to 20 m.* byte order"):
        depth_from_image(flat)
    noisy = np.random.default_rng(0).integers(480, 520, (48, 64))
    for big_endian in (False, True):
        with pytest.raises(
            MessageError, match=f"is_bigendian is {int(not big_endian)}, and neighbouring pixels differ"
        ):
            depth_from_image(depth_image(noisy, big_endian=big_endian, is_bigendian=int(not big_endian)))
        np.testing.assert_allclose(
            depth_from_image(depth_image(noisy, big_endian=big_endian)), noisy * 0.001, rtol=1e-6
        )
    with pytest.raises(MessageError, match="is_bigendian of an image must be 0 or 1, got 2"):
        depth_from_image(depth_image(noisy, is_bigendian=2))
    floats = depth_image(np.full((4, 4), 0.7), "32FC1", is_bigendian=1)  # 0.7f swapped: 4.2e-8 or a denormal
    assert refused_or_empty(floats)


def refused_or_empty(message):
    try:
        return not depth_from_image(message).any()
    except MessageError:
        return True


def test_rough_depth_in_the_right_byte_order_is_taken():
    rough = np.random.default_rng(1).integers(300, 5000, (48, 64))
    np.testing.assert_allclose(depth_from_image(depth_image(rough)), rough * 0.001, rtol=1e-6)


@pytest.mark.parametrize(("encoding", "value"), [("32FC1", 500.0), ("32FC1", 65535.0), ("16UC1", 2)])
def test_images_in_another_unit_than_their_encoding_says_are_refused(encoding, value):
    with pytest.raises(MessageError, match=f"image of {encoding}: its median depth is .* depth unit"):
        depth_from_image(depth_image(np.full((8, 8), value), encoding))


@pytest.mark.parametrize(
    "change", [{"step": 7}, {"step": 0}, {"step": 1000}, {"width": 5}, {"height": 0}, {"width": 0}]
)
def test_sizes_that_do_not_fit_the_data_are_refused(change):
    with pytest.raises(MessageError, match=r"image of 16UC1 needs .* rows of at least .* bytes; got step"):
        depth_from_image(depth_image(np.full((3, 4), 500), **change))


def info(R=None, scale=1.0, **fields):
    message = info_from_intrinsics(CAMERA, 1.0, "camera")
    if R is not None:
        message.r = np.ravel(R).tolist()
    message.p = [scale * value if at in (0, 2, 5, 6) else value for at, value in enumerate(message.p)]
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_rectified_images_whose_frame_is_turned_are_refused():
    """0.01 deg turn the image by 385 px * 1.745e-4 = 0.067 px, 0.1 deg by 0.67 px."""
    turn = [Rotation.from_rotvec(np.radians([0, angle, 0])).as_matrix() for angle in (0.01, 0.1, 5.0)]
    assert intrinsics_from_info(info(turn[0]), "rectified") == CAMERA
    assert intrinsics_from_info(info(np.zeros((3, 3))), "rectified") == CAMERA
    for R in turn[1:]:
        with pytest.raises(MessageError, match=r"camera_info: r turns the rectified images by [\d.]+ px"):
            intrinsics_from_info(info(R), "rectified")
        assert intrinsics_from_info(info(R), "raw") == CAMERA
        with pytest.raises(MessageError, match="set depth_image to raw or rectified"):
            intrinsics_from_info(info(R))


@pytest.mark.parametrize("R", [np.full((3, 3), np.nan), 2 * np.eye(3), np.diag([1.0, 1.0, -1.0]), np.ones((3, 3))])
def test_an_r_that_is_no_rotation_is_refused(R):
    for kind in ("rectified", "auto"):
        with pytest.raises(MessageError, match="camera_info: r must be a rotation matrix"):
            intrinsics_from_info(info(R), kind)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_a_p_of_another_resolution_than_k_is_refused(scale):
    for kind in ("rectified", "auto"):
        with pytest.raises(MessageError, match="camera_info"):
            intrinsics_from_info(info(scale=scale), kind)


def test_p_may_zoom_and_shift_a_little_and_k_may_be_missing():
    zoomed = intrinsics_from_info(info(scale=0.9), "rectified")
    assert (zoomed.fx, zoomed.cx) == pytest.approx((346.5, 287.55))
    assert intrinsics_from_info(info(k=[0.0] * 9), "rectified") == CAMERA


def cloud(points, kind="f4", big_endian=False, rows=1, row_padding=0, point_padding=0, **fields):
    """A cloud of points (n, 3) in any layout, by hand."""
    values = np.asarray(points).astype((">" if big_endian else "<") + kind)
    width = len(values) // rows
    lines = values.reshape(rows, width, 3)
    step = 3 * values.itemsize + point_padding
    data = b"".join(
        b"".join(point.tobytes() + b"\x01" * point_padding for point in line) + b"\x02" * row_padding for line in lines
    )
    datatype = {"f4": PointField.FLOAT32, "f8": PointField.FLOAT64, "i2": PointField.INT16}[kind]
    given = {
        "height": rows,
        "width": width,
        "fields": [
            PointField(name=name, offset=values.itemsize * at, datatype=datatype, count=1)
            for at, name in enumerate("xyz")
        ],
        "is_bigendian": big_endian,
        "point_step": step,
        "row_step": width * step + row_padding,
        "data": array.array("B", data),
    }
    return PointCloud2(**given | fields)


POINTS = np.random.default_rng(0).uniform(-0.5, 0.5, (12, 3))


def test_any_layout_of_a_cloud_gives_its_points():
    for kind in ("f4", "f8"):
        for big_endian in (False, True):
            for rows, row_padding, point_padding in ((1, 0, 0), (3, 0, 4), (4, 5, 0), (2, 8, 20)):
                layout = {"rows": rows, "row_padding": row_padding, "point_padding": point_padding}
                found = estimate_from_message(cloud(POINTS, kind, big_endian, **layout))
                np.testing.assert_allclose(found.points_w, POINTS, atol=1e-7)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (cloud(1000 * POINTS), r"the furthest point of a cloud \(x, y, z\) must be 3 numbers \(m\) .* divide by 100"),
        (cloud(1000 * POINTS, "i2"), r"the furthest point of a cloud"),
        (cloud(POINTS + 500), "the furthest point of a cloud"),
        (cloud(1e-5 * POINTS), "all points of a cloud lie within 0.0001 m: are x, y, z metres"),
        (cloud(POINTS, row_step=7), "row_step 7 at least 144"),
        (cloud(POINTS, point_step=8), "point_step 8 must be at least 12"),
        (cloud(POINTS, width=13), "a cloud of 13 points of 12 bytes needs 156 bytes, got 144"),
        (cloud(POINTS, height=2), "and data hold 2 rows"),
    ],
)
def test_clouds_in_another_unit_or_of_another_size_are_refused(message, text):
    with pytest.raises(MessageError, match=text):
        estimate_from_message(message)


def test_the_other_byte_order_of_a_cloud_is_no_cloud():
    for kind in ("f4", "f8"):
        with pytest.raises(MessageError):
            estimate_from_message(cloud(POINTS, kind, is_bigendian=True))


def test_a_pose_in_millimetres_is_refused():
    message = PoseStamped()
    message.pose.orientation.w = 1.0
    message.pose.position.x = 450.0
    with pytest.raises(
        MessageError, match=r"pose.position must be 3 numbers \(m\) from -10 to 10, got .* divide by 100"
    ):
        pose_from_message(message)


def test_what_is_written_is_what_is_read():
    depth_m = np.random.default_rng(2).uniform(0.3, 2.0, (20, 30)).astype(np.float32)
    for encoding, tolerance in (("16UC1", 5.1e-4), ("32FC1", 0)):
        np.testing.assert_allclose(
            depth_from_image(image_from_depth(depth_m, 0.0, "", encoding)), depth_m, atol=tolerance
        )
    camera = replace(CAMERA, distortion="brown_conrady", coeffs=(0.1, -0.05, 0.001, 0.002, 0.0))
    assert intrinsics_from_info(info_from_intrinsics(camera, 0.0, ""), "raw") == camera
    assert isinstance(info_from_intrinsics(camera, 0.0, ""), CameraInfo)
