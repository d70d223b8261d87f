"""Joint commands as goals of actions: FollowJointTrajectory and the gripper commands.

Each command is a goal that replaces the one before. At most one goal waits for its answer; meanwhile only the newest
command is kept, so that a slow server gets fewer goals and not a queue of old ones.
"""

import threading
import time
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from numpy.typing import NDArray
from rclpy.action.client import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future

from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.config import REACH_PERIODS, AdapterError, CommandCfg
from dexgrasp_ros.drivers.plugins import CommandWriter

Array = NDArray[np.float64]
ACTIONS = {
    "follow_joint_trajectory": "FollowJointTrajectory",
    "gripper_command": "GripperCommand",
    "parallel_gripper_command": "ParallelGripperCommand",
}
"""Action of control_msgs of each command type."""
ANSWER_S = 0.5
"""Time within which a server accepts or rejects a goal [s]."""
MOST_RUNNING = 20
"""Goals that may run at once before the server counts as one that does not replace them."""
LAST_S = 0.5
"""Time for the last goal to be answered before the client is destroyed [s]."""


def action_type(kind: str) -> Any:
    """Return the action of a command type; AdapterError where control_msgs is not installed."""
    try:
        return getattr(import_module("control_msgs.action"), ACTIONS[kind])
    except (ImportError, AttributeError) as error:
        raise AdapterError(
            f"command.type {kind} needs control_msgs with {ACTIONS[kind]} ({error}): install ros-jazzy-control-msgs, "
            "or with pip wheels run `make build-ros`, then source the workspace"
        ) from error


class ActionWriter(CommandWriter):
    """Sends goals from a hidden node of its own: answers arrive while the driver's node waits."""

    def __init__(self, node: Node, command: CommandCfg) -> None:
        """Raise AdapterError where control_msgs is not installed."""
        self._command, self._kind, self._name = command, action_type(command.type), command.topic
        self._changed = threading.Condition()  # guards the values below
        self._next: Any = None  # newest goal that is not sent yet
        self._asked: tuple[int, float] | None = None  # number and time of the goal without an answer
        self._number, self._cleared = 0, 0  # of the last goal sent, and of the last one before `clear`
        self._running: set[int] = set()
        self._failure, self._accepted = "", True
        self.most_running = 0
        """Largest number of goals that ran at once."""
        hidden = f"_{node.get_name()}{command.topic.replace('/', '_')}"
        self._node = Node(
            hidden,
            context=node.context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        status = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._client = ActionClient(self._node, self._kind, self._name, status_sub_qos_profile=status)
        self._wake = self._node.create_guard_condition(self._send_next)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name=f"goals of {self._name}", daemon=True)
        self._thread.start()

    def send(self, values: Array, period_s: float) -> None:
        """Send a goal, in place of one that still waits to be sent."""
        goal = self._goal(values, period_s)
        with self._changed:
            self._next = goal
        self._wake.trigger()

    def acknowledged(self, timeout_s: float) -> bool:
        """Wait until the last goal is answered; return whether it was accepted."""
        with self._changed:
            answered = self._changed.wait_for(lambda: self._next is None and self._asked is None, timeout_s)
            return answered and self._accepted

    def not_ready(self) -> str:
        """Return that there is no server, or another one, or another client that sends goals."""
        action = f"{self._name} (control_msgs/action/{ACTIONS[self._command.type]})"
        if not self._client.server_is_ready():
            return f"no action server {action}: is the driver running?"
        service = f"{self._name}/_action/send_goal"
        if self._node.count_services(service) > 1:
            return f"more than one action server {action}: stop the others"
        if self._node.count_clients(service) > 1:
            return f"others send goals to {action} as well: stop them"
        return ""

    def failure(self) -> str:
        """Return which goal since `clear` was rejected, aborted, cancelled or not answered, or an empty text."""
        with self._changed:
            if self._asked is not None and time.monotonic() - self._asked[1] > ANSWER_S:
                self._fail(self._asked[0], f"a goal was not answered within {ANSWER_S:g} s")
            return self._failure

    def clear(self) -> None:
        """Forget failures of all goals sent until now."""
        with self._changed:
            self._failure, self._cleared = "", self._number

    def destroy(self) -> None:
        """Wait for the answer to the last goal, and end the thread."""
        if self._client.server_is_ready():
            self.acknowledged(LAST_S)
        self._executor.shutdown(timeout_sec=0.0)
        self._thread.join(LAST_S)
        self._client.destroy()
        self._node.destroy_node()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass
        except Exception as error:  # without its thread no goal is sent
            with self._changed:
                self._fail(self._number + 1, f"the client ended: {error}")

    def _goal(self, values: Array, period_s: float) -> Any:
        goal, command = self._kind.Goal(), self._command
        if command.type == "follow_joint_trajectory":
            goal.trajectory = message_conversions.trajectory_message(command.joints, values, REACH_PERIODS * period_s)
        elif command.type == "gripper_command":
            goal.command.position, goal.command.max_effort = float(values[0]), command.max_effort
        else:
            goal.command.name, goal.command.position = list(command.joints), [float(value) for value in values]
            if command.max_effort:
                goal.command.effort = [command.max_effort] * len(values)
        return goal

    def _send_next(self) -> None:
        with self._changed:
            lost = self._asked is not None and time.monotonic() - self._asked[1] > ANSWER_S
            if self._next is None or (self._asked is not None and not lost):
                return
            if lost and self._asked is not None:
                self._fail(self._asked[0], f"a goal was not answered within {ANSWER_S:g} s")
            goal, self._next = self._next, None
            self._number += 1
            number = self._number
            self._asked = number, time.monotonic()
        self._client.send_goal_async(goal).add_done_callback(partial(self._take_answer, number))

    def _take_answer(self, number: int, answer: Future) -> None:
        handle: Any = answer.result()
        with self._changed:
            if self._asked is not None and self._asked[0] == number:
                self._asked, self._accepted = None, handle.accepted
            if not handle.accepted:
                self._fail(number, "a goal was rejected")
            else:
                self._running.add(number)
                self.most_running = max(self.most_running, len(self._running))
                if len(self._running) > MOST_RUNNING:
                    self._fail(number, f"{len(self._running)} goals run at once: the server does not replace a goal")
            self._changed.notify_all()
        if handle.accepted:
            handle.get_result_async().add_done_callback(partial(self._take_result, number))
        self._send_next()

    def _take_result(self, number: int, answer: Future) -> None:
        response: Any = answer.result()
        with self._changed:
            self._running.discard(number)
            replaced = number < self._number
            if reason := _ended_badly(response.status, response.result, replaced):
                self._fail(number, reason)

    def _fail(self, number: int, reason: str) -> None:
        """Keep the first reason of a goal that was sent after `clear`."""
        if number > self._cleared and not self._failure:
            self._failure = f"{self._name}: {reason}"


def _ended_badly(status: int, result: Any, replaced: bool) -> str:
    """Return why the end of a goal is a failure, or an empty text.

    A goal that was replaced by the next one may end as cancelled, or as aborted without an error code. A gripper that
    stalls holds something.
    """
    code = getattr(result, "error_code", 0)
    text = f" ({code}: {result.error_string})" if code else ""
    if status == GoalStatus.STATUS_ABORTED:
        fine = not code and (replaced or getattr(result, "stalled", False))
        return "" if fine else f"a goal was aborted{text}"
    if status == GoalStatus.STATUS_CANCELED:
        return "" if replaced else f"a goal was cancelled, not by this node{text}"
    return "" if status == GoalStatus.STATUS_SUCCEEDED else f"a goal ended with status {status}{text}"
