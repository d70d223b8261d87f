"""The ROS side of adapters: publishers of commands, subscriptions of states."""

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
from dexgrasp_ros import messages
from dexgrasp_ros.adapter_cfg import AdapterCfg, QosCfg
from dexgrasp_ros.adapters import JointAdapter, PoseAdapter, Ramp
from dexgrasp_ros.arm import Arm

Array = NDArray[np.float64]
PREVIEW = "/preview"
"""Before every command topic of a dry run."""
REACH_PERIODS = 2.0
"""A streamed point of a trajectory is to be reached in so many control periods; the next one comes before."""
KINDS: dict[str, type] = {
    "float64_array": Float64MultiArray,
    "joint_trajectory": JointTrajectory,
    "joint_state": JointState,
    "pose": PoseStamped,
    "twist": TwistStamped,
}
"""Message of each type of command."""


def qos_profile(cfg: QosCfg) -> QoSProfile:
    """As rclpy takes it."""
    return QoSProfile(
        depth=cfg.depth,
        reliability=ReliabilityPolicy[cfg.reliability.upper()],
        durability=DurabilityPolicy[cfg.durability.upper()],
    )


def command_topic(cfg: AdapterCfg, preview: bool) -> str:
    """Where commands go; with `preview` where nobody acts on them."""
    topic = cfg.command.topic
    return f"{PREVIEW}/{topic.lstrip('/')}" if preview else topic


