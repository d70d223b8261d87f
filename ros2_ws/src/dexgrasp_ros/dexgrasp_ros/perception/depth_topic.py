"""Depth images of ROS topics: checks that image, camera_info and camera pose belong together."""

import re

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from dexgrasp.perception.cameras.depth import Intrinsics, Stream
from dexgrasp_ros.message_conversions import ImageKind, depth_from_image, intrinsics_from_info
from dexgrasp_ros.perception.config import PerceptionCfg, camera_pose

STREAM_WORDS: dict[Stream, set[str]] = {"color": {"color", "colour", "rgb"}, "depth": {"depth", "tof", "infra"}}
"""Words in the frame_id of an image that tell the camera it belongs to."""


class DepthTopic:
    """Converts camera_info and depth images of one camera; refuses contradictions and missing statements."""

    def __init__(self, cfg: PerceptionCfg, depth_topic: str) -> None:
        self._cfg, self._pose = cfg, camera_pose(cfg)
        self._kind: ImageKind = image_kind(depth_topic) if cfg.depth_image == "auto" else cfg.depth_image
        self._info_frame, self._first_frame = "", ""

    def intrinsics(self, message: CameraInfo) -> Intrinsics:
        """Return the intrinsics of the depth images. Raises ValueError."""
        self._info_frame = message.header.frame_id
        return intrinsics_from_info(message, self._kind)

    def depth(self, message: Image) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return depth (row, column) [m] and the pose (4, 4) of its camera in the world. Raises ValueError."""
        frame = message.header.frame_id
        self._check_frame(frame)
        T_world_cam = self._pose.T_world_cam if not self._cfg.camera_file else self._pose.of_stream(self._stream(frame))
        depth_m = depth_from_image(message, self._cfg.depth_unit_m)
        self._first_frame = frame
        return depth_m, T_world_cam

    def _check_frame(self, frame: str) -> None:
        """Raise ValueError for an image that is not of the camera whose pose is known."""
        if not frame:
            raise ValueError("the depth image has no frame_id: set that of its camera in the driver")
        if self._info_frame and frame != self._info_frame:
            raise ValueError(
                f"the depth image is in frame '{frame}', its camera_info in '{self._info_frame}': they are of "
                "different cameras; check depth_topic and camera_info_topic"
            )
        known = ((self._cfg.camera_frame, "parameter camera_frame"), *self._frame_of_file(frame))
        for expected, origin in (*known, (self._first_frame, "the first images")):
            if expected and frame != expected:
                raise ValueError(f"the depth image is in frame '{frame}', expected '{expected}' ({origin})")

    def _frame_of_file(self, frame: str) -> list[tuple[str, str]]:
        """Return the frame that the camera file names, where it is that of the images and not of the other stream."""
        if not (self._cfg.camera_file and self._pose.frame_id) or self._cfg.camera_frame:
            return []
        other = self._pose.T_color_depth is not None and frame != self._pose.frame_id
        if other and self._stream(frame) != self._pose.stream:
            return []
        return [(self._pose.frame_id, f"frame_id in {self._cfg.camera_file}")]

    def _stream(self, frame: str) -> Stream:
        if self._cfg.depth_stream != "auto":
            return self._cfg.depth_stream
        parts = set(re.split("[^a-z]+", frame.lower()))  # "rgbd_camera" names no stream
        found: list[Stream] = [stream for stream, words in STREAM_WORDS.items() if words & parts]
        if len(found) != 1:
            raise ValueError(
                f"frame_id '{frame}' of the depth image does not say whether it is the depth or the colour camera, and "
                f"the pose in {self._cfg.camera_file} is that of the {self._pose.stream} camera: set depth_stream to "
                "depth, or to color where depth is aligned to the colour camera"
            )
        return found[0]


def image_kind(topic: str) -> ImageKind:
    """Return raw or rectified by the naming rule of ROS topics (image_raw, image_rect), else auto."""
    name = topic.rsplit("/", 1)[-1]
    raw, rectified = "raw" in name, "rect" in name
    return "auto" if raw == rectified else "raw" if raw else "rectified"
