"""RealSense cameras and their recordings, through the vendor's SDK, which only this file imports.

Frames of cameras and recordings pass through the same steps: feed -> filters of the SDK -> alignment -> metres. A feed
delivers sets of frames: an SDK pipeline on a camera or on a file.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import (
    CameraError,
    CameraLostError,
    CameraNotFoundError,
    DepthFrame,
    DepthSource,
    EndOfFramesError,
    FrameTimeoutError,
    Intrinsics,
    Stream,
)
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.text import install_command

POLL_MS = 100
"""Longest single wait, after which a lost cable or the end of a file is detected."""
LENSES: dict[str, Any] = {"kannala_brandt4": "equidistant"}
"""Names of lens models of the SDK that differ from those of Intrinsics."""


def depth_to_color(frames: Any) -> NDArray[np.float64] | None:
    """Return T_color_depth (4, 4) of a set of frames before alignment; None without a colour image."""
    color = frames.get_color_frame()
    if not color:
        return None
    stored = frames.get_depth_frame().get_profile().get_extrinsics_to(color.get_profile())
    T = np.eye(4)
    T[:3, :3] = np.reshape(stored.rotation, (3, 3)).T  # the SDK stores columns
    T[:3, 3] = stored.translation
    return T


class AlignedDepth:
    """Conversion of aligned depth to depth along the colour camera's axis.

    Alignment moves pixels but keeps the distances along the depth camera's axis.

    A point at z of the colour camera on the ray r has the depth camera's z_d = z (R^T r)_z - (R^T t)_z.
    """

    def __init__(self, T_color_depth: NDArray[np.float64], color: Intrinsics) -> None:
        R, t = T_color_depth[:3, :3], T_color_depth[:3, 3]
        x, y = color.rays()
        self._slope = (R[0, 2] * x + R[1, 2] * y + R[2, 2]).astype(np.float32)
        self._offset_m = np.float32(R[:, 2] @ t)

    def __call__(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return depth [m] along the colour camera's axis from aligned depth (rows, columns); holes stay 0."""
        return np.where(depth_m > 0, (depth_m + self._offset_m) / self._slope, np.float32(0))


def intrinsics_of(profile: Any) -> Intrinsics:
    """Return the intrinsics of a video stream profile of the SDK."""
    given = profile.as_video_stream_profile().get_intrinsics()
    name, coeffs = str(given.model).rsplit(".", 1)[-1], tuple(float(x) for x in given.coeffs)
    try:
        return Intrinsics(
            width=given.width,
            height=given.height,
            fx=given.fx,
            fy=given.fy,
            cx=given.ppx,
            cy=given.ppy,
            distortion=LENSES.get(name, name),
            coeffs=coeffs,
        )
    except ValueError as error:
        raise CameraError(f"the camera's intrinsics cannot be used: {error}") from error


def rgb(frame: Any) -> NDArray[np.uint8]:
    """Return a copy of a colour frame (rows, columns, 3)."""
    image, kind = np.asanyarray(frame.get_data()), str(frame.get_profile().format()).rsplit(".", 1)[-1]
    if kind not in ("rgb8", "bgr8"):
        raise CameraError(f"the colour stream is {kind}; expected rgb8 or bgr8")
    return np.array(image if kind == "rgb8" else image[..., ::-1])


