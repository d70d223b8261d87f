"""One node as one process that ends safely.

rclpy's own signal handlers invalidate the context at once, and the last command that a stopping node publishes is lost.
Here a signal only asks; the node publishes what makes the robot hold, then everything is taken down.
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

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SPIN_S = 0.05
"""Longest time until a signal is seen."""
ACKNOWLEDGED_S = 0.5
"""How long a stopping node waits until its last messages have arrived."""
STOPPED, FAILED, REFUSED = 0, 1, 2
"""Exit codes: stopped by a signal; an error while running; the node could not be made as it was asked to be."""


UNREGISTERED = "Transition is not registered"
"""rclpy raises this out of the executor where a client asks for a transition at the wrong time; no reason to end."""


class Closes(Protocol):
    """A node that leaves the robot safe: `close` publishes what it must and waits for it; twice does no harm."""

    def close(self) -> None:
        """Called once before the node is destroyed, while the context is still valid."""
        ...


def run(make_node: Callable[[], Closes], args: Sequence[str] | None = None) -> int:
    """Spins the node until SIGINT or SIGTERM; closes it in any case. Returns the exit code of the process."""
    stop = threading.Event()
    with _handlers(stop):
        rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
        try:
            return _live(make_node, stop)
        finally:
            try_shutdown()


class Ends(Closes, Protocol):
    """A node that has something to do and is done with it."""

    finished: bool
    failure: str
    """Why it did not succeed, or nothing."""

    def create_timer(self, timer_period_sec: float, callback: Callable[[], None]) -> Any:
        """Of rclpy's Node."""
        ...


def run_to_end(make_node: Callable[[], Ends]) -> int:
    """As `run`, until the node is finished; 0 if it succeeded."""
    made: list[Ends] = []

    def make() -> Ends:
        node = make_node()
        made.append(node)
        node.create_timer(0.1, lambda: signal.raise_signal(signal.SIGINT) if node.finished else None)
        return node

    return run(make) or int(bool(made[0].failure))


def acknowledged(publishers: Sequence[Publisher], timeout_s: float = ACKNOWLEDGED_S) -> bool:
    """Whether all that was published has arrived with reliable subscribers within the time."""
    arrived = [publisher.wait_for_all_acked(Duration(seconds=timeout_s)) for publisher in publishers]
    return all(arrived)


def _live(make_node: Callable[[], Closes], stop: threading.Event) -> int:
    try:
        node = make_node()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"cannot start: {error}", file=sys.stderr, flush=True)
        return REFUSED
    code = FAILED
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
                node.get_logger().error("a change of the life cycle was asked for that its state does not allow")
    except ExternalShutdownException:
        return STOPPED
    except Exception:  # whatever a callback raised: say it, then leave the robot safe
        traceback.print_exc()
        return FAILED
    finally:
        executor.remove_node(node)
        executor.shutdown(timeout_sec=0.0)
    return STOPPED


def _close(node: Closes) -> int:
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
    """SIGINT and SIGTERM set `stop`, however often they come: a launch and a terminal may both send them."""

    def ask(*_: Any) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
