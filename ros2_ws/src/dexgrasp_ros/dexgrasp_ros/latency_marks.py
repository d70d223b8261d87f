"""Publishes monotonic times of a depth frame, which `dexgrasp bench ros` joins by its stamp."""

from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray

from dexgrasp_ros.message_conversions import array_message


class LatencyMarks:
    """Publishes the marks of a node on ~/marks: stamp of the depth frame [s], then monotonic times [s]."""

    def __init__(self, node: Node) -> None:
        self._topic = node.create_publisher(Float64MultiArray, "~/marks", QoSProfile(depth=10))

    def publish(self, stamp_s: float, *times_s: float) -> None:
        """Publish the marks of a frame where somebody listens; times of all processes are of one clock."""
        if self._topic.get_subscription_count():
            self._topic.publish(array_message([stamp_s, *times_s]))
