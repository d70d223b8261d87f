"""Read YAML and JSON files that anybody may have written or damaged.

Every failure is one DamagedFileError that names the file and the reason; no content can run code, recurse too deep or
grow by aliases.
"""

import contextlib
import json
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

LARGEST_YAML = 100_000
"""Largest number of values in a YAML file with its aliases expanded."""

DEEPEST_YAML = 50
"""Largest depth of nested values in a YAML file."""


class DamagedFileError(ValueError):
    """Refuses the content of a file; the text names the file and the reason in one line."""

    def __init__(self, path: str | Path, kind: str, reason: object) -> None:
        """`kind`: what was expected, in words."""
        why = " ".join(str(reason).split())[:200] or type(reason).__name__
        super().__init__(f"{path} is damaged or no {kind}: {why}; restore it, or give another")


class Yaml(yaml.SafeLoader):
    """YAML with numbers that all versions read alike, unique keys and bounded aliases.

    1e-5 is a number. 010, 1:30, 1_000 and 0o17 are text: YAML 1.1 reads 8, 90, 1000 and text, YAML 1.2 10, text, text
    and 15. Where a number is expected, text is refused.
    """

    _depth = 0

    def get_single_node(self) -> yaml.Node | None:
        """Return the root, once it is known to be of a bounded size."""
        node = super().get_single_node()
        if node is not None and _size(node, {}) > LARGEST_YAML:
            raise yaml.YAMLError(f"it holds more than {LARGEST_YAML} values")
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node. Raises YAMLError where it is nested too deep."""
        self._depth += 1
        if self._depth > DEEPEST_YAML:
            raise yaml.YAMLError("it is nested too deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping. Raises ConstructorError where a key occurs twice."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), ""):
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
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        return yaml.load(text, Loader=Yaml)
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
    return parse_yaml(regular_bytes(path), path)


def parse_json(text: str | bytes, name: str | Path) -> Any:
    """Return the content of a JSON text; `name` is the file in errors."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DamagedFileError(name, "JSON file", "it is nested too deep") from error
    except ValueError as error:
        raise DamagedFileError(name, "JSON file", error) from error


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file. Raises DamagedFileError, OSError."""
    return parse_json(regular_bytes(path), path)


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
