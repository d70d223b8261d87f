"""Writes compressed bags that can be read while they grow, and thins depth images."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys.store import Typestore

IMAGE = "sensor_msgs/msg/Image"
DEPTH_TYPES = {"16UC1": np.uint16, "32FC1": np.float32}
"""Encodings of depth images and the types of their pixels."""
BUFFER_BYTES = 2**23
"""A chunk and its index fit into the buffer of the file: they reach it in one call."""
END = (
    b"\x0f" + (4).to_bytes(8, "little") + bytes(4) + b"\x02" + (20).to_bytes(8, "little") + bytes(20) + b"\x89MCAP0\r\n"
)
"""End of an MCAP file without an index: end of data, footer, magic."""


class _McapWriter(McapWriter):
    """MCAP storage that ends the file after every chunk; the next chunk overwrites the end."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        self.bio = io.BufferedWriter(self.bio.detach(), BUFFER_BYTES)

    def close_chunk(self) -> None:
        super().close_chunk()
        at = self.bio.tell()
        self.bio.write(END)
        self.bio.flush()
        self.bio.seek(at)


class BagWriter(Writer):
    """Writer of a bag whose file can be read at any time; its chunks are compressed."""

    STORAGE_PLUGINS = {StoragePlugin.MCAP: _McapWriter}  # noqa: RUF012 - the type that rosbags declares

    def __init__(self, folder: Path) -> None:
        """`folder` must not exist; call `open` next."""
        super().__init__(folder, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
        self.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)

    def save(self) -> None:
        """Write the messages that are still in memory."""
        storage = self.storage
        assert isinstance(storage, McapWriter)
        if storage.chunk.bio.tell():
            storage.close_chunk()


def thinned(data: bytes, stride: int, types: Typestore) -> bytes:
    """Return a serialised depth Image with holes (0) outside every `stride`-th row and column.

    Images of other encodings, and those whose fields contradict each other, are returned as they are.
    """
    message: Any = types.deserialize_cdr(data, IMAGE)
    kind = DEPTH_TYPES.get(message.encoding)
    rows, columns = message.height, message.width
    if kind is None or stride == 1 or message.step != columns * np.dtype(kind).itemsize:
        return data
    if len(message.data) != rows * message.step:
        return data
    whole = message.data.view(kind).reshape(rows, columns)
    kept = np.zeros_like(whole)
    kept[::stride, ::stride] = whole[::stride, ::stride]
    message.data = kept.reshape(-1).view(np.uint8)
    return bytes(types.serialize_cdr(message, IMAGE))
