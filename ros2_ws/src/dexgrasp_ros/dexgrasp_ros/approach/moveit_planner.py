"""Asks MoveIt (service GetMotionPlan) for a path from the last arm command to a pre-grasp.

The goal is given as joint positions, found by the inverse kinematics that also moves the arm, a few steps at a time so
that ticks go on. Questions are numbered: an answer to an earlier one is not used. This file alone knows the type of the
service; without the package moveit_msgs every question is refused with that reason.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.task import Future
from rclpy.timer import Timer

from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.approach.planned_path import NOT_PLANNED, PlannedPath, path_of_waypoints
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.typed_messages import optional_module

Array = NDArray[np.float64]
SERVICES = "moveit_msgs.srv"
MESSAGES = "moveit_msgs.msg"
STEP_S, STEPS_AT_ONCE, MOST_STEPS = 0.02, 4, 200
"""Period of the search for goal joints [s], steps of inverse kinematics in it, and in all."""
FOUND_M, FOUND_RAD = 0.002, 0.01
"""Distance from the pre-grasp at which goal joints are found."""
GOAL_TOLERANCE_RAD = 1e-3
"""Tolerance of each joint at the goal [rad]."""
ASK_AGAIN_S = 0.5
"""Period of repeated questions while a plan is awaited after an empty grasp [s]."""
NO_JOINTS = (
    "approach:=moveit needs an arm whose joints are commanded; this driver gets poses: start with approach:=scripted"
)
NO_MESSAGES = (
    "approach:=moveit needs the package moveit_msgs: install ros-jazzy-moveit-msgs, or start with approach:=scripted"
)


@dataclass(frozen=True)
@bounded
class PlannerCfg:
    """Settings of the motion planner, used with approach=moveit."""

    service: str = "plan_kinematic_path"
    """Service of the planner, moveit_msgs/srv/GetMotionPlan; move_group offers it under this name."""
    group: str = "manipulator"
    """Planning group with the joints of the arm."""
    pipeline: str = ""
    """Planning pipeline; empty: that of the server."""
    planning_time_s: Annotated[float, Bounds(0.05, 60)] = 2.0
    """Time that the planner may take [s]."""
    answer_s: Annotated[float, Bounds(0.1, 120)] = 5.0
    """Time limit of its answer [s]."""


@dataclass(frozen=True, eq=False)
class PlannedArm:
    """Arm for which paths are planned."""

    kinematics: ArmKinematics
    adapter: JointAdapter
    commanded: Callable[[], Array | None]
    """Returns the last command (joint,) [rad]."""


@dataclass(eq=False)
class _Question:
    """A question to the planner that is not answered yet."""

    number: int
    plan_id: int | None
    goal: Pose
    q: Array
    """(joint,) joint positions of the search, from the last command to the goal [rad]."""
    start: Array
    answered: Future
    steps: int = 0


class MoveItPlanner:
    """Asks for paths, one question at a time, and keeps the newest answer."""

    def __init__(self, node: Node, cfg: PlannerCfg, arm: PlannedArm | None) -> None:
        """`arm`: None where the driver takes poses; every question is then refused."""
        self._node, self._cfg, self._arm = node, cfg, arm
        self._group = ReentrantCallbackGroup()  # ticks go on while an answer is awaited
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        services = optional_module(SERVICES)
        self._kind: Any = None if services is None else getattr(services, "GetMotionPlan", None)
        self._client = (
            None if self._kind is None else node.create_client(self._kind, cfg.service, callback_group=self._group)
        )
        self._number = 0
        self._question: _Question | None = None
        self._timer: Timer | None = None
        self._answer: tuple[PlannedPath | None, str, int | None] = None, NOT_PLANNED, None  # path, reason, plan
        self._asked_s = -ASK_AGAIN_S

    def path(self, plan_id: int | None) -> tuple[PlannedPath | None, str]:
        """Return the path to the pre-grasp of a plan, or None and why there is none."""
        found, reason, planned_for = self._answer
        if found is not None and planned_for != plan_id:
            return None, NOT_PLANNED
        return found, reason

    def ask(self, goal: Pose, plan_id: int | None) -> Future:
        """Ask for a path to a palm pose.

        The future is done with the answer, the time limit or the next question.
        """
        self._end("another question was asked")
        self._number += 1
        self._asked_s = time.monotonic()
        answered = Future()
        reason, arm = self._cannot_ask(), self._arm
        if reason or arm is None:
            return self._done(answered, reason, plan_id)
        q = arm.commanded()
        if q is None:
            return self._done(answered, "the arm has got no command yet", plan_id)
        self._question = _Question(
            number=self._number, plan_id=plan_id, goal=goal, q=q.copy(), start=q.copy(), answered=answered
        )
        self._answer = None, NOT_PLANNED, plan_id
        self._timer = self._node.create_timer(STEP_S, self._search, callback_group=self._group, clock=self._steady)
        return answered

    def ask_now_and_then(self, goal: Pose, plan_id: int | None) -> None:
        """Ask unless an answer is awaited or was given just now."""
        if self._question is None and time.monotonic() - self._asked_s > ASK_AGAIN_S:
            self.ask(goal, plan_id)

    def clear(self) -> None:
        """Forget question and answer: a grasp has begun on it, or the state has changed."""
        self._end("the state of the grasp changed")
        self._number += 1
        self._answer = None, NOT_PLANNED, None

    def destroy(self) -> None:
        """End a question and destroy the client."""
        self.clear()
        if self._client is not None:
            self._node.destroy_client(self._client)

    def _cannot_ask(self) -> str:
        if self._arm is None:
            return NO_JOINTS
        if self._client is None:
            return NO_MESSAGES
        if not self._client.service_is_ready():
            return f"nobody offers {self._cfg.service}: start move_group, or this node with approach:=scripted"
        return ""

    def _search(self) -> None:
        """Take some steps of inverse kinematics towards the goal; ask the planner once it is reached."""
        question, arm = self._question, self._arm
        if question is None or arm is None:
            return
        try:
            for _ in range(STEPS_AT_ONCE):
                question.q = arm.kinematics.step_towards(question.q, question.goal)
            question.steps += STEPS_AT_ONCE
            palm = arm.kinematics.palm(question.q)
            gap_m, gap_rad = palm.distance_m(question.goal), palm.angle_rad(question.goal)
            if gap_m <= FOUND_M and gap_rad <= FOUND_RAD:
                self._stop_timer()
                self._send(question, arm)
            elif question.steps >= MOST_STEPS:
                self._end(
                    f"no joint positions for the pre-grasp were found: {gap_m:.3f} m and {gap_rad:.2f} rad remain"
                )
        except Exception as error:  # an error of kinematics or messages must not end the node
            self._end(f"no path could be asked for: {error}")

    def _send(self, question: _Question, arm: PlannedArm) -> None:
        assert self._client is not None
        call = self._client.call_async(self._request(question, arm))
        self._timer = self._node.create_timer(
            self._cfg.answer_s,
            lambda: self._end(f"{self._cfg.service} did not answer within {self._cfg.answer_s:g} s"),
            callback_group=self._group,
            clock=self._steady,
        )
        call.add_done_callback(lambda done: self._take(question.number, done.result()))

    def _request(self, question: _Question, arm: PlannedArm) -> Any:
        """Return the request: from the last command to the goal joints, in names and units of the driver."""
        messages = optional_module(MESSAGES)
        assert messages is not None
        names = list(arm.adapter.command_map.order)
        request = self._kind.Request()
        plan = request.motion_plan_request
        plan.group_name, plan.pipeline_id = self._cfg.group, self._cfg.pipeline
        plan.num_planning_attempts, plan.allowed_planning_time = 1, self._cfg.planning_time_s
        plan.max_velocity_scaling_factor = plan.max_acceleration_scaling_factor = 1.0
        plan.start_state.is_diff = True
        plan.start_state.joint_state.name = names
        plan.start_state.joint_state.position = arm.adapter.command(question.start).tolist()
        goal = messages.Constraints(name=f"pre-grasp {question.plan_id}, question {question.number}")
        goal.joint_constraints = [
            messages.JointConstraint(
                joint_name=name,
                position=float(value),
                tolerance_above=GOAL_TOLERANCE_RAD,
                tolerance_below=GOAL_TOLERANCE_RAD,
                weight=1.0,
            )
            for name, value in zip(names, arm.adapter.command(question.q), strict=True)
        ]
        plan.goal_constraints = [goal]
        return request

    def _take(self, number: int, response: Any) -> None:
        """Use the answer to the newest question; others are dropped."""
        question, arm = self._question, self._arm
        if question is None or arm is None or question.number != number:
            return
        try:
            path, reason = self._path(response, arm), ""
        except Exception as error:  # whatever a server sends must not end the node
            path, reason = None, f"the planner's path is not used: {error}"
        self._stop_timer()
        self._question = None
        self._answer = path, reason, question.plan_id
        question.answered.set_result(None)

    def _path(self, response: Any, arm: PlannedArm) -> PlannedPath:
        """Return the path of a response. Raises ValueError where there is none."""
        plan = response.motion_plan_response
        code = plan.error_code
        if code.val != code.SUCCESS:
            raise ValueError(f"error code {code.val} {getattr(code, 'message', '')}".rstrip())
        trajectory, names = plan.trajectory.joint_trajectory, arm.adapter.command_map.order
        rows = [joints_in_order(trajectory.joint_names, point.positions, names) for point in trajectory.points]
        return path_of_waypoints([arm.adapter.command_map.from_driver(row) for row in rows], arm.kinematics.palms)

    def _end(self, reason: str) -> None:
        """End the open question with a reason."""
        self._stop_timer()
        question, self._question = self._question, None
        if question is not None:
            self._done(question.answered, reason, question.plan_id)

    def _done(self, answered: Future, reason: str, plan_id: int | None) -> Future:
        self._answer = None, reason, plan_id
        answered.set_result(None)
        return answered

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None


def joints_in_order(given: Sequence[str], positions: Sequence[float], names: Sequence[str]) -> Array:
    """Return the positions (joint,) of a trajectory point in the order of `names`. Raises ValueError."""
    if len(given) != len(positions) or len(set(given)) != len(given):
        raise ValueError(f"a point has {len(positions)} positions for the joints {list(given)}")
    values = dict(zip(given, positions, strict=True))
    if missing := [name for name in names if name not in values]:
        raise ValueError(f"its trajectory lacks the joints {missing}; it has {sorted(values)}")
    return np.array([values[name] for name in names], dtype=np.float64)