@dataclass(frozen=True)
@bounded
class RealSenseCfg:
    """Settings of a RealSense camera and of its SDK's filters."""

    width: Annotated[int, Bounds(64, 4096)] = 640
    """Columns of the depth image."""
    height: Annotated[int, Bounds(48, 4096)] = 480
    """Rows of the depth image."""
    rate_hz: Annotated[int, Bounds(1, 300)] = 30
    """Frames per second."""
    preset: str = ""
    """Depth preset by the name the camera gives it, for instance High Accuracy; empty = as the camera is."""
    laser_power_mw: Annotated[float, Bounds(-1, 1000)] = -1.0
    """Power of the projector [mW]; 0 = off, negative = as the camera is."""
    color: bool = False
    """Deliver the colour image as well."""
    align_to_color: bool = False
    """Depth in the pixels and the frame of the colour camera."""
    decimation: Annotated[int, Bounds(1, 8)] = 1
    """Side of the blocks that become one depth pixel, by their median; 1 = off."""
    disparity: bool = True
    """Filter disparity instead of depth, as the vendor recommends; used with spatial or temporal."""
    spatial: bool = False
    """Edge-preserving smoothing."""
    temporal: bool = False
    """Averaging over the last frames; camera and scene must be static."""
    hole_filling: bool = False
    """Fill holes from their neighbours; invents depth at the edges of objects."""
    record: str = ""
    """Also record what a camera delivers to this .db3 file."""

    def __post_init__(self) -> None:
        if self.record and not self.record.endswith(".db3"):
            raise ValueError(f"a recording is a .db3 file, got '{self.record}'")


@dataclass(frozen=True)
class Feed:
    """Interface of sources of SDK frame sets."""

    name: str
    """Name in error messages."""
    serial: str
    """Serial number of the camera; empty = unknown."""
    wait: Callable[[int], tuple[bool, Any]]
    """(arrived, set of frames), after at most so many milliseconds."""
    ended: Callable[[], CameraError | None]
    """Error that explains why no further frame will arrive; None while frames may arrive."""
    stop: Callable[[], None]
    """Release the camera or the file."""


class RealSense(DepthSource):
    """Depth frames of a RealSense camera or of a recording."""

    def __init__(self, feed: Feed, cfg: RealSenseCfg, pose: CameraPose | None = None) -> None:
        if pose and pose.serial and feed.serial and pose.serial != feed.serial:
            feed.stop()
            raise CameraError(
                f"the pose was calibrated for camera {pose.serial}, this is {feed.serial}: calibrate it, "
                "or give the file of this camera"
            )
        self._feed, self._cfg, self._pose = feed, cfg, pose
        self._filters = _filters(_sdk(), cfg)
        self._needs_color = cfg.color or needs_color(cfg, pose)
        self._T_world_cam: NDArray[np.float64] | None = None
        self.T_color_depth: NDArray[np.float64] | None = None
        """(4, 4) depth camera to colour camera; None before the first set of depth and colour."""
        self._stream: Stream = "color" if cfg.align_to_color else "depth"
        self._aligned: AlignedDepth | None = None
        self._open = True

    @classmethod
    def open(cls, cfg: RealSenseCfg, pose: CameraPose | None = None, serial: str = "") -> Self:
        """Start the camera `serial`, or the only one. Raises CameraNotFoundError with the connected cameras."""
        return cls(_live_feed(cfg, serial, cfg.color or needs_color(cfg, pose)), cfg, pose)

    @classmethod
    def play(cls, path: str | Path, cfg: RealSenseCfg, pose: CameraPose | None = None) -> Self:
        """Open a recording, .db3 or the older .bag; it is read without real-time pacing or dropped frames."""
        return cls(_file_feed(Path(path)), cfg, pose)

    def read(self, timeout_s: float = 1.0) -> DepthFrame:
        """Return the next frame.

        Raises FrameTimeoutError, CameraLostError, or at the end of a recording EndOfFramesError.
        """
        if not self._open:
            raise CameraError(f"{self._feed.name} has been closed")
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_ms = round(1e3 * (deadline_s - time.monotonic()))
            arrived, frames = self._feed.wait(max(1, min(POLL_MS, left_ms)))
            if arrived and frames.get_depth_frame() and (frames.get_color_frame() or not self._needs_color):
                return self._convert(frames)
            if not arrived and (end := self._feed.ended()):
                raise end
            if time.monotonic() > deadline_s:
                wanted = "set of depth and colour" if self._needs_color else "depth frame"
                raise FrameTimeoutError(
                    f"{self._feed.name}: no {wanted} within {timeout_s:.1f} s; check that no other program uses the "
                    "camera, and that it hangs on a USB 3 port"
                )

    @property
    def serial(self) -> str:
        """Serial number of the camera; empty if a recording does not contain it."""
        return self._feed.serial

    def close(self) -> None:
        """Release the camera or the file; repeated calls have no effect."""
        if self._open:
            self._open = False
            self._feed.stop()

    def _convert(self, frames: Any) -> DepthFrame:
        """Filter, align, and copy the frames out of the SDK's small frame pool."""
        T_color_depth = depth_to_color(frames)  # before alignment: aligned depth says that it is colour
        self.T_color_depth = self.T_color_depth if T_color_depth is None else T_color_depth
        if self._pose and self._T_world_cam is None:
            try:
                self._T_world_cam = self._pose.of_stream(self._stream, T_color_depth)
            except ValueError as error:
                raise CameraError(f"{self._feed.name}: {error}") from error
        for step in self._filters:
            frames = step.process(frames).as_frameset()
        depth = frames.get_depth_frame()
        depth_m = np.multiply(np.asanyarray(depth.get_data()), depth.get_units(), dtype=np.float32)
        camera = intrinsics_of(depth.get_profile())
        if self._cfg.align_to_color and T_color_depth is not None:
            self._aligned = self._aligned or AlignedDepth(T_color_depth, camera)
            depth_m = self._aligned(depth_m)
        color = rgb(frames.get_color_frame()) if self._cfg.color else None
        stamp_s = depth.get_timestamp() / 1e3
        return DepthFrame(
            depth_m=depth_m,
            intrinsics=camera,
            stamp_s=stamp_s,
            T_world_cam=self._T_world_cam,
            stream=self._stream,
            color=color,
        )


