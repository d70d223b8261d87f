"""Reads the messages of a bag in the order of recording, with rosbags."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from dexgrasp.utils.text import one_line

NS = 1e-9
MAGIC = b"\x89MCAP0\r\n"
"""First and last bytes of a complete MCAP file."""


@dataclass(frozen=True)
class RecordedMessage:
    """One message of a bag."""

    topic: str
    time_s: float
    """Time of recording, by the clock of the recorder [s]."""
    message: Any
    """Message object with the fields of ROS; arrays are numpy arrays."""


class Bag:
    """A recorded bag. Raises ValueError where it cannot be read."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        if reason := _incomplete(self._folder):
            raise ValueError(reason)
        try:
            with self._open() as reader:
                self.topics: dict[str, int] = {}
                """Number of messages per topic."""
                for connection in reader.connections:
                    self.topics[connection.topic] = self.topics.get(connection.topic, 0) + connection.msgcount
                self.start_s = reader.start_time * NS if self.topics else 0.0
                """Time of the first message [s]."""
        except Exception as error:  # rosbags raises its own, storage and built-in exceptions
            raise ValueError(
                f"{folder} is not a bag that can be read: expected the folder that the recorder wrote (metadata.yaml "
                f"beside .mcap or .db3 files), or one such file ({_reason(error)})"
            ) from error

    def messages(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """Return the messages of some topics."""
        with self._open() as reader:
            wanted = [connection for connection in reader.connections if connection.topic in topics]
            for connection, time_ns, data in reader.messages(wanted) if wanted else ():
                yield RecordedMessage(connection.topic, time_ns * NS, reader.deserialize(data, connection.msgtype))

    def _open(self) -> AnyReader:
        return AnyReader([self._folder], default_typestore=get_typestore(Stores.ROS2_JAZZY))


def _reason(error: Exception) -> str:
    """Return what rosbags says, in one line; errors of Python below it by their kind alone."""
    if type(error).__module__.startswith("rosbags"):
        return one_line(error, 200)
    return "it was changed, or is no bag at all"


def _incomplete(path: Path) -> str:
    """Return what a recorder that was killed left out, and what to do about it; empty for a complete bag."""
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = [file for kind in ("mcap", "db3") for file in sorted(path.glob(f"*.{kind}"))]
        if not files:
            return f"{path} is not a bag: it holds neither metadata.yaml nor a .mcap or .db3 file"
        storage = "mcap" if files[0].suffix == ".mcap" else "sqlite3"
        return (
            f"{path} has no metadata.yaml, the recorder was probably killed: give {files[0]} itself, "
            f"or write it anew with `ros2 bag reindex -s {storage} {path}`"
        )
    if path.suffix == ".mcap" and path.is_file():
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - len(MAGIC), 0))
            if file.read() != MAGIC:
                return (
                    f"{path} was not closed, the recorder was probably killed: "
                    f"`mcap recover {path} -o recovered.mcap` writes a complete copy"
                )
    return ""
