"""The real SDK without a camera: a software device through its filters, recordings made and played back, failures."""

import time
from pathlib import Path

import numpy as np
import pyrealsense2 as rs
import pytest

from dexgrasp.perception.cameras import realsense
from dexgrasp.perception.cameras.depth import (
    CameraError,
    CameraLostError,
    CameraNotFoundError,
    FrameTimeoutError,
    Intrinsics,
    deproject,
    frames,
)
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_matrix
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.cameras.realsense import AlignedDepth, RealSense, RealSenseCfg
from tests.helpers.software_camera import COLOR_FROM_DEPTH_M, RATE_HZ, H, W, camera

OLD_RECORDING = Path(__file__).parents[1] / "data/librealsense_2_57.bag"
"""Three frames of a software device, 64x48, all 500 + n mm but eight columns of holes; written by pyrealsense2 2.57."""
POSE = pose_matrix((0.1, 0.2, 0.5), (0.0, 1.0, 0.0, 0.0))


def ramp(n=0):
    """Depth in millimetres that differs in every column and image."""
    return np.broadcast_to(np.arange(500 + n, 500 + n + W, dtype=np.uint16), (H, W)).copy()


COLOR = np.broadcast_to(np.uint8([10, 20, 30]), (H, W, 3))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Ten frames of a software device in a .db3 file."""
    path = tmp_path_factory.mktemp("recording") / "ten.db3"
    with camera(record=path) as device:
        for n in range(10):
            device.push(ramp(n))
            device.feed().wait(500)
    return path


def timed(action, *args, limit_s=1.0):
    start_s = time.monotonic()
    with pytest.raises(OSError) as caught:
        action(*args)
    assert time.monotonic() - start_s < limit_s
    return caught.value


def test_a_frame_of_the_sdk_arrives_unchanged_in_metres_with_its_stamp():
    with camera() as device:
        source = RealSense(device.feed(), RealSenseCfg(), CameraPose(POSE))
        device.push(ramp(0))
        assert source.read().stamp_s == 0.0
        device.push(ramp(1))
        frame = source.read()
    np.testing.assert_allclose(frame.depth_m, ramp(1) * 1e-3, rtol=1e-6)
    assert frame.stamp_s == pytest.approx(1 / RATE_HZ)
    assert (frame.intrinsics.fx, frame.intrinsics.cx) == (193.0, W / 2)
    assert np.array_equal(frame.T_world_cam, POSE)


def test_points_are_those_of_the_point_cloud_of_the_sdk_to_a_micrometre():
    with camera() as device:
        device.push(ramp())
        _, raw = device.feed().wait(500)
        theirs = np.asanyarray(rs.pointcloud().calculate(raw.get_depth_frame()).get_vertices())
        theirs = theirs.view(np.float32).reshape(H, W, 3)
        source = RealSense(device.feed(), RealSenseCfg())
        device.push(ramp())
        frame = source.read()
    ours = deproject(frame.depth_m, frame.intrinsics.rays())
    np.testing.assert_allclose(ours.transpose(1, 2, 0), theirs, atol=1e-6)


def test_decimation_halves_the_image_and_its_intrinsics():
    with camera() as device:
        source = RealSense(device.feed(), RealSenseCfg(decimation=2))
        device.push(ramp())
        frame = source.read()
    assert frame.depth_m.shape == (H // 2, W // 2) and frame.intrinsics.fx == pytest.approx(193.0 / 2)
    assert frame.depth_m[5, 5] == pytest.approx(0.5105, abs=0.001)


def test_temporal_and_spatial_filters_calm_noise_and_keep_the_distance():
    rng = np.random.default_rng(0)
    with camera() as device:
        source = RealSense(device.feed(), RealSenseCfg(spatial=True, temporal=True))
        for _ in range(8):
            noisy = np.rint(600 + rng.normal(0, 4, (H, W))).astype(np.uint16)
            device.push(noisy)
            frame = source.read()
    assert frame.depth_m.std() < 0.4 * noisy.std() * 1e-3
    assert frame.depth_m.mean() == pytest.approx(0.6, abs=0.001)


def test_hole_filling_fills():
    with camera() as device:
        source = RealSense(device.feed(), RealSenseCfg(hole_filling=True))
        holed = ramp()
        holed[100:110, 100:110] = 0
        device.push(holed)
        assert (source.read().depth_m > 0).all()


def test_aligned_depth_is_along_the_axis_of_the_colour_camera():
    """A point known in both frames: alignment leaves 0.7 m in its pixel, the colour camera's depth is q_z."""
    T = pose_matrix((0.015, 0.001, -0.002), (0.9998, 0.012, -0.014, 0.0076))
    q = T[:3, :3] @ (0.1, -0.05, 0.7) + T[:3, 3]
    camera = Intrinsics(3, 3, 1.0, 1.0, 1 - q[0] / q[2], 1 - q[1] / q[2])  # the middle pixel looks at it
    depth_m = AlignedDepth(T, camera)(np.float32([[0, 0, 0], [0, 0.7, 0], [0, 0, 0]]))
    assert depth_m[1, 1] == pytest.approx(q[2], abs=1e-6) and np.count_nonzero(depth_m) == 1


