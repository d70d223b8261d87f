"""Reads the messages of a bag in the order of recording, with rosbags."""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from dexgrasp.utils.text import one_line
from dexgrasp_ros.recording.bag_writer import END

NS = 1e-9
MAGIC = b"\x89MCAP0\r\n"
"""First and last bytes of a complete MCAP file."""
MESSAGE, CHUNK, DATA_END = 0x05, 0x06, 0x0F
"""First bytes of records of an MCAP file."""


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
        self._folder = _readable(Path(folder))
        if self._folder.suffix == ".mcap" and self._folder.is_file() and not _has_end(self._folder):
            copies = mkdtemp(prefix="dexgrasp_bag_")
            finalize(self, shutil.rmtree, copies, ignore_errors=True)
            self._folder = with_end(self._folder, Path(copies))
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


def _readable(path: Path) -> Path:
    """Return what is to be opened: a bag, or the only .mcap file of a recorder that was killed. Raises ValueError."""
    if not path.is_dir() or (path / "metadata.yaml").exists():
        return path
    files = [file for kind in ("mcap", "db3") for file in sorted(path.glob(f"*.{kind}"))]
    if not files:
        raise ValueError(f"{path} is not a bag: it holds neither metadata.yaml nor a .mcap or .db3 file")
    if len(files) == 1 and files[0].suffix == ".mcap":
        return files[0]
    storage = "mcap" if files[0].suffix == ".mcap" else "sqlite3"
    raise ValueError(
        f"{path} has no metadata.yaml, the recorder was probably killed: give {files[0]} itself, "
        f"or write it anew with `ros2 bag reindex -s {storage} {path}`"
    )


def _has_end(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - len(MAGIC), 0))
        return path.stat().st_size > len(MAGIC) and file.read() == MAGIC


def with_end(path: Path, folder: Path) -> Path:
    """Return a copy, in `folder`, of an MCAP file that was cut off: its complete records, and an end.

    Raises ValueError for a file of another kind, and for one that was cut off before its first chunk was complete.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is not an MCAP file: its first bytes are others")
        end, chunks = len(MAGIC), 0
        while len(head := file.read(9)) == 9 and head[0] != DATA_END:
            after = end + 9 + int.from_bytes(head[1:], "little")
            if after > size:
                break
            end, chunks = after, chunks + (head[0] in (CHUNK, MESSAGE))
            file.seek(end)
    if not chunks:
        raise ValueError(f"{path} was cut off before its first messages were complete: there is nothing to read")
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with open(copy, "r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(END)
    return copy
