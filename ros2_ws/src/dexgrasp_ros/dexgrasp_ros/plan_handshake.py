"""Handshake between grasp node and perception: a grasp begins only on a plan that perception holds.

Each plan has an id. Before a grasp the grasp node calls the service `~/begin` of perception, which freezes the view
that the plan was made from and answers with the id of the plan, or refuses with its reason. The grasp begins if the id
is that of the plan that the grasp node has received. This file alone knows the type of the service.
"""

import time
from collections.abc import Callable

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.service import Service
from rclpy.task import Future
from std_srvs.srv import Trigger

CONFIRMED_S = 0.5
"""Time for which a confirmation is valid; less than `FROZEN_S` of perception [s]."""
ANSWER_S = 1.0
"""Time limit of perception's answer [s]."""
ASK_AGAIN_S = 0.2
"""Period of repeated questions while a plan is awaited after an empty grasp [s]."""
NOT_ASKED = "perception has not confirmed the plan"


def serve_begin(node: Node, begin: Callable[[], int]) -> Service:
    """Offer the service `~/begin`; `begin` returns the id of the frozen plan or raises ValueError."""

    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.success, response.message = True, str(begin())
        except ValueError as error:
            response.success, response.message = False, str(error)
        return response

    return node.create_service(Trigger, "~/begin", answer)


class PlanConfirmation:
    """Asks perception to confirm a plan, and keeps its newest answer."""

    def __init__(self, node: Node, service: str) -> None:
        self._node, self._service = node, service
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self._group = ReentrantCallbackGroup()  # ticks go on while an answer is awaited
        self._client = node.create_client(Trigger, service, callback_group=self._group)
        self._answer: tuple[str, int | None, float] = NOT_ASKED, None, -ANSWER_S  # reason, plan, wall time
        self._asked_s, self._pending = -ANSWER_S, False

    def refusal(self, plan_id: int | None) -> str:
        """Return why no grasp may begin on a plan now, or an empty text."""
        reason, confirmed, at_s = self._answer
        if reason or time.monotonic() - at_s > CONFIRMED_S:
            return reason or NOT_ASKED
        if confirmed == plan_id:
            return ""
        return f"perception holds plan {confirmed}, received was plan {plan_id}: ask again"

    def ask(self) -> Future:
        """Ask perception; the future is done with the answer or after the time limit."""
        answered = Future()
        self._asked_s, self._pending = time.monotonic(), True
        if not self._client.service_is_ready():
            self._store(f"no plan is confirmed: nobody offers {self._service}; is perception running?", None)
            answered.set_result(None)
            return answered
        call = self._client.call_async(Trigger.Request())
        timer = self._node.create_timer(ANSWER_S, lambda: late(), callback_group=self._group, clock=self._steady)

        def done(found: Future) -> None:
            if not answered.done():
                self._node.destroy_timer(timer)
                self._take(found.result())
                answered.set_result(None)

        def late() -> None:
            self._node.destroy_timer(timer)
            if not answered.done():
                self._client.remove_pending_request(call)
                self._store(f"{self._service} did not answer within {ANSWER_S:g} s", None)
                answered.set_result(None)

        call.add_done_callback(done)
        return answered

    def ask_now_and_then(self) -> None:
        """Ask unless an answer is awaited or was given just now."""
        if not self._pending and time.monotonic() - self._asked_s > ASK_AGAIN_S:
            self.ask()

    def clear(self) -> None:
        """Forget the newest answer: a grasp has begun on it, or the state has changed."""
        self._answer = NOT_ASKED, None, -ANSWER_S

    def destroy(self) -> None:
        """Destroy the client."""
        self._node.destroy_client(self._client)

    def _take(self, response: Trigger.Response | None) -> None:
        if response is None or not response.success:
            message = "" if response is None else response.message
            self._store(f"perception refuses: {message}", None)
        elif not response.message.isdecimal():
            self._store(f"perception answered '{response.message}' instead of the id of a plan", None)
        else:
            self._store("", int(response.message))

    def _store(self, reason: str, plan_id: int | None) -> None:
        self._answer, self._pending = (reason, plan_id, time.monotonic()), False
