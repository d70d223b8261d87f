"""Read YAML and JSON files that anybody may have written or damaged.

Every failure is one DamagedFileError that names the file and the reason; no content can run code, recurse too deep,
grow by aliases, or hold a key twice. JSON holds no NaN and no infinity. Files of any format that are not what their
name says (compressed, placeholders, web pages, empty) are recognised by their first bytes.
"""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from dexgrasp.utils.text import one_line

LARGEST_YAML = 100_000
"""Largest number of values in a YAML file with its aliases expanded."""

DEEPEST_YAML = 50
"""Largest depth of nested values in a YAML or JSON file."""
LARGEST_INTEGER = 2**64
"""Largest magnitude of an integer in a JSON file."""
LARGEST_TEXT = 256 * 2**20
"""Largest JSON file that is read [byte]."""
LARGEST_YAML_TEXT = 8 * 2**20
"""Largest YAML text that is read [byte]; it takes some ten seconds."""
HEAD_BYTES = 512
"""Bytes at the beginning of a file by which its kind is recognised."""
_MAGIC = {
    b"\x1f\x8b": "it is compressed with gzip: unpack it (gunzip)",
    b"PK\x03\x04": "it is a ZIP archive: unpack it",
    b"PK\x05\x06": "it is an empty ZIP archive",
    b"BZh": "it is compressed with bzip2: unpack it (bunzip2)",
    b"\xfd7zXZ\x00": "it is compressed with xz: unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "it is compressed with Zstandard: unpack it (unzstd)",
    b"7z\xbc\xaf\x27\x1c": "it is a 7-Zip archive: unpack it",
    b"version https://git-lfs": "it is a Git LFS pointer, the file was not fetched: run `git lfs pull` in its "
    "repository",
}
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class DamagedFileError(ValueError):
    """Refuses the content of a file; the text names the file and the reason in one line."""

    def __init__(self, path: str | Path, kind: str, reason: object) -> None:
        """`kind`: what was expected, in words."""
        why = one_line(reason, 200) or type(reason).__name__
        super().__init__(f"{path} is damaged or no {kind}: {why}; restore it, or give another")


class Yaml(yaml.SafeLoader):
    """YAML with numbers that all versions read alike, unique keys and bounded aliases.

    1e-5 is a number. 010, 1:30, 1_000 and 0o17 are text: YAML 1.1 reads 8, 90, 1000 and text, YAML 1.2 10, text, text
    and 15. Where a number is expected, text is refused.
    """

    _depth = _nodes = 0

    def get_single_node(self) -> yaml.Node | None:
        """Return the root, once it is known to be of a bounded size."""
        node = super().get_single_node()
        if node is not None and _size(node, {}) > LARGEST_YAML:
            raise yaml.YAMLError(f"it holds more than {LARGEST_YAML} values")
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node. Raises YAMLError where it is nested too deep, or there are too many."""
        self._depth, self._nodes = self._depth + 1, self._nodes + 1
        if self._nodes > LARGEST_YAML:  # here, not at the end: each takes a kilobyte
            raise yaml.YAMLError(f"it holds more than {LARGEST_YAML} values")
        if self._depth > DEEPEST_YAML:
            raise yaml.YAMLError("it is nested too deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping. Raises ConstructorError where a key occurs twice."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise yaml.constructor.ConstructorError(None, None, f"key '{twice}' occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in (_INT, _FLOAT)]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml.add_implicit_resolver(_INT, re.compile(r"^[-+]?(0|[1-9][0-9]*)$|^0x[0-9a-fA-F]+$"), list("-+0123456789"))
Yaml.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|0|[1-9][0-9]*)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str | bytes, name: str | Path) -> Any:
    """Return the content of a YAML text as plain values; `name` is the file or key in errors."""
    try:
        if len(text) > LARGEST_YAML_TEXT:
            raise ValueError(f"it is larger than {LARGEST_YAML_TEXT >> 20} MiB")
        return yaml.load(_decoded(text), Loader=Yaml)
    except RecursionError as error:
        raise DamagedFileError(name, "YAML file", "it is nested too deep") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:  # ValueError: 2001-99-99, bytes
        raise DamagedFileError(name, "YAML file", error) from error


def regular_bytes(path: str | Path) -> bytes:
    """Return the content of a file. Raises ValueError for a pipe or a device, which might never end."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file: give a file")
    return path.read_bytes()


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file as plain values. Raises DamagedFileError, OSError."""
    return parse_yaml(_content(path, "YAML file", LARGEST_YAML_TEXT), path)


def parse_json(text: str | bytes, name: str | Path) -> Any:
    """Return the content of a JSON text; `name` is the file in errors.

    Raises DamagedFileError, also for a key that occurs twice, and for numbers that are not finite or too large.
    """
    try:
        if not text.strip():
            raise ValueError("it is empty")
        value = json.loads(_decoded(text), object_pairs_hook=_mapping)
        _check_json(value, "", DEEPEST_YAML)
        return value
    except RecursionError as error:
        raise DamagedFileError(name, "JSON file", "it is nested too deep") from error
    except ValueError as error:
        raise DamagedFileError(name, "JSON file", error) from error


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file. Raises DamagedFileError, OSError."""
    return parse_json(_content(path, "JSON file", LARGEST_TEXT), path)


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds keys with values. Raises DamagedFileError, OSError."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise DamagedFileError(path, "JSON file", f"expected an object with keys, got {str(value)[:60]!r}")
    return value


