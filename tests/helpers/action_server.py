"""A stand-in for a trajectory or gripper controller: an action server in which a goal replaces the one before."""

import contextlib
import threading
import time

import rclpy
from rclpy._rclpy_pybind11 import GoalEvent
from rclpy.action.server import ActionServer, GoalResponse
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future


class Controller:
    """An action server with a thread and a context of its own. Its attributes may be changed between goals."""

    def __init__(self, kind, name, domain):
        self.kind = kind
        self.accept, self.replaces, self.answer_s, self.duration_s = True, True, 0.0, 0.1
        """Whether it accepts goals, whether a goal replaces the one before, time to answer, time that a goal takes."""
        self.ends, self.replaced_as, self.code, self.stalled = "succeed", "canceled", 0, False
        """How goals end, how replaced ones do, error code, whether a gripper stalls."""
        self.goals, self.times, self.ended, self.running, self.most_running = [], [], [], {}, 0
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = Node("controller", context=self._context)
        self._server = ActionServer(self.node, kind, name, self._execute, goal_callback=self._answer, result_timeout=10)
        self.node.create_timer(0.005, self._end_those_that_are_due)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        with contextlib.suppress(ExternalShutdownException):
            while not self._closing.is_set():
                self._executor.spin_once(timeout_sec=0.05)
            for _ in range(20):  # goals that have just come are begun: Python warns of coroutines that never were
                self._executor.spin_once(timeout_sec=0.0)

    def _answer(self, goal):
        time.sleep(self.answer_s)
        self.times.append(time.monotonic())
        self.goals.append(goal)
        return GoalResponse.ACCEPT if self.accept else GoalResponse.REJECT

    def _end_those_that_are_due(self):
        for end, (due_s, _) in list(self.running.items()):
            if time.monotonic() > due_s and not end.done():
                end.set_result(self.ends)

    async def _execute(self, handle):
        if self.replaces:
            for other in list(self.running):
                if not other.done():
                    other.set_result(self.replaced_as)
        end = Future(executor=self._executor)
        self.running[end] = time.monotonic() + self.duration_s, handle
        self.most_running = max(self.most_running, sum(not item.done() for item in self.running))
        how = await end
        del self.running[end]
        if how == "canceled":
            handle._update_state(GoalEvent.CANCEL_GOAL)
        getattr(handle, how)()
        self.ended.append(how)
        result = self.kind.Result()
        if hasattr(result, "error_code"):
            result.error_code = self.code
            result.error_string = "the path left its tolerance" if self.code else ""
        else:
            result.stalled = self.stalled
        return result

    def close(self):
        """Ends the server and its thread."""
        self._closing.set()
        self._thread.join(2.0)  # first: an executor that is shut down in a callback raises there
        self._executor.shutdown(timeout_sec=1.0)
        self._server.destroy()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
