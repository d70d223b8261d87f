"""Publishers of hand and arm commands and subscriptions of joint states, per driver description."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.adapters import JointAdapter, JointInterpolator, PoseAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import AdapterCfg, QosCfg

Array = NDArray[np.float64]
PREVIEW = "/preview"
"""Prefix of the command topics of a dry run."""
REACH_PERIODS = 2.0
"""Time to reach a streamed trajectory point, in control periods; the next point arrives earlier."""
KINDS: dict[str, type] = {
    "float64_array": Float64MultiArray,
    "joint_trajectory": JointTrajectory,
    "joint_state": JointState,
    "pose": PoseStamped,
    "twist": TwistStamped,
}
"""Message type of each command type."""


def qos_profile(cfg: QosCfg) -> QoSProfile:
    """Return the QoS profile of a driver description."""
    return QoSProfile(
        depth=cfg.depth,
        reliability=ReliabilityPolicy[cfg.reliability.upper()],
        durability=DurabilityPolicy[cfg.durability.upper()],
    )


def command_topic(cfg: AdapterCfg, preview: bool) -> str:
    """Return the command topic of a driver; with `preview` the one of a dry run."""
    topic = cfg.command.topic
    return f"{PREVIEW}/{topic.lstrip('/')}" if preview else topic


class JointDriver:
    """Publishes joint positions; with `command.rate_hz` interpolated on a timer of its own."""

    def __init__(self, node: Node, adapter: JointAdapter, period_s: float, preview: bool) -> None:
        self._node, self._adapter, self._command = node, adapter, adapter.cfg.command
        self._period_s = period_s
        self.publisher = _publisher(node, adapter.cfg, preview)
        """Publisher of the commands."""
        self._interpolator = JointInterpolator(period_s)
        rate_hz = self._command.rate_hz
        self._timer = node.create_timer(1.0 / rate_hz, self._publish_interpolated) if rate_hz else None
        if self._timer is not None:
            self._timer.cancel()

    def reset(self) -> None:
        """Treat the next command as the first one: it is not interpolated from an earlier one."""
        self._interpolator = JointInterpolator(self._period_s)

    def send(self, joint_target: Array) -> None:
        """Publish targets (joint,) [rad] of the next control period."""
        if self._timer is None:
            self._publish(joint_target, self._period_s)
            return
        self._interpolator.set_goal(joint_target, self._now_s())
        self._publish_interpolated()
        if self._timer.is_canceled():
            self._timer.reset()

    def hold(self, joint_target: Array) -> None:
        """Publish the last command without interpolation, and nothing after it."""
        if self._timer is not None:
            self._timer.cancel()
        self._publish(joint_target, self._period_s)
        self.reset()

    def destroy(self) -> None:
        """Stop sending and destroy the publisher."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        _destroy(self._node, self.publisher)

    def _publish_interpolated(self) -> None:
        assert self._command.rate_hz is not None
        self._publish(self._interpolator.at(self._now_s()), 1.0 / self._command.rate_hz)

    def _publish(self, joint_target: Array, period_s: float) -> None:
        values, names = self._adapter.command(joint_target), self._command.joints
        self.publisher.publish(joint_command(self._command.type, names, values, period_s, self._now_s()))

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9


class ArmDriver:
    """Sends palm poses to an arm with a joint position controller, by inverse kinematics."""

    def __init__(self, joints: JointDriver, arm: ArmKinematics) -> None:
        self._joints, self._arm = joints, arm
        self._goal: Array | None = None
        self.publisher = joints.publisher
        """Publisher of the commands."""

    @property
    def goal(self) -> Array | None:
        """Last joint target (joint,) [rad]; None before `reset`."""
        return self._goal

    def reset(self, q_arm: Array | None) -> str:
        """Start the next command from joint positions (joint,) [rad]; return why not, or an empty text."""
        self._goal = q_arm
        self._joints.reset()
        return "no joint states of the arm received" if q_arm is None else ""

    def send(self, T_world_palm: Pose, measured: Pose | None) -> None:
        """Publish the target of the next control period."""
        del measured
        if self._goal is None:
            raise RuntimeError("call reset(q_arm) before send")
        self._goal = self._arm.step_towards(self._goal, T_world_palm)
        self._joints.send(self._goal)

    def hold(self, q_arm: Array | None, palm: Pose | None) -> None:
        """Publish the last command: the measured joint positions, else the last target."""
        del palm
        stay = self._goal if q_arm is None else q_arm
        if stay is not None:
            self._joints.hold(stay)

    def destroy(self) -> None:
        """Stop sending and destroy the publisher."""
        self._joints.destroy()