class JointDriver:
    """Sends joint positions; those of a driver that wants them often go out on a timer of its own."""

    def __init__(self, node: Node, adapter: JointAdapter, period_s: float, preview: bool) -> None:
        self._node, self._adapter, self._command = node, adapter, adapter.cfg.command
        self._period_s = period_s
        self.publisher = _publisher(node, adapter.cfg, preview)
        """Of the commands."""
        self._ramp = Ramp(period_s)
        rate_hz = self._command.rate_hz
        self._timer = node.create_timer(1.0 / rate_hz, self._between) if rate_hz else None
        if self._timer is not None:
            self._timer.cancel()

    def begin(self) -> None:
        """The next command is the first."""
        self._ramp = Ramp(self._period_s)

    def send(self, joint_target: Array) -> None:
        """Targets (joint,) [rad] of the next control period."""
        if self._timer is None:
            self._publish(joint_target, self._period_s)
            return
        self._ramp.aim(joint_target, self._now_s())
        self._between()
        if self._timer.is_canceled():
            self._timer.reset()

    def hold(self, joint_target: Array) -> None:
        """The last command: there at once, and nothing after it."""
        if self._timer is not None:
            self._timer.cancel()
        self._publish(joint_target, self._period_s)
        self.begin()

    def destroy(self) -> None:
        """Nothing more is sent."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        _destroy(self._node, self.publisher)

    def _between(self) -> None:
        assert self._command.rate_hz is not None
        self._publish(self._ramp.at(self._now_s()), 1.0 / self._command.rate_hz)

    def _publish(self, joint_target: Array, period_s: float) -> None:
        values, names = self._adapter.command(joint_target), self._command.joints
        self.publisher.publish(joint_command(self._command.type, names, values, period_s, self._now_s()))

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9


class ArmDriver:
    """Sends poses of the palm to an arm that is told joint positions."""

    def __init__(self, joints: JointDriver, arm: Arm) -> None:
        self._joints, self._arm = joints, arm
        self._goal: Array | None = None
        self.publisher = joints.publisher
        """Of the commands."""

    def begin(self, q_arm: Array | None) -> str:
        """The next command starts from these joint positions (joint,) [rad]. Returns why not, or nothing."""
        self._goal = q_arm
        self._joints.begin()
        return "no joint states of the arm yet" if q_arm is None else ""

    def send(self, T_world_palm: Pose, measured: Pose | None) -> None:
        """The target of the next control period."""
        del measured
        if self._goal is None:
            raise RuntimeError("begin(q_arm) comes first")
        self._goal = self._arm.towards(self._goal, T_world_palm)
        self._joints.send(self._goal)

    def hold(self, q_arm: Array | None, palm: Pose | None) -> None:
        """The last command: stay where the arm was measured, else where it was sent."""
        del palm
        stay = self._goal if q_arm is None else q_arm
        if stay is not None:
            self._joints.hold(stay)

    def destroy(self) -> None:
        """Nothing more is sent."""
        self._joints.destroy()


class PoseDriver:
    """Sends poses of the palm, or velocities towards them, to a Cartesian controller."""

    def __init__(self, node: Node, adapter: PoseAdapter, preview: bool, speed: tuple[float, float]) -> None:
        """`speed`: greatest speed [m/s] and angular speed [rad/s] of a twist."""
        self._node, self._adapter, self._command, self._speed = node, adapter, adapter.cfg.command, speed
        self.publisher = _publisher(node, adapter.cfg, preview)
        """Of the commands."""

    def begin(self, q_arm: Array | None) -> str:
        """The next command is the first."""
        del q_arm
        return ""

    def send(self, T_world_palm: Pose, measured: Pose | None) -> None:
        """The target of the next control period; a twist is zero where it is not known where the palm is."""
        if self._command.type == "pose":
            self._publish_pose(T_world_palm)
        else:
            here = T_world_palm if measured is None else measured
            linear, angular = self._adapter.twist(T_world_palm, here)
            self._publish_twist(_shorten(linear, self._speed[0]), _shorten(angular, self._speed[1]))

    def hold(self, q_arm: Array | None, palm: Pose | None) -> None:
        """The last command: stay where the palm was measured, or just stop."""
        del q_arm
        if self._command.type == "twist":
            self._publish_twist(np.zeros(3), np.zeros(3))
        elif palm is not None:
            self._publish_pose(palm)

    def destroy(self) -> None:
        """Nothing more is sent."""
        _destroy(self._node, self.publisher)

    def _publish_pose(self, T_world_palm: Pose) -> None:
        pose = self._adapter.pose(T_world_palm)
        self.publisher.publish(messages.pose_message(pose.pos_m, pose.quat, self._now_s(), self._adapter.frame_id))

    def _publish_twist(self, linear: Array, angular: Array) -> None:
        self.publisher.publish(messages.twist_message(linear, angular, self._now_s(), self._adapter.frame_id))

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9


def joint_command(kind: str, names: Sequence[str], values: Array, period_s: float, stamp_s: float) -> Any:
    """The message of a joint command: values (driver joint,) in the driver's order, the next one in `period_s`."""
    if kind == "float64_array":
        return messages.array_message(values)
    if kind == "joint_trajectory":
        return messages.trajectory_message(names, values, REACH_PERIODS * period_s)
    return messages.joint_message(names, values, stamp_s)


def listen_joints(node: Node, topics: dict[str, JointAdapter], take: Callable[[str, Any], None]) -> list[Subscription]:
    """Subscriptions of joint states, one per topic; `take` gets topic and message."""

    def subscribe(topic: str, adapter: JointAdapter) -> Subscription:
        return node.create_subscription(JointState, topic, partial(take, topic), qos_profile(adapter.state.qos))

    return [subscribe(topic, adapter) for topic, adapter in topics.items()]


def _publisher(node: Node, cfg: AdapterCfg, preview: bool) -> Publisher:
    """Silent while a lifecycle node is not active."""
    kind, topic, qos = KINDS[cfg.command.type], command_topic(cfg, preview), qos_profile(cfg.command.qos)
    make = node.create_lifecycle_publisher if isinstance(node, LifecycleNode) else node.create_publisher
    return make(kind, topic, qos)


def _destroy(node: Node, publisher: Publisher) -> None:
    if isinstance(node, LifecycleNode) and isinstance(publisher, LifecyclePublisher):
        node.destroy_lifecycle_publisher(publisher)
    else:
        node.destroy_publisher(publisher)


def _shorten(vector: Array, length: float) -> Array:
    """The vector, no longer than this."""
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))
