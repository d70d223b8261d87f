"""Text of `dexgrasp --help`, `dexgrasp COMMAND --help`, `--help-all` and `--help PREFIX`."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from dexgrasp import assets, configs
from dexgrasp.policies.cli import sweep
from dexgrasp.policies.cli.commands import GROUPS, CliCommand
from dexgrasp.policies.cli.option_docs import REQUIRED, OptionHelp, keys
from dexgrasp.utils.text import comma_separated, counted, did_you_mean, nearest_names

SECTIONS = {
    "Policy": "recipe camera_file bag policy a b teacher init_checkpoint variants budget",
    "Robot and objects": "hand arm side mount objects validation_objects library source meshes test n split families",
    "Trials": "trials disturbances attempts videos trial",
    "Training": "iterations time_limit_min tracker",
    "Task and physics": "task scene camera randomization physics disturbance",
    "Run": "out seed num_envs num_threads engine cluster plugins workers",
}
"""Sections of a command's help, and their keys in order; other keys form the section `Options`."""

RARE = frozenset(
    (
        *("stage", "disturbance_step", "validation_trials", "early_stop_patience", "validation_interval", "resume"),
        *("learning_rate", "target_kl", "num_epochs", "num_minibatches", "gamma", "init_std", "final_std", "hidden"),
        *("precision", "init_from_teacher", "history_encoder", "reproduce_release", "alpha", "num_threads"),
        *("hand_body", "palm_pose_source", "check_reachability", "preview", "shadow", "time_limit_min"),
        "clear_table",
    )
)
"""Top-level keys that only --help-all shows."""

LONGEST_DEFAULT = 40
"""Characters of a default that the short help shows."""

EVERY_COMMAND = (
    ("config=RUN/config.yaml", "start from a saved configuration; later words win"),
    ("--cfg", "print the resolved configuration, run nothing"),
)
"""Words that every command takes."""

FORCE = ("force=true", "move what lies at out= aside and start anew")
"""Word of the commands that write."""

SWEEP = ("KEY=A,B,C -m", "run every value, or every combination; one table at the end")
"""Words of the commands that can be swept."""


def overview(commands: Sequence[CliCommand]) -> str:
    """Return the help of `dexgrasp`: commands by group, an example of each group, shipped policies."""
    width = max(len(command.words) for command in commands) + 2
    lines = ["usage: dexgrasp COMMAND [key=value ...]"]
    for group, title in {**GROUPS, "": "More"}.items():
        members = [command for command in commands if command.group == group]
        if members:
            example = next((f"for example: dexgrasp {member.examples[0]}" for member in members if member.examples), "")
            lines += ["", f"{title:<{width + 2}}{example}".rstrip()]
            lines += [f"  {member.words:<{width}}{member.summary}" for member in members]
    lines += [
        "",
        f"Shipped policies: {comma_separated(assets.policies())} (more: dexgrasp list policies)",
        "`dexgrasp COMMAND --help` shows the keys of a command; `--version` prints the version.",
    ]
    return "\n".join(lines)


def command_help(command: CliCommand, chosen: Mapping[str, str] | None = None) -> str:
    """Return the short help of a command: examples, its main keys in sections, the way to all others.

    `chosen`: options of groups whose defaults are shown, for instance {"recipe": "student"}.
    """
    known = keys(command.schema, command.config, chosen)
    shown = [key for key in known if "." not in key.name and key.name not in RARE]
    parts = [_head(command, known), _examples(command)]
    for title, members in _sections(shown).items():
        parts.append("\n".join([title, *(_line(key, brief=True) for key in members)]))
    parts.append(_footer(command, known, shown))
    return "\n\n".join(part for part in parts if part)


def full_help(command: CliCommand, chosen: Mapping[str, str] | None = None) -> str:
    """Return the help of one command with every key, its type, default and description."""
    known = keys(command.schema, command.config, chosen)
    return "\n\n".join([_head(command, known), "\n".join(_line(key, brief=False) for key in known)])