class PoseDriver:
    """Sends palm poses, or twists towards them, to a Cartesian controller."""

    def __init__(self, node: Node, adapter: PoseAdapter, preview: bool, speed: tuple[float, float]) -> None:
        """`speed`: maximum speed [m/s] and angular speed [rad/s] of a twist."""
        self._node, self._adapter, self._command, self._speed = node, adapter, adapter.cfg.command, speed
        self.publisher = _publisher(node, adapter.cfg, preview)
        """Publisher of the commands."""

    def reset(self, q_arm: Array | None) -> str:
        """Do nothing: Cartesian commands do not depend on earlier ones."""
        del q_arm
        return ""

    def send(self, T_world_palm: Pose, measured: Pose | None) -> None:
        """Publish the target of the next control period; a twist is zero where the palm pose is not known."""
        if self._command.type == "pose":
            self._publish_pose(T_world_palm)
        else:
            here = T_world_palm if measured is None else measured
            linear, angular = self._adapter.twist(T_world_palm, here)
            self._publish_twist(_limit_norm(linear, self._speed[0]), _limit_norm(angular, self._speed[1]))

    def hold(self, q_arm: Array | None, palm: Pose | None) -> None:
        """Publish the last command: the measured palm pose, or a zero twist."""
        del q_arm
        if self._command.type == "twist":
            self._publish_twist(np.zeros(3), np.zeros(3))
        elif palm is not None:
            self._publish_pose(palm)

    def destroy(self) -> None:
        """Stop sending and destroy the publisher."""
        _destroy(self._node, self.publisher)

    def _publish_pose(self, T_world_palm: Pose) -> None:
        pose = self._adapter.pose(T_world_palm)
        self.publisher.publish(
            message_conversions.pose_message(pose.pos_m, pose.quat, self._now_s(), self._adapter.frame_id)
        )

    def _publish_twist(self, linear: Array, angular: Array) -> None:
        self.publisher.publish(
            message_conversions.twist_message(linear, angular, self._now_s(), self._adapter.frame_id)
        )

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9


def joint_command(kind: str, names: Sequence[str], values: Array, period_s: float, stamp_s: float) -> Any:
    """Return the command message of values (driver joint,) in the driver's order; next one in `period_s`."""
    if kind == "float64_array":
        return message_conversions.array_message(values)
    if kind == "joint_trajectory":
        return message_conversions.trajectory_message(names, values, REACH_PERIODS * period_s)
    return message_conversions.joint_message(names, values, stamp_s)


def subscribe_joint_states(
    node: Node, topics: dict[str, JointAdapter], callback: Callable[[str, Any], None]
) -> list[Subscription]:
    """Subscribe to the joint states of each topic; `callback` gets topic and message."""

    def subscribe(topic: str, adapter: JointAdapter) -> Subscription:
        return node.create_subscription(JointState, topic, partial(callback, topic), qos_profile(adapter.state.qos))

    return [subscribe(topic, adapter) for topic, adapter in topics.items()]


def _publisher(node: Node, cfg: AdapterCfg, preview: bool) -> Publisher:
    """Create the command publisher; that of a lifecycle node publishes only while the node is active."""
    kind, topic, qos = KINDS[cfg.command.type], command_topic(cfg, preview), qos_profile(cfg.command.qos)
    make = node.create_lifecycle_publisher if isinstance(node, LifecycleNode) else node.create_publisher
    return make(kind, topic, qos)


def _destroy(node: Node, publisher: Publisher) -> None:
    if isinstance(node, LifecycleNode) and isinstance(publisher, LifecyclePublisher):
        node.destroy_lifecycle_publisher(publisher)
    else:
        node.destroy_publisher(publisher)


def _limit_norm(vector: Array, length: float) -> Array:
    """Return the vector scaled down to at most this length."""
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))
