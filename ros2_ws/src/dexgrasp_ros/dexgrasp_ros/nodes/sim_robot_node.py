"""Node of the simulated robot: topics of real arm, hand and camera drivers, in real time, with /clock.

On a machine that is too slow, /clock runs slower, which /diagnostics reports. A thread renders the depth images.
"""

import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp_ros import message_conversions
from dexgrasp_ros.latency_marks import LatencyMarks
from dexgrasp_ros.message_conversions import MessageError, image_from_depth, info_from_intrinsics
from dexgrasp_ros.node_process import run
from dexgrasp_ros.parameters import check_changes, declare, read
from dexgrasp_ros.simulation.sim_robot import CommandError, Group, SceneSnapshot, SimDepthCamera, SimRobot, SimRobotCfg

CAMERA_FRAME, WORLD_FRAME = "camera_depth_optical_frame", "world"
DRIVERS: tuple[tuple[Group, str, str], ...] = (
    ("arm", "scaled_joint_trajectory_controller/joint_trajectory", "forward_position_controller/commands"),
    ("hand", "hand_controller/joint_trajectory", "hand_controller/commands"),
)
"""Group, topic of its joint trajectory controller, topic of its forward command controller."""
MAX_LAG_S = 0.1
"""Lag behind real time above which the simulation does not catch up [s]."""
REPORT_S = 1.0
"""Period of diagnostics [s]."""
THREAD_SWITCH_S = 0.0005
"""Switch interval of Python threads; the default of 5 ms delays camera frames [s]."""
MIN_PACE = 0.95
"""Fraction of real time or camera rate below which diagnostics are a warning."""


