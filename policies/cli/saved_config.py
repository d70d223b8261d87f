"""`config=RUN/config.yaml`: values of an earlier run as the start of a command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexgrasp import configs
from dexgrasp.policies.cli.commands import COMMANDS, CliCommand
from dexgrasp.policies.cli.option_docs import keys
from dexgrasp.policies.run_directory import kind_of_run
from dexgrasp.utils.files import expand_user
from dexgrasp.utils.readers import read_json_object
from dexgrasp.utils.text import comma_separated


def split(schema: type, command: CliCommand, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the saved configuration that `config=` names, and the words behind it.

    `out` is left out: a new run gets a new directory. Raises ConfigError for a file of another command.
    """
    first, *rest = words
    if len(given := [word for word in words if word.startswith("config=")]) > 1:
        raise configs.ConfigError(f"config=FILE is given once, got {' and '.join(given)}: leave out all but one")
    if first != given[0]:
        raise configs.ConfigError(
            f"config=FILE comes first: later words win over the saved values, so that '{first}' in front of it would "
            "be lost"
        )
    path = expand_user(first.removeprefix("config="))
    file = path / "config.yaml" if path.is_dir() else path
    if not file.is_file():
        raise configs.ConfigError(f"{first}: no such file. Expected the config.yaml of a run directory")
    tree = configs.read_plain(file)
    _refuse_other_command(first, file, schema, command)
    former = {old: new for old, new in command.renamed if new not in tree}
    tree = configs.upgrade(schema, {former.get(key, key): value for key, value in tree.items()}, str(file))
    known = {key.partition(".")[0] for key in configs.known_keys(schema)}
    if unknown := [key for key in tree if key not in known]:
        fitting = [other.words for other in COMMANDS if set(tree) <= _top_level(other)]
        whose = f" It fits `dexgrasp {'` or `dexgrasp '.join(fitting)}`." if fitting else ""
        raise configs.ConfigError(
            f"{first} is no configuration of `dexgrasp {command.words}`, which has no "
            f"{comma_separated(unknown)}.{whose}"
        )
    tree.pop("out", None)
    return tree, rest


def _refuse_other_command(word: str, file: Path, schema: type, command: CliCommand) -> None:
    """Raise ConfigError if run.json beside the file tells of another command."""
    try:
        kind = read_json_object(file.parent / "run.json")["kind"]
    except (OSError, ValueError, KeyError):
        return
    if kind != kind_of_run(schema.__name__):
        right = [other.words for other in COMMANDS if kind_of_run(other.schema.rpartition(":")[2]) == kind]
        names = " or ".join(f"`dexgrasp {name}`" for name in right) or f"'{kind}'"
        raise configs.ConfigError(f"{word} is of a run of {names}, not of `dexgrasp {command.words}`")


def _top_level(command: CliCommand) -> set[str]:
    """Return the first parts of a command's keys; none where its package is not installed."""
    try:
        known = keys(command.schema, command.config)
    except ImportError:
        return set()
    return {key.name.partition(".")[0] for key in known}
