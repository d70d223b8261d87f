"""Reads the YAML beside this file into the dataclass that a command expects, and refuses everything else.

    configs/evaluate.yaml          the command: its own keys and the groups it composes (a Hydra defaults list)
    configs/physics/turbo.yaml     one option of a group: `dexgrasp evaluate physics=turbo physics.condim=4`

Hydra composes the files; the dataclass decides which keys exist, their types and their ranges.
"""

import dataclasses
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

ROOT = Path(__file__).resolve().parent

T = TypeVar("T")


class ConfigError(ValueError):
    """A key, group or value that the configuration of a command does not have; the text names it and what is known."""


class _Yaml(yaml.SafeLoader):
    """YAML in which 1e-5 is a number: the 1.1 standard asks for 1.0e-5."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Typed(str):
    """A value as typed on the command line: the field it goes to decides how it is read."""

    __slots__ = ()


def load(schema: type[T], name: str, overrides: Sequence[str] = (), root: Path = ROOT) -> T:
    """The configuration `name` as an instance of the dataclass `schema`.

    `overrides` are `key=value` (dots reach into nested dataclasses) or `group=option`, later ones win. Raises
    ConfigError with the key, what was expected and the nearest known key.
    """
    choices, values = _split(overrides, schema, name, root)
    tree = _compose(name, choices, root)
    for key, text in values:
        _put(tree, key, text)
    return _build(schema, tree, name, schema, "")


def save(cfg: Any, path: Path) -> None:
    """Writes the resolved configuration (a dataclass) as YAML; the file appears complete or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(partial, path)


def read_plain(path: Path) -> dict[str, Any]:
    """What `save` wrote, as plain dicts, lists, numbers and strings."""
    return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Yaml)


def as_dict(cfg: Any) -> dict[str, Any]:
    """The dataclass as plain dicts, lists, numbers and strings: what YAML and JSON can hold."""
    if not dataclasses.is_dataclass(cfg) or isinstance(cfg, type):
        raise TypeError(f"a configuration is an instance of a dataclass, got {cfg!r}")
    return {field.name: _plain(getattr(cfg, field.name)) for field in dataclasses.fields(cfg)}


def options(group: str, root: Path = ROOT) -> list[str]:
    """Names that `group=` accepts: the YAML files of the folder."""
    return sorted(path.stem for path in (root / group).glob("*.yaml"))


def known_keys(schema: type) -> list[str]:
    """Every key of the dataclass and of those nested in it, dotted, in the order of declaration."""
    return list(_walk(schema, ""))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _split(overrides: Sequence[str], schema: type, name: str, root: Path) -> tuple[list[str], list[tuple[str, _Typed]]]:
    """Parts the overrides into choices of a group (for Hydra) and values of a key (for the dataclass)."""
    choices, values = [], []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.lstrip("+").strip()
        if not equals or not key:
            raise ConfigError(
                f"{name}: expected key=value, got '{override}'. Known keys: {_listed(known_keys(schema))}"
            )
        if "." not in key and key.isidentifier() and options(key, root) and key in _fields(schema):
            _check_option(name, key, text, root)
            choices.append(f"{key}={text}")
        else:
            values.append((key, _Typed(text)))
    return choices, values


def _check_option(name: str, group: str, option: str, root: Path) -> None:
    known = options(group, root)
    if option not in known:
        raise ConfigError(
            f"{name}: group '{group}' has no '{option}'{_nearest(option, known)}. Known: {_listed(known)}"
        )


def _compose(name: str, choices: Sequence[str], root: Path) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not (root / f"{name}.yaml").is_file():
        known = sorted(path.stem for path in root.glob("*.yaml"))
        raise ConfigError(f"no configuration '{name}'{_nearest(name, known)}. Known: {_listed(known)}")
    try:
        with initialize_config_dir(config_dir=str(root.resolve()), version_base="1.3", job_name="dexgrasp"):
            tree = OmegaConf.to_container(compose(name, overrides=list(choices)), resolve=True, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}.yaml must hold keys and values, got a {type(tree).__name__}")
    return {str(key): value for key, value in tree.items()}


def _put(tree: dict[str, Any], key: str, text: _Typed) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = text