def needs_color(cfg: RealSenseCfg, pose: CameraPose | None) -> bool:
    """Return whether the colour stream must run, even if its image is not delivered."""
    return cfg.align_to_color or (pose is not None and pose.stream == "color" and pose.T_color_depth is None)


def set_options(sensor: Any, cfg: RealSenseCfg) -> None:
    """Set preset and laser power of a depth sensor.

    Raises CameraError with the available values for a value that the sensor lacks.
    """
    option = _sdk().option
    if cfg.preset:
        known = _presets(sensor, option.visual_preset)
        if cfg.preset not in known:
            raise CameraError(f"the camera has no preset '{cfg.preset}'; it has: {', '.join(known) or 'none'}")
        sensor.set_option(option.visual_preset, known[cfg.preset])
    if cfg.laser_power_mw < 0:
        return
    if not sensor.supports(option.laser_power):
        raise CameraError("the camera has no projector: leave laser_power_mw negative")
    allowed = sensor.get_option_range(option.laser_power)
    if cfg.laser_power_mw > allowed.max:
        raise CameraError(f"laser power {cfg.laser_power_mw:g} mW is above the {allowed.max:g} mW of this camera")
    step = max(allowed.step, 1e-6)
    sensor.set_option(option.laser_power, allowed.min + step * round((cfg.laser_power_mw - allowed.min) / step))
    if sensor.supports(option.emitter_enabled):
        sensor.set_option(option.emitter_enabled, float(cfg.laser_power_mw > 0))


def _presets(sensor: Any, option: Any) -> dict[str, float]:
    if not sensor.supports(option):
        return {}
    values = range(int(sensor.get_option_range(option).max) + 1)
    return {str(sensor.get_option_value_description(option, value)): float(value) for value in values}


def _live_feed(cfg: RealSenseCfg, serial: str, color: bool) -> Feed:
    rs = _sdk()
    context = rs.context()
    serial = _choose(connected(context), serial)
    pipeline, settings = rs.pipeline(context), _live_config(rs, cfg, serial, color)
    try:  # not reached without the camera: the SDK would wait for one for 15 s
        profile = pipeline.start(settings)
    except RuntimeError as error:
        raise CameraError(
            f"camera {serial} does not start with {cfg.width}x{cfg.height} at {cfg.rate_hz} Hz: {error}; "
            "check that no other program uses it and that it offers this mode (`rs-enumerate-devices` lists them)"
        ) from error
    try:
        set_options(profile.get_device().first_depth_sensor(), cfg)
    except (RuntimeError, CameraError):
        pipeline.stop()
        raise

    def ended() -> CameraError | None:
        if serial in connected(context):
            return None
        return CameraLostError(f"camera {serial} is gone: check cable and power, then start again")

    return Feed(
        name=f"camera {serial}", serial=serial, wait=pipeline.try_wait_for_frames, ended=ended, stop=pipeline.stop
    )


