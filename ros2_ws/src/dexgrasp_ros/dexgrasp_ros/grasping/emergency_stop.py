"""Emergency stop with one level per publisher, latched until a reset finds all of them released.

Every true stops, however short it is: the queues are long, and a message that a publisher sent and that did not arrive
counts as a true. So do, where they are watched, a publisher that falls silent and one that leaves.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dexgrasp_ros.drivers.publishers import full_name
from dexgrasp_ros.grasping.attributed_subscription import AttributedSubscription, Publication

PRESSED = "emergency stop"
LOST = "emergency stop: messages of {topic} were lost, which may have said true"
LEFT_AFTER_S = 2.0
"""A publisher that the graph does not list has left if it was silent for this long: discovery takes time [s]."""
QUEUE = 1000
"""Messages kept: with the newest one alone, a short press would be lost while the node is busy."""


@dataclass
class _Source:
    """What one publisher said."""

    pressed: bool = False
    newest: int = -1
    """Sequence number of the newest message."""
    newest_true: int = -1
    heard_s: float = -np.inf


class EmergencyStop:
    """Levels of all publishers and the latch over them, without ROS."""

    def __init__(self, topic: str, publishers: Callable[[], Mapping[bytes, str]]) -> None:
        """`publishers`: returns the names of the nodes that publish now, by publisher."""
        self.latched, self.reason = False, ""
        """Whether the robot must stand still since the last reset, and why."""
        self.topic, self._publishers = topic, publishers
        """Topic, for messages to the operator."""
        self._sources: dict[bytes, _Source] = {}
        self._arrived: dict[tuple[str, bytes], int] = {}  # newest sequence number, by queue and publisher

    def update(self, queue: str, pressed: bool, publication: Publication, now_s: float) -> str:
        """Take a message that arrived in a queue; return why it stops the robot, or an empty text."""
        source = self._sources.setdefault(publication.publisher, _Source())
        number, reason = publication.sequence, ""
        if self._is_gap(queue, publication):
            reason = LOST.format(topic=self.topic)
        if pressed and (number is None or number > source.newest_true):  # the other queue may have been faster
            source.newest_true, reason = -1 if number is None else number, PRESSED
        if number is None or number > source.newest:
            source.newest, source.pressed = -1 if number is None else number, pressed
            source.heard_s = now_s
        if not pressed:
            self._forget_left(now_s)
        return self.stop(reason) if reason else ""

    def stop(self, reason: str) -> str:
        """Latch a stop; return the reason if it is the first one since the last reset."""
        if self.latched:
            return ""
        self.latched, self.reason = True, reason
        return reason

    def reset(self) -> str:
        """Clear the latch; return why not, or an empty text."""
        pressed = [gid for gid, source in self._sources.items() if source.pressed]
        if pressed:
            names = self._publishers()
            who = ", ".join(sorted(names.get(gid, "a publisher that has left") for gid in pressed))
            advice = "" if all(gid in names for gid in pressed) else f": publish false on {self.topic}"
            return f"the emergency stop is pressed by {who}{advice}"
        self.latched, self.reason = False, ""
        return ""

    def silent(self, now_s: float, timeout_s: float) -> str:
        """Return which publisher was not heard for longer than the timeout, or an empty text."""
        oldest = min(self._sources.items(), key=lambda item: item[1].heard_s, default=None)
        if oldest is None or now_s - oldest[1].heard_s <= timeout_s:
            return ""
        name = self._publishers().get(oldest[0], "a publisher that has left")
        return f"emergency stop: {self.topic} was not heard of {name} for {now_s - oldest[1].heard_s:.2f} s"

    def forget_absent(self) -> None:
        """Forget released publishers that the graph does not list."""
        names = self._publishers()
        self._sources = {gid: it for gid, it in self._sources.items() if gid in names or it.pressed}

    @property
    def heard(self) -> bool:
        """Whether any publisher was heard."""
        return bool(self._sources)

    def _is_gap(self, queue: str, publication: Publication) -> bool:
        """Return whether messages of the publisher between the last one in this queue and this one are missing."""
        number, key = publication.sequence, (queue, publication.publisher)
        if number is None:
            return False
        before, self._arrived[key] = self._arrived.get(key), number
        return before is not None and number > before + 1

    def _forget_left(self, now_s: float) -> None:
        """Forget the presses of publishers that have left: someone else says false now."""
        old = [gid for gid, it in self._sources.items() if it.pressed and now_s - it.heard_s > LEFT_AFTER_S]
        if old:
            names = self._publishers()
            self._sources = {gid: it for gid, it in self._sources.items() if gid not in old or gid in names}


class EmergencyStopTopic:
    """Subscribes to the topic of an emergency stop and watches its publishers until `destroy`."""

    def __init__(
        self, node: Node, topic: str, on_stop: Callable[[str], None], *, required: bool, timeout_s: float
    ) -> None:
        """`on_stop`: called from the callback of the message with the reason. `timeout_s` [s]: 0 = no heartbeat."""
        self.level = EmergencyStop(node.resolve_topic_name(topic), self._publishers)
        """Levels and latch."""
        self._node, self._topic, self._on_stop = node, topic, on_stop
        self._required, self._timeout_s = required, timeout_s
        self._count = 0  # publishers at the last look
        latched = QoSProfile(depth=QUEUE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._all, self._latched = (  # the second one receives what latched publishers said before
            AttributedSubscription(node, topic, qos, partial(self._on_message, queue))
            for queue, qos in (("all", QoSProfile(depth=QUEUE)), ("latched", latched))
        )

    def missing(self) -> str:
        """Return why the emergency stop cannot be relied on, where it is required; empty where it can."""
        self.drain()
        if self._required and not self._all.publishers:
            if self._best_effort():
                return f"the publishers of {self.level.topic} are best effort: publish the emergency stop reliably"
            return f"nobody publishes on {self.level.topic}: start the emergency stop, or set require_estop:=false"
        if not self._timeout_s:
            return ""
        self.level.forget_absent()
        if self._required and not self.level.heard:
            return f"nothing was heard on {self.level.topic}: estop_timeout_s demands a heartbeat"
        return self.level.silent(time.monotonic(), self._timeout_s)

    def start(self) -> None:
        """Start to watch the publishers that there are now."""
        self._count = self._all.publishers

    def check(self) -> None:
        """Stop where a publisher has fallen silent or left; called repeatedly while commands are sent."""
        self.drain()
        before, self._count = self._count, self._all.publishers
        reason = self.level.silent(time.monotonic(), self._timeout_s) if self._timeout_s else ""
        if not reason and self._required and self._count < before:
            reason = f"emergency stop: a publisher of {self.level.topic} has left, {self._count} remain"
        if reason and (first := self.level.stop(reason)):
            self._on_stop(first)

    def drain(self) -> None:
        """Take all messages that have arrived."""
        self._all.drain()
        self._latched.drain()

    def destroy(self) -> None:
        """Unsubscribe."""
        self._all.destroy()
        self._latched.destroy()

    def _on_message(self, queue: str, pressed: bool, publication: Publication) -> None:
        if reason := self.level.update(queue, pressed, publication, time.monotonic()):
            self._on_stop(reason)

    def _publishers(self) -> dict[bytes, str]:
        found = self._node.get_publishers_info_by_topic(self._topic)
        return {bytes(it.endpoint_gid): f"node {full_name(it)}" for it in found}

    def _best_effort(self) -> bool:
        found = self._node.get_publishers_info_by_topic(self._topic)
        return any(it.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for it in found)
