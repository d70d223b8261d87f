"""Poses in frames of tf: the newest transform of each frame, and the way from one frame to another."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.typed_messages import optional_module

MAX_AGE_S = 0.5
"""Transforms of moving frames that are older are not used [s]."""
MOST_FRAMES = 100
"""Frames between a frame and its root; more are a circle."""
TF, TF_STATIC = QoSProfile(depth=100), QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass(frozen=True, eq=False)
class _Link:
    parent: str
    pose: Pose
    """T_parent_child."""
    stamp_s: float
    """Time of the transform; infinite for a static one [s]."""


class FrameTree:
    """Newest transform of each frame to its parent."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def add(self, child: str, parent: str, pose: Pose, stamp_s: float = np.inf) -> None:
        """Store T_parent_child; without a stamp it is static. Older transforms of a frame are replaced."""
        self._links[child] = _Link(parent, pose, stamp_s)

    def pose_in(self, base: str, frame: str, now_s: float) -> Pose:
        """Return T_base_frame. Raises ValueError where tf does not tell it, or not any more."""
        to_frame, to_base = self._to_root(frame, now_s), self._to_root(base, now_s)
        if to_frame[0] != to_base[0]:
            raise ValueError(f"tf does not join the frames '{base}' and '{frame}': is their broadcaster running?")
        return to_base[1].inverse() @ to_frame[1]

    def _to_root(self, frame: str, now_s: float) -> tuple[str, Pose]:
        """Return the root above a frame, and T_root_frame."""
        name, pose = frame, Pose.of(np.zeros(3), [1.0, 0.0, 0.0, 0.0])
        for _ in range(MOST_FRAMES):
            link = self._links.get(name)
            if link is None:
                return name, pose
            if now_s - link.stamp_s > MAX_AGE_S:
                raise ValueError(f"the newest transform of frame '{name}' is {now_s - link.stamp_s:.1f} s old")
            name, pose = link.parent, link.pose @ pose
        raise ValueError(f"the frames above '{frame}' form a circle")


class FrameListener:
    """Keeps the transforms of /tf and /tf_static; without tf2_msgs no frame is known."""

    def __init__(self, node: Node) -> None:
        self._node, self._tree = node, FrameTree()
        types = optional_module("tf2_msgs.msg")
        self._installed = types is not None
        if types is not None:
            for topic, qos in (("/tf", TF), ("/tf_static", TF_STATIC)):
                is_static = topic.endswith("static")
                node.create_subscription(
                    types.TFMessage, topic, lambda message, is_static=is_static: self._add(message, is_static), qos
                )

    def pose_in(self, base: str, frame: str) -> Pose:
        """Return T_base_frame now. Raises ValueError where it is not known."""
        if not self._installed:
            raise ValueError(
                f"the pose is in frame '{frame}', expected '{base}': other frames need the package tf2_msgs"
            )
        return self._tree.pose_in(base, frame, self._node.get_clock().now().nanoseconds * 1e-9)

    def _add(self, message: Any, is_static: bool) -> None:
        for row in message.transforms:
            place, turn = row.transform.translation, row.transform.rotation
            try:
                pose = Pose.of([place.x, place.y, place.z], [turn.w, turn.x, turn.y, turn.z])
            except ValueError as error:
                self._node.get_logger().warning(f"frame '{row.child_frame_id}': {error}", throttle_duration_sec=5.0)
                continue
            stamp_s = np.inf if is_static else message_conversions.seconds(row.header.stamp)
            self._tree.add(row.child_frame_id, row.header.frame_id, pose, stamp_s)
