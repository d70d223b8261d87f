"""Composition of YAML files and command-line overrides into the dataclass of a command.

Unknown keys and groups are errors.

    configs/evaluate.yaml          the command: its own keys and the groups it composes (a Hydra defaults list)
    configs/physics/turbo.yaml     one option of a group: `dexgrasp evaluate physics=turbo physics.condim=4`

A command without YAML takes the defaults of its dataclass. Hydra composes the files; the dataclass decides which keys
exist, their types and their ranges (configs/schema.py).
"""

import copy
import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dexgrasp.configs.renamed_keys import RENAMED_GROUPS, RENAMED_OPTIONS
from dexgrasp.configs.schema import (
    CommandLineValue,
    ConfigError,
    as_dict,
    build,
    current_name,
    known_keys,
    put,
)
from dexgrasp.utils.files import write_text
from dexgrasp.utils.readers import HEAD_BYTES, DamagedFileError, foreign_kind, parse_yaml
from dexgrasp.utils.text import comma_separated, did_you_mean, one_line, shown

ROOT = Path(__file__).resolve().parent
EVERYWHERE = "_global_"
"""Hydra's place of a group whose options set keys of the command itself."""

log = logging.getLogger("dexgrasp")

T = TypeVar("T")


def load(
    schema: type[T], name: str, overrides: Sequence[str] = (), root: Path = ROOT, base: Mapping[str, Any] | None = None
) -> T:
    """Return the configuration of the command `name` as an instance of the dataclass `schema`.

    `overrides` are `key=value` (dots reach into nested dataclasses) or `group=option`; later ones win. Names of the
    last release are accepted with a warning. `base`: values of a saved configuration in place of those of the YAML
    files. Raises ConfigError with the key, what was expected and the nearest key.
    """
    choices, values = _split(overrides, schema, name, root)
    tree: dict[str, Any] = copy.deepcopy(dict(base or {}))
    composed = groups(name, root)
    if base is not None:
        _choose(tree, name, dict(choices), root)
    elif composed or (root / f"{name}.yaml").is_file():
        tree = _compose(name, [_hydra_word(group, option, composed[group]) for group, option in choices], root)
    for key, text in values:
        put(tree, key, text)
    return build(schema, tree, name, tuple(composed))


def load_option(schema: type[T], group: str, option: str, root: Path = ROOT) -> T:
    """Return one option of a group, for instance `load_option(PhysicsCfg, "physics", "balanced")`."""
    option = current_option(group, option, root)
    return build(schema, read_plain(root / group / f"{option}.yaml"), f"{group}/{option}")


def save(cfg: Any, path: Path) -> None:
    """Write the resolved configuration (a dataclass) as YAML, atomically."""
    write_text(path, yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True))


def read_plain(path: Path) -> dict[str, Any]:
    """Read a YAML file as plain dicts, lists, numbers and strings, without composition."""
    content = Path(path).read_bytes()
    if kind := foreign_kind(content[:HEAD_BYTES]):
        raise ConfigError(f"{path}: {kind}")
    try:
        tree = _parse(content, path)
    except DamagedFileError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"{path} is no configuration: expected keys with values, got {shown(tree)}")
    return copy.deepcopy(tree)


@functools.cache
def _parse(content: bytes, path: Path) -> Any:
    """Return the content of a YAML file; help reads each file several times."""
    return parse_yaml(content, path)


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
    """Return the groups in the defaults list of the command `name`, by what is typed before `=`."""
    if not (root / f"{name}.yaml").is_file():
        return {}
    entries = read_plain(root / f"{name}.yaml").get("defaults", [])
    found = {}
    for group, option in (item for entry in entries if isinstance(entry, dict) for item in entry.items()):
        word, _, place = group.partition("@")
        found[word] = Group(place or word, option)
    return found


def options(group: str, root: Path = ROOT) -> list[str]:
    """Return the names that `group=` accepts: the YAML files of the folder."""
    return sorted(path.stem for path in (root / group).glob("*.yaml"))


def current_option(group: str, option: str, root: Path = ROOT) -> str:
    """Return the name of an option of a group, also for its name in the last release. Raises ConfigError."""
    known = options(group, root)
    if (current := option if option in known else RENAMED_OPTIONS.get(group, {}).get(option)) not in known:
        hint = did_you_mean(option, known)
        raise ConfigError(f"group '{group}' has no '{option}'.{hint} Known: {comma_separated(known)}")
    return current


def chosen_options(name: str, given: Mapping[str, str], root: Path = ROOT) -> dict[str, str]:
    """Return the option of every group of a command.

    That is the one in `given`, else the one that a given recipe chooses, else the default.
    """
    known = groups(name, root)
    usual = {word: group.option for word, group in known.items()}
    own: dict[str, str] = {}
    for word, option in {**usual, **given}.items():
        own |= _overridden(word, option, root)
    return usual | own | {word: option for word, option in given.items() if word in known}


