"""Choice of the object of a grasp goal: perception takes it as its target and plans anew.

The target is the parameter `segment.target` of the perception node. A goal without a target gets that of the node back.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future

NAME = "segment.target"
ANSWER_S, PLAN_S, CHECK_S = 1.0, 5.0, 0.05
"""Time limits of perception's answer and of its plan for a new target, and period of the checks for both [s]."""


class TargetChoice:
    """Sets the target of perception for a goal, and waits for the plan of that object."""

    def __init__(self, node: Node, begin_service: str, plan_since: Callable[[float], int | None]) -> None:
        """`begin_service`: a service of perception, next to those of its parameters.

        `plan_since`: id of the newest plan, None where its frame is not newer than a stamp [s].
        """
        self._node, self._plan_since = node, plan_since
        self._perception = begin_service.rsplit("/", 1)[0]
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self._group = ReentrantCallbackGroup()  # ticks go on while an answer is awaited
        kinds = {"get_parameters": GetParameters, "set_parameters": SetParameters}
        self._clients = {
            name: node.create_client(kind, f"{self._perception}/{name}", callback_group=self._group)
            for name, kind in kinds.items()
        }
        self._busy = False
        self._own = ""  # what the parameter was before the targets of goals
        self._given: str | None = None  # target of a goal that is still in the parameter

    async def choose(self, target: str) -> str:
        """Let perception plan for the target of a goal; return why not, or an empty text.

        An empty target: that of perception's own parameter. A target without a plan is taken back.
        """
        if not target and self._given is None:
            return ""
        if self._busy:
            return "another goal chooses its target: send this one when that has ended"
        self._busy = True
        try:
            return await self._choose(target)
        finally:
            self._busy = False

    async def _choose(self, target: str) -> str:
        current = await self._current()
        if current is None:
            return self._silent()
        if current != self._given:  # an operator has changed it, or perception was started anew
            self._own, self._given = current, None
            if not target:
                return ""
        wanted, before = target or self._own, self._plan_since(-math.inf)
        if reason := await self._set(wanted):
            return reason
        set_s = self._node.get_clock().now().nanoseconds * 1e-9  # frames of later plans show the object
        self._given = target or None
        if await self._wait(lambda: self._plan_since(set_s) not in (None, before), PLAN_S):
            return ""
        if target and not await self._set(current):
            self._given = None if current == self._own else current
        return f"no plan for the target {wanted} within {PLAN_S:g} s: is it there? see the diagnostics of perception"

    async def _current(self) -> str | None:
        """Return the parameter of perception; None without an answer, or where there is no such text."""
        found = await self._ask("get_parameters", GetParameters.Request(names=[NAME]))
        texts = (
            [] if found is None else [v.string_value for v in found.values if v.type == ParameterType.PARAMETER_STRING]
        )
        return texts[0] if texts else None

    async def _set(self, target: str) -> str:
        """Set the parameter of perception; return why not, or an empty text."""
        value = Parameter(NAME, value=target).get_parameter_value()
        request = SetParameters.Request(parameters=[ParameterMessage(name=NAME, value=value)])
        answer = await self._ask("set_parameters", request)
        if answer is None:
            return self._silent()
        return "" if answer.results[0].successful else f"perception refuses: {answer.results[0].reason}"

    async def _ask(self, service: str, request: Any) -> Any:
        """Return the answer of a service of perception; None where there is none in time."""
        client = self._clients[service]
        if not client.service_is_ready():
            return None
        call = client.call_async(request)
        if await self._wait(call.done, ANSWER_S):
            return call.result()
        client.remove_pending_request(call)
        return None

    async def _wait(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Return whether something was done within a time, in wall time [s]."""
        ended, end_s = Future(), time.monotonic() + limit_s

        def check() -> None:
            if (done() or time.monotonic() > end_s) and not ended.done():
                ended.set_result(None)

        timer = self._node.create_timer(CHECK_S, check, callback_group=self._group, clock=self._steady)
        await ended
        self._node.destroy_timer(timer)
        return done()

    def _silent(self) -> str:
        return f"{self._perception} does not answer for its parameter {NAME}: is perception running?"
