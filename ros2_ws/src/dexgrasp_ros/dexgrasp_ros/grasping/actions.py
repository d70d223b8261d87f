"""Actions and messages of dexgrasp_msgs in the grasp node, where that package is built and sourced.

A goal makes the request that the service of its name makes, and ends with the state that the request leads to.
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
from dexgrasp.utils.text import counted
from dexgrasp_ros import typed_messages
from dexgrasp_ros.grasping.types import Output

SUCCEEDED, REFUSED, EMPTY, FAULT, STOPPED, INTERRUPTED = range(6)
"""Outcomes, as in the actions of dexgrasp_msgs."""
STATES_OF = {
    "grasp": ("pregrasp", "grasp", "lift", "hold", "retreat"),
    "release": ("release",),
    "home": ("home",),
    "place": ("release",),
}
"""States that a goal of each action runs through."""
_INTERRUPTED = {
    "idle": "the grasp node was deactivated",
    **{state: f"another request began {state}" for state in ("pregrasp", "grasp", "lift", "hold", "release", "home")},
}
Service = Callable[[Any, Any], Awaitable[Any]]
"""Callback of a Trigger service."""
PlaceRequest = Callable[[Any], str]
"""Begins to place the object at a PoseStamped; returns why that is refused, or an empty text."""


@dataclass(eq=False)
class _Goal:
    """A goal whose request was accepted."""

    name: str
    handle: Any
    ended: Any = field(default_factory=Future)  # outcome and message
    state: str = ""
    attempts: int = 0
    grip: float = np.nan
    held_since_s: float | None = None


class GraspActions:
    """Action servers of the grasp node; without dexgrasp_msgs there are none, and `update` does nothing."""

    def __init__(
        self,
        node: Node,
        services: Mapping[str, Service],
        place: PlaceRequest,
        limit_attempts: Callable[[int], None],
    ) -> None:
        """`services`: callbacks of the Trigger services by name; `limit_attempts`: of the grasp that has begun."""
        self._node, self._services, self._place, self._limit_attempts = node, services, place, limit_attempts
        self._goals: list[_Goal] = []
        self._beginning: list[_Goal] = []  # perception is asked to confirm the plan
        self.types = typed_messages.interfaces("action")
        """Module of the action types; None where dexgrasp_msgs is not there."""
        self._servers = [] if self.types is None else [self._server(name, self.types) for name in STATES_OF]

    def update(self, output: Output, palm: Pose | None) -> None:
        """Send feedback to the running goals and end those whose states are over.

        `palm`: T_world_palm, measured.
        """
        for goal in list(self._goals):
            before, goal.state = goal.state, output.state
            goal.attempts += output.state == "pregrasp" and before != "pregrasp"
            if output.proposal is not None:
                goal.grip = float(output.proposal.grip)
            self._send_feedback(goal, output, palm)
            outcome = self._outcome(goal, output, before)
            if outcome is not None:
                self._goals.remove(goal)
                goal.ended.set_result(outcome)

    def _server(self, name: str, types: ModuleType) -> ActionServer:
        kind = getattr(types, name.capitalize())

        async def execute(handle: Any) -> Any:
            return await self._execute(name, kind.Result(), handle)

        return ActionServer(self._node, kind, f"~/{name}", execute_callback=execute, cancel_callback=self._cancel)

    async def _execute(self, name: str, result: Any, handle: Any) -> Any:
        """Make the request of a goal and wait until it has ended; return the result."""
        goal = _Goal(name, handle)
        self._beginning.append(goal)
        reason = await self._begin(goal)
        self._beginning.remove(goal)
        if reason:
            result.outcome, result.message = STOPPED if handle.is_cancel_requested else REFUSED, reason
        else:
            self._goals.append(goal)
            result.outcome, result.message = await goal.ended
        if name == "grasp":
            result.attempts, result.grip = goal.attempts, goal.grip
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.outcome == SUCCEEDED:
            handle.succeed()
        else:
            handle.abort()
        return result

    async def _begin(self, goal: _Goal) -> str:
        """Make the request of a goal; return why it is refused, or an empty text."""
        if goal.name == "place":
            return self._place(goal.handle.request.palm)
        response = await self._call(goal.name)
        if response.success and goal.name == "grasp" and goal.handle.request.attempts:
            self._limit_attempts(goal.handle.request.attempts)
        return "" if response.success else response.message

    async def _call(self, name: str) -> Any:
        """Return the response of a service's callback."""
        return await self._services[name](Trigger.Request(), Trigger.Response())

    async def _cancel(self, handle: Any) -> CancelResponse:
        """Stop the robot where it is: a goal that is cancelled must move nothing."""
        if any(goal.handle.goal_id == handle.goal_id for goal in (*self._goals, *self._beginning)):
            await self._call("stop")
            return CancelResponse.ACCEPT
        return CancelResponse.REJECT

    def _outcome(self, goal: _Goal, output: Output, before: str) -> tuple[int, str] | None:
        """Return outcome and message of a goal that has ended; None while it runs."""
        if output.state == "fault":
            stopped = goal.handle.is_cancel_requested or output.fault == "stopped by request"
            return (STOPPED if stopped else FAULT), output.fault
        if goal.name == "grasp":
            return self._grasp_outcome(goal, output, before)
        if output.state in STATES_OF[goal.name]:
            return None
        return (SUCCEEDED, "") if output.state == "idle" else (INTERRUPTED, _INTERRUPTED[output.state])

    def _grasp_outcome(self, goal: _Goal, output: Output, before: str) -> tuple[int, str] | None:
        if output.state == "hold":
            now_s = self._node.get_clock().now().nanoseconds * 1e-9
            if before != "hold" or goal.held_since_s is None:
                goal.held_since_s = now_s
            if output.hand_is_empty:
                return EMPTY, f"the hand is empty after {counted(goal.attempts, 'grasp')}"
            return (SUCCEEDED, "") if now_s - goal.held_since_s >= goal.handle.request.hold_s else None
        if output.state in STATES_OF["grasp"]:
            return None
        if (before, output.state) == ("retreat", "idle"):
            return EMPTY, "regrasp given up: perception published no plan in time"
        return INTERRUPTED, _INTERRUPTED[output.state]

    def _send_feedback(self, goal: _Goal, output: Output, palm: Pose | None) -> None:
        feedback = getattr(self.types, goal.name.capitalize()).Feedback()
        feedback.state = output.state
        feedback.palm_error_m = np.nan
        if palm is not None and output.safe is not None:
            target = Pose.of(output.safe.palm_pos_w, output.safe.palm_quat_w)
            feedback.palm_error_m = palm.distance_m(target)
        if goal.name == "grasp":
            feedback.attempt, feedback.grip = goal.attempts, goal.grip
        goal.handle.publish_feedback(feedback)