def yaml_values(name: str, given: Mapping[str, str], root: Path = ROOT) -> dict[str, Any]:
    """Return the values of a command's YAML files by dotted key, with the options `given` of its groups.

    They are those that `load` composes, without importing Hydra: help and completion must be fast.
    """
    file = root / f"{name}.yaml"
    own = read_plain(file) if file.is_file() else {}
    entries, known, options = own.pop("defaults", ["_self_"]), groups(name, root), chosen_options(name, given, root)
    values: dict[str, Any] = {}
    for entry in entries:
        if entry == "_self_":
            values |= _flat(own, "")
        else:
            word = next(iter(entry)).partition("@")[0]
            values |= option_values(word, options[word], known[word].place, root)
    return values


def option_values(group: str, option: str, place: str, root: Path = ROOT) -> dict[str, Any]:
    """Return the values of an option of a group by dotted key, also of the options that it extends."""
    tree = read_plain(root / group / f"{option}.yaml")
    values: dict[str, Any] = {}
    for entry in tree.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            values |= option_values(group, entry, place, root)
    return values | _flat(tree, "" if place == EVERYWHERE else f"{place}.")


def _choose(tree: dict[str, Any], name: str, given: Mapping[str, str], root: Path) -> None:
    """Put the options `given` of a command's groups into saved values, in place of the saved ones.

    A group with a place of its own gets exactly the values of a command line without saved ones; groups within it that
    are not chosen keep theirs. Groups that set keys of the command itself replace the keys that they name.
    """
    known, values = groups(name, root), yaml_values(name, given, root)
    chosen = dict(given)
    for group, option in given.items():
        chosen = _overridden(group, option, root) | chosen
    places = {known[group].place for group in chosen if known[group].place != EVERYWHERE}
    kept = {group.place for word, group in known.items() if word not in chosen and group.place != EVERYWHERE}
    for place in sorted(places, key=lambda place: place.count(".")):  # task before task.camera
        inside = [other for other in kept if other.startswith(f"{place}.")]
        saved = {other: value for other in inside if (value := _get(tree, other)) is not None}
        put(tree, place, {})
        for key, value in values.items():
            if key.startswith(f"{place}.") and not any(key.startswith(f"{other}.") for other in inside):
                put(tree, key, value)
        for other, value in saved.items():
            put(tree, other, value)
    for group, option in given.items():
        if known[group].place == EVERYWHERE:
            for key, value in option_values(group, option, EVERYWHERE, root).items():
                put(tree, key, value)


def _get(tree: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key in nested dicts, None where there is none."""
    found: Any = tree
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _overridden(group: str, option: str, root: Path) -> dict[str, str]:
    """Return the options of other groups that an option chooses: `override /camera@task.camera: tracked`."""
    found: dict[str, str] = {}
    path = root / group / f"{option}.yaml"
    for entry in read_plain(path).get("defaults", []) if path.is_file() else []:
        if isinstance(entry, dict):
            for key, value in entry.items():
                found[key.removeprefix("override").strip().lstrip("/").partition("@")[0]] = value
        elif entry != "_self_":
            found |= _overridden(group, entry, root)
    return found


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _split(
    overrides: Sequence[str], schema: type, name: str, root: Path
) -> tuple[list[tuple[str, str]], list[tuple[str, CommandLineValue]]]:
    """Separate overrides into choices of groups and values of keys."""
    choices, values, composed = [], [], groups(name, root)
    renamed: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.lstrip("+").strip()
        if not equals or not key:
            known = [key for key in known_keys(schema) if "." not in key]
            hint = f"; did you mean policy={override}?" if "policy" in known and "/" in override else ""
            raise ConfigError(
                f"{name}: expected key=value, got '{override}'{hint or f'. Keys: {comma_separated(known)}'}"
            )
        group = key if key in composed else RENAMED_GROUPS.get(key, key)
        if group in composed:
            try:
                option = current_option(group, text, root)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
            choices.append((group, option))
            new = f"{group}={option}"
        else:
            new_key, value = current_name(schema, key, CommandLineValue(text))
            values.append((new_key, value))
            new = f"{new_key}={value}"
        if new != f"{key}={text}":
            renamed.append(f"{key}={text} is now {new}")
    if renamed:
        log.warning("%s: old names, accepted until the next release: %s", name, comma_separated(renamed))
    return choices, values


def _hydra_word(word: str, option: str, group: Group) -> str:
    return f"{word}={option}" if group.place == word else f"{word}@{group.place}={option}"


def _compose(name: str, choices: Sequence[str], root: Path) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(config_dir=str(root.resolve()), version_base="1.3", job_name="dexgrasp"):
            tree = OmegaConf.to_container(compose(name, overrides=list(choices)), resolve=True, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{name}: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}.yaml must hold keys and values, got a {type(tree).__name__}")
    return {str(key): value for key, value in tree.items()}
