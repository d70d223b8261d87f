"""The newest joint positions of hand and arm, from JointState messages that may share a topic."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros.adapters import JointAdapter
from dexgrasp_ros.joint_map import JointStateError

Array = NDArray[np.float64]


class JointStates:
    """Positions by the name of the adapter, as `hand` or `arm`."""

    def __init__(self, adapters: Mapping[str, JointAdapter], others: bool = False) -> None:
        """`others`: joints that no adapter knows belong to somebody else; without it they are an error."""
        self._adapters, self._others = dict(adapters), others
        self._newest: dict[str, tuple[Array, float]] = {}

    @property
    def topics(self) -> dict[str, JointAdapter]:
        """Each topic once, with an adapter that reads it."""
        return {adapter.state.topic: adapter for adapter in reversed(self._adapters.values())}

    def take(self, topic: str, values: Mapping[str, float], stamp_s: float, arrived_s: float) -> None:
        """Positions of a message by name; `stamp_s` 0 where its stamp is empty.

        Raises JointStateError, and then nothing of the message counts.
        """
        readers = {name: item for name, item in self._adapters.items() if item.state.topic == topic}
        known = {joint for item in readers.values() for joint in (*item.state_map.order, *item.state.ignore)}
        unknown = sorted(set(values) - known)
        if unknown and not self._others:
            raise JointStateError(f"{topic}: unknown joints {unknown}; expected {sorted(known)}; see state.ignore")
        found = {name: (item.read(values), _stamp(topic, item, stamp_s, arrived_s)) for name, item in readers.items()}
        self._newest |= {name: (joints, at_s) for name, (joints, at_s) in found.items() if joints is not None}

    def newest(self, name: str) -> tuple[Array | None, float]:
        """Positions (joint,) [rad] of an adapter in the contract's order, and when they were read."""
        return self._newest.get(name, (None, -np.inf))


def _stamp(topic: str, adapter: JointAdapter, stamp_s: float, arrived_s: float) -> float:
    if adapter.state.stamp == "arrival":
        return arrived_s
    if stamp_s == 0.0:
        raise JointStateError(f"{topic}: the stamp is empty; if the driver never sets it, set state.stamp: arrival")
    return stamp_s
