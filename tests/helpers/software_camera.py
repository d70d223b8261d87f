"""A device of the camera's SDK without a camera: what the tests of perception/cameras/realsense.py look through."""

import contextlib

import numpy as np
import pyrealsense2 as rs

from dexgrasp.perception.cameras.realsense import Feed

W, H, RATE_HZ = 320, 240, 30
COLOR_FROM_DEPTH_M = (0.015, 0.001, -0.002)


class SoftwareCamera:
    """A device of the SDK whose frames are pushed by hand."""

    def __init__(self, record=None, color=False):
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Synthetic")
        self.device.register_info(rs.camera_info.serial_number, "42")
        self._streams = [self._stream("Stereo Module", rs.stream.depth, rs.format.z16, 2, 193.0)]
        sensor = self._streams[0][0]
        sensor.add_read_only_option(rs.option.depth_units, 0.001)
        sensor.add_read_only_option(rs.option.stereo_baseline, 50.0)
        if color:
            self._streams.append(self._stream("RGB Camera", rs.stream.color, rs.format.rgb8, 3, 300.0))
            move = rs.extrinsics()
            move.rotation, move.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], list(COLOR_FROM_DEPTH_M)
            self._streams[0][1].register_extrinsics_to(self._streams[1][1], move)
        self.device.create_matcher(rs.matchers.default)
        self._recorder = rs.recorder(str(record), self.device) if record else None
        self._syncer, self._count = rs.syncer(100), 0
        for sensor, profile, _ in self._streams:
            sensor.open(profile)
            sensor.start(self._syncer)
        self.gone = None

    def _stream(self, name, kind, form, size, focal):
        lens = rs.intrinsics()
        lens.width, lens.height, lens.ppx, lens.ppy, lens.fx, lens.fy = W, H, W / 2, H / 2, focal, focal
        lens.model, lens.coeffs = rs.distortion.brown_conrady, [0.0] * 5
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt = kind, 0, size, form
        stream.width, stream.height, stream.fps, stream.bpp, stream.intrinsics = W, H, RATE_HZ, size, lens
        sensor = self.device.add_sensor(name)
        return sensor, rs.video_stream_profile(sensor.add_video_stream(stream)), size

    def push(self, *images):
        """One image per stream: depth (and colour)."""
        for image, (sensor, profile, size) in zip(images, self._streams, strict=True):
            frame = rs.software_video_frame()
            frame.pixels, frame.stride, frame.bpp = np.ascontiguousarray(image), W * size, size
            frame.timestamp, frame.domain = 1e3 * self._count / RATE_HZ, rs.timestamp_domain.hardware_clock
            frame.frame_number, frame.profile = self._count, profile
            if size == 2:
                frame.depth_units = 0.001
            sensor.on_video_frame(frame)
        self._count += 1

    def feed(self):
        return Feed("camera 42", "42", self._syncer.try_wait_for_frames, lambda: self.gone, lambda: None)

    def close(self):
        for sensor, _, _ in self._streams:
            sensor.stop()
            sensor.close()
        if self._recorder:
            self._recorder.pause()
            self._recorder = None
        self.device = None


@contextlib.contextmanager
def camera(**kwargs):
    device = SoftwareCamera(**kwargs)
    try:
        yield device
    finally:
        device.close()
