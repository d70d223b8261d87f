"""Node that polls the position service of a LEAP hand and publishes joint states.

ros2 run dexgrasp_ros leap_state_node        needs the manufacturer's package leap_hand, for its service type
"""

import importlib
from dataclasses import dataclass
from typing import Annotated, Any

from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import JointState

from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp_ros import message_conversions
from dexgrasp_ros.node_process import run
from dexgrasp_ros.parameters import declare


@dataclass(frozen=True)
@bounded
class LeapStateCfg:
    """Parameters of the LEAP state node."""

    service: str = "leap_position"
    """Position service of the manufacturer's node."""
    service_type: str = "leap_hand/srv/LeapPosition"
    """Type of the service."""
    field: str = "position"
    """Field of the response with one position per motor."""
    topic: str = "leap/joint_states"
    """Topic of the joint states; joint names are motor numbers."""
    motors: Annotated[int, Bounds(1, 1000)] = 16
    """Number of motors."""
    rate_hz: Annotated[float, Bounds(0.1, 90)] = 60.0
    """Rate of the service calls; the manufacturer advises less than 90 [Hz]."""
    timeout_s: Annotated[float, Bounds(0.001, 60)] = 0.5
    """Time after which a call without response is repeated [s]."""

    def __post_init__(self) -> None:
        if self.service_type.count("/") != 2:
            raise ValueError(f"service_type must have the form package/srv/Name, got '{self.service_type}'")


class LeapStateNode(Node):
    """Calls the service, one call at a time, and publishes the response with the stamp of the call."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("leap_states", context=context, **options)
        self._cfg = cfg = declare(self, LeapStateCfg)
        self._type = _service_type(cfg.service_type)
        self._client = self.create_client(self._type, cfg.service)
        self._states = self.create_publisher(JointState, cfg.topic, QoSProfile(depth=1))
        self._call_s, self._pending = 0.0, None
        self.create_timer(1.0 / cfg.rate_hz, self._call_service)

    def close(self) -> None:
        """Do nothing: the node commands no motion."""

    def _call_service(self) -> None:
        now_s = self.get_clock().now().nanoseconds * 1e-9
        if self._pending is not None:
            if now_s - self._call_s < self._cfg.timeout_s:
                return
            self._client.remove_pending_request(self._pending)
            self.get_logger().warning(f"{self._cfg.service} does not respond", throttle_duration_sec=5.0)
        self._pending = None
        if not self._client.service_is_ready():
            self.get_logger().warning(f"service {self._cfg.service} is not available", throttle_duration_sec=5.0)
            return
        self._call_s, self._pending = now_s, self._client.call_async(self._type.Request())
        self._pending.add_done_callback(self._on_response)

    def _on_response(self, future: Future) -> None:
        if future is not self._pending:
            return
        self._pending = None
        values = [float(value) for value in getattr(future.result(), self._cfg.field)]
        if len(values) != self._cfg.motors:
            text = f"{self._cfg.service} returned {len(values)} positions, expected {self._cfg.motors}"
            self.get_logger().error(text, throttle_duration_sec=1.0)
            return
        names = [str(number) for number in range(self._cfg.motors)]
        self._states.publish(message_conversions.joint_message(names, values, self._call_s))


def _service_type(name: str) -> Any:
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.srv"), kind)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"service_type {name}: {error}. Build and source the manufacturer's package first") from error


def main() -> int:
    """Run the node until a signal; return the exit code."""
    return run(LeapStateNode)


if __name__ == "__main__":
    raise SystemExit(main())
