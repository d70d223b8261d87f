"""ROS node of the description: the robot for RViz, Foxglove and tf.

robot_description   String           URDF of hand and arm, latched
/tf_static          TFMessage        base_frame -> base, base_frame -> camera, fixed links
/tf                 TFMessage        links of arm and hand (tool, hand_base, palm, fingers), pregrasp, object
~/joint_states      JointState       joints of the URDF, from the drivers of hand and arm
~/markers           MarkerArray      workspace, hand at the pre-grasp, vectors from keypoints to the object

Frames need tf2_msgs, markers visualization_msgs; without them the node publishes the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String

from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp.utils.rotations import Pose, quat_from_matrix
from dexgrasp_ros import message_conversions
from dexgrasp_ros.description.config import DescriptionCfg
from dexgrasp_ros.description.markers import MarkerWriter, nearest
from dexgrasp_ros.description.robot_model import HAND_BASE, RobotModel, read_robot_model
from dexgrasp_ros.description.robot_tree import Edge
from dexgrasp_ros.drivers.publishers import subscribe_joint_states
from dexgrasp_ros.node_process import run
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.qos import LATCHED, SENSOR
from dexgrasp_ros.typed_messages import optional_module

TF = QoSProfile(depth=100)
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


class DescriptionNode(Node):
    """Publishes description, frames and markers of one robot; it reads topics and commands nothing."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("description", context=context, **options)
        self.cfg = cfg = declare(self, DescriptionCfg)
        self.robot: RobotModel = read_robot_model(cfg, self.get_namespace())
        self._plan: tuple[PregraspPlan, float] | None = None
        self._estimate: ObjectEstimate | None = None
        self._palm: tuple[Pose, float] | None = None
        self._sent_s: dict[str, float] = {}  # stamp of the newest transform, by source
        tf_types, self._marker_types = optional_module("tf2_msgs.msg"), optional_module("visualization_msgs.msg")
        self._tf_type: Any = None if tf_types is None else tf_types.TFMessage
        self._publish_description()
        self._joints = self.create_publisher(JointState, "~/joint_states", QoSProfile(depth=1))
        if self._tf_type is None:
            self.get_logger().warning("the package tf2_msgs is not installed: no frames on /tf")
        else:
            self._frames = self.create_publisher(self._tf_type, "/tf", TF)
            self._fixed_frames = self.create_publisher(self._tf_type, "/tf_static", LATCHED)
            self._fixed_frames.publish(self._transforms(self._fixed_edges(), self._now_s()))
        if self._marker_types is not None:
            self._markers = self.create_publisher(self._marker_types.MarkerArray, "~/markers", QoSProfile(depth=1))
            self.create_timer(1.0 / cfg.marker_rate_hz, self._publish_markers)
        subscribe_joint_states(self, self.robot.states.topics, self._on_joint_state)
        self._subscribe(Float64MultiArray, cfg.plan_topic, self._on_plan, QoSProfile(depth=1))
        self._subscribe(PointCloud2, cfg.points_topic, self._on_points, SENSOR)
        if "arm" not in self.robot.joint_names:
            self._subscribe(PoseStamped, cfg.palm_topic, self._on_palm, SENSOR)
        self.create_timer(1.0 / cfg.rate_hz, self._publish_frames)

    def close(self) -> None:
        """Do nothing: the node commands nothing."""

    def frame(self, name: str) -> str:
        """Return the name of a frame with the prefix."""
        return self.cfg.tf_prefix + name

    def _publish_description(self) -> None:
        self._description = self.create_publisher(String, "robot_description", LATCHED)
        self._description.publish(String(data=self.robot.urdf))

    def _fixed_edges(self) -> list[Edge]:
        """Return the transforms that never change, with those of the world and the camera."""
        cfg, edges, root = self.cfg, self.robot.tree.fixed(), self.robot.tree.root
        if "arm" in self.robot.joint_names and root != cfg.base_frame:
            edges.append((cfg.base_frame, root, Pose(np.zeros(3), UPRIGHT)))
        if cfg.camera_file:
            T = np.asarray(CameraPose.load(cfg.camera_file).T_world_cam, dtype=np.float64)
            edges.append((cfg.base_frame, self.frame(cfg.camera_frame), Pose(T[:3, 3], quat_from_matrix(T[:3, :3]))))
        return edges

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        """Subscribe to a topic; a message for which the callback raises ValueError is logged and dropped."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except ValueError as error:
                self.get_logger().warning(f"{topic}: {error}", throttle_duration_sec=5.0)

        self.create_subscription(kind, topic, guarded, qos)

    def _on_joint_state(self, topic: str, message: JointState) -> None:
        stamp_s = message_conversions.seconds(message.header.stamp)
        try:
            values = message_conversions.joints_from_message(message)
            self.robot.states.update(topic, values, stamp_s, self._now_s())
        except ValueError as error:
            self.get_logger().warning(f"joint states refused: {error}", throttle_duration_sec=5.0)

    def _on_plan(self, message: Float64MultiArray) -> None:
        self._plan = message_conversions.plan_from_message(message)

    def _on_points(self, message: PointCloud2) -> None:
        self._demand_frame(message.header.frame_id)
        self._estimate = message_conversions.estimate_from_message(message)

    def _on_palm(self, message: PoseStamped) -> None:
        self._demand_frame(message.header.frame_id)
        pose = Pose.of(*message_conversions.pose_from_message(message))
        self._palm = pose, message_conversions.seconds(message.header.stamp)

    def _demand_frame(self, frame_id: str) -> None:
        if frame_id != self.cfg.base_frame:
            raise ValueError(f"frame '{frame_id}', expected '{self.cfg.base_frame}' (parameter base_frame)")

    def _positions(self, part: str) -> tuple[dict[str, float], float]:
        """Return the newest joint positions of "hand" or "arm" by name of the URDF, and their stamp [s]."""
        joint_pos, stamp_s = self.robot.states.newest(part)
        names = self.robot.joint_names.get(part, ())
        return ({} if joint_pos is None else dict(zip(names, joint_pos.tolist(), strict=True))), stamp_s

    def _publish_frames(self) -> None:
        """Publish joint states, and the frames whose sources have a newer stamp than those sent last."""
        transforms: list[TransformStamped] = []
        names: list[str] = []
        positions: list[float] = []
        newest_s = -np.inf
        for part in self.robot.joint_names:
            found, stamp_s = self._positions(part)
            if found and self._is_newer(part, stamp_s):
                transforms += self._transforms(self.robot.tree.moving(found), stamp_s, bare=True)
                names, positions = [*names, *found], [*positions, *found.values()]
                newest_s = max(newest_s, stamp_s)
        if names:
            self._joints.publish(message_conversions.joint_message(names, positions, newest_s))
        world = self.cfg.base_frame
        for name, pose, stamp_s in self._single_frames():
            if self._is_newer(name, stamp_s):
                transforms += self._transforms([(world, self.frame(name), pose)], stamp_s, bare=True)
        if transforms and self._tf_type is not None:
            self._frames.publish(self._tf_type(transforms=transforms))

    def _single_frames(self) -> list[tuple[str, Pose, float]]:
        """Return name, pose in the world and stamp [s] of pre-grasp, object, and a hand on an unknown arm."""
        found = []
        if self._plan is not None:
            plan, stamp_s = self._plan
            found.append(("pregrasp", Pose.of(plan.palm_pos_w, plan.palm_quat_w), stamp_s))
        if self._estimate is not None and len(self._estimate.points_w):
            points = self._estimate.points_w.astype(np.float64)
            found.append(("object", Pose((points.min(0) + points.max(0)) / 2, UPRIGHT), self._estimate.stamp_s))
        if self._palm is not None:
            pose, stamp_s = self._palm
            found.append((HAND_BASE, pose @ self.robot.palm_b.inverse(), stamp_s))
        return found

    def _is_newer(self, source: str, stamp_s: float) -> bool:
        """Return whether a source has a new stamp, or one of a clock that started again; remember it."""
        if stamp_s == self._sent_s.get(source):
            return False
        self._sent_s[source] = stamp_s
        return True

    def _transforms(self, edges: Sequence[Edge], stamp_s: float, bare: bool = False) -> Any:
        """Return a TFMessage of transforms at one time, or with `bare` their list."""
        found = []
        for parent, child, pose in edges:
            item = TransformStamped(header=message_conversions.header(stamp_s, parent), child_frame_id=child)
            place, turn = item.transform.translation, item.transform.rotation
            place.x, place.y, place.z = map(float, pose.pos_m)
            turn.w, turn.x, turn.y, turn.z = map(float, pose.quat)
            found.append(item)
        return found if bare else self._tf_type(transforms=found)

    def _publish_markers(self) -> None:
        if self._marker_types is None or not self._markers.get_subscription_count():
            return
        cfg, tree = self.cfg, self.robot.tree
        writer = MarkerWriter(self._marker_types, cfg.base_frame, self._now_s())
        writer.box("workspace", cfg.box_lower_m, cfg.box_upper_m)
        hand_base = self.frame(HAND_BASE)
        if self._plan is not None:
            plan = self._plan[0]
            joints = self.robot.motors.joint_positions(np.asarray(plan.joint_pos, float))
            positions = dict(zip(self.robot.joint_names["hand"], joints.tolist(), strict=True))
            root = Pose.of(plan.palm_pos_w, plan.palm_quat_w) @ self.robot.palm_b.inverse()
            writer.links("pregrasp", tree, tree.poses(positions, root, hand_base))
        (fingers, _), (arm, _) = self._positions("hand"), self._positions("arm")
        if self._estimate is not None and len(self._estimate.points_w) and fingers and arm:
            poses = tree.poses(fingers | arm)
            points = np.array([(poses[link] @ Pose(pos, UPRIGHT)).pos_m for link, pos in self.robot.keypoints])
            writer.vectors("keypoints", points, nearest(points, self._estimate.points_w.astype(np.float64)))
        self._markers.publish(writer.message())

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


def main() -> int:
    """Run the node until a signal; return the exit code."""
    return run(DescriptionNode)


if __name__ == "__main__":
    raise SystemExit(main())
