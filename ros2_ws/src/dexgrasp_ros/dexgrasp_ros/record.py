"""Records every topic as it comes into a bag (MCAP) that is read without ROS: inputs, outputs, states.

Messages stay as they were on the wire. Times in the bag are those of arrival by this machine's clock; the messages' own
stamps are in the messages. The bag is complete once the node has been stopped, not killed.
"""

import importlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from dexgrasp_ros import messages
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.process import run

LOOK_S = 0.25
"""How often new topics are looked for."""
REPORT_S = 1.0
DEPTH = 100
NO_LIMIT = QosTime(0, 0)


@dataclass(frozen=True)
class RecorderCfg:
    """What is recorded."""

    folder: str = ""
    """Folder of the bag, which must not exist; empty: bags/grasp_DATE_TIME below the working directory."""
    topics: tuple[str, ...] = (".*",)
    """Regular expressions: a topic is recorded if one of them matches its whole name."""
    exclude: tuple[str, ...] = ("/parameter_events", "/rosout", ".*/transition_event", "/record/.*")
    """Regular expressions of topics that are not."""

    def __post_init__(self) -> None:
        for pattern in (*self.topics, *self.exclude):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"topics and exclude are regular expressions; '{pattern}' is none: {error}") from error

    def wants(self, topic: str) -> bool:
        """Whether a topic is recorded."""
        wanted, unwanted = (any(re.fullmatch(p, topic) for p in patterns) for patterns in (self.topics, self.exclude))
        return wanted and not unwanted


class RecorderNode(Node):
    """Subscribes to what is published, with the publishers' own quality of service."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("record", context=context, **options)
        self.cfg = declare(self, RecorderCfg)
        self.folder = Path(self.cfg.folder or datetime.now().strftime("bags/grasp_%Y%m%d_%H%M%S")).resolve()
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} exists: name another folder")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._bag = Writer(self.folder, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
        self._bag.open()
        self.counts: dict[str, int] = {}
        """Messages written, by topic."""
        self._skipped: set[str] = set()
        self._closed = False
        self._report = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(LOOK_S, self._look, clock=steady)
        self.create_timer(REPORT_S, self._diagnose, clock=steady)
        self.get_logger().info(f"recording to {self.folder}")

    def close(self) -> None:
        """Completes the bag; twice does no harm."""
        if not self._closed:
            self._closed = True
            self._bag.close()
            self.get_logger().info(f"{self._total()} in {self.folder}")

    def _look(self) -> None:
        """Subscribes to topics that are new."""
        for topic, kinds in self.get_topic_names_and_types():
            if topic in self.counts or topic in self._skipped or not self.cfg.wants(topic):
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if publishers:
                self._follow(topic, kinds, publishers)

    def _follow(self, topic: str, kinds: Sequence[str], publishers: Sequence[TopicEndpointInfo]) -> None:
        kind = message_type(kinds[0]) if len(kinds) == 1 and kinds[0] in self._types.fielddefs else None
        if kind is None:
            self._skipped.add(topic)
            self.get_logger().warning(f"{topic} is not recorded: type {' and '.join(kinds)} is not known here")
            return
        qos = matching(publishers)
        connection = self._bag.add_connection(
            topic, kinds[0], typestore=self._types, offered_qos_profiles=[stored(qos)]
        )
        self.counts[topic] = 0
        self.create_subscription(kind, topic, self._writer(topic, connection), qos, raw=True)

    def _writer(self, topic: str, connection: Connection) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            if not self._closed:
                self._bag.write(connection, time.time_ns(), data)
                self.counts[topic] += 1

        return write

    def _diagnose(self) -> None:
        level = messages.WARN if self._skipped else messages.OK
        status = messages.diagnostic(
            "record", level, self._total(), {**self.counts, "not recorded": sorted(self._skipped)}
        )
        self._report.publish(messages.diagnostics_message([status], time.time()))

    def _total(self) -> str:
        return f"{sum(self.counts.values())} messages of {len(self.counts)} topics"


def message_type(name: str) -> type | None:
    """The class of "package/msg/Name"; None where the package is not installed."""
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind, None)
    except ImportError:
        return None


def matching(publishers: Sequence[TopicEndpointInfo]) -> QoSProfile:
    """What receives from all of them: reliable and latched only where all are."""
    reliable = all(item.qos_profile.reliability == ReliabilityPolicy.RELIABLE for item in publishers)
    latched = all(item.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for item in publishers)
    return QoSProfile(
        depth=DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def stored(qos: QoSProfile) -> Qos:
    """A profile as a bag holds it, for players."""
    return Qos(
        QosHistory.KEEP_LAST,
        qos.depth,
        QosReliability[qos.reliability.name],
        QosDurability[qos.durability.name],
        NO_LIMIT,
        NO_LIMIT,
        QosLiveliness.AUTOMATIC,
        NO_LIMIT,
        False,
    )


def main() -> int:
    """Runs the node."""
    return run(RecorderNode)


if __name__ == "__main__":
    raise SystemExit(main())