def _build(schema: type[T], tree: Mapping[str, Any], name: str, top: type, prefix: str) -> T:
    """An instance of `schema` from `tree`; `prefix` is where in `top`, the dataclass of the command, it hangs."""
    hints = _fields(schema)
    for key in tree:
        if key not in hints:
            raise ConfigError(_unknown(name, prefix + key, top, [prefix + known for known in hints]))
    given = {}
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]
        key = prefix + field.name
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        value = tree.get(field.name, "???")
        if isinstance(value, str) and value == "???":
            if required and not dataclasses.is_dataclass(hints[field.name]):
                raise ConfigError(f"{name}: '{key}' has no value; give {key}=<{_spell(hints[field.name])}>")
            if not required:
                continue
            value = {}
        if dataclasses.is_dataclass(hints[field.name]) and isinstance(value, Mapping):
            given[field.name] = _build(hints[field.name], value, name, top, key + ".")
        else:
            given[field.name] = _convert(value, hints[field.name], f"{name}: '{key}'")
    try:
        return schema(**given)
    except ValueError as error:
        at = "" if str(error).startswith(prefix) else prefix.rstrip(".") + ": "
        raise ConfigError(f"{name}: {at}{error}") from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint`; no quiet change of type except int to float and list to tuple."""
    if isinstance(value, _Typed):
        return _convert_typed(value, hint, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, hint, where)
    if origin is Literal and value in args and any(type(value) is type(arg) for arg in args):
        return value
    if origin in (tuple, list, Sequence) and isinstance(value, (list, tuple)):
        return _convert_items(value, origin, args, hint, where)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _convert(item, args[1], f"{where}[{key}]") for key, item in value.items()}
    if hint is Any or (hint in (bool, str) and type(value) is hint) or (hint is type(None) and value is None):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, float) and type(value) in (int, hint):
        return hint(value)
    near = _nearest(str(value), args) if origin is Literal else ""
    raise ConfigError(f"{where} expects {_spell(hint)}, got {value!r}{near}")


def _convert_typed(text: _Typed, hint: Any, where: str) -> Any:
    """Reads what was typed: as it stands where text is expected, else as YAML (`1e-5`, `[1, 2]`, `null`, `off`)."""
    raw = str(text)
    if hint in (str, Path):
        return _convert(raw, hint, where)
    listed = get_origin(hint) in (tuple, list, Sequence) and not raw.lstrip().startswith("[")
    try:
        value = yaml.load(f"[{raw}]" if listed else raw, Loader=_Yaml)
    except yaml.YAMLError:
        value = raw
    if value is None or raw.lower() == "none":
        value = None if _takes_none(hint) else raw
    try:
        return _convert(value, hint, where)
    except ConfigError:
        if isinstance(value, str):
            raise
        return _convert(raw, hint, where)


def _takes_none(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _convert_union(value: Any, args: tuple[Any, ...], hint: Any, where: str) -> Any:
    for arg in args:
        try:
            return _convert(value, arg, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} expects {_spell(hint)}, got {value!r}")


def _convert_items(value: Sequence[Any], origin: Any, args: tuple[Any, ...], hint: Any, where: str) -> Any:
    fixed = origin is tuple and not (len(args) == 2 and args[1] is Ellipsis)
    if fixed and len(value) != len(args):
        raise ConfigError(f"{where} expects {_spell(hint)}, got {len(value)} values: {list(value)!r}")
    kinds = args if fixed else [args[0]] * len(value)
    items = [_convert(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True))]
    return items if origin is list else tuple(items)


def _fields(schema: type) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}  # type: ignore[arg-type]


def _walk(schema: type, prefix: str) -> Iterator[str]:
    for key, hint in _fields(schema).items():
        if dataclasses.is_dataclass(hint):
            yield from _walk(hint, f"{prefix}{key}.")  # type: ignore[arg-type]
        else:
            yield prefix + key


def _unknown(name: str, key: str, top: type, level: Sequence[str]) -> str:
    everywhere = known_keys(top)
    by_last_word = {known.rsplit(".", 1)[-1]: known for known in reversed(everywhere)}
    last = key.rsplit(".", 1)[-1]
    near = get_close_matches(key, [*level, *everywhere], n=1) or [
        by_last_word[word] for word in get_close_matches(last, by_last_word, n=1)
    ]
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{name}: unknown key '{key}'.{hint} Known keys: {_listed(level)}"


def _nearest(word: str, known: Sequence[Any]) -> str:
    near = get_close_matches(word, [str(item) for item in known], n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _listed(words: Sequence[Any]) -> str:
    return ", ".join(str(word) for word in words) or "none"


def _spell(hint: Any) -> str:
    """The type in words: `one of a, b`, `list of float`, `int or null`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {_listed(args)}"
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(arg) for arg in args)
    if origin in (tuple, list, Sequence):
        fixed = origin is tuple and Ellipsis not in args
        return (
            f"{len(args)} values ({_listed([_spell(arg) for arg in args])})" if fixed else f"list of {_spell(args[0])}"
        )
    if dataclasses.is_dataclass(hint):
        return f"a mapping with the keys {_listed(list(_fields(hint)))}"  # type: ignore[arg-type]
    words = {type(None): "null", Path: "path", bool: "true or false", Any: "anything"}
    return words.get(hint) or getattr(hint, "__name__", str(hint))
