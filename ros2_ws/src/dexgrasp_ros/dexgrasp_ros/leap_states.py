"""Joint states of a LEAP hand: the maker's node tells positions to those who ask; this one asks and publishes.

python -m dexgrasp_ros.leap_states            needs the maker's package leap_hand, for the type of its service
"""

import importlib
from dataclasses import dataclass
from typing import Any

from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import JointState

from dexgrasp_ros import messages
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.process import run


@dataclass(frozen=True)
class LeapStateCfg:
    """What is asked and where it is published."""

    service: str = "/leap_position"
    """Service of the maker's node."""
    service_type: str = "leap_hand/srv/LeapPosition"
    """Its type."""
    field: str = "position"
    """Numbers in the answer, one per motor."""
    topic: str = "/leap/joint_states"
    """JointState; names are the numbers of the motors."""
    motors: int = 16
    """How many."""
    rate_hz: float = 60.0
    """Questions per second; the maker advises less than 90."""
    timeout_s: float = 0.5
    """A question without an answer is asked again after so long."""

    def __post_init__(self) -> None:
        if self.service_type.count("/") != 2:
            raise ValueError(f"service_type is package/srv/Name, got '{self.service_type}'")
        if not (0 < self.rate_hz <= 90 and self.timeout_s > 0 and self.motors > 0):
            raise ValueError("rate_hz lies within 0 and 90; timeout_s and motors are positive")


class LeapStateNode(Node):
    """One question at a time; the stamp is that of the question, so that no reading looks newer than it is."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("leap_states", context=context, **options)
        self._cfg = cfg = declare(self, LeapStateCfg)
        self._type = _service_type(cfg.service_type)
        self._client = self.create_client(self._type, cfg.service)
        self._states = self.create_publisher(JointState, cfg.topic, QoSProfile(depth=1))
        self._asked_s, self._pending = 0.0, None
        self.create_timer(1.0 / cfg.rate_hz, self._ask)

    def close(self) -> None:
        """Nothing to leave behind."""

    def _ask(self) -> None:
        now_s = self.get_clock().now().nanoseconds * 1e-9
        if self._pending is not None:
            if now_s - self._asked_s < self._cfg.timeout_s:
                return
            self._client.remove_pending_request(self._pending)
            self.get_logger().warning(f"{self._cfg.service} does not answer", throttle_duration_sec=5.0)
        self._pending = None
        if not self._client.service_is_ready():
            self.get_logger().warning(f"no service {self._cfg.service}", throttle_duration_sec=5.0)
            return
        self._asked_s, self._pending = now_s, self._client.call_async(self._type.Request())
        self._pending.add_done_callback(self._answered)

    def _answered(self, future: Future) -> None:
        if future is not self._pending:
            return
        self._pending = None
        values = [float(value) for value in getattr(future.result(), self._cfg.field)]
        if len(values) != self._cfg.motors:
            text = f"{self._cfg.service} told {len(values)} positions, expected {self._cfg.motors}"
            self.get_logger().error(text, throttle_duration_sec=1.0)
            return
        names = [str(number) for number in range(self._cfg.motors)]
        self._states.publish(messages.joint_message(names, values, self._asked_s))


def _service_type(name: str) -> Any:
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.srv"), kind)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"service_type {name}: {error}. Build and source the maker's package first") from error


def main() -> int:
    """Runs the node."""
    return run(LeapStateNode)


if __name__ == "__main__":
    raise SystemExit(main())
