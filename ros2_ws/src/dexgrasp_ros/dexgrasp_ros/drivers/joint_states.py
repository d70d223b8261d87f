"""Keeps the newest joint positions of hand and arm, from JointState messages that may share a topic."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.config import AdapterError
from dexgrasp_ros.drivers.joint_mapping import JointStateError

Array = NDArray[np.float64]


class JointStates:
    """Newest joint positions by name of the adapter, for instance `hand` and `arm`."""

    def __init__(self, adapters: Mapping[str, JointAdapter], others: bool = False) -> None:
        """`others`: ignore messages without any joint of the adapters; otherwise they are an error.

        Raises AdapterError for adapters that read one topic in different ways.
        """
        self._adapters, self._others = dict(adapters), others
        for one in self._adapters.values():
            if one.state.plugin != self.topics[one.state.topic].state.plugin:
                raise AdapterError(f"state.topic {one.state.topic} is read by a plugin and without: name it otherwise")
        self._newest: dict[str, tuple[Array, float]] = {}

    @property
    def topics(self) -> dict[str, JointAdapter]:
        """Topics with one adapter each that reads them."""
        return {adapter.state.topic: adapter for adapter in reversed(self._adapters.values())}

    def update(self, topic: str, values: Mapping[str, float], stamp_s: float, arrived_s: float) -> None:
        """Store the positions of a message by joint name; `stamp_s` is 0 where its stamp is empty.

        Raises JointStateError, after which nothing of the message is stored.
        """
        readers = {name: item for name, item in self._adapters.items() if item.state.topic == topic}
        read = {joint for item in readers.values() for joint in item.state_map.order}
        unknown = sorted(set(values) - read - {joint for item in readers.values() for joint in item.state.ignore})
        if unknown and not self._others and not read & set(values):
            raise JointStateError(
                f"{topic}: unknown joints {unknown}; expected {sorted(read)}; list others in state.ignore"
            )
        found = {name: (item.read(values), _stamp(topic, item, stamp_s, arrived_s)) for name, item in readers.items()}
        self._newest |= {name: (joints, at_s) for name, (joints, at_s) in found.items() if joints is not None}

    def newest(self, name: str) -> tuple[Array | None, float]:
        """Return positions (joint,) [rad] in the order of the contract and their stamp [s]; None at first."""
        return self._newest.get(name, (None, -np.inf))


def _stamp(topic: str, adapter: JointAdapter, stamp_s: float, arrived_s: float) -> float:
    if adapter.state.stamp == "arrival":
        return arrived_s
    if stamp_s == 0.0:
        raise JointStateError(f"{topic}: the stamp is empty; for a driver that never sets it, use state.stamp: arrival")
    return stamp_s
