"""Actions and messages of dexgrasp_msgs in the grasp node, where that package is built and sourced.

A goal makes the request that the service of its name makes, and ends with the state that the request leads to. Events
in the log of decisions: goal (asked, by id), goal_begun (its request was accepted), goal_cancelled, goal_ended.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from rclpy.action.server import ActionServer, CancelResponse
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import typed_messages
from dexgrasp_ros.grasping.goal_progress import REFUSED, STATES_OF, STOPPED, SUCCEEDED, GoalProgress
from dexgrasp_ros.grasping.types import Output

Service = Callable[[Any, Any], Awaitable[Any]]
"""Callback of a Trigger service."""
PlaceRequest = Callable[[Any], str]
"""Begins to place the object at a PoseStamped; returns why that is refused, or an empty text."""


@dataclass(eq=False)
class _Goal:
    """A goal that was asked."""

    handle: Any
    progress: GoalProgress
    ended: Any = field(default_factory=Future)  # outcome and message

    @property
    def id(self) -> str:
        """Return the id of the goal as 32 hexadecimal digits."""
        return bytes(self.handle.goal_id.uuid).hex()


class GraspActions:
    """Action servers of the grasp node; without dexgrasp_msgs there are none, and `update` does nothing."""

    def __init__(
        self,
        node: Node,
        services: Mapping[str, Service],
        place: PlaceRequest,
        limit_attempts: Callable[[int], None],
        choose: Callable[[str], Awaitable[str]],
        write: Callable[..., None],
    ) -> None:
        """`services`: callbacks of the Trigger services by name; `limit_attempts`: of the grasp that has begun.

        `choose`: of a TargetChoice; `write`: of a DecisionLog.
        """
        self._node, self._services, self._place, self._limit_attempts = node, services, place, limit_attempts
        self._choose, self._write = choose, write
        self._goals: list[_Goal] = []
        self._beginning: list[_Goal] = []  # perception is asked to confirm the plan
        self.types = typed_messages.interfaces("action")
        """Module of the action types; None where dexgrasp_msgs is not there."""
        self._servers = [] if self.types is None else [self._server(name, self.types) for name in STATES_OF]

    def update(self, output: Output, palm: Pose | None, now_s: float) -> None:
        """Send feedback to the running goals and end those whose states are over.

        `palm`: T_world_palm, measured; `now_s`: time of the tick.
        """
        for goal in list(self._goals):
            outcome = goal.progress.update(output, now_s)
            self._send_feedback(goal, output, palm)
            if outcome is not None:
                self._goals.remove(goal)
                self._log_end(goal, *outcome)
                goal.ended.set_result(outcome)

    def _server(self, name: str, types: ModuleType) -> ActionServer:
        kind = getattr(types, name.capitalize())

        async def execute(handle: Any) -> Any:
            return await self._execute(name, kind.Result(), handle)

        return ActionServer(self._node, kind, f"~/{name}", execute_callback=execute, cancel_callback=self._cancel)

    async def _execute(self, name: str, result: Any, handle: Any) -> Any:
        """Make the request of a goal and wait until it has ended; return the result."""
        asked = _fields(name, handle.request)
        goal = _Goal(handle, GoalProgress(name, asked.get("hold_s", 0.0)))
        self._write("goal", action=name, id=goal.id, goal=asked)
        self._beginning.append(goal)
        reason = await self._begin(goal)
        self._beginning.remove(goal)
        if reason:
            result.outcome, result.message = STOPPED if goal.progress.cancelled else REFUSED, reason
            self._log_end(goal, result.outcome, reason)
        else:
            self._write("goal_begun", id=goal.id)
            self._goals.append(goal)
            result.outcome, result.message = await goal.ended
        if name == "grasp":
            result.attempts, result.grip = goal.progress.attempts, goal.progress.grip
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.outcome == SUCCEEDED:
            handle.succeed()
        else:
            handle.abort()
        return result

    async def _begin(self, goal: _Goal) -> str:
        """Make the request of a goal; return why it is refused, or an empty text."""
        request, name = goal.handle.request, goal.progress.action
        if name == "place":
            return self._place(request.palm)
        if name == "grasp" and (reason := await self._choose(request.target)):
            return reason
        response = await self._call(name)
        if response.success and name == "grasp" and request.attempts:
            self._limit_attempts(request.attempts)
        return "" if response.success else response.message

    async def _call(self, name: str) -> Any:
        """Return the response of a service's callback."""
        return await self._services[name](Trigger.Request(), Trigger.Response())

    async def _cancel(self, handle: Any) -> CancelResponse:
        """Stop the robot where it is: a goal that is cancelled must move nothing."""
        for goal in (*self._goals, *self._beginning):
            if goal.handle.goal_id == handle.goal_id:
                goal.progress.cancelled = True
                self._write("goal_cancelled", id=goal.id)
                await self._call("stop")
                return CancelResponse.ACCEPT
        return CancelResponse.REJECT

    def _log_end(self, goal: _Goal, outcome: int, message: str) -> None:
        self._write("goal_ended", id=goal.id, outcome=outcome, message=message, attempts=goal.progress.attempts)

    def _send_feedback(self, goal: _Goal, output: Output, palm: Pose | None) -> None:
        progress = goal.progress
        feedback = getattr(self.types, progress.action.capitalize()).Feedback()
        feedback.state = output.state
        feedback.palm_error_m = np.nan
        if palm is not None and output.safe is not None:
            target = Pose.of(output.safe.palm_pos_w, output.safe.palm_quat_w)
            feedback.palm_error_m = palm.distance_m(target)
        if progress.action == "grasp":
            feedback.attempt, feedback.grip = progress.attempts, progress.grip
        goal.handle.publish_feedback(feedback)


def _fields(name: str, request: Any) -> dict[str, Any]:
    """Return the fields of a goal as they are logged."""
    if name == "grasp":
        return {"attempts": int(request.attempts), "hold_s": float(request.hold_s), "target": request.target}
    if name == "place":
        at, turn = request.palm.pose.position, request.palm.pose.orientation
        return {"frame": request.palm.header.frame_id, "palm": [at.x, at.y, at.z, turn.w, turn.x, turn.y, turn.z]}
    return {}
