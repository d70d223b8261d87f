"""Shell completion: the scripts for bash and zsh, and the candidates that they ask for.

The scripts run `dexgrasp __complete` with the words up to the cursor. Candidates come from the source of the
configurations and from names of files; nothing heavy is imported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import Literal

from dexgrasp import assets
from dexgrasp.policies.cli import sweep
from dexgrasp.policies.cli.commands import CliCommand
from dexgrasp.policies.cli.option_docs import OptionHelp, keys
from dexgrasp.utils.bounds import bounded

REQUEST = "__complete"
"""First word of a request for candidates."""

FLAGS = ("--help", "--help-all", "--cfg", "-m")

LIBRARIES = ("shipped", "generated:200", "generated:216:validation", "generated:216:test", "random_urdfs")
"""Object libraries without a path of their own."""

UNTRAINED = ("synergy", "zero", "random")
"""Policies that are no files; a key takes them where its description names them."""

BASH = """\
# Completion of dexgrasp in bash: eval "$(dexgrasp completion bash)"
_dexgrasp() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##*[[:space:]]}"
    local IFS=$'\\n'
    COMPREPLY=($(dexgrasp __complete "$line" 2>/dev/null))
    # bash splits words at = and : , so that only the part behind the last one is replaced
    local skip="${word%"${word##*[=:]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$skip"}")
}
complete -o nospace -o default -F _dexgrasp dexgrasp
"""

ZSH = """\
#compdef dexgrasp
# Completion of dexgrasp in zsh: eval "$(dexgrasp completion zsh)"
_dexgrasp() {
    local -a found
    found=("${(@f)$(dexgrasp __complete "$LBUFFER" 2>/dev/null)}")
    found=(${found:#})
    if (( $#found )); then
        compadd -Q -S '' -- $found
    else
        compset -P '*='
        _files
    fi
}
compdef _dexgrasp dexgrasp
"""


@dataclass(frozen=True)
@bounded
class CompletionCfg:
    """Print a completion script."""

    shell: Literal["bash", "zsh"]
    """Shell that evaluates the script."""


def print_script(cfg: CompletionCfg) -> None:
    """Print the script."""
    print({"bash": BASH, "zsh": ZSH}[cfg.shell], end="")


def candidates(commands: Sequence[CliCommand], line: str = "") -> list[str]:
    """Return the completions of the last word of a command line; complete words end with a space.

    There are none for the keys of a command whose package is not installed.
    """
    words = line.split()[1:]
    last = "" if not line or line[-1].isspace() else words.pop() if words else ""
    command, given = _command(commands, words)
    try:
        if command is None:
            found = _command_words(commands, words)
        elif "=" in last:
            found = _values(command, last.partition("=")[0])
        else:
            found = [*_positionals(command, given), *_folders(command, last), *_names(command, last), "config="]
            found += ["force=true "] if "out=" in found else []
    except ImportError:
        found = []
    return [word for word in found if word.startswith(last)]


def _command(commands: Sequence[CliCommand], words: Sequence[str]) -> tuple[CliCommand | None, Sequence[str]]:
    for length in (2, 1):
        for command in commands:
            if command.words == " ".join(words[:length]):
                return command, words[length:]
    return None, words


def _command_words(commands: Sequence[CliCommand], words: Sequence[str]) -> list[str]:
    """Return the next words of the commands that begin with `words`."""
    names = [command.words.split() for command in commands]
    here = len(words)
    return list(dict.fromkeys(f"{name[here]} " for name in names if len(name) > here and name[:here] == list(words)))


def _names(command: CliCommand, last: str) -> Iterator[str]:
    """Yield flags and keys: nested keys one level at a time."""
    if last.startswith("-"):
        yield from (f"{flag} " for flag in FLAGS if flag != "-m" or not sweep.refusal(command))
    depth, seen = last.count("."), set[str]()
    for key in keys(command.schema, command.config):
        parts = key.name.split(".")
        word = f"{key.name}=" if len(parts) <= depth + 1 else ".".join(parts[: depth + 1]) + "."
        if word not in seen:
            seen.add(word)
            yield word


def _positionals(command: CliCommand, given: Sequence[str]) -> list[str]:
    """Return the values of the next key that may be given without its name."""
    named = [word.partition("=")[0] for word in given if "=" in word]
    places = [key for key in (place.removesuffix("...") for place in command.positional) if key not in named]
    bare = [word for word in given if "=" not in word and not word.startswith("-")]
    if len(bare) >= len(places):
        return []
    found = {key.name: key for key in keys(command.schema, command.config)}
    return [f"{value} " for value in _choices(found[places[len(bare)]])]


def _folders(command: CliCommand, last: str) -> list[str]:
    """Return the folders that begin with `last`, where words without a key are paths."""
    places = [place.removesuffix("...") for place in command.positional]
    if not last or not any(key.name in places and not _choices(key) for key in keys(command.schema, command.config)):
        return []
    return [f"{path}/" for path in sorted(glob(f"{escape(last)}*")) if Path(path).is_dir()]


def _values(command: CliCommand, name: str) -> list[str]:
    found = [key for key in keys(command.schema, command.config) if key.name == name]
    return [f"{name}={value} " for key in found for value in _choices(key)]


def _choices(key: OptionHelp) -> list[str]:
    """Return the values of a key: its choices, or the names of assets that it takes beside paths."""
    names = {
        **dict.fromkeys(("policy", "teacher", "init_checkpoint", "a", "b"), assets.policies),
        "hand": lambda: assets.names("hands"),
        "mount": lambda: ["floating", *assets.names("arms")],
        **dict.fromkeys(("objects", "validation_objects", "library"), lambda: LIBRARIES),
    }
    listed = key.choices or (names[key.name]() if key.name in names else [])
    return [*listed, *(name for name in UNTRAINED if key.name == "policy" and name in key.meaning)]