def test_depth_aligned_to_colour_has_its_pixels_and_its_place_in_the_world():
    cfg = RealSenseCfg(color=True, align_to_color=True)
    with camera(color=True) as device:
        source = RealSense(device.feed(), cfg, CameraPose(POSE, "depth"))
        for _ in range(3):
            device.push(np.full((H, W), 600, np.uint16), COLOR)
        frame = source.read()
    assert frame.intrinsics.fx == 300.0 and np.array_equal(frame.color, COLOR)
    # The camera looks down, turned half about x: what is beside depth in its own frame.
    x, y, z = COLOR_FROM_DEPTH_M
    np.testing.assert_allclose(frame.T_world_cam[:3, 3], POSE[:3, 3] + (-x, y, z), atol=1e-6)
    assert np.median(frame.depth_m[frame.depth_m > 0]) == pytest.approx(0.6 + z, abs=1e-6)


def test_a_pose_of_the_colour_camera_places_depth_that_is_not_aligned():
    with camera(color=True) as device:
        source = RealSense(device.feed(), RealSenseCfg(), CameraPose(POSE, "color"))
        for _ in range(3):
            device.push(ramp(), COLOR)
        x, y, z = COLOR_FROM_DEPTH_M
        np.testing.assert_allclose(source.read().T_world_cam[:3, 3], POSE[:3, 3] + (x, -y, -z), atol=1e-6)


def test_a_recording_is_played_back_frame_by_frame_and_ends_at_once(recording):
    with open_camera(str(recording)) as source:
        start_s, read = time.monotonic(), list(frames(source))
    assert time.monotonic() - start_s < 1.0
    assert len(read) == 10
    for frame in read:
        n = round(frame.stamp_s * RATE_HZ)
        np.testing.assert_allclose(frame.depth_m, ramp(n) * 1e-3, rtol=1e-6)
    assert sorted({frame.stamp_s for frame in read}) == [frame.stamp_s for frame in read]


def test_a_recording_of_the_older_format_is_played_back():
    with open_camera(str(OLD_RECORDING)) as source:
        read = list(frames(source))
    assert len(read) == 3
    for frame in read:
        assert frame.depth_m.shape == (48, 64) and not frame.depth_m[:, :8].any()
        np.testing.assert_allclose(frame.depth_m[:, 8:], 0.5 + frame.stamp_s * RATE_HZ * 1e-3, atol=1e-6)


def test_a_live_camera_takes_the_way_of_a_recording(recording, monkeypatch):
    def from_file(sdk, cfg, serial, color):
        assert (serial, color) == ("42", False)
        config = sdk.config()
        config.enable_device_from_file(str(recording), False)
        return config

    monkeypatch.setattr(realsense, "connected", lambda context: {"42": "Synthetic"})
    monkeypatch.setattr(realsense, "_live_config", from_file)
    with open_camera("realsense:42") as source:
        assert source.serial == "42"
        assert source.read().depth_m.shape == (H, W)


