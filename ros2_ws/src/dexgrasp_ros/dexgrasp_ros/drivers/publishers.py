"""Commands of hand and arm, and their joint states, per driver description."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.action_writer import ActionWriter
from dexgrasp_ros.drivers.adapters import JointAdapter, JointInterpolator, PoseAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import ACTION_TYPES, REACH_PERIODS, AdapterCfg, AdapterError, QosCfg, command_topic
from dexgrasp_ros.drivers.plugins import CommandWriter, PluginWriter, StateInput

Array = NDArray[np.float64]
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


class TopicWriter(CommandWriter):
    """Publishes commands on a topic; in a lifecycle node only while it is active."""

    def __init__(self, node: Node, cfg: AdapterCfg, preview: bool) -> None:
        """`preview`: below /preview; there, commands of actions and plugins are JointState."""
        self._node, self._names = node, cfg.command.joints
        self._type = cfg.command.type if cfg.command.type in KINDS else "joint_state"
        topic, qos = command_topic(cfg, preview), qos_profile(cfg.command.qos)
        make = node.create_lifecycle_publisher if isinstance(node, LifecycleNode) else node.create_publisher
        self._publisher = make(KINDS[self._type], topic, qos)

    @property
    def topic(self) -> str:
        """Return the name of the topic."""
        return self._publisher.topic_name

    def send(self, values: Array, period_s: float) -> None:
        """Publish driver values (driver joint,)."""
        stamp_s = self._node.get_clock().now().nanoseconds * 1e-9
        self.publish(joint_command(self._type, self._names, values, period_s, stamp_s))

    def publish(self, message: Any) -> None:
        """Publish a message of the topic's type."""
        self._publisher.publish(message)

    def acknowledged(self, timeout_s: float) -> bool:
        """Return whether reliable subscribers have received all messages."""
        return bool(self._publisher.wait_for_all_acked(Duration(seconds=timeout_s)))

    def not_ready(self) -> str:
        """Return that others publish on the topic, or that nobody subscribes to it."""
        node, topic = self._node, self.topic
        if node.count_publishers(topic) > 1:
            found = node.get_publishers_info_by_topic(topic)
            own, names = node.get_fully_qualified_name(), [full_name(info) for info in found]
            if own in names:
                names.remove(own)  # once: another node may have the same name
            return f"others publish on {topic} as well: {', '.join(sorted(names))}; stop them"
        if not self._publisher.get_subscription_count():
            return f"nobody subscribes to {topic}: is the driver running?"
        return ""

    def destroy(self) -> None:
        """Destroy the publisher."""
        if isinstance(self._node, LifecycleNode) and isinstance(self._publisher, LifecyclePublisher):
            self._node.destroy_lifecycle_publisher(self._publisher)
        else:
            self._node.destroy_publisher(self._publisher)


def joint_writer(node: Node, cfg: AdapterCfg, preview: bool) -> CommandWriter:
    """Return the writer of a driver's commands; AdapterError for a missing plugin or action."""
    if not preview and cfg.command.type in ACTION_TYPES:
        return ActionWriter(node, cfg.command)
    if not preview and cfg.command.type == "plugin":
        return PluginWriter(node, cfg.command)
    return TopicWriter(node, cfg, preview)


class JointDriver:
    """Sends joint positions; with `command.rate_hz` interpolated on a timer of its own."""

    def __init__(self, node: Node, adapter: JointAdapter, period_s: float, preview: bool) -> None:
        """Raise AdapterError for a plugin or an action that is missing."""
        self._node, self._adapter, self._period_s = node, adapter, period_s
        self.writer = joint_writer(node, adapter.cfg, preview)
        """Writer of the commands."""
        self._interpolator = JointInterpolator(period_s)
        self._rate_hz = rate_hz = adapter.cfg.command.rate_hz
        self._timer = node.create_timer(1.0 / rate_hz, self._send_interpolated) if rate_hz else None
        if self._timer is not None:
            self._timer.cancel()

    def reset(self) -> None:
        """Treat the next command as the first one: it is not interpolated from an earlier one."""
        self._interpolator = JointInterpolator(self._period_s)

    def send(self, joint_target: Array) -> None:
        """Send targets (motor,) [rad] of the next control period."""
        if self._timer is None:
            self._write(joint_target, self._period_s)
            return
        self._interpolator.set_goal(joint_target, self._now_s())
        self._send_interpolated()
        if self._timer.is_canceled():
            self._timer.reset()

    def hold(self, joint_target: Array) -> None:
        """Send the last command without interpolation, and nothing after it."""
        if self._timer is not None:
            self._timer.cancel()
        self._write(joint_target, self._period_s)
        self.reset()

    def destroy(self) -> None:
        """Stop sending and destroy the writer."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self.writer.destroy()

    def _send_interpolated(self) -> None:
        assert self._rate_hz is not None
        self._write(self._interpolator.at(self._now_s()), 1.0 / self._rate_hz)

    def _write(self, joint_target: Array, period_s: float) -> None:
        self.writer.send(self._adapter.command(joint_target), period_s)

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9


class ArmDriver:
    """Sends palm poses to an arm with a joint position controller, by inverse kinematics."""

    def __init__(self, joints: JointDriver, arm: ArmKinematics) -> None:
        self._joints, self._arm = joints, arm
        self._goal: Array | None = None
        self.writer = joints.writer
        """Writer of the commands."""

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
        """Stop sending and destroy the writer."""
        self._joints.destroy()


class PoseDriver:
    """Sends palm poses, or twists towards them, to a Cartesian controller."""

    def __init__(self, node: Node, adapter: PoseAdapter, preview: bool, speed: tuple[float, float]) -> None:
        """`speed`: maximum speed [m/s] and angular speed [rad/s] of a twist."""
        self._node, self._adapter, self._command, self._speed = node, adapter, adapter.cfg.command, speed
        self.writer = TopicWriter(node, adapter.cfg, preview)
        """Writer of the commands."""

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
        self.writer.destroy()

    def _publish_pose(self, T_world_palm: Pose) -> None:
        pose = self._adapter.pose(T_world_palm)
        self.writer.publish(
            message_conversions.pose_message(pose.pos_m, pose.quat, self._now_s(), self._adapter.frame_id)
        )

    def _publish_twist(self, linear: Array, angular: Array) -> None:
        self.writer.publish(message_conversions.twist_message(linear, angular, self._now_s(), self._adapter.frame_id))

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
) -> list[StateInput]:
    """Read the joint states of each topic, or by its plugin; `callback` gets topic and JointState.

    Raises AdapterError for a plugin that is missing, after which nothing is read.
    """
    made: list[StateInput] = []
    try:
        for topic, adapter in topics.items():
            made.append(StateInput(node, adapter.state, partial(callback, topic), qos_profile(adapter.state.qos)))
    except AdapterError:
        for item in made:
            item.destroy()
        raise
    return made


def full_name(info: Any) -> str:
    """Return the fully qualified name of the node of a publisher or subscriber."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _limit_norm(vector: Array, length: float) -> Array:
    """Return the vector scaled down to at most this length."""
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))
