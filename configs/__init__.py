"""Reads the YAML beside this file into the dataclass that a command expects, and refuses everything else.

    configs/evaluate.yaml          the command: its own keys and the groups it composes (a Hydra defaults list)
    configs/physics/turbo.yaml     one option of a group: `dexgrasp evaluate physics=turbo physics.condim=4`

Hydra composes the files; the dataclass decides which keys exist, their types and their ranges.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from configs.values import ConfigError, Typed, Yaml, convert, fields, listed, nearest, spell

ROOT = Path(__file__).resolve().parent
EVERYWHERE = "_global_"
"""Hydra's place of a group whose options set keys of the command itself."""

T = TypeVar("T")


def load(schema: type[T], name: str, overrides: Sequence[str] = (), root: Path = ROOT) -> T:
    """The configuration `name` as an instance of the dataclass `schema`.

    `overrides` are `key=value` (dots reach into nested dataclasses) or `group=option`, later ones win. Raises
    ConfigError with the key, what was expected and the nearest known key.
    """
    if not (root / f"{name}.yaml").is_file():
        known = sorted(path.stem for path in root.glob("*.yaml"))
        raise ConfigError(f"no configuration '{name}'{nearest(name, known)}. Known: {listed(known)}")
    choices, values = _split(overrides, schema, name, root)
    tree = _compose(name, choices, root)
    for key, text in values:
        _put(tree, key, text)
    return _build(schema, tree, name, schema, "")


def load_option(schema: type[T], group: str, option: str, root: Path = ROOT) -> T:
    """One option of a group by itself, for instance `load_option(PhysicsCfg, "physics", "balanced")`."""
    _check_option(group, group, option, root)
    return _build(schema, read_plain(root / group / f"{option}.yaml"), f"{group}/{option}", schema, "")


def from_dict(schema: type[T], tree: Mapping[str, Any], name: str) -> T:
    """The dataclass from plain values, as `as_dict` gives them; `name` says in errors where they come from."""
    return _build(schema, tree, name, schema, "")


def save(cfg: Any, path: Path) -> None:
    """Writes the resolved configuration (a dataclass) as YAML; the file appears complete or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(partial, path)


def read_plain(path: Path) -> dict[str, Any]:
    """A YAML file of keys and values as plain dicts, lists, numbers and strings; nothing is composed."""
    return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Yaml) or {}


def as_dict(cfg: Any) -> dict[str, Any]:
    """The dataclass as plain dicts, lists, numbers and strings: what YAML and JSON can hold."""
    if not dataclasses.is_dataclass(cfg) or isinstance(cfg, type):
        raise TypeError(f"a configuration is an instance of a dataclass, got {cfg!r}")
    return {field.name: _plain(getattr(cfg, field.name)) for field in dataclasses.fields(cfg)}


@dataclasses.dataclass(frozen=True)
class Group:
    """A group that a command composes."""

    place: str
    """Dotted key of the command under which the content of the group goes."""
    option: str
    """The option taken when nothing else is asked for."""

    @property
    def what(self) -> str:
        """The keys that it sets."""
        return "keys of the command itself" if self.place == EVERYWHERE else f"{self.place}.*"


def groups(name: str, root: Path = ROOT) -> dict[str, Group]:
    """Groups in the defaults list of the command `name`, by what is typed before `=`."""
    entries = read_plain(root / f"{name}.yaml").get("defaults", [])
    found = {}
    for group, option in (item for entry in entries if isinstance(entry, dict) for item in entry.items()):
        word, _, place = group.partition("@")
        found[word] = Group(place or word, option)
    return found


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


def _split(overrides: Sequence[str], schema: type, name: str, root: Path) -> tuple[list[str], list[tuple[str, Typed]]]:
    """Parts the overrides into choices of a group (for Hydra) and values of a key (for the dataclass)."""
    choices, values, composed = [], [], groups(name, root)
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.lstrip("+").strip()
        if not equals or not key:
            raise ConfigError(f"{name}: expected key=value, got '{override}'. Known keys: {listed(known_keys(schema))}")
        if key in composed:
            _check_option(name, key, text, root)
            place = composed[key].place
            choices.append(f"{key}={text}" if place == key else f"{key}@{place}={text}")
        else:
            values.append((key, Typed(text)))
    return choices, values


def _check_option(name: str, group: str, option: str, root: Path) -> None:
    known = options(group, root)
    if option not in known:
        raise ConfigError(f"{name}: group '{group}' has no '{option}'{nearest(option, known)}. Known: {listed(known)}")


def _compose(name: str, choices: Sequence[str], root: Path) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(config_dir=str(root.resolve()), version_base="1.3", job_name="dexgrasp"):
            tree = OmegaConf.to_container(compose(name, overrides=list(choices)), resolve=True, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}.yaml must hold keys and values, got a {type(tree).__name__}")
    return {str(key): value for key, value in tree.items()}


def _put(tree: dict[str, Any], key: str, text: Typed) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        before = tree.get(parent)
        if isinstance(before, Typed) and isinstance(typed := yaml.load(before, Loader=Yaml), dict):
            tree[parent] = typed  # key={a: 1}, then key.b=2
        elif not isinstance(before, dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = text


def _build(schema: type[T], tree: Mapping[str, Any], name: str, top: type, prefix: str) -> T:
    """An instance of `schema` from `tree`; `prefix` is where in `top`, the dataclass of the command, it hangs."""
    hints = fields(schema)
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
                raise ConfigError(f"{name}: '{key}' has no value; give {key}=<{spell(hints[field.name])}>")
            if not required:
                continue
            value = {}
        if dataclasses.is_dataclass(hints[field.name]) and isinstance(value, Mapping):
            given[field.name] = _build(hints[field.name], value, name, top, key + ".")
        else:
            given[field.name] = convert(value, hints[field.name], f"{name}: '{key}'")
    try:
        return schema(**given)
    except ValueError as error:
        at = "" if str(error).startswith(prefix) else prefix.rstrip(".") + ": "
        raise ConfigError(f"{name}: {at}{error}") from error


def _walk(schema: type, prefix: str) -> Iterator[str]:
    for key, hint in fields(schema).items():
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
    return f"{name}: unknown key '{key}'.{hint} Known keys: {listed(level)}"