class SimRobotNode(Node):
    """Publishes joint states, depth images, clock and object pose; executes commands of arm and hand."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("sim_robot", context=context, **options)
        self.cfg = declare(self, SimRobotCfg, changeable=("object", "seed"))
        check_changes(self, SimRobotCfg, lambda *_: "")
        self.robot = SimRobot(self.cfg)
        self._rng = np.random.default_rng([self.cfg.seed, 3])
        newest = QoSProfile(depth=1)
        self._joints = self.create_publisher(JointState, "joint_states", newest)
        self._now = self.create_publisher(ClockMessage, "/clock", newest)
        self._truth = self.create_publisher(PoseStamped, "~/object_pose", newest)
        self._report = self.create_publisher(DiagnosticArray, "diagnostics", QoSProfile(depth=10))
        self._camera = CameraThread(self, self.cfg) if self.cfg.camera_rate_hz else None
        self._subscribe_to_commands()
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(Trigger, "~/push", self._push)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # not the simulated time that this node publishes
        self.create_timer(1 / self.cfg.state_rate_hz, self._tick, clock=steady)
        self.create_timer(REPORT_S, self._diagnose, clock=steady)
        self._accepted, self._refused = 0, 0
        self._last_refusal = "none"
        self._restart_pace()
        self._reported: tuple[float, float] | None = None

    def close(self) -> None:
        """Stop the camera thread."""
        if self._camera is not None:
            self._camera.close()

    def publish(self, publisher: Publisher, message: Any) -> None:
        """Publish a message, or drop it with the configured probability."""
        if not self._dropped():
            publisher.publish(message)

    def _subscribe_to_commands(self) -> None:
        """Subscribe to the command topics of real drivers."""
        topics: list[tuple[type, str, Callable[[Any], None]]] = []
        for group, stream, forward in DRIVERS:
            topics.append(
                (JointTrajectory, stream, self._command_callback(group, message_conversions.trajectory_point))
            )
            topics.append((Float64MultiArray, forward, self._command_callback(group, self._array_converter(group))))
        by_name = self._command_callback(
            "hand", lambda message: (message_conversions.joints_from_message(message), 0.0)
        )
        topics.append((JointState, "hand_controller/joint_cmd", by_name))
        for kind, topic, callback in topics:
            self.create_subscription(kind, topic, callback, QoSProfile(depth=10))

    def _array_converter(self, group: Group) -> Callable[[Float64MultiArray], tuple[Any, float]]:
        size = len(self.robot.servos[group].names)
        return lambda message: (message_conversions.array_from_message(message, size), 0.0)

    def _command_callback(self, group: Group, convert: Callable[[Any], tuple[Any, float]]) -> Callable[[Any], None]:
        """Return the callback of a command topic; `convert` returns target and time to reach it."""

        def on_command(message: Any) -> None:
            if self._dropped():
                return
            try:
                target, reach_s = convert(message)
                self.robot.command(group, target, reach_s)
                self._accepted += 1
            except (CommandError, MessageError) as error:
                self._refuse(f"{group}: {error}")

        return on_command

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        self._last_refusal = reason
        self.get_logger().warning(f"command refused: {reason}", throttle_duration_sec=1.0)
        self._publish_status(
            message_conversions.diagnostic(
                "sim_robot: commands", message_conversions.ERROR, f"command refused: {reason}"
            )
        )

    def _tick(self) -> None:
        """Step the physics up to now, then publish clock, joint states and object pose."""
        due_s = self._start_time_s + time.monotonic() - self._start
        if due_s - self.robot.time_s > MAX_LAG_S:
            self._restart_pace()
            due_s = self.robot.time_s + 1 / self.cfg.state_rate_hz
        if not self.robot.step_to(due_s):
            return
        joints = self.robot.read_joints()
        self._now.publish(ClockMessage(clock=message_conversions.to_stamp(joints.stamp_s)))
        message = message_conversions.joint_message(
            names=joints.names,
            position=joints.position,
            stamp_s=joints.stamp_s,
            velocity=joints.velocity,
            effort=joints.effort,
        )
        self.publish(self._joints, message)
        truth = self.robot.ground_truth()
        self._truth.publish(
            message_conversions.pose_message(
                truth.object_pos_w, truth.object_quat_w, joints.stamp_s, self.cfg.tf_prefix + WORLD_FRAME
            )
        )
        if self._camera is not None:
            self._camera.capture_if_due(self.robot)

    def _restart_pace(self) -> None:
        """Align real and simulated time at this moment."""
        self._start, self._start_time_s = time.monotonic(), self.robot.time_s

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            cfg = read(self, SimRobotCfg)
            self.robot.reset(cfg.object, cfg.seed)
        except (ValueError, KeyError) as error:
            response.success, response.message = False, str(error)
            return response
        self._restart_pace()
        response.success, response.message = True, f"{self.robot.object} is on the table, seed {cfg.seed}"
        return response

    def _push(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.robot.push()
        response.success, response.message = True, f"{self.robot.object} is pushed with {self.cfg.push_n} N"
        return response

    def _diagnose(self) -> None:
        now, last = (time.monotonic(), self.robot.time_s), self._reported
        self._reported, frames = now, self._camera.frames() if self._camera is not None else 0
        if last is None:  # the first period includes the start
            return
        wall_s = now[0] - last[0]
        pace, frames_hz = (now[1] - last[1]) / wall_s, frames / wall_s
        slow = pace < MIN_PACE or frames_hz < MIN_PACE * self.cfg.camera_rate_hz * pace
        text = f"{pace:.2f} of real time, {frames_hz:.1f} images/s" + (": this machine is too slow" if slow else "")
        values = {"pace": pace, "images_hz": frames_hz, "unstable": self.robot.unstable}
        self._publish_status(
            message_conversions.diagnostic(
                "sim_robot: pace", message_conversions.WARN if slow else message_conversions.OK, text, values
            )
        )
        truth = self.robot.ground_truth()
        counts = {"taken": self._accepted, "refused": self._refused, "last refusal": self._last_refusal}
        self._publish_status(
            message_conversions.diagnostic(
                "sim_robot: commands", message_conversions.OK, f"{self._refused} refused", counts
            )
        )
        held = {"object": self.robot.object, "lifted_m": truth.lifted_m, "touched": truth.touched}
        self._publish_status(
            message_conversions.diagnostic("sim_robot: object", message_conversions.OK, self.robot.object, held)
        )

    def _publish_status(self, status: DiagnosticStatus) -> None:
        self._report.publish(message_conversions.diagnostics_message([status], self.robot.time_s))

    def _dropped(self) -> bool:
        return bool(self.cfg.drop) and self._rng.uniform() < self.cfg.drop


class CameraThread:
    """Renders depth images in a thread, because one takes longer than a tick; late frames are dropped."""

    def __init__(self, node: SimRobotNode, cfg: SimRobotCfg) -> None:
        self._node, self._cfg = node, cfg
        newest = QoSProfile(depth=1)
        self._image = node.create_publisher(Image, "camera/camera/depth/image_rect_raw", newest)
        self._info = node.create_publisher(CameraInfo, "camera/camera/depth/camera_info", newest)
        self._marks = LatencyMarks(node)
        self._waiting: SimpleQueue[tuple[SceneSnapshot, float] | None] = SimpleQueue()  # scene, monotonic time
        self._next_s, self._count, self._sent_s = 0.0, 0, 0.0
        self._failure: Exception | None = None
        opened = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(opened,), name="camera", daemon=True)
        self._thread.start()
        opened.wait()
        if self._failure is not None:
            raise self._failure

    def capture_if_due(self, robot: SimRobot) -> None:
        """Start to render if an image is due and the last is done. Raises the error of the camera thread."""
        if self._failure is not None:
            raise self._failure
        if robot.time_s >= self._next_s:
            self._next_s = max(self._next_s + 1 / self._cfg.camera_rate_hz, robot.time_s)
            if self._waiting.empty():
                self._waiting.put((robot.snapshot(), time.monotonic()))

    def frames(self) -> int:
        """Return the number of images since the last call."""
        count, self._count = self._count, 0
        return count

    def close(self) -> None:
        """Stop the thread; may be called again."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self, opened: threading.Event) -> None:
        try:
            camera = SimDepthCamera(self._cfg)
            opened.set()
            while (newest := self._newest()) is not None:
                scene, taken_s = newest
                self._publish(camera.capture(scene), scene.stamp_s, camera.intrinsics)
                self._marks.publish(scene.stamp_s, taken_s, self._sent_s)
        except Exception as error:  # raised in the thread of the node
            self._failure = error
            opened.set()

    def _publish(self, depth_m: NDArray[np.float32], stamp_s: float, intrinsics: Intrinsics) -> None:
        self._count += 1
        frame_id = self._cfg.tf_prefix + CAMERA_FRAME
        self._info.publish(info_from_intrinsics(intrinsics, stamp_s, frame_id))
        message = image_from_depth(depth_m, stamp_s, frame_id)
        self._sent_s = time.monotonic()
        self._node.publish(self._image, message)

    def _newest(self) -> tuple[SceneSnapshot, float] | None:
        scene = self._waiting.get()
        while scene is not None:
            try:
                scene = self._waiting.get_nowait()
            except Empty:
                break
        return scene


def main() -> int:
    """Run the node until a signal; return the exit code."""
    sys.setswitchinterval(THREAD_SWITCH_S)
    return run(SimRobotNode)


if __name__ == "__main__":
    raise SystemExit(main())
