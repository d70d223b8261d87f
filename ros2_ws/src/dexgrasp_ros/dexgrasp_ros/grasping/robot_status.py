"""Checks that the drivers execute commands of this node alone: states, controllers, publishers."""

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future

from dexgrasp_ros.drivers.config import AdapterError, StatusCfg
from dexgrasp_ros.drivers.plugins import CommandWriter

LIST_CONTROLLERS = "controller_manager/list_controllers"
ASK_S, ANSWER_S = 0.5, 3.0
"""Period of the questions to the controller manager, and age up to which an answer counts [s]."""


class RobotStatus:
    """Watches states of the drivers, their controllers and the command topics until `destroy`."""

    def __init__(self, node: Node, states: Sequence["WatchedState"], writers: Mapping[str, CommandWriter]) -> None:
        """`writers`: of the commands, by topic or name of the action."""
        self._writers = writers
        self._states = [_StateTopic(node, state) for state in states]
        self._controllers = Controllers(node)

    def not_ready(self) -> str:
        """Return why the drivers would not execute commands of this node alone, or an empty text."""
        reasons = [state.not_ready() for state in self._states]
        reasons += [writer.not_ready() for writer in self._writers.values()]
        return next(filter(None, reasons), "") or self._controllers.not_ready(list(self._writers))

    def destroy(self) -> None:
        """Unsubscribe."""
        for state in self._states:
            state.destroy()
        self._controllers.destroy()


@dataclass(frozen=True)
class WatchedState:
    """One state of a driver and the Python type of its messages."""

    name: str
    cfg: StatusCfg
    message: Any


def watched_states(statuses: Mapping[str, StatusCfg]) -> list[WatchedState]:
    """Return the states of a driver description. Raises AdapterError for messages that are not installed."""
    found = []
    for name, cfg in statuses.items():
        package, _, kind = cfg.type.split("/")
        try:
            message = getattr(importlib.import_module(f"{package}.msg"), kind)
        except (ImportError, AttributeError) as error:
            raise AdapterError(f"status.{name}: {cfg.type} is not installed ({error}): install {package}") from error
        if cfg.field not in message.get_fields_and_field_types():
            raise AdapterError(f"status.{name}: {cfg.type} has no field '{cfg.field}'")
        found.append(WatchedState(name, cfg, message))
    return found


class _StateTopic:
    """Newest value of one state."""

    def __init__(self, node: Node, state: WatchedState) -> None:
        self._node, self._name, self._cfg = node, state.name, state.cfg
        self._value: Any = None
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [  # the second one also receives from publishers that are not latched
            node.create_subscription(state.message, state.cfg.topic, self._on_message, qos)
            for qos in (latched, QoSProfile(depth=10))
        ]

    def not_ready(self) -> str:
        """Return that the value is none of those that are ready, or an empty text."""
        topic, ready = self._cfg.topic, ", ".join(map(str, self._cfg.ready))
        if not self._node.count_publishers(topic):
            return f"{self._name} is not known: nobody publishes {topic}"
        if self._value is None:
            return f"{self._name} is not known: nothing was received on {topic}"
        known = any(type(self._value) is type(it) and self._value == it for it in self._cfg.ready)  # True is not 1
        return "" if known else f"{self._name} is {self._value} on {topic}; the robot moves with {ready}"

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_message(self, message: Any) -> None:
        self._value = getattr(message, self._cfg.field)


class Controllers:
    """States of the controllers of a controller manager, where one runs and its messages are installed."""

    def __init__(self, node: Node) -> None:
        self._node, self._group = node, ReentrantCallbackGroup()
        self._states: dict[str, str] | None = None
        self._heard_s = -ANSWER_S
        self._type = kind = service_type()
        self._client = kind and node.create_client(kind, LIST_CONTROLLERS, callback_group=self._group)
        self._timer = node.create_timer(
            ASK_S, self._ask, callback_group=self._group, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def not_ready(self, topics: Sequence[str]) -> str:
        """Return which controller of a command topic is not active, or an empty text.

        The last but one part of the topic is the name of the controller; topics of other drivers are not judged.
        """
        if self._client is None or not self._client.service_is_ready():
            return ""
        if time.monotonic() - self._heard_s > ANSWER_S:
            return f"{LIST_CONTROLLERS} does not answer"
        for topic in topics:
            name = topic.split("/")[-2] if topic.count("/") > 1 else ""
            state = (self._states or {}).get(name, "active")
            if state != "active":
                return f"controller {name} is {state}: activate it with /controller_manager/switch_controller"
        return ""

    def destroy(self) -> None:
        """Destroy client and timer."""
        self._node.destroy_timer(self._timer)
        if self._client is not None:
            self._node.destroy_client(self._client)

    def _ask(self) -> None:
        if self._client is None or not self._client.service_is_ready():
            return
        self._client.call_async(self._type.Request()).add_done_callback(self._take)

    def _take(self, answer: Future) -> None:
        response = answer.result()
        if response is not None:
            self._states, self._heard_s = controller_states(response), time.monotonic()


def service_type() -> Any:
    """Return the type of list_controllers; None where controller_manager_msgs is not installed."""
    try:
        return importlib.import_module("controller_manager_msgs.srv").ListControllers
    except (ImportError, AttributeError):
        return None


def controller_states(response: Any) -> dict[str, str]:
    """Return the state of each controller by name."""
    return {controller.name: controller.state for controller in response.controller}
