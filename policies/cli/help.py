"""Help of commands: keys, types, defaults and descriptions from the source of their dataclasses.

Importing a command to print its help would import torch and MuJoCo: two seconds instead of a tenth.
"""

import ast
import builtins
import importlib.util
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexgrasp import configs

KEY_COLUMN = 34


@dataclass(frozen=True)
class OptionHelp:
    """Name, type, default and description of one key of a command."""

    name: str
    kind: str
    default: str
    meaning: str


def overview(commands: Sequence[tuple[str, str]]) -> str:
    """Return the help of `dexgrasp`: the commands with one line each."""
    width = max(len(words) for words, _ in commands) + 2
    lines = [f"  {words:<{width}}{summary}" for words, summary in commands]
    head = "usage: dexgrasp COMMAND [key=value ...]\n\n"
    return head + "\n".join(lines) + "\n\n`dexgrasp COMMAND --help` lists the keys of a command; `--version` prints it."


def command_help(words: str, summary: str, schema: str, config: str, positional: Sequence[str]) -> str:
    """Return the help of one command.

    `schema`: module:Class of its dataclass. `config`: name of its YAML.
    """
    places = "".join(f" {key.upper()}" for key in positional)
    head = f"usage: dexgrasp {words}{places} [key=value ...]\n\n{summary}\n"
    if not schema:
        return head
    return head + "\n" + "\n".join(_line(key) for key in keys(schema, config))


def keys(schema: str, config: str) -> list[OptionHelp]:
    """Return every key of the dataclass `module:Class`, nested keys dotted.

    Defaults are those of the YAML `config`.
    """
    module, _, name = schema.partition(":")
    chosen = [
        OptionHelp(
            name=word,
            kind="group",
            default=group.option,
            meaning=f"One of {', '.join(configs.options(word))}; sets {group.what}",
        )
        for word, group in configs.groups(config).items()
    ]
    words = {key.name for key in chosen}
    plain = [key for key in _walk(module, name, _yaml_values(config), "") if key.name not in words]
    return [*(key for key in plain if "." not in key.name), *chosen, *(key for key in plain if "." in key.name)]


def _walk(module: str, name: str, given: Mapping[str, Any], prefix: str) -> Iterator[OptionHelp]:
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
            yield OptionHelp(
                name=prefix + key,
                kind=_spell(tree, field.annotation),
                default=_default(tree, field, given.get(prefix + key)),
                meaning=meaning,
            )


def _fields(body: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Yield the annotated fields of a class, each with the docstring below it."""
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
    """Return the module of this project that defines the dataclass `kind` used in `tree`; empty for other types."""
    module, _, name = kind.rpartition(".")
    if not name.endswith("Cfg"):
        return ""
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and (module or name) in {alias.name for alias in statement.names}:
            return f"{statement.module}.{module}" if module else str(statement.module)
    raise ValueError(f"{kind} is used but not imported")


def _spell(tree: ast.Module, annotation: ast.expr) -> str:
    """Return a type in the words of `configs.schema.describe_type`, with type aliases resolved."""
    if isinstance(annotation, ast.Name):
        words = {"bool": "true or false", "Path": "path", "Any": "anything"}
        if annotation.id in words or annotation.id in dir(builtins):
            return words.get(annotation.id, annotation.id)
        value, origin = _constant(tree, annotation.id)
        return annotation.id if isinstance(value, ast.Name) else _spell(origin, value)
    if isinstance(annotation, ast.Constant):
        return "null" if annotation.value is None else str(annotation.value)
    if isinstance(annotation, ast.BinOp):
        return f"{_spell(tree, annotation.left)} or {_spell(tree, annotation.right)}"
    if not isinstance(annotation, ast.Subscript):
        return ast.unparse(annotation)
    parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    kind = ast.unparse(annotation.value)
    if kind == "Literal":
        return "one of " + ", ".join(ast.unparse(part).strip("'") for part in parts)
    if kind in ("tuple", "list", "Sequence"):
        if kind != "tuple" or ast.unparse(parts[-1]) == "...":
            return f"list of {_spell(tree, parts[0])}"
        return f"{len(parts)} values ({', '.join(_spell(tree, part) for part in parts)})"
    if kind in ("dict", "Mapping"):
        return f"a mapping of {_spell(tree, parts[0])} to {_spell(tree, parts[1])}"
    return ast.unparse(annotation)


def _default(tree: ast.Module, field: ast.AnnAssign, given: object) -> str:
    """Return the value in the YAML, else the one in the source, with constants replaced by their values."""
    if given is not None:
        return str(given)
    if field.value is None:
        return "(required)"
    value = _constant(tree, field.value.id)[0] if isinstance(field.value, ast.Name) else field.value
    if isinstance(value, ast.Tuple):
        return "[" + ", ".join(ast.unparse(item).strip("'") for item in value.elts) + "]"
    text = ast.unparse(value)
    return {"None": "null", "field(default_factory=dict)": "{}"}.get(text, text.strip("'"))


def _constant(tree: ast.Module, name: str) -> tuple[ast.expr, ast.Module]:
    """Return the value of the module-level constant `name` and the module that assigns it, `tree` or one it imports."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and name in [ast.unparse(target) for target in statement.targets]:
            return statement.value, tree
        if isinstance(statement, ast.ImportFrom) and statement.module and name in {a.name for a in statement.names}:
            if not _is_ours(statement.module):
                break
            return _constant(ast.parse(_file(statement.module).read_text(encoding="utf-8")), name)
    return ast.Name(name), tree


def _is_ours(module: str) -> bool:
    """Return whether the module is one of this project's packages: beside `configs`, or named as it."""
    first = module.partition(".")[0]
    return first == configs.__name__.partition(".")[0] or (configs.ROOT.parent / first).is_dir() or "dexgrasp" in first


def _file(module: str) -> Path:
    spec = importlib.util.find_spec(module)  # imports the package around it, which holds nothing
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def _yaml_values(config: str) -> dict[str, Any]:
    """Return the values of a command's YAML and of its default groups, by dotted key."""
    file = configs.ROOT / f"{config}.yaml"
    own = configs.read_plain(file) if file.is_file() else {}
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


def _line(key: OptionHelp) -> str:
    head = f"  {key.name}={key.default}"
    text = f"({key.kind}) {key.meaning}" if key.meaning else f"({key.kind})"
    width = max(60, min(120, shutil.get_terminal_size((110, 20)).columns)) - KEY_COLUMN
    lines = textwrap.wrap(text, width) or [""]
    body = ("\n" + " " * KEY_COLUMN).join(lines)
    gap = "\n" + " " * KEY_COLUMN if len(head) >= KEY_COLUMN - 1 else " " * (KEY_COLUMN - len(head))
    return head + gap + body