def test_without_a_camera_the_error_comes_at_once(monkeypatch):
    monkeypatch.setattr(realsense, "connected", lambda context: {})
    error = timed(open_camera, "realsense")
    assert isinstance(error, CameraNotFoundError) and "no RealSense camera is connected; check cable" in str(error)


def test_a_wrong_serial_number_lists_what_is_connected(monkeypatch):
    monkeypatch.setattr(realsense, "connected", lambda context: {"1": "D435", "2": "D405"})
    assert str(timed(open_camera, "realsense:7")) == (
        "no RealSense camera with serial number 7; connected: 1 (D435), 2 (D405)"
    )
    assert "2 cameras are connected, choose with realsense:SERIAL" in str(timed(open_camera, "realsense"))


def test_the_sdk_is_asked_for_cameras():
    assert realsense.connected(rs.context()) == {
        device.get_info(rs.camera_info.serial_number): device.get_info(rs.camera_info.name)
        for device in rs.context().query_devices()
    }


def test_a_lost_cable_is_noticed_within_a_second():
    with camera() as device:
        source = RealSense(device.feed(), RealSenseCfg())
        device.push(ramp())
        source.read()
        device.gone = CameraLostError("camera 42 is gone: check cable and power, then start again")
        assert timed(source.read, 5.0) is device.gone


def test_a_camera_that_sends_nothing_is_a_timeout():
    with camera() as device:
        error = timed(RealSense(device.feed(), RealSenseCfg()).read, 0.3)
    assert isinstance(error, FrameTimeoutError) and isinstance(error, TimeoutError)
    assert "camera 42: no depth frame within 0.3 s; check that no other program" in str(error)


@pytest.mark.parametrize("name", ["new.db3", "old.bag"])
@pytest.mark.parametrize("damage", ["garbage", "empty", "cut"])
def test_a_corrupt_recording_is_an_error_within_a_second(name, damage, recording, tmp_path):
    whole = (recording if name == "new.db3" else OLD_RECORDING).read_bytes()
    content = {"garbage": b"garbage" * 1000, "empty": b"", "cut": whole[: len(whole) // 2]}[damage]
    (tmp_path / name).write_bytes(content)
    error = timed(open_camera, str(tmp_path / name))
    assert isinstance(error, CameraError) and "is no recording of a RealSense camera, or it is damaged" in str(error)


def test_a_recording_that_does_not_exist_is_named():
    with pytest.raises(FileNotFoundError, match=r"no recording 'lost.db3'"):
        open_camera("lost.db3")


def test_the_pose_of_another_camera_is_refused(recording):
    with pytest.raises(CameraError, match=r"the pose was calibrated for camera 41, this is 42"):
        open_camera(str(recording), CameraPose(POSE, serial="41"))


def test_a_closed_source_says_so(recording):
    source = open_camera(str(recording))
    source.close()
    source.close()
    with pytest.raises(CameraError, match="has been closed"):
        source.read()


def test_laser_power_is_set_and_refused_above_what_the_projector_has():
    device = rs.software_device()
    sensor = device.add_sensor("Stereo Module")
    allowed = rs.option_range()
    allowed.min, allowed.max, allowed.step, allowed.default = 0, 360, 30, 150
    sensor.add_option(rs.option.laser_power, allowed, True)
    realsense.set_options(sensor, RealSenseCfg(laser_power_mw=100))  # to the nearest step
    assert sensor.get_option(rs.option.laser_power) == 90
    realsense.set_options(sensor, RealSenseCfg())
    assert sensor.get_option(rs.option.laser_power) == 90
    with pytest.raises(CameraError, match=r"laser power 400 mW is above the 360 mW"):
        realsense.set_options(sensor, RealSenseCfg(laser_power_mw=400))
    with pytest.raises(CameraError, match=r"no preset 'High Accuracy'; it has: none"):
        realsense.set_options(sensor, RealSenseCfg(preset="High Accuracy"))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"decimation must lie in 1\.\.8, got 9"):
        RealSenseCfg(decimation=9)
    with pytest.raises(ValueError, match=r"a recording is a .db3 file, got 'out.bag'"):
        RealSenseCfg(record="out.bag")
