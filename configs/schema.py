"""Conversion of plain values (YAML, JSON, typed text) to dataclasses and back.

Commands, saved configurations, contracts of bundles, driver descriptions and ROS parameters are read through
`from_dict`: unknown keys, wrong types, values that are not finite and missing values are refused by name.
"""

import ast
import dataclasses
import inspect
import logging
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from dexgrasp.configs.renamed_keys import FORMER_DEFAULTS, RENAMED_KEYS, RENAMED_VALUES
from dexgrasp.utils.bounds import OutOfBoundsError
from dexgrasp.utils.readers import DamagedFileError, parse_yaml
from dexgrasp.utils.text import comma_separated, did_you_mean, nearest_names, shown

T = TypeVar("T")
NOT_GIVEN = "???"
"""Hydra's mark of a value that must be given."""
LARGEST = 1.7e308
"""Greatest number that is read; an integer beyond it cannot become a float."""

log = logging.getLogger("dexgrasp")


class ConfigError(ValueError):
    """Refuses a key, group or value; the text names it, what was expected and what is known."""


class MissingValueError(ConfigError):
    """Refuses a configuration without the value of a key that has no default."""


class UnknownKeyError(ConfigError):
    """Refuses a key that the configuration lacks; `key` is its dotted name."""

    def __init__(self, text: str, key: str) -> None:
        super().__init__(text)
        self.key = key


class CommandLineValue(str):
    """A value as typed on the command line; the field that receives it decides how it is parsed."""

    __slots__ = ()


def from_dict(schema: type[T], tree: Mapping[str, Any], name: str) -> T:
    """Return the dataclass for the plain values of `as_dict`; names of earlier versions are accepted.

    `name` says in errors and in the log where the values come from. Raises ConfigError.
    """
    return build(schema, upgrade(schema, tree, name), name)


def build(schema: type[T], tree: Mapping[str, Any], name: str, groups: Sequence[str] = ()) -> T:
    """Return the dataclass for plain values with names of this version. Raises ConfigError.

    `groups`: words beside the keys that the command takes.
    """
    return _Reader(name, schema, groups).build(schema, tree, "")


def as_dict(cfg: Any) -> dict[str, Any]:
    """Return the dataclass as plain dicts, lists, numbers and strings, which YAML and JSON can hold."""
    if not dataclasses.is_dataclass(cfg) or isinstance(cfg, type):
        raise TypeError(f"a configuration is an instance of a dataclass, got {cfg!r}")
    return {field.name: _plain(getattr(cfg, field.name)) for field in dataclasses.fields(cfg)}


def typed(value: Any) -> str:
    """Return a plain value as it is written behind `key=` on the command line."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(typed, value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dicts; what stands in its way is replaced."""
    *parents, last = key.split(".")
    for parent in parents:
        before = tree.get(parent)
        if isinstance(before, CommandLineValue) and isinstance(typed := _parsed(before), dict):
            tree[parent] = typed  # key={a: 1}, then key.b=2
        elif not isinstance(before, dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = value


def fields(schema: type) -> dict[str, Any]:
    """Return the names and types of a dataclass's fields, in order."""
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}  # type: ignore[arg-type]


def known_keys(schema: type) -> list[str]:
    """Return every dotted key of the dataclass and of those nested in it, in the order of declaration."""
    return list(_walk(schema, ""))


