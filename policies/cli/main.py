"""Entry point of `dexgrasp`: finds a command, loads its configuration, runs it, reports errors.

Heavy modules are not imported here: a command's own module is imported when it runs, its help is read from the source.
"""

import importlib
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

import yaml

from dexgrasp import configs
from dexgrasp.configs.renamed_keys import RENAMED_GROUPS, RENAMED_KEYS
from dexgrasp.configs.schema import fields, put
from dexgrasp.policies.cli import completion, help, saved_config, sweep
from dexgrasp.policies.cli.commands import COMMANDS, CliCommand
from dexgrasp.policies.cli.option_docs import explain_missing, keys
from dexgrasp.policies.cli.source_schema import source_schema
from dexgrasp.policies.run_directory import KEPT, log
from dexgrasp.utils.interrupt import SIGNALS
from dexgrasp.utils.output import claimed_folder, forced
from dexgrasp.utils.plugins import import_plugins, plugin_names, refuse_unnamed
from dexgrasp.utils.text import comma_separated, counted, did_you_mean, os_error_text

OK, FAILED, MISUSED, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 130

LESS_MEMORY = "reduce num_envs, trials, n or the number of objects, or end other programs"
"""Remedies where memory is exhausted."""

LONGEST_MESSAGE = 3200
"""Characters of an error: the list of all keys of a command fits, a value of a megabyte does not."""

LINK_LOOP = "Symlink loop from "
"""First words of an error of pathlib."""
PLEASE_REPORT = "please report this; DEXGRASP_DEBUG=1 shows the traceback"

FLAGS = ("--cfg", "-m", "--multirun")
"""Words of every command beside key=value."""