def connected(context: Any) -> dict[str, str]:
    """Return serial number and name of every connected camera; `context` is an SDK context."""
    info = _sdk().camera_info
    return {device.get_info(info.serial_number): device.get_info(info.name) for device in context.query_devices()}


def _choose(cameras: dict[str, str], serial: str) -> str:
    if not cameras:
        raise CameraNotFoundError(
            "no RealSense camera is connected; check cable, USB 3 port, and the udev rules of librealsense"
        )
    listed = ", ".join(f"{number} ({name})" for number, name in cameras.items())
    if serial and serial not in cameras:
        raise CameraNotFoundError(f"no RealSense camera with serial number {serial}; connected: {listed}")
    if not serial and len(cameras) > 1:
        raise CameraNotFoundError(f"{len(cameras)} cameras are connected, choose with realsense:SERIAL: {listed}")
    return serial or next(iter(cameras))


def _live_config(rs: ModuleType, cfg: RealSenseCfg, serial: str, color: bool) -> Any:
    config = rs.config()
    config.enable_device(serial)
    config.enable_stream(rs.stream.depth, cfg.width, cfg.height, rs.format.z16, cfg.rate_hz)
    if color:
        config.enable_stream(rs.stream.color, cfg.width, cfg.height, rs.format.rgb8, cfg.rate_hz)
    if cfg.record:
        config.enable_record_to_file(cfg.record)
    return config


def _file_feed(path: Path) -> Feed:
    rs = _sdk()
    if not path.is_file():
        raise FileNotFoundError(f"no recording '{path}'")
    config, pipeline = rs.config(), rs.pipeline()
    try:
        config.enable_device_from_file(str(path), False)  # False: do not start over at the end
        device = config.resolve(rs.pipeline_wrapper(pipeline)).get_device()
        playback = device.as_playback()
        playback.set_real_time(False)  # before the start: else frames are lost until it takes effect
        pipeline.start(config)
    except RuntimeError as error:
        raise CameraError(f"'{path}' is no recording of a RealSense camera, or it is damaged: {error}") from error

    def ended() -> CameraError | None:
        if playback.current_status() != rs.playback_status.stopped:
            return None
        return EndOfFramesError(f"'{path}' has been read to its end")

    serial = device.get_info(rs.camera_info.serial_number)
    return Feed(
        name=f"recording '{path}'", serial=serial, wait=pipeline.try_wait_for_frames, ended=ended, stop=pipeline.stop
    )


def _filters(rs: ModuleType, cfg: RealSenseCfg) -> list[Any]:
    """Return the SDK's filters in the order that the vendor recommends.

    Alignment comes last, because its result is no stereo image.
    """
    steps = [rs.decimation_filter(cfg.decimation)] if cfg.decimation > 1 else []
    smooth = [rs.spatial_filter()] * cfg.spatial + [rs.temporal_filter()] * cfg.temporal
    if smooth and cfg.disparity:
        smooth = [rs.disparity_transform(True), *smooth, rs.disparity_transform(False)]
    steps += smooth + [rs.hole_filling_filter()] * cfg.hole_filling
    return steps + [rs.align(rs.stream.color)] * cfg.align_to_color


def _sdk() -> ModuleType:
    try:
        import pyrealsense2
    except ImportError as error:  # also where libusb-1.0 is missing
        raise ImportError(f"RealSense needs pyrealsense2: {install_command('realsense')} ({error})") from error
    return pyrealsense2
