"""What comes to the grasp node: the newest of each message, and the inputs of a tick made of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Bool, Float64MultiArray

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import messages
from dexgrasp_ros.camera_messages import cloud_from_message
from dexgrasp_ros.grasp_cfg import GraspNodeCfg
from dexgrasp_ros.grasp_robot import Robot
from dexgrasp_ros.grasp_types import Inputs, View
from policies.safety import Safe

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Inbox:
    """Listens from configure to cleanup."""

    def __init__(self, node: Node, cfg: GraspNodeCfg, robot: Robot) -> None:
        self._node, self._cfg, self._robot = node, cfg, robot
        self._view: View | None = None
        self._plan: tuple[Any, float] = None, -np.inf
        self._given_palm: tuple[Pose | None, float] = None, -np.inf
        self._arm_palm: tuple[Pose | None, float] = None, -np.inf
        self._estop = False
        self._refusals: dict[str, str] = {}
        self.refused: dict[str, int] = {}
        """Messages that were of no use, by kind."""
        topics: list[tuple[type, str, Callable[[Any], None], QoSProfile]] = [
            (PointCloud2, cfg.points_topic, self._guard("points", self._take_points), NEWEST),
            (Float64MultiArray, cfg.plan_topic, self._guard("plan", self._take_plan), RELIABLE),
            (Bool, cfg.estop_topic, self._take_estop, LATCHED),
            (
                Bool,
                cfg.estop_topic,
                self._take_estop,
                RELIABLE,
            ),  # a latched subscription hears latched publishers alone
        ]
        if cfg.palm_source == "topic":
            topics.append((PoseStamped, cfg.palm_topic, self._guard("palm", self._take_palm), NEWEST))
        self._subscriptions = [node.create_subscription(*kind_topic) for kind_topic in topics]

    @property
    def trouble(self) -> str:
        """What is wrong with what came last, or nothing."""
        return "; ".join(filter(None, [self._robot.trouble, *self._refusals.values()]))

    def palm(self) -> tuple[Pose | None, float]:
        """T_world_palm, and when it was there [s]."""
        if self._cfg.palm_source == "topic":
            return self._given_palm
        if self._robot.arm_stamp_s != self._arm_palm[1]:
            self._arm_palm = self._robot.palm()
        return self._arm_palm

    def inputs(self, now_s: float, believed: Safe | None = None) -> Inputs:
        """Of a tick; `believed`: where a dry run takes the robot to be."""
        joints, joints_stamp_s = self._robot.hand()
        palm, palm_stamp_s = self.palm()
        found = Inputs(
            now_s=now_s,
            joint_pos=joints,
            joints_stamp_s=joints_stamp_s,
            palm_pos_w=None if palm is None else palm.pos_m,
            palm_quat_w=None if palm is None else palm.quat,
            palm_stamp_s=palm_stamp_s,
            view=self._view,
            plan=self._plan[0],
            plan_stamp_s=self._plan[1],
            estop=self._estop,
            trouble=self.trouble,
        )
        if believed is None:
            return found
        return replace(
            found,
            joint_pos=believed.joint_target,
            palm_pos_w=believed.palm_pos_w,
            palm_quat_w=believed.palm_quat_w,
        )

    def destroy(self) -> None:
        """Listens no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _guard(self, kind: str, take: Callable[[Any], None]) -> Callable[[Any], None]:
        """The callback that remembers why a message was of no use."""

        def guarded(message: Any) -> None:
            try:
                take(message)
            except ValueError as error:
                self.refused[kind] = self.refused.get(kind, 0) + 1
                self._refusals[kind] = f"{kind}: {error}"
                self._node.get_logger().error(f"{kind} refused: {error}", throttle_duration_sec=1.0)
            else:
                self._refusals.pop(kind, None)

        return guarded

    def _take_points(self, message: PointCloud2) -> None:
        cloud = cloud_from_message(message)
        self._check_frame(cloud.frame_id)
        self._view = View(cloud.points_w, cloud.visible_fraction, cloud.view_fresh, cloud.stamp_s)

    def _take_plan(self, message: Float64MultiArray) -> None:
        self._plan = messages.plan_from_message(message)

    def _take_palm(self, message: PoseStamped) -> None:
        self._check_frame(message.header.frame_id)
        self._given_palm = Pose.of(*messages.pose_from_message(message)), messages.seconds(message.header.stamp)

    def _take_estop(self, message: Bool) -> None:
        self._estop = message.data

    def _check_frame(self, frame_id: str) -> None:
        if frame_id != self._cfg.base_frame:
            raise ValueError(f"frame '{frame_id}', expected '{self._cfg.base_frame}' (parameter base_frame)")
