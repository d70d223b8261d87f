"""The perception node: depth images in; the object's points, a pre-grasp and its plan out. See watching.py.

~/points    PointCloud2         the object, with visible_fraction and view_fresh; stamp of the newest depth frame
~/plan      Float64MultiArray   the pre-grasp as policies.runtime.Plan, while nothing has begun
~/pregrasp  PoseStamped         where the palm would begin
/diagnostics                    once per second, and at once when something new is wrong
"""

# ruff: noqa: E402
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy: threads cost more than they bring here
    os.environ.setdefault(variable, "1")

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String

from dexgrasp_ros import messages as m
from dexgrasp_ros.camera_messages import Cloud, cloud_message, depth_from_image, intrinsics_from_info
from dexgrasp_ros.frame_reader import FrameReader
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.perception import Sight
from dexgrasp_ros.perception_cfg import PerceptionCfg, camera_pose, make_robot
from dexgrasp_ros.process import run
from dexgrasp_ros.vigil import Vigil
from dexgrasp_ros.watching import Watch
from perception.sources import open_source

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SYNCHRONOUS_S = 1.0
"""A camera whose stamps are this near to our clock tells when a frame was taken; else the time of arrival counts."""


class PerceptionNode(Node):
    """Callbacks convert and store; frames go through one pure function."""

    def __init__(self, **options: Any) -> None:
        """`options` of rclpy's Node."""
        super().__init__("perception", **options)
        self.cfg = cfg = declare(self, PerceptionCfg)
        robot = make_robot(cfg)
        self._watch, self._joints = Watch(robot.scene), robot.joints
        self._vigil = Vigil(cfg.source if cfg.source != "topic" else cfg.depth_topic)
        self._points = self.create_publisher(PointCloud2, "~/points", RELIABLE)
        self._plan = self.create_publisher(Float64MultiArray, "~/plan", RELIABLE)
        self._pregrasp = self.create_publisher(PoseStamped, "~/pregrasp", RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        self._listen()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also while simulated time stands still
        self.create_timer(1.0, self._report, clock=steady)
        self.create_timer(1.0 / cfg.carry_hz, self._carry, clock=steady)
        self._reader = self._read_source() if cfg.source != "topic" else None

    def close(self) -> None:
        """Release the camera."""
        if self._reader is not None:
            self._reader.close()

    def _listen(self) -> None:
        cfg = self.cfg
        if cfg.source == "topic":
            self._take(CameraInfo, cfg.camera_info_topic, self._camera_info, SENSOR)
            self._take(Image, cfg.depth_topic, self._image, SENSOR)
        for topic, adapter in self._joints.topics.items():
            qos = QoSProfile(
                depth=adapter.state.qos.depth,
                reliability=ReliabilityPolicy[adapter.state.qos.reliability.upper()],
                durability=DurabilityPolicy[adapter.state.qos.durability.upper()],
            )
            self._take(JointState, topic, lambda message, topic=topic: self._joint_state(topic, message), qos)
        if not cfg.arm:
            self._take(PoseStamped, cfg.palm_topic, self._palm, SENSOR)
        self._take(String, cfg.state_topic, lambda message: self._watch.grasp_state(message.data), LATCHED)

    def _take(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        """Subscribe; a message that must not be used is told of and changes nothing."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
                self._vigil.good(topic)
            except ValueError as error:
                self._complain(topic, str(error))

        self.create_subscription(kind, topic, guarded, qos)

    def _camera_info(self, message: CameraInfo) -> None:
        self._watch.camera(intrinsics_from_info(message))

    def _image(self, message: Image) -> None:
        self._depth(depth_from_image(message), m.seconds(message.header.stamp))

    def _joint_state(self, topic: str, message: JointState) -> None:
        self._joints.take(topic, m.joints_from_message(message), m.seconds(message.header.stamp), self._now_s())
        for part in ("hand", "arm"):
            joint_pos, stamp_s = self._joints.newest(part)
            if joint_pos is not None:
                self._watch.joints(part, joint_pos, stamp_s)

    def _palm(self, message: PoseStamped) -> None:
        if message.header.frame_id not in ("", self.cfg.base_frame):
            raise m.MessageError(f"the palm is in frame '{message.header.frame_id}', expected '{self.cfg.base_frame}'")
        self._watch.palm(*m.pose_from_message(message), m.seconds(message.header.stamp))

    def _depth(self, depth_m: NDArray[Any], stamp_s: float, T_world_cam: NDArray[Any] | None = None) -> None:
        start_s = perf_counter()
        self._vigil.frame(self._now_s() - stamp_s)
        sight = self._watch.depth(depth_m, stamp_s, T_world_cam)
        if sight is not None:
            self._publish(sight)
        self._vigil.worked(perf_counter() - start_s)

    def _carry(self) -> None:
        sight = self._watch.carry()
        if sight is not None:
            self._publish(sight)

    def _publish(self, sight: Sight) -> None:
        frame = self.cfg.base_frame
        cloud = Cloud(sight.points_w, sight.visible_fraction, sight.view_fresh, sight.stamp_s, frame)
        if sight.plan is not None:
            plan = sight.plan
            self._plan.publish(m.plan_message(plan, sight.stamp_s))
            self._pregrasp.publish(m.pose_message(plan.palm_pos_w, plan.palm_quat_w, sight.stamp_s, frame))
        self._points.publish(cloud_message(cloud))

    def _read_source(self) -> FrameReader:
        cfg, live = self.cfg, self.cfg.source.startswith("realsense")
        pose = camera_pose(cfg)
        wake = self.create_guard_condition(self._frame_read)
        return FrameReader(open_source(cfg.source, pose, cfg.realsense), not live, wake.trigger)

    def _frame_read(self) -> None:
        frame = None if self._reader is None else self._reader.take()
        if frame is None:
            return
        now_s = self._now_s()
        stamp_s = frame.stamp_s if 0 <= now_s - frame.stamp_s < SYNCHRONOUS_S else now_s
        try:
            self._watch.camera(frame.intrinsics)
            self._depth(frame.depth_m, stamp_s, frame.T_world_cam)
            self._vigil.good(self.cfg.source)
        except ValueError as error:
            self._complain(self.cfg.source, str(error))

    def _complain(self, topic: str, trouble: str) -> None:
        if self._vigil.bad(topic, trouble):
            self.get_logger().warning(f"{topic}: {trouble}")
            self._report()

    def _report(self) -> None:
        if self._reader is not None and self._reader.trouble:
            self._vigil.bad(self.cfg.source, self._reader.trouble)
        statuses = self._vigil.statuses(self._watch, self.count_publishers(self.cfg.depth_topic))
        self._diagnostics.publish(m.diagnostics_message(statuses, self._now_s()))

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


def main() -> int:
    """Runs the node until a signal."""
    torch.set_num_threads(1)
    return run(PerceptionNode)


if __name__ == "__main__":
    raise SystemExit(main())