HELP_FLAGS = ("-h", "--help", "--help-all")
"""Words that print the help of a command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of the process) and return the exit status.

    0: done; 1: the output was closed before its end, or a job of a sweep failed; 2: wrong usage, or an error reported
    in one line (DEXGRASP_DEBUG=1 shows its traceback); 3: an internal error, also in one line; 130: interrupted.
    """
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # `dexgrasp ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:  # before a command runs, or once more while the first is reported
        return INTERRUPTED
    except Exception as error:
        return _report("dexgrasp", error)
    finally:
        if arguments is None:  # this process ends: a further Ctrl-C ends it at once, without a traceback
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def _main(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(help.overview(COMMANDS))
        return OK if given else MISUSED
    if given[0] == "--version":
        from importlib.metadata import version  # 20 ms, which help need not take

        print(f"dexgrasp {version('dexgrasp')}")
        return OK
    if given[0] == completion.REQUEST:
        print("\n".join(completion.candidates(COMMANDS, *given[1:])))
        return OK
    command, rest = _find(given)
    if command is None:
        return _no_such_command(given)
    if set(HELP_FLAGS) & set(rest):
        return _print_help(command, rest)
    return _guarded(command, rest)


def _print_help(command: CliCommand, rest: Sequence[str]) -> int:
    """Print the help of a command; a word behind --help that is no `group=option` names a key or a prefix."""
    first = next(i for i, word in enumerate(rest) if word in HELP_FLAGS)
    prefixes = [word for word in rest[first:] if "=" not in word and not word.startswith("-")]
    try:
        for word in rest:
            if word.startswith("-") and word not in (*HELP_FLAGS, *FLAGS):
                raise _no_such_option(word)
        chosen = _chosen_options(command, rest)
        if prefixes:
            text = "\n".join(help.prefix_help(command, prefix, chosen) for prefix in prefixes)
        elif "--help-all" in rest:
            text = help.full_help(command, chosen)
        else:
            text = help.command_help(command, chosen)
    except (configs.ConfigError, ImportError) as error:
        return _report(f"dexgrasp {command.words}", error)
    print(text)
    return OK


def _chosen_options(command: CliCommand, words: Sequence[str]) -> dict[str, str]:
    """Return the `group=option` words of a command line by group. Raises ConfigError for an unknown option."""
    groups = configs.groups(command.config)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    return {group: configs.current_option(group, option) for group, option in given.items() if group in groups}


def _no_such_option(word: str) -> configs.ConfigError:
    known = "--help, --help-all, --cfg and -m"
    how = (
        f"write {word.lstrip('-')}=VALUE"
        if len(word) > 2 and word.startswith("--") and "=" not in word
        else "options are written key=value"
    )
    return configs.ConfigError(f"no option '{word}': {how}; flags are {known}")


def _find(given: Sequence[str]) -> tuple[CliCommand | None, list[str]]:
    for length in (2, 1):
        for command in COMMANDS:
            words = " ".join(given[:length])
            if command.words == words:
                return command, list(given[length:])
            if command.former == words:
                _deprecated(f"`dexgrasp {words}`", f"`dexgrasp {command.words}`")
                return command, list(given[length:])
    return None, []


def _no_such_command(given: Sequence[str]) -> int:
    """Print the help of a group of commands (`dexgrasp objects`), or an error with the nearest command."""
    group = [command for command in COMMANDS if command.words.startswith(given[0] + " ")]
    if group and (len(given) == 1 or given[1] in ("-h", "--help")):
        print(help.overview(group))
        return OK if len(given) > 1 else MISUSED
    names = [command.words for command in group or COMMANDS]
    words = " ".join(given[:2] if group else given[:1])
    hint = did_you_mean(words, names)
    print(f"dexgrasp: error: no command '{words}'.{hint} Known: {comma_separated(names)}", file=sys.stderr)
    return MISUSED


def _guarded(command: CliCommand, words: Sequence[str]) -> int:
    handler = _Screen(logging.INFO)
    log.addHandler(handler)
    previous = {name: signal.signal(name, _interrupt) for name in SIGNALS}
    try:
        return _run(command, words)
    except KeyboardInterrupt as stop:
        return _report_interruption(command, str(stop))
    except BrokenPipeError:
        raise
    except Exception as error:
        if _interruption_before(error):
            return _report_interruption(command, f"then its end failed: {_one_line(error)}")
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # `_interrupt` struck in native code, during an import
            return _report_interruption(command)
        if isinstance(error, configs.MissingValueError) and command.examples:
            error = configs.ConfigError(f"{error}; for instance: dexgrasp {command.examples[0]}")
        return _report(f"dexgrasp {command.words}", error, command.config)
    finally:
        for name, before in previous.items():
            signal.signal(name, before)
        log.removeHandler(handler)


def _one_line(error: BaseException, name: str = "") -> str:
    """Return the text of an error on one line; `name`: where errors of a configuration come from."""
    plain = os_error_text(error) if isinstance(error, OSError) else str(error)
    return " ".join(plain.removeprefix(f"{name}: ").split()) or type(error).__name__


def _interruption_before(error: BaseException) -> bool:
    """Return whether an error was raised while an interruption was under way, as in the end of a `with` block."""
    before = error.__context__
    return before is not None and (isinstance(before, KeyboardInterrupt) or _interruption_before(before))


def _report_interruption(command: CliCommand, text: str = "") -> int:
    print(f"dexgrasp {command.words}: interrupted; {text or KEPT}", file=sys.stderr)
    return INTERRUPTED


def _report(who: str, error: Exception, name: str = "") -> int:
    """Print an error as one line and return the exit status; `name`: where errors of a configuration come from."""
    if os.environ.get("DEXGRASP_DEBUG") == "1":
        traceback.print_exception(error)
    text = _one_line(error, name)
    if _is_out_of_memory(error):
        text, status = f"error: not enough memory ({text[:200]}): {LESS_MEMORY}", MISUSED
    elif text.startswith(LINK_LOOP):  # a RuntimeError of pathlib
        text, status = f"error: {text.removeprefix(LINK_LOOP)} is a link that leads back to itself", MISUSED
    elif isinstance(error, (ValueError, OSError, ImportError)):
        text, status = f"error: {text}", MISUSED
    else:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)}:{where.lineno}"
        text = f"internal error: {type(error).__name__} in {place}: {text[:500]} ({PLEASE_REPORT})"
        status = INTERNAL
    cut = text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} ... {text[-200:]}"
    print(f"{who}: {cut}", file=sys.stderr)
    return status


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory is exhausted; torch and MuJoCo raise errors of their own."""
    words = ("out of memory", "can't allocate memory", "could not allocate memory")
    return isinstance(error, MemoryError) or (
        not isinstance(error, (ValueError, OSError, ImportError)) and any(word in str(error) for word in words)
    )


def _run(command: CliCommand, words: Sequence[str]) -> int:
    _refuse_blanks(words)
    flags = [word for word in words if word in FLAGS]
    force, rest = _split_force(command, [word for word in words if word not in FLAGS])
    overrides = _renamed(command, _name_positionals(command, rest))
    with forced(force):
        return _run_words(command, overrides, flags)


def _refuse_blanks(words: Sequence[str]) -> None:
    """Raise ConfigError for `key = value`, `key =value` and `key= value`: a shell makes several words of them."""
    for i, word in enumerate(words):
        after = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("-") else ""
        if word.startswith("="):
            key, value = words[i - 1] if i else "KEY", word[1:] or after
        elif word.endswith("=") and word.count("=") == 1 and after and "=" not in after:
            key, value = word[:-1], after
        else:
            continue
        raise configs.ConfigError(f"no blanks around =: write {key}={value}")


def _run_words(command: CliCommand, overrides: Sequence[str], flags: Sequence[str]) -> int:
    from dexgrasp.policies.cli import preflight  # numpy, which help need not import

    if not {"-m", "--multirun"} & set(flags):
        given = _keys(overrides)
        try:
            early = load_early(command, overrides)
            if "--cfg" in flags:
                preflight.check_names(early)
            else:
                preflight.check(early, out_is_file=command.out_is_file)
        except ValueError as error:
            if advice := sweep.advice(command, overrides, str(error)):
                raise configs.ConfigError(f"{error}; {advice}") from error
            raise
        cfg = load(command, overrides)
        preflight.check_task(cfg)
        preflight.check_policy_options(cfg, given)
        if "--cfg" in flags:
            cfg = preflight.with_policy_config(cfg)
            print(yaml.safe_dump(configs.as_dict(cfg), sort_keys=False, allow_unicode=True), end="")
            return OK
        function = _resolve(command.function)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # `_interrupt` struck in an import, which swallowed it
            raise KeyboardInterrupt
        status = function(cfg)
        return status if isinstance(status, int) else OK
    if "--cfg" in flags:
        raise configs.ConfigError("--cfg prints one configuration: leave out -m, and give each key one value")
    with claimed_folder(sweep.root(command, overrides), sweep.SWEEP) as root:
        jobs = sweep.plan(root, overrides)
        for job in jobs:  # every mistake is found before the first job runs
            words = [*job.words, f"out={job.folder}"]
            preflight.check(load_early(command, words), out_is_file=False)
            cfg = load(command, words)
            preflight.check_task(cfg)
            preflight.check_policy_options(cfg, _keys(job.words))
        return sweep.run(command, root, jobs)


def _keys(words: Sequence[str]) -> set[str]:
    """Return the keys and groups that the command line names."""
    return {word.partition("=")[0].lstrip("+") for word in words}


def _split_force(command: CliCommand, words: Sequence[str]) -> tuple[bool, list[str]]:
    """Return the value of `force=`, and the other words. It belongs to no configuration: a saved one never repeats it.

    Raises ConfigError where the command writes no `out`.
    """
    given = [word.removeprefix("force=") for word in words if word.startswith("force=")]
    if given and not any(key.name == "out" for key in keys(command.schema, command.config)):
        raise configs.ConfigError(f"force={given[-1]}: `dexgrasp {command.words}` has no key out: leave it out")
    if given and given[-1] not in ("true", "false"):
        raise configs.ConfigError(f"'force' expects true or false, got '{given[-1]}'")
    return given[-1:] == ["true"], [word for word in words if not word.startswith("force=")]


def load(command: CliCommand, overrides: Sequence[str]) -> Any:
    """Return the configuration of a command line; `config=FILE` among the words starts from a saved one.

    Raises ConfigError.
    """
    schema = _resolve(command.schema)
    values = [value for key, _, value in (word.partition("=") for word in overrides) if key == "plugins"]
    given = [name for value in values for name in plugin_names(value)]
    if "plugins" in fields(schema):
        import_plugins(given)
    if not any(word.startswith("config=") for word in overrides):
        return configs.load(schema, command.config, overrides)
    base, words = saved_config.split(schema, command, overrides)
    if not values:  # plugins=... behind config=FILE replaces what the file says
        refuse_unnamed(plugin_names(base.get("plugins", ())), given, "the configuration of config=")
    return _load_saved(schema, command, base, words, overrides)


def load_early(command: CliCommand, overrides: Sequence[str]) -> Any:
    """Return the configuration of a command line in a class of `source_schema`, without torch and MuJoCo.

    Raises ConfigError for wrong keys and values, for an unknown key with the other commands that take it.
    """
    log.addFilter(_nothing)  # `load` says it
    try:
        _check_keys(command, overrides)
        schema = source_schema(command.schema)
        if any(word.startswith("config=") for word in overrides):
            base, words = saved_config.split(schema, command, overrides)
            return _load_saved(schema, command, base, words, overrides)
        usual: dict[str, Any] = {}
        for key, value in configs.yaml_values(command.config, {}).items():
            put(usual, key, value)
        return configs.load(schema, command.config, overrides, base=usual)
    except configs.UnknownKeyError as error:
        takers = [f"`dexgrasp {other.words}`" for other in COMMANDS if other != command and _takes(other, error.key)]
        if not takers:
            raise
        more = f" and {counted(len(takers) - 3, 'other')}" if len(takers) > 3 else ""
        where = f"{error.key}= is an option of {comma_separated(takers[:3])}{more}."
        raise configs.ConfigError(str(error).replace(" Known keys:", f" {where} Known keys:", 1)) from error
    finally:
        log.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    """Filter of a logger that lets nothing pass."""
    return False


def _load_saved(
    schema: type, command: CliCommand, base: dict[str, Any], words: Sequence[str], overrides: Sequence[str]
) -> Any:
    """Return the configuration of saved values and the words behind config=FILE."""
    try:
        return configs.load(schema, command.config, words, base=base)
    except configs.ConfigError as error:
        source = next(word for word in overrides if word.startswith("config="))
        raise configs.ConfigError(f"{error} (values of {source} and of the words behind it)") from error


def _takes(command: CliCommand, key: str) -> bool:
    """Return whether a command has the key or group."""
    try:
        return any(option.name == key for option in keys(command.schema, command.config))
    except ImportError:  # of a package that is not installed
        return False


def _check_keys(command: CliCommand, overrides: Sequence[str]) -> None:
    """Raise ConfigError for keys and options of groups that the command does not have.

    They are read from the source, before torch and MuJoCo are imported. Former names are left to `configs.load`.
    """
    known = keys(command.schema, command.config)
    groups, leaves = configs.groups(command.config), [key.name for key in known if key.kind != "group"]
    _chosen_options(command, [word for word in overrides if word.partition("=")[0] in groups])
    former = {old.rpartition(".")[2] for old in (*RENAMED_KEYS, *RENAMED_GROUPS)} | {"config"}
    for word in overrides:
        key, equals, _ = word.partition("=")
        key = key.lstrip("+").strip()
        if not equals or not key or key in groups:
            continue
        prefix = ""
        for part in key.split("."):
            below = list(dict.fromkeys(prefix + _first(leaf, prefix) for leaf in leaves if leaf.startswith(prefix)))
            if part in former and prefix + part not in below:
                break
            if prefix + part not in below:
                raise configs.unknown_key(command.config, key, below, leaves, tuple(groups))
            if prefix + part in leaves:
                break
            prefix += f"{part}."


def _first(key: str, prefix: str) -> str:
    """Return the part of a dotted key behind `prefix`."""
    return key.removeprefix(prefix).partition(".")[0]


def _name_positionals(command: CliCommand, words: Sequence[str]) -> list[str]:
    """Add to each positional word its key; `key=value` words stay unchanged."""
    free = list(command.positional)
    overrides, listed = [], []
    for word in words:
        if word.startswith("--"):
            raise _no_such_option(word)
        if not re.match(r"\+{0,2}[A-Za-z_][\w.]*=", word) and free:
            if free[0].endswith("..."):
                listed.append(word)
                continue
            word = f"{free.pop(0)}={word}"
        overrides.append(word)
    return overrides + ([f"{free[0].removesuffix('...')}={json.dumps(listed)}"] if listed else [])


def _renamed(command: CliCommand, overrides: Sequence[str]) -> list[str]:
    """Replace former names of keys, or of whole `key=value` words, by the present ones."""
    found = []
    for override in overrides:
        key, _, value = override.partition("=")
        for old, new in command.renamed:
            if old in (key, override):
                _deprecated(f"`{old}`" if "=" in old else f"`{old}=`", f"`{new}`" if "=" in new else f"`{new}=`")
                override = new if old == override else f"{new}={value}"
                break
        found.append(override)
    return found


def _deprecated(old: str, new: str) -> None:
    print(f"dexgrasp: {old} is now called {new}; the old name will go with the next release", file=sys.stderr)


def _resolve(name: str):  # noqa: ANN202 - a class or a function, as the table says
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise explain_missing(error) from error


def _interrupt(_: int, __: FrameType | None) -> None:
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)  # further ones would end the clean-up with a traceback
    raise KeyboardInterrupt


class _Screen(logging.Handler):
    """Log handler on the present stderr, which a progress bar replaces while it draws."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        print(level + record.getMessage(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
