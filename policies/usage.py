"""Help texts. Keys, types, defaults and meanings are read from the source of a command's dataclass, without running it.

Importing a command to print its help would import torch and MuJoCo: two seconds instead of a tenth.
"""

import ast
import importlib.util
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import configs

KEY_COLUMN = 34


@dataclass(frozen=True)
class Key:
    """One key of a command as its help shows it."""

    name: str
    kind: str
    default: str
    meaning: str


def overview(commands: Sequence[tuple[str, str]]) -> str:
    """Help of `dexgrasp`: the commands with one line each."""
    width = max(len(words) for words, _ in commands) + 2
    lines = [f"  {words:<{width}}{summary}" for words, summary in commands]
    head = "usage: dexgrasp COMMAND [key=value ...]\n\n"
    return head + "\n".join(lines) + "\n\n`dexgrasp COMMAND --help` lists the keys of a command; `--version` prints it."


def command_help(words: str, summary: str, schema: str, config: str, positional: Sequence[str]) -> str:
    """Help of one command; `schema` is the module:Class of its dataclass, `config` the name of its YAML."""
    places = "".join(f" {key.upper()}" for key in positional)
    head = f"usage: dexgrasp {words}{places} [key=value ...]\n\n{summary}\n"
    if not schema:
        return head
    return head + "\n" + "\n".join(_line(key) for key in keys(schema, config))


def keys(schema: str, config: str) -> list[Key]:
    """Every key of the dataclass `module:Class`, nested ones dotted, with the default that the YAML `config` gives."""
    module, _, name = schema.partition(":")
    chosen = [
        Key(word, "group", group.option, f"One of {', '.join(configs.options(word))}; sets {group.what}")
        for word, group in configs.groups(config).items()
    ]
    words = {key.name for key in chosen}
    plain = [key for key in _walk(module, name, _yaml_values(config), "") if key.name not in words]
    return [*(key for key in plain if "." not in key.name), *chosen, *(key for key in plain if "." in key.name)]


def _walk(module: str, name: str, given: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    body = _class(tree, name, module)
    for base in map(ast.unparse, body.bases):
        yield from _walk(_origin(tree, base), base, given, prefix)
    for field, meaning in _fields(body):
        key, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        is_local = kind.endswith("Cfg") and kind in {item.name for item in tree.body if isinstance(item, ast.ClassDef)}
        nested = module if is_local else _origin(tree, kind)
        if nested:
            yield from _walk(nested, kind.rpartition(".")[2], given, f"{prefix}{key}.")
        else:
            yield Key(prefix + key, _spell(field.annotation), _default(tree, field, given.get(prefix + key)), meaning)


def _fields(body: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Annotated fields of a class, each with the docstring that stands below it."""
    for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield statement, " ".join(text.split()) if isinstance(text, str) else ""


def _class(tree: ast.Module, name: str, module: str) -> ast.ClassDef:
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return statement
    raise ValueError(f"no class {name} in {module}")


def _origin(tree: ast.Module, kind: str) -> str:
    """Module of this project that defines the dataclass `kind` used in `tree`; empty for any other type."""
    module, _, name = kind.rpartition(".")
    if not name.endswith("Cfg"):
        return ""
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and (module or name) in {alias.name for alias in statement.names}:
            return f"{statement.module}.{module}" if module else str(statement.module)
    raise ValueError(f"{kind} is used but not imported")


def _spell(annotation: ast.expr) -> str:
    """A type as help shows it: `Literal["a", "b"]` as the choice that it is."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return "one of " + ", ".join(ast.unparse(choice).strip("'") for choice in choices)
    return ast.unparse(annotation).replace("None", "null")


def _default(tree: ast.Module, field: ast.AnnAssign, given: object) -> str:
    """The value that YAML gives, else the one in the source, with the name of a constant replaced by its value."""
    if given is not None:
        return str(given)
    if field.value is None:
        return "(required)"
    value = _constant(tree, field.value.id) if isinstance(field.value, ast.Name) else field.value
    text = ast.unparse(value)
    return "null" if text == "None" else text.strip("'")


def _constant(tree: ast.Module, name: str) -> ast.expr:
    """Value of the module-level constant `name`, found in `tree` or in the module it is imported from."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and name in [ast.unparse(target) for target in statement.targets]:
            return statement.value
        if isinstance(statement, ast.ImportFrom) and statement.module and name in {a.name for a in statement.names}:
            return _constant(ast.parse(_file(statement.module).read_text(encoding="utf-8")), name)
    return ast.Name(name)


def _file(module: str) -> Path:
    spec = importlib.util.find_spec(module)  # imports the package around it, which holds nothing
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def _yaml_values(config: str) -> dict[str, Any]:
    """Values of a command's YAML and of the groups it chooses, by dotted key."""
    own = configs.read_plain(configs.ROOT / f"{config}.yaml")
    own.pop("defaults", None)
    values: dict[str, Any] = {}
    for word, group in configs.groups(config).items():
        place = "" if group.place == configs.EVERYWHERE else f"{group.place}."
        values |= _flat(configs.read_plain(configs.ROOT / word / f"{group.option}.yaml"), place)
    return values | _flat(own, "")


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _line(key: Key) -> str:
    head = f"  {key.name}={key.default}"
    text = f"({key.kind}) {key.meaning}" if key.meaning else f"({key.kind})"
    width = max(60, min(120, shutil.get_terminal_size((110, 20)).columns)) - KEY_COLUMN
    lines = textwrap.wrap(text, width) or [""]
    body = ("\n" + " " * KEY_COLUMN).join(lines)
    gap = "\n" + " " * KEY_COLUMN if len(head) >= KEY_COLUMN - 1 else " " * (KEY_COLUMN - len(head))
    return head + gap + body
