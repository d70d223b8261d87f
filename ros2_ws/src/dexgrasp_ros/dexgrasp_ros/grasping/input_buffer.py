"""Keeps the newest message of each input topic of the grasp node; makes the inputs of a tick."""

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64MultiArray

from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp.policies.deploy.safety_gate import SafeCommand
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.approach.moveit_planner import MoveItPlanner
from dexgrasp_ros.approach.planned_path import NOT_PLANNED
from dexgrasp_ros.grasping.config import GraspNodeCfg
from dexgrasp_ros.grasping.emergency_stop import EmergencyStopTopic
from dexgrasp_ros.grasping.robot_interface import RobotInterface
from dexgrasp_ros.grasping.types import Inputs
from dexgrasp_ros.message_conversions import estimate_from_message
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.plan_handshake import NOT_ASKED, PlanConfirmation
from dexgrasp_ros.qos import RELIABLE, SENSOR

POINTS_MARGIN_M = 0.2
"""Points of the object may lie so far outside the box of the palm [m]."""


class InputBuffer:
    """Subscribes to points, plan, palm pose and emergency stop until `destroy`."""

    def __init__(
        self,
        node: Node,
        cfg: GraspNodeCfg,
        robot: RobotInterface,
        *,
        on_stop: Callable[[str], None],
        on_points: Callable[[], None],
    ) -> None:
        """`on_stop`: called with the reason of an emergency stop, from the callback of its message.

        `on_points`: called after points with a new stamp were stored.
        """
        self._node, self._cfg, self._robot = node, cfg, robot
        self._on_new_points = on_points
        self._estimate: ObjectEstimate | None = None
        self._plan: tuple[PregraspPlan | None, float] = None, -np.inf
        self.plan_id: int | None = None
        """Id of the newest plan; None without one."""
        self.confirmation = PlanConfirmation(node, cfg.begin_service)
        """Confirmation of plans by perception."""
        self.planner = MoveItPlanner(node, cfg.planner, robot.planned_arm()) if cfg.approach == "moveit" else None
        """Planner of paths to the pre-grasp; None where approaches are scripted."""
        self._topic_palm: tuple[Pose | None, float] = None, -np.inf
        self._arm_palm: tuple[Pose | None, float] = None, -np.inf
        self.estop = EmergencyStopTopic(
            node,
            cfg.estop_topic,
            on_stop,
            required=cfg.require_estop and cfg.moves_real_robot,
            timeout_s=cfg.estop_timeout_s,
        )
        """Emergency stop."""
        self._errors: dict[str, str] = {}
        self.refused: dict[str, int] = {}
        """Number of refused messages by kind."""
        topics: list[tuple[type, str, Callable[[Any], None], QoSProfile]] = [
            (PointCloud2, cfg.points_topic, self._refusing("points", self._on_points), SENSOR),
            (Float64MultiArray, cfg.plan_topic, self._refusing("plan", self._on_plan), RELIABLE),
        ]
        if cfg.palm_pose_source == "topic":
            topics.append((PoseStamped, cfg.palm_topic, self._refusing("palm", self._on_palm), SENSOR))
        self._subscriptions = [
            node.create_subscription(kind, topic, callback, qos) for kind, topic, callback, qos in topics
        ]

    @property
    def errors(self) -> str:
        """Why the newest messages were refused; empty where all were accepted."""
        return "; ".join(filter(None, [self._robot.errors, *self._errors.values()]))

    def palm(self) -> tuple[Pose | None, float]:
        """Return T_world_palm and its stamp [s]; computed once per joint state of the arm."""
        if self._cfg.palm_pose_source == "topic":
            return self._topic_palm
        if self._robot.arm_stamp_s != self._arm_palm[1]:
            self._arm_palm = self._robot.palm()
        return self._arm_palm

    def inputs(self, now_s: float, assumed: SafeCommand | None = None) -> Inputs:
        """Return the inputs of a tick; `assumed`: the command that a dry run assumes to be reached."""
        joints, joints_stamp_s = self._robot.hand()
        palm, palm_stamp_s = self.palm()
        path, path_refused = (None, NOT_PLANNED) if self.planner is None else self.planner.path(self.plan_id)
        found = Inputs(
            now_s=now_s,
            joint_pos=joints,
            joints_stamp_s=joints_stamp_s,
            palm_pos_w=None if palm is None else palm.pos_m,
            palm_quat_w=None if palm is None else palm.quat,
            palm_stamp_s=palm_stamp_s,
            estimate=self._estimate,
            plan=self._plan[0],
            plan_stamp_s=self._plan[1],
            plan_refused=self.confirmation.refusal(self.plan_id),
            path=path,
            path_refused=path_refused,
            estop=self.estop.level.latched,
            input_errors=self.errors,
        )
        return found if assumed is None else found.with_robot_at(assumed, self._robot.motors)

    def plan_since(self, stamp_s: float) -> int | None:
        """Return the id of the newest plan; None where its frame is not newer than a stamp [s]."""
        return self.plan_id if self._plan[1] > stamp_s else None

    def ask(self, refusal: str) -> Future | None:
        """Ask the planner or perception for what a request was refused for; None where nobody can be asked."""
        plan = self._plan[0]
        if refusal == NOT_PLANNED and self.planner is not None and plan is not None:
            return self.planner.ask(Pose.of(plan.palm_pos_w, plan.palm_quat_w), self.plan_id)
        return self.confirmation.ask() if refusal == NOT_ASKED else None

    def ask_now_and_then(self) -> None:
        """Ask for a path to the newest plan, and once there is one, for its confirmation by perception."""
        plan = self._plan[0]
        if self.planner is None or self.planner.path(self.plan_id)[0] is not None:
            self.confirmation.ask_now_and_then()
        elif plan is not None:
            self.planner.ask_now_and_then(Pose.of(plan.palm_pos_w, plan.palm_quat_w), self.plan_id)

    def forget_answers(self) -> None:
        """Forget what planner and perception have answered: a request asks anew."""
        self.confirmation.clear()
        if self.planner is not None:
            self.planner.clear()

    def destroy(self) -> None:
        """Unsubscribe from all topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self.estop.destroy()
        self.confirmation.destroy()
        if self.planner is not None:
            self.planner.destroy()

    def _refusing(self, kind: str, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return the callback, with a message counted and logged where it raises ValueError."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except ValueError as error:
                self.refused[kind] = self.refused.get(kind, 0) + 1
                self._errors[kind] = f"{kind}: {error}"
                self._node.get_logger().error(f"{kind} refused: {error}", throttle_duration_sec=1.0)
            else:
                self._errors.pop(kind, None)

        return guarded

    def _on_points(self, message: PointCloud2) -> None:
        self._check_frame(message.header.frame_id)
        before, estimate = self._estimate, estimate_from_message(message)
        self._check_place(estimate)
        self._estimate = estimate
        if before is None or estimate.stamp_s != before.stamp_s:
            self._on_new_points()

    def _on_plan(self, message: Float64MultiArray) -> None:
        self._plan = message_conversions.plan_from_message(message)
        self.plan_id = message_conversions.plan_id_of(message)

    def _on_palm(self, message: PoseStamped) -> None:
        self._check_frame(message.header.frame_id)
        self._topic_palm = (
            Pose.of(*message_conversions.pose_from_message(message)),
            message_conversions.seconds(message.header.stamp),
        )

    def _check_place(self, estimate: ObjectEstimate) -> None:
        """Raise ValueError for an object out of reach of the hand: another one, or in another frame or unit."""
        safety, points = self._cfg.safety, np.asarray(estimate.points_w, dtype=np.float64)
        lower = np.subtract(safety.box_lower_m, POINTS_MARGIN_M)
        upper = np.add(safety.box_upper_m, POINTS_MARGIN_M)
        middle = np.median(
            points, axis=0
        )  # of a long object at the edge, and of a stray pixel, single points may lie out
        if ((middle < lower) | (middle > upper)).any():
            found, box = np.round(middle, 3).tolist(), f"{np.round(lower, 3).tolist()} to {np.round(upper, 3).tolist()}"
            raise ValueError(
                f"the middle of the points at {found} m is outside the workspace, {box} m "
                f"(safety.box_lower_m and box_upper_m, and {POINTS_MARGIN_M:g} m)"
            )

    def _check_frame(self, frame_id: str) -> None:
        if frame_id != self._cfg.base_frame:
            raise ValueError(f"frame '{frame_id}', expected '{self._cfg.base_frame}' (parameter base_frame)")
