"""Markers for RViz and Foxglove: workspace, hand at the pre-grasp, keypoint vectors."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.description.robot_tree import RobotTree

Array = NDArray[np.float64]
GREY, BLUE, ORANGE = (0.7, 0.7, 0.7, 0.15), (0.2, 0.5, 1.0, 0.35), (1.0, 0.6, 0.1, 0.9)
LINE_M = 0.002


class MarkerWriter:
    """Makes markers of one frame and one time; each kind of marker has a namespace of its own."""

    def __init__(self, types: ModuleType, frame_id: str, stamp_s: float) -> None:
        """`types`: visualization_msgs.msg."""
        self._types, self._header = types, message_conversions.header(stamp_s, frame_id)
        self._markers: list[Any] = []

    def message(self) -> Any:
        """Return the MarkerArray of all markers so far."""
        return self._types.MarkerArray(markers=self._markers)

    def box(self, name: str, lower: Sequence[float], upper: Sequence[float]) -> None:
        """Add a box between two corners (3,) [m]."""
        middle, size = (np.add(lower, upper)) / 2, np.subtract(upper, lower)
        self._add(name, self._types.Marker.CUBE, Pose.of(middle, (1, 0, 0, 0)), size, GREY)

    def links(self, name: str, tree: RobotTree, poses: Mapping[str, Pose]) -> None:
        """Add the spheres and cylinders of the links whose poses are given."""
        kinds = self._types.Marker
        for link, pose in poses.items():
            for shape in tree.shapes.get(link, []):
                width = 2 * shape.radius_m
                kind = kinds.CYLINDER if shape.length_m else kinds.SPHERE
                self._add(name, kind, pose @ shape.pose, (width, width, shape.length_m or width), BLUE)

    def vectors(self, name: str, start: Array, end: Array) -> None:
        """Add lines from points (line, 3) to points (line, 3) [m]."""
        ends = np.stack([start, end], axis=1).reshape(-1, 3)
        marker = self._add(name, self._types.Marker.LINE_LIST, Pose.of((0, 0, 0), (1, 0, 0, 0)), (LINE_M, 0, 0), ORANGE)
        marker.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in ends]

    def _add(self, name: str, kind: int, pose: Pose, size: Sequence[float] | Array, colour: Sequence[float]) -> Any:
        marker = self._types.Marker(header=self._header, ns=name, type=kind, action=self._types.Marker.ADD)
        marker.id = sum(other.ns == name for other in self._markers)
        marker.pose = message_conversions.pose_message(pose.pos_m, pose.quat, 0.0, "").pose
        marker.scale.x, marker.scale.y, marker.scale.z = map(float, size)
        marker.color.r, marker.color.g, marker.color.b, marker.color.a = map(float, colour)
        self._markers.append(marker)
        return marker


def nearest(keypoints: Array, points: Array) -> Array:
    """Return the nearest of `points` (point, 3) for each keypoint (keypoint, 3)."""
    distance = np.linalg.norm(keypoints[:, None] - points[None], axis=-1)
    return points[distance.argmin(1)]
