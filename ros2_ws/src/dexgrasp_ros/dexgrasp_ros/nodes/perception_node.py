"""Lifecycle node of perception: depth images in; points of the object and a pre-grasp plan out.

~/points    PointCloud2         object points with visible_fraction and view_fresh; stamp of the newest depth frame
~/plan      Float64MultiArray   the pre-grasp plan (dexgrasp.policies.deploy.policy.Plan), before a grasp
~/pregrasp  PoseStamped         palm pose of the plan
~/begin     service             freezes the view of the plan for a grasp (dexgrasp_ros.plan_handshake)
~/check_scene                   service: lights for what the camera sees (dexgrasp_ros.perception.scene_service)
/diagnostics                    once per second, and at once for a new error
"""

# ruff: noqa: E402
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy: more threads are slower here
    os.environ.setdefault(variable, "1")

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String

from dexgrasp.perception.cameras.open import open_camera
from dexgrasp_ros import message_conversions as m
from dexgrasp_ros.clock_watch import clock_missing
from dexgrasp_ros.drivers.publishers import subscribe_joint_states
from dexgrasp_ros.latency_marks import LatencyMarks
from dexgrasp_ros.message_conversions import estimate_message
from dexgrasp_ros.node_process import run
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.parameters import check_changes, declare, names, read
from dexgrasp_ros.perception.config import PerceptionCfg, camera_pose, make_inputs
from dexgrasp_ros.perception.depth_topic import DepthTopic
from dexgrasp_ros.perception.diagnostics import PerceptionDiagnostics
from dexgrasp_ros.perception.frame_reader import FrameReader
from dexgrasp_ros.perception.scene_service import scene_report, serve_check_scene
from dexgrasp_ros.plan_handshake import serve_begin
from dexgrasp_ros.qos import LATCHED, RELIABLE, SENSOR
from dexgrasp_ros.recording.decision_topic import decision_log
from dexgrasp_ros.recording.logged_perception import LoggedPerceptionStateMachine
from dexgrasp_ros.typed_messages import TypedPublisher, estimate_fields, plan_fields

DONE = TransitionCallbackReturn.SUCCESS
SYNCHRONOUS_S = 1.0
"""Stamps of a camera read by this node are used if they lag the node clock by less than this; else the arrival time."""


