"""Subscription to Bool messages with the publisher of each message, which rclpy does not tell.

The messages are taken with `rcl_take` of the C library that rclpy has loaded, because the message info of rclpy (Jazzy)
holds the time stamps and the sequence number only.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.waitable import NumberOfEntities, Waitable
from std_msgs.msg import Bool

GID_BYTES = 16
UNKNOWN_SEQUENCE = 2**64 - 1
"""Sequence number that a middleware without sequence numbers reports."""
RCL_OK, RCL_TAKE_FAILED = 0, 401


@dataclass(frozen=True)
class Publication:
    """Origin of one message."""

    publisher: bytes
    """Identifier of the publisher (GID), as in `Node.get_publishers_info_by_topic`."""
    sequence: int | None
    """Number of the message among those of its publisher; None where the middleware does not count them."""


class _Gid(ctypes.Structure):
    _fields_ = (("implementation", ctypes.c_void_p), ("data", ctypes.c_uint8 * GID_BYTES))


class _MessageInfo(ctypes.Structure):
    """rmw_message_info_t, with spare bytes for members that later releases append."""

    _fields_ = (
        ("source_timestamp", ctypes.c_int64),
        ("received_timestamp", ctypes.c_int64),
        ("publication_sequence_number", ctypes.c_uint64),
        ("reception_sequence_number", ctypes.c_uint64),
        ("publisher_gid", _Gid),
        ("spare", ctypes.c_uint8 * 64),
    )


class _NotByExecutor(CallbackGroup):
    """Group whose entities no executor takes messages from."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        """Do nothing."""


class AttributedSubscription(Waitable):
    """Calls back with each value and its publication, in the order of arrival."""

    def __init__(self, node: Node, topic: str, qos: QoSProfile, callback: Callable[[bool, Publication], None]) -> None:
        super().__init__(node.default_callback_group)
        self._node, self._callback, self._index = node, callback, None
        self._subscription = node.create_subscription(Bool, topic, lambda _: None, qos, callback_group=_NotByExecutor())
        self._take = ctypes.CDLL(rclpy_implementation.__file__).rcl_take  # found among the libraries it is linked to
        self._take.argtypes, self._take.restype = (ctypes.c_void_p,) * 4, ctypes.c_int
        node.add_waitable(self)

    @property
    def publishers(self) -> int:
        """Number of publishers whose messages arrive here."""
        return self._subscription.get_publisher_count()

    def drain(self) -> None:
        """Call back for all messages that have arrived."""
        while (found := self._next()) is not None:
            self._callback(*found)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.remove_waitable(self)
        self._node.destroy_subscription(self._subscription)

    def get_num_entities(self) -> NumberOfEntities:
        """Return the entities that the executor waits for: one subscription."""
        return NumberOfEntities(num_subs=1)

    def add_to_wait_set(self, wait_set: Any) -> None:
        """Let the executor wait for a message."""
        with self._subscription.handle:
            self._index = wait_set.add_subscription(self._subscription.handle)

    def is_ready(self, wait_set: Any) -> bool:
        """Return whether a message has arrived."""
        return self._index is not None and wait_set.is_ready("subscription", self._index)

    def take_data(self) -> None:
        """Leave the messages to `execute`, which takes all of them."""

    async def execute(self, taken_data: None) -> None:
        """Call back for all messages that have arrived."""
        self.drain()

    def _next(self) -> tuple[bool, Publication] | None:
        """Take one message; None where none has arrived."""
        value, info = ctypes.c_bool(), _MessageInfo()  # std_msgs/Bool is one bool in C
        handle = self._subscription.handle
        with handle:
            code = self._take(handle.pointer, ctypes.addressof(value), ctypes.addressof(info), None)
        if code == RCL_TAKE_FAILED:
            return None
        if code != RCL_OK:
            raise RuntimeError(f"{self._subscription.topic_name}: rcl_take failed with code {code}")
        sequence = info.publication_sequence_number
        known = None if sequence == UNKNOWN_SEQUENCE else int(sequence)
        return bool(value.value), Publication(bytes(info.publisher_gid.data), known)
