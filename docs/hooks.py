"""MkDocs hook: fills the reference pages from the source and checks that public names are documented.

A page asks for generated text with a comment `<!-- generated: KIND ARGUMENT -->`.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
IMPORT_ROOTS = [str(ROOT), str(ROOT / "ros2_ws/src/dexgrasp_ros")]
sys.path[:0] = IMPORT_ROOTS

from dexgrasp.policies.cli.commands import COMMANDS, CliCommand  # noqa: E402
from dexgrasp.policies.cli.option_docs import OptionHelp, keys  # noqa: E402

PUBLIC_MODULES = ("dexgrasp", "dexgrasp.deploy", "dexgrasp.perception", "dexgrasp.sim.envs", "dexgrasp.sim.task")
"""Modules whose exported names are the public API."""
ROS_NODES = {
    "perception_node": "dexgrasp_ros.perception.config:PerceptionCfg",
    "grasp_node": "dexgrasp_ros.grasping.config:GraspNodeCfg",
    "sim_robot_node": "dexgrasp_ros.simulation.sim_robot:SimRobotCfg",
    "description_node": "dexgrasp_ros.description.config:DescriptionCfg",
    "recorder_node": "dexgrasp_ros.nodes.recorder_node:RecorderCfg",
    "joint_test_node": "dexgrasp_ros.nodes.joint_test_node:JointTestNodeCfg",
    "identification_node": "dexgrasp_ros.nodes.identification_node:IdentificationCfg",
    "leap_state_node": "dexgrasp_ros.nodes.leap_state_node:LeapStateCfg",
}
"""Executable -> module:Class of its parameters."""
DRIVER = "dexgrasp_ros.drivers.config:AdapterCfg"
"""module:Class of a driver description."""
MARKER = re.compile(r"<!-- generated: (\w+) ?(.*?) -->")
SOURCE_LINK = re.compile(r"\]\(\.\./\.\./((?:examples|ros2_ws)/[^)#]+)\)")
"""Link from a page to a source file, as it works in the repository."""


def on_config(config: MkDocsConfig) -> None:
    """Add the import roots again: MkDocs restores `sys.path` after it has loaded a hook."""
    del config
    sys.path[:0] = IMPORT_ROOTS


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the markers of a page by generated Markdown, and point links to source files at their copies."""
    del page, config, files
    markdown = SOURCE_LINK.sub(r"](../\1)", markdown)
    return MARKER.sub(lambda found: GENERATORS[found[1]](found[2]), markdown)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Copy the source files that pages link to into the site."""
    linked = {name for page in files.documentation_pages() for name in SOURCE_LINK.findall(page.content_string)}
    for name in sorted(linked):
        if (ROOT / name).is_file():  # otherwise the link is reported as broken
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))


def commands(_: str) -> str:
    """Return a section per command: usage, summary, its own keys and links to its nested keys."""
    return "\n".join(line for command in COMMANDS for line in _command(command))


def config_keys(_: str) -> str:
    """Return a section per nested configuration, with the defaults of each command where they differ."""
    merged: dict[str, dict[tuple[str, str, str], dict[str, list[str]]]] = defaultdict(dict)
    for command in COMMANDS:
        for key in command_keys(command):
            head, dot, _ = key.name.partition(".")
            if dot:
                defaults = merged[head].setdefault((key.name, key.described_kind, key.meaning), defaultdict(list))
                defaults[key.default].append(command.words)
    lines: list[str] = []
    for head, entries in sorted(merged.items()):
        lines += [f"## {head}", "", *_table(("key", "type", "default", "description"))]
        for (name, kind, meaning), defaults in entries.items():
            lines.append(_row(f"`{name}`", kind, _defaults(defaults), meaning))
        lines.append("")
    return "\n".join(lines)


def ros_parameters(executable: str) -> str:
    """Return the parameter table of a node."""
    return _key_table("parameter", keys(ROS_NODES[executable], ""))


def driver_keys(_: str) -> str:
    """Return the key table of a driver description."""
    return _key_table("key", keys(DRIVER, ""))


def api(module: str) -> str:
    """Return one mkdocstrings block per exported name of a module."""
    return "\n\n".join(f"::: {path}" for _, path in public_names(module))


def included(name: str) -> str:
    """Return a Markdown file of the repository root, its links pointed at the pages of the site."""
    pages = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\((\w+\.md)\)", lambda found: f"]({pages.get(found[1], found[1])})", text)


GENERATORS: dict[str, Callable[[str], str]] = {
    "commands": commands,
    "config": config_keys,
    "ros_parameters": ros_parameters,
    "driver_keys": driver_keys,
    "api": api,
    "file": included,
}


def command_keys(command: CliCommand) -> list[OptionHelp]:
    """Return all keys of a command."""
    return keys(command.schema, command.config)


def public_names(module: str) -> Iterator[tuple[str, str]]:
    """Yield (name, dotted path of its definition) of the names that a module re-exports; nothing is imported.

    Submodules (`from . import deploy`) have sections of their own.
    """
    for statement in ast.parse(_exports(module).read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            origin = f"{module}.{statement.module}" if statement.level else statement.module
            yield from ((alias.asname or alias.name, f"{origin}.{alias.name}") for alias in statement.names)


def undocumented(module: str) -> list[str]:
    """Return the exported functions and classes, and their public methods, that have no docstring."""
    missing = []
    for _, path in public_names(module):
        place, _, name = path.rpartition(".")
        found = _loaded(place)[name]
        parts = [part for part in found.members.values() if part.is_function and not part.name.startswith("_")]
        missing += [part.path for part in (found, *parts) if not part.has_docstring]
    return missing


def on_pre_build(config: MkDocsConfig) -> None:
    """Stop the build where a public name has no docstring."""
    del config
    if missing := [path for module in PUBLIC_MODULES for path in undocumented(module)]:
        raise PluginError(f"public names without a docstring: {', '.join(missing)}")


def _loaded(module: str) -> griffe.Object:
    file = _source(module)
    return griffe.visit(module, filepath=file, code=file.read_text(encoding="utf-8"))


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exports(module: str) -> Path:
    """Return the file that lists the names of a module: its stub where there is one."""
    stub = _source(module).with_suffix(".pyi")
    return stub if stub.is_file() else _source(module)


def _command(command: CliCommand) -> Iterator[str]:
    words, places = command.words, "".join(f" {key.upper()}" for key in command.positional)
    yield from (f"## dexgrasp {words}", "", command.summary, "")
    yield from ("```text", f"dexgrasp {words}{places} [key=value ...]", "```", "")
    found = command_keys(command)
    yield from (_key_table("key", [key for key in found if "." not in key.name]), "")
    nested = sorted({key.name.partition(".")[0] for key in found if "." in key.name})
    if nested:
        links = ", ".join(f"[`{name}.*`](config.md#{name.lower()})" for name in nested)
        yield from (f"Nested keys: {links}.", "")


def _defaults(defaults: dict[str, list[str]]) -> str:
    if len(defaults) == 1:
        return _code(next(iter(defaults)))
    usual = max(defaults, key=lambda value: len(defaults[value]))
    others = [f"{_code(value)} in {', '.join(words)}" for value, words in defaults.items() if value != usual]
    return f"{_code(usual)}; {'; '.join(others)}"


def _key_table(first: str, found: Iterable[OptionHelp]) -> str:
    rows = [_row(f"`{key.name}`", key.described_kind, _code(key.default), key.meaning) for key in found]
    return "\n".join([*_table((first, "type", "default", "description")), *rows])


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(columns: tuple[str, ...]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