class PerceptionNode(LifecycleNode):
    """Passes messages to the perception state machine and publishes its estimates, while active."""

    def __init__(self, **options: Any) -> None:
        """`options`: keyword arguments of rclpy's Node. Raises where the node cannot start by itself (autostart)."""
        super().__init__("perception", **options)
        self.cfg = declare(self, PerceptionCfg, changeable=names(PerceptionCfg))
        check_changes(self, PerceptionCfg, self._change_refused)
        self.add_post_set_parameters_callback(self._take_changes)
        self._active = False
        self._failure: Exception = RuntimeError("no transition was refused")
        self._reader: FrameReader | None = None
        self._destroy_input: list[Callable[[], Any]] = []  # of what exists while the node is active
        self._points = self.create_publisher(PointCloud2, "~/points", RELIABLE)
        self._plan = self.create_publisher(Float64MultiArray, "~/plan", RELIABLE)
        self._pregrasp = self.create_publisher(PoseStamped, "~/pregrasp", RELIABLE)
        self._typed_plan = TypedPublisher(self, "GraspPlan", "~/grasp_plan", RELIABLE)
        self._typed_estimate = TypedPublisher(self, "ObjectEstimate", "~/object", RELIABLE)
        self._marks, self._log = LatencyMarks(self), decision_log(self)
        self._diagnostics_topic = self.create_publisher(DiagnosticArray, "diagnostics", QoSProfile(depth=10))
        if self.cfg.autostart and (self.trigger_configure() != DONE or self.trigger_activate() != DONE):
            raise self._failure

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read bundle, drivers, models and camera pose; refuse with the reason."""
        done = self._try(self._configure)
        return super().on_configure(state) if done == DONE else done

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the camera or subscribe to it, with an empty memory."""
        done = self._try(self._start)
        if done != DONE:
            self.close()
            return done
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the camera and unsubscribe from all topics."""
        self.close()
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the camera and unsubscribe from all topics."""
        self.close()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Stop the camera thread, release the camera and all inputs; may be called again."""
        self._active = False
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        for destroy in self._destroy_input:
            destroy()
        self._destroy_input = []

    def _try(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        """Run a step of a transition; an error refuses the transition."""
        try:
            step()
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            self._failure = error
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        return DONE

    def _change_refused(self, name: str, value: Any) -> str:
        """Return why a parameter may not be changed now, or an empty text."""
        if self._active and name == "segment.target":
            return self._machine.target_refused(str(value))
        return f"{name} changes while the node is not active: deactivate it first" if self._active else ""

    def _take_changes(self, changes: list[Parameter]) -> None:
        """Look for another object where the target was changed."""
        for change in changes:
            if self._active and change.name == "segment.target":
                self._machine.choose(str(change.value))

    def _configure(self) -> None:
        self.cfg = read(self, PerceptionCfg)
        self._inputs = make_inputs(self.cfg, self.get_namespace())

    def _start(self) -> None:
        if self.cfg != read(self, PerceptionCfg):  # changed since it was configured
            self._configure()
        cfg = self.cfg
        self._machine = LoggedPerceptionStateMachine(self._inputs.setup, self._log.write, cfg)
        self._joints = self._inputs.joints
        self._depth_topic = DepthTopic(cfg, cfg.depth_topic)
        self._diagnostics = PerceptionDiagnostics(
            cfg.source if cfg.source != "topic" else self.resolve_topic_name(cfg.depth_topic)
        )
        self._subscribe_all()
        begin = serve_begin(self, self._machine.begin)
        check = serve_check_scene(self, lambda: scene_report(self._machine, self._now_s()))
        self._destroy_input.append(lambda: (self.destroy_service(begin), self.destroy_service(check)))
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # runs while simulated time stands still
        for period_s, callback in ((1.0, self._report), (1.0 / cfg.held_object_rate_hz, self._move_with_palm)):
            timer = self.create_timer(period_s, callback, clock=steady)
            self._destroy_input.append(partial(self.destroy_timer, timer))
        self._reader = self._open_source() if cfg.source != "topic" else None

    def _subscribe_all(self) -> None:
        cfg = self.cfg
        if cfg.source == "topic":
            self._subscribe(CameraInfo, cfg.camera_info_topic, self._on_camera_info, SENSOR)
            self._subscribe(Image, cfg.depth_topic, self._on_image, SENSOR)
        for item in subscribe_joint_states(self, self._joints.topics, self._take_joint_state):
            self._destroy_input.append(item.destroy)
        if not cfg.arm:
            self._subscribe(PoseStamped, cfg.palm_topic, self._on_palm_pose, SENSOR)
        self._subscribe(String, cfg.state_topic, lambda message: self._machine.on_grasp_state(message.data), LATCHED)

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        """Subscribe to a topic; a message for which the callback raises ValueError is logged and dropped."""
        topic = self.resolve_topic_name(topic)
        subscription = self.create_subscription(kind, topic, self._guarded(topic, callback), qos)
        self._destroy_input.append(lambda: self.destroy_subscription(subscription))

    def _guarded(self, topic: str, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        def guarded(message: Any) -> None:
            try:
                callback(message)
                self._diagnostics.topic_ok(topic)
            except ValueError as error:
                self._refuse(topic, str(error))

        return guarded

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._machine.on_camera_info(self._depth_topic.intrinsics(message))

    def _on_image(self, message: Image) -> None:
        received_s = monotonic()
        depth_m, T_world_cam = self._depth_topic.depth(message)
        self._on_depth(depth_m, m.seconds(message.header.stamp), T_world_cam, received_s)

    def _take_joint_state(self, topic: str, message: JointState) -> None:
        self._guarded(topic, partial(self._on_joint_state, topic))(message)

    def _on_joint_state(self, topic: str, message: JointState) -> None:
        self._joints.update(topic, m.joints_from_message(message), m.seconds(message.header.stamp), self._now_s())
        for part in ("hand", "arm"):
            joint_pos, stamp_s = self._joints.newest(part)
            if joint_pos is not None:
                self._machine.on_joint_state(part, joint_pos, stamp_s)

    def _on_palm_pose(self, message: PoseStamped) -> None:
        if message.header.frame_id != self.cfg.base_frame:
            raise m.MessageError(
                f"the palm pose is in frame '{message.header.frame_id}', expected '{self.cfg.base_frame}'"
            )
        self._machine.on_palm_pose(*m.pose_from_message(message), m.seconds(message.header.stamp))

    def _on_depth(
        self,
        depth_m: NDArray[Any],
        stamp_s: float,
        T_world_cam: NDArray[Any] | None = None,
        received_s: float | None = None,
    ) -> None:
        """Use a depth image; `received_s`: monotonic time at which its message was received [s]."""
        start_s = monotonic()
        self._diagnostics.frame_arrived(self._now_s() - stamp_s)
        estimate = self._machine.on_depth(depth_m, stamp_s, T_world_cam)
        sent_s = monotonic()
        self._publish(estimate)
        self._diagnostics.frame_processed(monotonic() - start_s)
        self._marks.publish(stamp_s, start_s if received_s is None else received_s, sent_s)

    def _move_with_palm(self) -> None:
        self._publish(self._machine.move_with_palm())

    def _publish(self, estimate: ObjectEstimate | None) -> None:
        if estimate is None:
            return
        frame, plan = self.cfg.base_frame, estimate.plan
        if plan is not None:
            self._plan.publish(m.plan_message(plan, estimate.stamp_s, estimate.plan_id))
            self._typed_plan.publish(estimate.stamp_s, frame, id=estimate.plan_id or 0, **plan_fields(plan))
            self._pregrasp.publish(m.pose_message(plan.palm_pos_w, plan.palm_quat_w, estimate.stamp_s, frame))
        self._points.publish(estimate_message(estimate, frame))
        if self._typed_estimate.is_read:
            self._typed_estimate.publish(estimate.stamp_s, frame, **estimate_fields(estimate, frame))

    def _open_source(self) -> FrameReader:
        """Open the camera or recording and read it in a thread that wakes this node per frame."""
        cfg, live = self.cfg, self.cfg.source.startswith("realsense")
        wake = self.create_guard_condition(self._on_frame_read)
        self._destroy_input.append(lambda: self.destroy_guard_condition(wake))
        return FrameReader(open_camera(cfg.source, camera_pose(cfg), cfg.realsense), not live, wake.trigger)

    def _on_frame_read(self) -> None:
        frame = None if self._reader is None else self._reader.pop()
        if frame is None:
            return
        now_s = self._now_s()
        stamp_s = frame.stamp_s if 0 <= now_s - frame.stamp_s < SYNCHRONOUS_S else now_s
        try:
            self._machine.on_camera_info(frame.intrinsics)
            self._on_depth(frame.depth_m, stamp_s, frame.T_world_cam)
            self._diagnostics.topic_ok(self.cfg.source)
        except ValueError as error:
            self._refuse(self.cfg.source, str(error))

    def _refuse(self, topic: str, error: str) -> None:
        """Log the first error of a topic and report it at once."""
        if self._diagnostics.topic_failed(topic, error):
            self.get_logger().warning(f"{topic}: {error}")
            self._report()

    def _report(self) -> None:
        if self._reader is not None and self._reader.error:
            self._diagnostics.topic_failed(self.cfg.source, self._reader.error)
        publishers = self.count_publishers(self.cfg.depth_topic)
        statuses = self._diagnostics.statuses(self._machine, publishers, clock_missing(self))
        self._diagnostics_topic.publish(m.diagnostics_message(statuses, self._now_s()))

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


def main() -> int:
    """Run the node until a signal; return the exit code."""
    torch.set_num_threads(1)
    return run(PerceptionNode)


if __name__ == "__main__":
    raise SystemExit(main())