def prefix_help(command: CliCommand, prefix: str, chosen: Mapping[str, str] | None = None) -> str:
    """Return the help of the key `prefix` or of the keys below it. Raises ConfigError without any."""
    known = keys(command.schema, command.config, chosen)
    wanted = prefix.removesuffix(".*").rstrip(".=")
    found = [key for key in known if key.name == wanted or key.name.startswith(f"{wanted}.")]
    if not found:
        prefixes = sorted({key.name.rpartition(".")[0] for key in known} - {""})
        by_last_word = {key.name.rpartition(".")[2]: key.name for key in reversed(known)}
        hint = did_you_mean(wanted, [*prefixes, *(key.name for key in known)])
        if not hint and (near := nearest_names(wanted.rpartition(".")[2], reversed(by_last_word))):
            hint = f" Did you mean '{by_last_word[near[0]]}'?"
        raise configs.ConfigError(f"--help: no keys '{wanted}'.{hint} Prefixes: {comma_separated(prefixes)}")
    return "\n".join(_line(key, brief=False) for key in found)


def _head(command: CliCommand, known: Sequence[OptionHelp]) -> str:
    """Return usage and summary; brackets around words that may be left out."""
    defaults = {key.name: key.default for key in known}
    places = ""
    for place in command.positional:
        needed = defaults[place.removesuffix("...")] in (REQUIRED, "", "[]")
        places += f" {place.upper()}" if needed else f" [{place.upper()}]"
    return f"usage: dexgrasp {command.words}{places} [key=value ...]\n\n{command.summary}"


def _examples(command: CliCommand) -> str:
    return "\n".join(["Examples", *(f"  dexgrasp {example}" for example in command.examples)])


def _sections(shown: Sequence[OptionHelp]) -> dict[str, list[OptionHelp]]:
    """Return the keys by title of their section, in the order of SECTIONS."""
    by_name = {key.name: key for key in shown}
    found = {
        title: [by_name.pop(name) for name in names.split() if name in by_name] for title, names in SECTIONS.items()
    }
    last = found.pop("Run")
    found |= {"Options": list(by_name.values()), "Run": last}
    return {title: members for title, members in found.items() if members}


def _footer(command: CliCommand, known: Sequence[OptionHelp], shown: Sequence[OptionHelp]) -> str:
    hidden = [key.name for key in known if key not in shown]
    lines = []
    if hidden:
        below = Counter(name.rpartition(".")[0] for name in hidden if "." in name)
        prefixes = [f"{prefix}.* ({count})" for prefix, count in below.items()]
        own = sum("." not in name for name in hidden)
        more = comma_separated([*prefixes, *([counted(own, "advanced key")] if own else [])])
        lines += [textwrap.fill(f"{len(hidden)} more keys: {more}", _width(), subsequent_indent="  ")]
        example = next((name for name in ("task.reward", *below) if name in below), "")
        ways = {f"--help {example}": "the keys below a prefix"} if example else {}
        ways |= {"--help-all": "every key"}
        width = max(map(len, ways)) + 2
        lines += [f"  dexgrasp {command.words} {flag:<{width}}{text}" for flag, text in ways.items()]
    writes = any(key.name == "out" for key in known)
    general = EVERY_COMMAND if len(known) > 1 else ()  # one key is shorter than a saved configuration
    words = (*general, *((FORCE,) if writes else ()), *(() if sweep.refusal(command) else (SWEEP,)))
    if words:
        lines += ["Also taken", *(f"  {word:<26}{text}" for word, text in words)]
    return "\n".join(lines)


def _width() -> int:
    return max(60, min(120, shutil.get_terminal_size((110, 20)).columns))


def _line(key: OptionHelp, brief: bool) -> str:
    column = 27 if brief else 34
    default = "..." if key.default == REQUIRED else key.default
    if brief and len(default) > LONGEST_DEFAULT:
        default = f"{default[:LONGEST_DEFAULT]}..."
    head = f"  {key.name}={default}"
    lines = textwrap.wrap(_text(key, brief), _width() - column) or [""]
    body = ("\n" + " " * column).join(lines)
    gap = "\n" + " " * column if len(head) >= column - 1 else " " * (column - len(head))
    return head + gap + body


def _text(key: OptionHelp, brief: bool) -> str:
    required = "required. " if key.default == REQUIRED else ""
    if not brief:
        return f"{required}({key.described_kind}) {key.meaning}"
    if key.kind == "group":
        return f"{key.meaning.partition(';')[0]}: {' | '.join(key.choices)}"
    listed = [choice for choice in key.choices if choice not in key.meaning]
    choices = f"({' | '.join(key.choices)}) " if key.kind != "true or false" and listed else ""
    return required + choices + key.meaning