@contextlib.contextmanager
def reading(path: str | Path, kind: str) -> Iterator[None]:
    """Turn errors of missing keys and files and of wrong types inside the block into DamagedFileError.

    `path`: the file or folder that was read; `kind`: what was expected, in words.
    """
    try:
        yield
    except KeyError as error:
        raise DamagedFileError(path, kind, f"it lacks {error}") from error
    except FileNotFoundError as error:
        raise DamagedFileError(path, kind, f"the file {error.filename} is missing") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise DamagedFileError(path, kind, error) from error


def foreign_kind(head: bytes, is_zip: bool = False) -> str:
    """Return what a file is instead of what its name says, with a remedy; empty where unknown.

    `head`: its first HEAD_BYTES, all of a shorter file. `is_zip`: a ZIP archive is expected.
    """
    if not head.strip() and len(head) < HEAD_BYTES:
        return "it is empty: fetch or write it again"
    if head and not head.strip(b"\0"):
        return "its beginning is all zeros, as an interrupted copy leaves it: fetch it again"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return "" if is_zip and magic.startswith(b"PK") else kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_WEB_PAGE) or (text.startswith((b"<?xml", b"<!--")) and b"<html" in text):
        return "it is a web page, as an error of a download leaves it: fetch it again"
    return ""


def foreign_file(path: str | Path, is_zip: bool = False) -> str:
    """Return `foreign_kind` of a regular file, or nothing for another one or one that cannot be read."""
    path = Path(path)
    if not path.is_file():
        return ""
    try:
        with open(path, "rb") as file:
            return foreign_kind(file.read(HEAD_BYTES), is_zip)
    except OSError:
        return ""


def _content(path: str | Path, kind: str, most: int) -> bytes:
    if Path(path).is_file() and Path(path).stat().st_size > most:
        raise DamagedFileError(path, kind, f"it is larger than {most >> 20} MiB")
    return regular_bytes(path)


def _decoded(text: str | bytes) -> str:
    """Return the text of a file, without a byte order mark. Raises ValueError for what is no text."""
    if isinstance(text, str):
        return text
    if text.strip() and (kind := foreign_kind(text[:HEAD_BYTES])):
        raise ValueError(kind)
    if text.startswith(_UTF16):
        raise ValueError("it is UTF-16 text: save it as UTF-8")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text: byte {error.start} is 0x{text[error.start]:02x}") from error


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key '{key[:100]}' occurs twice")
        found[key] = value
    return found


def _check_json(value: Any, key: str, levels: int) -> None:
    """Raise ValueError for a number that is not finite or too large, and below `levels` further levels."""
    too_large = isinstance(value, int) and abs(value) > LARGEST_INTEGER
    if too_large or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"'{key}' is no finite number, or too large")
    if isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"it is nested too deep, at '{key[:50]}'")
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            below = f"{key}[{name}]" if isinstance(value, list) else f"{key}.{name}".lstrip(".")
            _check_json(item, below, levels - 1)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values below a node with aliases expanded; a node that holds itself is endless."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = LARGEST_YAML + 1  # of a node that is reached again from within
    size = 1
    if isinstance(node, yaml.CollectionNode):
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        size += sum(_size(part, known) for part in parts)
    known[id(node)] = size
    return size