def field_docstrings(schema: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, on one line."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    return {
        ast.unparse(field.target): " ".join(text.value.value.split())
        for field, text in pairwise(cast(ast.ClassDef, definition).body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def describe_type(hint: Any) -> str:
    """Return the type in words: `one of a, b`, `list of float`, `int or null`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {comma_separated(args)}"
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(arg) for arg in args)
    if origin in (tuple, list, Sequence):
        if origin is tuple and Ellipsis not in args:
            return f"{len(args)} values ({comma_separated([describe_type(arg) for arg in args])})"
        return f"list of {describe_type(args[0])}"
    if origin in (dict, Mapping):
        return f"a mapping of {describe_type(args[0])} to {describe_type(args[1])}"
    if dataclasses.is_dataclass(hint):
        return f"a mapping with the keys {comma_separated(fields(hint))}"  # type: ignore[arg-type]
    words = {type(None): "null", Path: "path", bool: "true or false", Any: "anything"}
    return words.get(hint) or getattr(hint, "__name__", str(hint))


def upgrade(schema: type, tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Rename the keys of plain values of an earlier version, and log the renamed keys in one line.

    Where a key is given under two names, a value that differs from its default counts.
    """
    found: dict[str, Any] = {}
    taken: set[str] = set()
    renamed: list[str] = []
    for key, value in _leaves(schema, tree, ""):
        new_key, new_value = current_name(schema, key, value)
        if new_key in taken and new_value == _default(schema, new_key):
            continue
        if new_key != key:
            renamed.append(f"{key} -> {new_key}")
        elif new_value is not value:
            renamed.append(f"{key}={value} -> {key}={new_value}")
        taken.add(new_key)
        put(found, new_key, new_value)
    _renew_defaults(schema, found)
    if renamed:
        log.info("%s: keys of an earlier version: %s", name, comma_separated(renamed))
    return found


def _renew_defaults(schema: type, tree: dict[str, Any]) -> None:
    """Replace former defaults in sections that an earlier version has saved as a whole."""
    for key, (former, present, later) in FORMER_DEFAULTS.items():
        *sections, name = key.split(".")
        for path in (sections, sections[1:]):  # of a command, of a task
            level, values = schema, tree
            for section in path:
                level = nested(fields(level).get(section, object)) if dataclasses.is_dataclass(level) else object
                values = values.get(section) if isinstance(values, dict) else None
            if not dataclasses.is_dataclass(level) or not isinstance(values, dict):
                continue
            saved_whole = 2 * len(values) > len(fields(level))  # a typed section has a key or two
            if values.get(name) == former and later not in values and saved_whole:
                values[name] = present


def current_name(schema: type, key: str, value: Any) -> tuple[str, Any]:
    """Return key and value in this version for a dotted key of an earlier one, else both unchanged."""
    level: Any = schema
    done: list[str] = []
    rest = key.split(".")
    while rest and dataclasses.is_dataclass(level):
        known = fields(cast(type, level))
        if rest[0] not in known:
            rest = _renamed(cast(type, level), rest)
        if rest[0] not in known:
            return key, value
        done.append(rest.pop(0))
        level = nested(known[done[-1]])
        if not rest:
            value = _current_value(done[-1], value, known[done[-1]])
    return ".".join([*done, *rest]), value


def nested(hint: Any) -> Any:
    """Return the dataclass in the type `hint` of a field, also an optional one, else the type itself."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), hint)


def _renamed(level: type, rest: list[str]) -> list[str]:
    """The path below `level` whose first part is known there, for one of an earlier version; else `rest`."""
    for old, new in RENAMED_KEYS.items():
        *parents, last = old.split(".")
        path = new.split(".")[len(parents) :]
        if last == rest[0] and _find(level, path) is not None:
            return [*path, *rest[1:]]
    return rest


def _find(level: Any, path: Sequence[str]) -> tuple[dataclasses.Field, Any] | None:
    """The field at a path below a dataclass and its type, if there is one."""
    found = None
    for part in path:
        field = next((field for field in dataclasses.fields(level) if field.name == part), None)
        if field is None:
            return None
        hint = fields(cast(type, level))[part]
        found, level = (field, hint), nested(hint)
        if not dataclasses.is_dataclass(level):
            break
    return found


def _default(schema: type, key: str) -> Any:
    found = _find(schema, key.split("."))
    return found and found[0].default


def _current_value(field: str, value: Any, hint: Any) -> Any:
    if not isinstance(value, str) or _fits(value, hint):
        return value
    for key, values in RENAMED_VALUES.items():
        if key.rpartition(".")[2] == field and value in values and _fits(values[value], hint):
            return values[value]
    return value


def _fits(value: Any, hint: Any) -> bool:
    try:
        _Reader("", type(None)).convert(value, hint, "")
    except ConfigError:
        return False
    return True


def _leaves(schema: type, tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a mapping is a leaf where the schema has no nested dataclass."""
    for key, value in tree.items():
        new_key, _ = current_name(schema, prefix + str(key), None)
        found = _find(schema, new_key.split("."))
        if value and isinstance(value, Mapping) and found and dataclasses.is_dataclass(nested(found[1])):
            yield from _leaves(schema, value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), value


def _number_hint(value: Any) -> str:
    """Return what to write in place of a text such as 010 or 1:30, which is no number to every version of YAML."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(0[bo]?[0-9_]+|[0-9]+[_:][0-9_:.]*)", value):
        return " Versions of YAML read it differently: write a decimal number without leading zeros, '_' or ':'"
    return ""


def _parsed(text: str) -> Any:
    """Return the value of a typed text as YAML, or the text itself where it is none."""
    try:
        return parse_yaml(text, "")
    except DamagedFileError:
        return text


def _deepest(key: str, value: Any) -> str:
    """Return the dotted key of the first leaf of a mapping, as it was typed."""
    while isinstance(value, Mapping) and value:
        last, value = next(iter(value.items()))
        key = f"{key}.{last}"
    return key


def _walk(schema: type, prefix: str) -> Iterator[str]:
    for key, hint in fields(schema).items():
        if dataclasses.is_dataclass(hint):
            yield from _walk(cast(type, hint), f"{prefix}{key}.")
        else:
            yield prefix + key


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Builds dataclasses from plain values and names in errors where these come from."""

    name: str
    top: type
    groups: Sequence[str] = ()
    """Groups that the command takes beside its keys."""

    def build(self, schema: type[T], tree: Mapping[str, Any], prefix: str) -> T:
        """Return an instance of `schema`; `prefix` is its dotted place in the top dataclass."""
        hints = fields(schema)
        for key in tree:
            if key not in hints:
                full = prefix + _deepest(str(key), tree[key])
                level = [prefix + known for known in hints]
                raise unknown_key(self.name, full, level, known_keys(self.top), self.groups)
        given = {}
        for field in dataclasses.fields(schema):  # type: ignore[arg-type]
            hint, value = hints[field.name], tree.get(field.name, NOT_GIVEN)
            if not (isinstance(value, str) and value == NOT_GIVEN):
                given[field.name] = self.convert(value, hint, prefix + field.name)
            elif field.default is field.default_factory is dataclasses.MISSING:
                if not dataclasses.is_dataclass(hint):
                    key = prefix + field.name
                    raise MissingValueError(f"{self.name}: '{key}' has no value; give {key}=<{describe_type(hint)}>")
                given[field.name] = self.build(cast(type, hint), {}, f"{prefix}{field.name}.")
        try:
            return schema(**given)
        except OutOfBoundsError as error:
            raise ConfigError(f"{self.name}: '{prefix}{error.field}' {error.reason}") from error
        except ValueError as error:
            at = "" if str(error).startswith(prefix) else prefix.rstrip(".") + ": "
            raise ConfigError(f"{self.name}: {at}{error}") from error

    def convert(self, value: Any, hint: Any, key: str) -> Any:
        """Check `value` against the type `hint` and return it.

        The only conversions are int to float, list to tuple and text to path.
        """
        if isinstance(value, CommandLineValue):
            return self._typed(value, hint, key)
        origin, args = get_origin(hint), get_args(hint)
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            return self.build(cast(type, hint), value, f"{key}.")
        if origin in (Union, types.UnionType):
            return self._union(value, args, hint, key)
        if origin is Literal and value in args and any(type(value) is type(arg) for arg in args):
            return value
        if origin in (tuple, list, Sequence) and isinstance(value, (list, tuple)):
            return self._items(value, origin, args, hint, key)
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            at = f"a key of {key}"
            return {self.convert(k, args[0], at): self.convert(v, args[1], f"{key}[{k}]") for k, v in value.items()}
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{self.name}: '{key}' holds a NUL character: {shown(value)}")
        if hint is Any or (hint in (bool, str) and type(value) is hint) or (hint is type(None) and value is None):
            return value
        if hint is Path and isinstance(value, str):
            return Path(value)
        number = isinstance(value, (int, float)) and abs(value) <= LARGEST  # not NaN
        if number and hint in (int, float) and type(value) in (int, hint):
            return hint(value)
        near = (
            did_you_mean(str(value), args) if origin is Literal else _number_hint(value) if hint in (int, float) else ""
        )
        raise ConfigError(f"{self.name}: '{key}' expects {describe_type(hint)}, got {shown(value)}{near and '.'}{near}")

    def _typed(self, text: CommandLineValue, hint: Any, key: str) -> Any:
        """Parse what was typed: text stays text, all else is YAML (`1e-5`, `[1, 2]`, `null`, `off`)."""
        raw = str(text)
        if hint in (str, Path):
            return self.convert(raw, hint, key)
        bare_list = get_origin(hint) in (tuple, list, Sequence) and not raw.lstrip().startswith("[")
        value = _parsed(f"[{raw}]" if bare_list else raw)
        if bare_list and isinstance(value, str):
            value = raw
        if not bare_list and (value is None or raw.lower() == "none"):
            value = None if _takes_none(hint) else raw
        try:
            return self.convert(value, hint, key)
        except ConfigError:
            if isinstance(value, (str, Mapping)):
                raise
            return self.convert(raw, hint, key)

    def _union(self, value: Any, args: Sequence[Any], hint: Any, key: str) -> Any:
        dataclass = next((arg for arg in args if dataclasses.is_dataclass(arg)), None)
        if dataclass is not None and isinstance(value, Mapping):
            return self.convert(value, dataclass, key)  # its error says which key is wrong
        for arg in args:
            try:
                return self.convert(value, arg, key)
            except ConfigError:
                continue
        near = _number_hint(value) if int in args or float in args else ""
        raise ConfigError(f"{self.name}: '{key}' expects {describe_type(hint)}, got {shown(value)}{near and '.'}{near}")

    def _items(self, value: Sequence[Any], origin: Any, args: Sequence[Any], hint: Any, key: str) -> Any:
        fixed = origin is tuple and not (len(args) == 2 and args[1] is Ellipsis)
        if fixed and len(value) != len(args):
            raise ConfigError(
                f"{self.name}: '{key}' expects {describe_type(hint)}, got {len(value)} values: {shown(list(value))}"
            )
        kinds = args if fixed else [args[0]] * len(value)
        items = [
            self.convert(item, kind, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True))
        ]
        return items if origin is list else tuple(items)


def unknown_key(
    name: str, key: str, level: Sequence[str], everywhere: Sequence[str], groups: Sequence[str] = ()
) -> UnknownKeyError:
    """Return the error of a key that the command `name` does not have, with the nearest known one.

    `level`: keys beside it; `everywhere`: all keys, dotted; `groups`: groups that the command takes.
    """
    top = list(dict.fromkeys([*level, *groups])) if "." not in key else list(level)
    by_last_word = {known.rpartition(".")[2]: known for known in reversed(everywhere)}
    suffixed = [known for known in everywhere if known.endswith(f".{key}")]
    hint = f" Did you mean '{suffixed[0]}'?" if suffixed else did_you_mean(key, top) or did_you_mean(key, everywhere)
    if not hint and (near := nearest_names(key.rpartition(".")[2], by_last_word)):
        hint = f" Did you mean '{by_last_word[near[0]]}'?"
    return UnknownKeyError(f"{name}: unknown key '{key}'.{hint} Known keys: {comma_separated(top)}", key)


def _takes_none(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
