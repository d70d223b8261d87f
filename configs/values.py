"""Values of a configuration: how what stands in YAML or was typed becomes what a field of a dataclass holds."""

import dataclasses
import math
import re
import types
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml


class ConfigError(ValueError):
    """A key, group or value that the configuration of a command does not have; the text names it and what is known."""


class Yaml(yaml.SafeLoader):
    """YAML in which 1e-5 is a number: the 1.1 standard asks for 1.0e-5."""


Yaml.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


class Typed(str):
    """A value as typed on the command line: the field it goes to decides how it is read."""

    __slots__ = ()


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint`; no quiet change of type except int to float and list to tuple."""
    if isinstance(value, Typed):
        return _convert_typed(value, hint, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, hint, where)
    if origin is Literal and value in args and any(type(value) is type(arg) for arg in args):
        return value
    if origin in (tuple, list, Sequence) and isinstance(value, (list, tuple)):
        return _convert_items(value, origin, args, hint, where)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return _convert_mapping(value, args, hint, where)
    if hint is Any or (hint in (bool, str) and type(value) is hint) or (hint is type(None) and value is None):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, float) and type(value) in (int, hint) and math.isfinite(value):  # NaN passes every range check
        return hint(value)
    near = nearest(str(value), args) if origin is Literal else ""
    raise ConfigError(f"{where} expects {spell(hint)}, got {value!r}{near}")


def nearest(word: str, known: Sequence[Any]) -> str:
    """The end of an error message that proposes the known word most like `word`; empty when none is like it."""
    near = get_close_matches(word, [str(item) for item in known], n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def listed(words: Sequence[Any]) -> str:
    """The words with commas between them, for a message."""
    return ", ".join(str(word) for word in words) or "none"


def spell(hint: Any) -> str:
    """The type in words: `one of a, b`, `list of float`, `int or null`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {listed(args)}"
    if origin in (Union, types.UnionType):
        return " or ".join(spell(arg) for arg in args)
    if origin in (tuple, list, Sequence):
        fixed = origin is tuple and Ellipsis not in args
        return f"{len(args)} values ({listed([spell(arg) for arg in args])})" if fixed else f"list of {spell(args[0])}"
    if origin in (dict, Mapping):
        return f"a mapping of {spell(args[0])} to {spell(args[1])}"
    if dataclasses.is_dataclass(hint):
        return f"a mapping with the keys {listed(list(fields(hint)))}"  # type: ignore[arg-type]
    words = {type(None): "null", Path: "path", bool: "true or false", Any: "anything"}
    return words.get(hint) or getattr(hint, "__name__", str(hint))


def fields(schema: type) -> dict[str, Any]:
    """Names of the fields of a dataclass and their types, in order."""
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}  # type: ignore[arg-type]


def _convert_typed(text: Typed, hint: Any, where: str) -> Any:
    """Reads what was typed: as it stands where text is expected, else as YAML (`1e-5`, `[1, 2]`, `null`, `off`)."""
    raw = str(text)
    if hint in (str, Path):
        return convert(raw, hint, where)
    bare_list = get_origin(hint) in (tuple, list, Sequence) and not raw.lstrip().startswith("[")
    try:
        value = yaml.load(f"[{raw}]" if bare_list else raw, Loader=Yaml)
    except yaml.YAMLError:
        value = raw
    if value is None or raw.lower() == "none":
        value = None if _takes_none(hint) else raw
    try:
        return convert(value, hint, where)
    except ConfigError:
        if isinstance(value, (str, Mapping)):
            raise
        return convert(raw, hint, where)


def _takes_none(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _convert_union(value: Any, args: tuple[Any, ...], hint: Any, where: str) -> Any:
    for arg in args:
        try:
            return convert(value, arg, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} expects {spell(hint)}, got {value!r}")


def _convert_mapping(value: Mapping[Any, Any], args: tuple[Any, ...], hint: Any, where: str) -> dict[Any, Any]:
    """Convert keys and items; errors name the item by its dotted key, as it is typed on the command line."""
    given = {}
    for key, item in value.items():
        try:
            known = convert(key, args[0], where)
        except ConfigError:
            raise ConfigError(f"{where} expects {spell(hint)}, got the key {key!r}") from None
        given[known] = convert(item, args[1], f"{where[:-1]}.{key}'" if where.endswith("'") else f"{where}.{key}")
    return given


def _convert_items(value: Sequence[Any], origin: Any, args: tuple[Any, ...], hint: Any, where: str) -> Any:
    fixed = origin is tuple and not (len(args) == 2 and args[1] is Ellipsis)
    if fixed and len(value) != len(args):
        raise ConfigError(f"{where} expects {spell(hint)}, got {len(value)} values: {list(value)!r}")
    kinds = args if fixed else [args[0]] * len(value)
    items = [convert(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True))]
    return items if origin is list else tuple(items)
