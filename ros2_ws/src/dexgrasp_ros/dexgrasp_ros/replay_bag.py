"""Messages of a bag in the order in which they were recorded."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

NS = 1e-9


@dataclass(frozen=True)
class Event:
    """One message."""

    topic: str
    time_s: float
    """When it was recorded, by the recorder's clock [s]."""
    message: Any
    """As of ROS, arrays as numpy."""


class Bag:
    """A recording."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        try:
            with self._open() as reader:
                self.topics: dict[str, int] = {}
                """Messages of each topic."""
                for connection in reader.connections:
                    self.topics[connection.topic] = self.topics.get(connection.topic, 0) + connection.msgcount
                self.start_s = reader.start_time * NS if self.topics else 0.0
                """Time of the first message [s]."""
        except Exception as error:  # rosbags raises classes of its own, of the storage, and plain ones
            raise ValueError(f"{folder} is not a bag that can be read: {error}") from error

    def events(self, topics: Collection[str]) -> Iterator[Event]:
        """Messages of these topics."""
        with self._open() as reader:
            wanted = [connection for connection in reader.connections if connection.topic in topics]
            for connection, time_ns, data in reader.messages(wanted) if wanted else ():
                yield Event(connection.topic, time_ns * NS, reader.deserialize(data, connection.msgtype))

    def _open(self) -> AnyReader:
        return AnyReader([self._folder], default_typestore=get_typestore(Stores.ROS2_JAZZY))
