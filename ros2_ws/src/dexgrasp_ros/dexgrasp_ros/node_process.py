"""Runs one node as one process that shuts down safely.

The signal handlers of rclpy invalidate the context at once, and the last command of a stopping node is lost. Here a
signal sets a flag; the node publishes the commands that hold the robot, then the context is shut down.
"""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from dexgrasp_ros.clock_watch import ClockWatch

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SPIN_S = 0.05
"""Longest time until a signal is handled [s]."""
ACKNOWLEDGED_S = 0.5
"""Time limit of a stopping node for the arrival of its last messages [s]."""
STOPPED, FAILED, REFUSED = 0, 1, 2
"""Exit codes: stopped by a signal; an error while running; the node could not be created with its parameters."""

UNREGISTERED = "Transition is not registered"
"""Text of the error that rclpy raises in the executor for an invalid transition request; the node continues."""


class ClosableNode(Protocol):
    """A node whose `close` holds the robot and waits for the commands; may be called again."""

    def close(self) -> None:
        """Hold the robot; called before the node is destroyed, while the context is valid."""
        ...


def run(make_node: Callable[[], ClosableNode], args: Sequence[str] | None = None) -> int:
    """Spin the node until SIGINT or SIGTERM and close it in any case; return the exit code."""
    stop = threading.Event()
    with _handlers(stop):
        rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
        try:
            return _create_and_spin(make_node, stop)
        finally:
            try_shutdown()


class FinishingNode(ClosableNode, Protocol):
    """A node that ends by itself once its task is finished."""

    finished: bool
    failure: str
    """Why the task failed; empty if it succeeded."""

    def create_timer(self, timer_period_sec: float, callback: Callable[[], None]) -> Any:
        """Create a timer, as rclpy's Node does."""
        ...


def run_until_finished(make_node: Callable[[], FinishingNode]) -> int:
    """Spin the node until it is finished or a signal arrives; return 0 if it succeeded."""
    made: list[FinishingNode] = []

    def make() -> FinishingNode:
        node = make_node()
        made.append(node)
        node.create_timer(0.1, lambda: signal.raise_signal(signal.SIGINT) if node.finished else None)
        return node

    return run(make) or int(bool(made[0].failure))


def acknowledged(publishers: Sequence[Publisher], timeout_s: float = ACKNOWLEDGED_S) -> bool:
    """Wait until reliable subscribers have received all messages; return whether they have."""
    arrived = [publisher.wait_for_all_acked(Duration(seconds=timeout_s)) for publisher in publishers]
    return all(arrived)


def _create_and_spin(make_node: Callable[[], ClosableNode], stop: threading.Event) -> int:
    try:
        node = make_node()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"cannot start: {error}", file=sys.stderr, flush=True)
        return REFUSED
    code = FAILED
    ClockWatch(cast(Node, node))  # its timer keeps it alive
    try:
        code = _spin(cast(Node, node), stop)
    finally:
        code = max(code, _close(node))
    return code


def _spin(node: Node, stop: threading.Event) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=SPIN_S)
            except RCLError as error:
                if UNREGISTERED not in str(error):
                    raise
                node.get_logger().error("a lifecycle transition was requested that the current state does not allow")
    except ExternalShutdownException:
        return STOPPED
    except Exception:  # any error of a callback: print it, then hold the robot
        traceback.print_exc()
        return FAILED
    finally:
        executor.remove_node(node)
        executor.shutdown(timeout_sec=0.0)
    return STOPPED


def _close(node: ClosableNode) -> int:
    code = STOPPED
    try:
        node.close()
    except Exception:
        traceback.print_exc()
        code = FAILED
    cast(Node, node).destroy_node()
    return code


@contextmanager
def _handlers(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set `stop`; repeated signals do no harm."""

    def request_stop(*_: Any) -> None:
        stop.set()

    before = {number: signal.signal(number, request_stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
