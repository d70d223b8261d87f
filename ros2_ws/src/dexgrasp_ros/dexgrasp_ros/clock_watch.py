"""Says when a node runs on simulated time that nobody publishes, or no longer, or two nodes at once."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ROSClock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile

from dexgrasp_ros.message_conversions import OK, WARN, diagnostic, diagnostics_message

CLOCK_TOPIC = "/clock"
CHECK_S = 1.0
"""Period of the check in wall time [s]."""
PATIENCE = 2
"""Number of checks without a new time after which it is said."""
ADVICE = "start the simulation, play the bag with --clock, or set use_sim_time:=false"
NO_CLOCK = f"use_sim_time is set and no /clock is heard: {ADVICE}"
CLOCK_STOPPED = f"use_sim_time is set and /clock does not advance any more: {ADVICE}"


def clock_missing(node: Node) -> str:
    """Return that simulated time is set and was never heard, or has two publishers; else an empty text."""
    clock = node.get_clock()
    assert isinstance(clock, ROSClock)
    if not clock.ros_time_is_active:
        return ""
    return NO_CLOCK if not clock.now().nanoseconds else _two_clocks(node)


def _two_clocks(node: Node) -> str:
    count = node.count_publishers(node.resolve_topic_name(CLOCK_TOPIC))
    return f"{count} nodes publish {CLOCK_TOPIC}: stop all but one" if count > 1 else ""


class ClockAge:
    """Tells a clock that stands still from a process that did not run: only time in which it ran counts."""

    def __init__(self, period_s: float) -> None:
        """`period_s`: of the calls of `look` [s]."""
        self._period_s, self._looked_s, self._clock_ns = period_s, np.inf, -1
        self.still_s = 0.0
        """Time for which the clock has stood still while this process ran [s]."""

    def look(self, now_s: float, clock_ns: int) -> None:
        """Compare the clock [ns] with the last look; `now_s`: monotonic time [s]."""
        ran_s = min(max(now_s - self._looked_s, 0.0), 2 * self._period_s)
        self.still_s = self.still_s + ran_s if clock_ns == self._clock_ns else 0.0
        self._looked_s, self._clock_ns = now_s, clock_ns


class ClockWatch:
    """Logs once that simulated time is missing, and repeats it on /diagnostics until it advances."""

    def __init__(self, node: Node) -> None:
        self._node, self._last_ns, self._checks, self._reason = node, -1, 0, ""
        self._topic: Publisher | None = None
        self._timer = node.create_timer(CHECK_S, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _check(self) -> None:
        clock = self._node.get_clock()
        assert isinstance(clock, ROSClock)
        now_ns = clock.now().nanoseconds
        stands = clock.ros_time_is_active and now_ns in (0, self._last_ns)
        self._last_ns, self._checks = now_ns, self._checks + 1 if stands else 0
        before, self._reason = self._reason, ""
        if self._checks >= PATIENCE:
            self._reason = CLOCK_STOPPED if now_ns else NO_CLOCK
        elif clock.ros_time_is_active:
            self._reason = _two_clocks(self._node)
        if self._reason and self._reason != before:
            self._node.get_logger().warning(self._reason)
        if self._reason or before:
            self._report(now_ns * 1e-9)

    def _report(self, now_s: float) -> None:
        if self._topic is None:
            self._topic = self._node.create_publisher(DiagnosticArray, "diagnostics", QoSProfile(depth=10))
        name, text = f"{self._node.get_name()}: clock", self._reason or "simulated time advances"
        status = diagnostic(name, WARN if self._reason else OK, text)
        self._topic.publish(diagnostics_message([status], now_s))
