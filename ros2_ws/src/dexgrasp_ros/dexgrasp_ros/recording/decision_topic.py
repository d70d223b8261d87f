"""Topic of a node on which its log of decisions is published."""

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from dexgrasp_ros.recording.decision_log import DecisionLog

KEPT = 1000
"""Events that a recorder gets which starts later than the node."""


def decision_log(node: Node) -> DecisionLog:
    """Return the log of a node, published on ~/decisions."""
    qos = QoSProfile(depth=KEPT, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    topic = node.create_publisher(String, "~/decisions", qos)
    return DecisionLog(lambda text: topic.publish(String(data=text)))
