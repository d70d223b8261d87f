"""Plugins of drivers for foreign messages and services: command writers and state readers.

A driver description names a plugin as an entry point of a group of this file, or as module:Class. It is code: use
plugins that you trust.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from importlib.metadata import entry_points
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rclpy.client import Client
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import JointState

from dexgrasp_ros.drivers.config import AdapterError, CommandCfg, StateCfg

Array = NDArray[np.float64]
Group = Literal["dexgrasp_ros.command_writers", "dexgrasp_ros.state_readers"]
WRITERS: Group = "dexgrasp_ros.command_writers"
READERS: Group = "dexgrasp_ros.state_readers"


class PluginHost:
    """Creates publishers, subscriptions, timers and clients of a plugin; keeps its first error."""

    def __init__(self, node: Node, name: str) -> None:
        """`name`: of the plugin, for its errors."""
        self.node, self.name = node, name
        """Node of the driver; name of the plugin."""
        self.failure = ""
        """First error of the plugin since `clear`, with its name; empty where there was none."""
        self._made: list[Callable[[], Any]] = []

    def publisher(self, kind: type, topic: str, qos: QoSProfile | int = 1) -> Publisher:
        """Create a publisher."""
        made = self.node.create_publisher(kind, topic, qos)
        self._made.append(lambda: self.node.destroy_publisher(made))
        return made

    def subscription(
        self, kind: type, topic: str, callback: Callable[[Any], Any], qos: QoSProfile | int = 10
    ) -> Subscription:
        """Create a subscription."""
        made = self.node.create_subscription(kind, topic, self.guard(callback), qos)
        self._made.append(lambda: self.node.destroy_subscription(made))
        return made

    def timer(self, period_s: float, callback: Callable[[], Any]) -> Timer:
        """Create a timer."""
        made = self.node.create_timer(period_s, self.guard(callback))
        self._made.append(lambda: self.node.destroy_timer(made))
        return made

    def client(self, kind: type, service: str) -> Client:
        """Create a client; give its futures callbacks in `guard`."""
        made = self.node.create_client(kind, service)
        self._made.append(lambda: self.node.destroy_client(made))
        return made

    def guard(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Return the callback with its errors kept in `failure` instead of raised."""

        @wraps(callback)
        def guarded(*args: Any) -> Any:
            try:
                return callback(*args)
            except Exception as error:  # of foreign code: the node must go on, to hold the robot
                self.fail(f"{type(error).__name__}: {error}")
                return None

        return guarded

    def fail(self, reason: str) -> None:
        """Keep a reason, unless an earlier one is kept."""
        self.failure = self.failure or f"{self.name}: {reason}"

    def destroy(self) -> None:
        """Destroy what was created; may be called again."""
        while self._made:
            self._made.pop()()


class CommandWriter(ABC):
    """Sends joint commands to a driver at once; what a call raises is a fault that holds the robot.

    A plugin has the arguments (host: PluginHost,
    command: CommandCfg) and takes publishers and clients from its host.
    """

    @abstractmethod
    def send(self, values: Array, period_s: float) -> None:
        """Send values (driver joint,) in the order of `command.joints`; the next come in `period_s`."""

    @abstractmethod
    def acknowledged(self, timeout_s: float) -> bool:
        """Wait until the last command has arrived; return whether it has. The node does not spin meanwhile."""

    def not_ready(self) -> str:
        """Return why the driver would not take a command, or an empty text."""
        return ""

    def failure(self) -> str:
        """Return why the driver did not execute a command since `clear`, or an empty text."""
        return ""

    def clear(self) -> None:  # noqa: B027 (most have nothing to forget)
        """Forget failures."""

    def destroy(self) -> None:  # noqa: B027 (most have nothing of their own)
        """Release what the host does not know of."""


class StateReader:
    """Makes joint states from foreign messages or services; a base class for plugins.

    `receive` takes a JointState with the driver's joint names and the time of the measurement.
    """

    def __init__(self, host: PluginHost, state: StateCfg, receive: Callable[[JointState], None]) -> None:
        self.host, self.state, self.receive = host, state, receive


def load_plugin(name: str, group: Group) -> Any:
    """Return the class that an entry point of a group or module:Class names. Raises AdapterError."""
    key = "command.plugin" if group == WRITERS else "state.plugin"
    try:
        if ":" in name:
            module, _, attribute = name.partition(":")
            return getattr(importlib.import_module(module), attribute)
        found = {item.name: item for item in entry_points(group=group)}
        if name in found:
            return found[name].load()
    except Exception as error:  # importing foreign code may raise anything
        raise AdapterError(f"{key}: {name} cannot be loaded: {type(error).__name__}: {error}") from error
    raise AdapterError(
        f"{key}: no entry point '{name}' in the group {group}; installed: {', '.join(sorted(found)) or 'none'}; or "
        "give module:Class"
    )


class PluginWriter(CommandWriter):
    """Calls a plugin and keeps its errors, with its name."""

    def __init__(self, node: Node, command: CommandCfg) -> None:
        """Raise AdapterError where the plugin cannot be created."""
        kind = load_plugin(command.plugin, WRITERS)
        self._host = PluginHost(node, f"command plugin {command.plugin}")
        try:
            self._plugin: CommandWriter = kind(self._host, command)
        except Exception as error:
            self._host.destroy()
            raise AdapterError(f"command.plugin: {command.plugin}: {type(error).__name__}: {error}") from error

    def send(self, values: Array, period_s: float) -> None:
        """Send driver values."""
        self._host.guard(self._plugin.send)(values, period_s)

    def acknowledged(self, timeout_s: float) -> bool:
        """Return whether the last command has arrived."""
        return bool(self._host.guard(self._plugin.acknowledged)(timeout_s))

    def not_ready(self) -> str:
        """Return why the driver would not take a command."""
        return self._text(self._plugin.not_ready)

    def failure(self) -> str:
        """Return the error of the plugin, or why the driver did not execute a command."""
        said = self._text(self._plugin.failure)
        return self._host.failure or said

    def clear(self) -> None:
        """Forget failures, before the plugin does, whose errors then count."""
        self._host.failure = ""
        self._host.guard(self._plugin.clear)()

    def destroy(self) -> None:
        """Release plugin and host."""
        self._host.guard(self._plugin.destroy)()
        self._host.destroy()

    def _text(self, call: Callable[[], str]) -> str:
        said = self._host.guard(call)()
        return f"{self._host.name}: {said}" if said else self._host.failure


class StateInput:
    """Joint states of one topic or plugin."""

    def __init__(self, node: Node, state: StateCfg, receive: Callable[[JointState], None], qos: QoSProfile) -> None:
        """Raise AdapterError where a plugin cannot be created."""
        self._host = PluginHost(node, f"state plugin {state.plugin}" if state.plugin else state.topic)
        if not state.plugin:
            subscription = node.create_subscription(JointState, state.topic, receive, qos)
            self._destroy = lambda: node.destroy_subscription(subscription)
            return
        self._destroy = self._host.destroy
        kind = load_plugin(state.plugin, READERS)
        try:
            self._reader = kind(self._host, state, receive)
        except Exception as error:
            self._host.destroy()
            raise AdapterError(f"state.plugin: {state.plugin}: {type(error).__name__}: {error}") from error

    @property
    def failure(self) -> str:
        """Return the first error of the plugin since `clear`, or an empty text."""
        return self._host.failure

    def clear(self) -> None:
        """Forget the error."""
        self._host.failure = ""

    def destroy(self) -> None:
        """Unsubscribe."""
        self._destroy()
