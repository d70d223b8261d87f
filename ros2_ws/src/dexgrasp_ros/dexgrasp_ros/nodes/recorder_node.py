"""Node that records topics into a bag (MCAP), which can be read without ROS.

Messages are stored as received, but for depth images: of those the pixels are kept that perception uses, others are
holes. Times in the bag are arrival times by the clock of this machine. After a kill the .mcap
file can be read up to about its last second; metadata.yaml, which tools want beside it, is written when the node stops.
"""

import importlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

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
from rosbags.typesys import Stores, get_typestore

from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp_ros import message_conversions
from dexgrasp_ros.node_process import run
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.recording.bag_writer import IMAGE, BagWriter, thinned

DISCOVERY_S = 0.25
"""Period of the search for new topics [s]."""
REPORT_S = 1.0
"""Period of saving and of diagnostics [s]."""
DEPTH, LATCHED_DEPTH = 100, 1000
"""Queue length of the subscriptions, and of those that receive what was sent before them."""
NO_LIMIT = QosTime(0, 0)


@dataclass(frozen=True)
@bounded
class RecorderCfg:
    """Parameters of the recorder node."""

    folder: str = ""
    """Folder of the bag, which must not exist; empty: bags/grasp_DATE_TIME in the working directory."""
    topics: tuple[str, ...] = (".*",)
    """Regular expressions of topics to record; one must match the whole name."""
    exclude: tuple[str, ...] = ("/parameter_events", "/rosout", ".*/transition_event", ".*/record/.*")
    """Regular expressions of topics not to record."""
    depth_stride: Annotated[int, Bounds(1, 32)] = 2
    """Depth is kept in every so many-th row and column: those that perception uses (`segment.stride`); 1: all."""

    def __post_init__(self) -> None:
        for pattern in (*self.topics, *self.exclude):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"topics and exclude must be regular expressions; '{pattern}' is invalid: {error}"
                ) from error

    def wants(self, topic: str) -> bool:
        """Return whether a topic is recorded."""
        wanted, unwanted = (any(re.fullmatch(p, topic) for p in patterns) for patterns in (self.topics, self.exclude))
        return wanted and not unwanted


class RecorderNode(Node):
    """Subscribes to all matching topics with the quality of service of their publishers, and writes them."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("record", context=context, **options)
        self.cfg = declare(self, RecorderCfg)
        self.folder = Path(self.cfg.folder or datetime.now().strftime("bags/grasp_%Y%m%d_%H%M%S")).resolve()
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} exists: give a folder that does not exist")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._bag = BagWriter(self.folder)
        self._bag.open()
        self.counts: dict[str, int] = {}
        """Number of written messages by topic."""
        self._skipped: set[str] = set()
        self._closed = False
        self._report = self.create_publisher(DiagnosticArray, "diagnostics", QoSProfile(depth=10))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DISCOVERY_S, self._discover, clock=steady)
        self.create_timer(REPORT_S, self._save_and_report, clock=steady)
        self.get_logger().info(f"recording to {self.folder}")

    def close(self) -> None:
        """Complete the bag; may be called again."""
        if not self._closed:
            self._closed = True
            self._bag.close()
            self.get_logger().info(f"{self._total()} in {self.folder}")

    def _discover(self) -> None:
        """Subscribe to new topics."""
        for topic, kinds in self.get_topic_names_and_types():
            if topic in self.counts or topic in self._skipped or not self.cfg.wants(topic):
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if publishers:
                self._record(topic, kinds, publishers)

    def _record(self, topic: str, kinds: Sequence[str], publishers: Sequence[TopicEndpointInfo]) -> None:
        kind = message_type(kinds[0]) if len(kinds) == 1 and kinds[0] in self._types.fielddefs else None
        if kind is None:
            self._skipped.add(topic)
            self.get_logger().warning(f"{topic} is not recorded: type {' and '.join(kinds)} is not installed")
            return
        qos = compatible_qos(publishers)
        connection = self._bag.add_connection(
            topic, kinds[0], typestore=self._types, offered_qos_profiles=[bag_qos(qos)]
        )
        self.counts[topic] = 0
        self.create_subscription(kind, topic, self._writer(topic, connection), qos, raw=True)

    def _writer(self, topic: str, connection: Connection) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            if not self._closed:
                arrived_ns = time.time_ns()
                stride = self.cfg.depth_stride if connection.msgtype == IMAGE else 1
                kept = data if stride == 1 else thinned(data, stride, self._types)
                self._bag.write(connection, arrived_ns, kept)
                self.counts[topic] += 1

        return write

    def _save_and_report(self) -> None:
        """Save what was recorded and report it."""
        if not self._closed:
            self._bag.save()
        level = message_conversions.WARN if self._skipped else message_conversions.OK
        status = message_conversions.diagnostic(
            "record", level, self._total(), {**self.counts, "not recorded": sorted(self._skipped)}
        )
        self._report.publish(message_conversions.diagnostics_message([status], time.time()))

    def _total(self) -> str:
        return f"{sum(self.counts.values())} messages of {len(self.counts)} topics"


def message_type(name: str) -> type | None:
    """Return the class of "package/msg/Name", or None where the package is not installed."""
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind, None)
    except ImportError:
        return None


def compatible_qos(publishers: Sequence[TopicEndpointInfo]) -> QoSProfile:
    """Return a profile that receives from all publishers: reliable and latched only where all are."""
    reliable = all(item.qos_profile.reliability == ReliabilityPolicy.RELIABLE for item in publishers)
    latched = all(item.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for item in publishers)
    return QoSProfile(
        depth=LATCHED_DEPTH if latched else DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def bag_qos(qos: QoSProfile) -> Qos:
    """Return a profile in the form of rosbags."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=qos.depth,
        reliability=QosReliability[qos.reliability.name],
        durability=QosDurability[qos.durability.name],
        deadline=NO_LIMIT,
        lifespan=NO_LIMIT,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=NO_LIMIT,
        avoid_ros_namespace_conventions=False,
    )


def main() -> int:
    """Run the node until a signal; return the exit code."""
    return run(RecorderNode)


if __name__ == "__main__":
    raise SystemExit(main())
