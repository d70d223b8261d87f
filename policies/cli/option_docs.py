"""Keys of commands with type, default and description, read from the source of their dataclasses.

Importing a command to print its help would import torch and MuJoCo: two seconds instead of a tenth.
"""

import ast
import builtins
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexgrasp import configs
from dexgrasp.utils.bounds import Bounds

REQUIRED = "(required)"
"""Default of a key that must be given."""


GROUP_MEANING = {
    "scene": "Objects on the table",
    "camera": "Points of the object that a student observes",
    "physics": "Physics preset, accurate or fast",
    "randomization": "Domain randomisation",
    "recipe": "Policy to train, with the settings that proved best",
    "task": "Setting of the grasping task",
}
"""Descriptions of the groups of configs/."""


@dataclass(frozen=True)
class OptionHelp:
    """Name, type, default and description of one key of a command."""

    name: str
    kind: str
    default: str
    meaning: str
    bounds: str = ""
    """Range of its numbers, `LOW..HIGH`; empty for text and choices."""

    @property
    def described_kind(self) -> str:
        """Type and range in words."""
        return f"{self.kind}, {self.bounds}" if self.bounds else self.kind

    @property
    def choices(self) -> list[str]:
        """Return the values that the key takes, where these can be listed; empty for numbers and text."""
        if self.kind == "group":
            return configs.options(self.name)
        if self.kind == "true or false":
            return ["true", "false"]
        return self.kind.removeprefix("list of ").removeprefix("one of ").split(", ") if "one of " in self.kind else []


def explain_missing(error: ModuleNotFoundError) -> ImportError:
    """Return the error of a missing package, with the way to install it for dexgrasp_ros."""
    if error.name != "dexgrasp_ros":
        return error
    return ImportError(
        "this needs the package dexgrasp_ros: run `make setup` in a clone, or, with a ROS 2 installation, build "
        "ros2_ws with colcon and source it"
    )


def keys(schema: str, config: str, chosen: Mapping[str, str] | None = None) -> list[OptionHelp]:
    """Return every key of the dataclass `module:Class`, nested keys dotted.

    Defaults are those of the YAML `config` with the options `chosen` of its groups, for instance {"recipe": "student"}.
    Raises ImportError where the package of the command is not installed.
    """
    module, _, name = schema.partition(":")
    options = configs.chosen_options(config, chosen or {})
    groups = [
        OptionHelp(
            name=word,
            kind="group",
            default=options[word],
            meaning=f"{GROUP_MEANING.get(word, 'Preset')}; sets {group.what}",
        )
        for word, group in configs.groups(config).items()
    ]
    words = {key.name for key in groups}
    given = configs.yaml_values(config, options)
    plain = [key for key in _walk(module, name, given, "") if key.name not in words]
    return [*(key for key in plain if "." not in key.name), *groups, *(key for key in plain if "." in key.name)]


def _walk(module: str, name: str, given: Mapping[str, Any], prefix: str) -> Iterator[OptionHelp]:
    tree = parse(module)
    body = class_of(tree, name, module)
    for base in map(ast.unparse, body.bases):
        yield from _walk(module_of_class(tree, base), base, given, prefix)
    for field, meaning in annotated_fields(body):
        key, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        is_local = kind.endswith("Cfg") and kind in {item.name for item in tree.body if isinstance(item, ast.ClassDef)}
        nested = module if is_local else module_of_class(tree, kind)
        if nested:
            yield from _walk(nested, kind.rpartition(".")[2], given, f"{prefix}{key}.")
        else:
            yield OptionHelp(
                name=prefix + key,
                kind=_spell(tree, field.annotation),
                default=_given(given[prefix + key]) if prefix + key in given else _default(tree, field),
                meaning=meaning,
                bounds=_bounds(tree, field.annotation),
            )


def annotated_fields(body: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Yield the annotated fields of a class, each with the docstring below it."""
    for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield statement, " ".join(text.split()) if isinstance(text, str) else ""


def class_of(tree: ast.Module, name: str, module: str) -> ast.ClassDef:
    """Return a class in the source of `module`. Raises ValueError where there is none."""
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return statement
    raise ValueError(f"no class {name} in {module}")


def module_of_class(tree: ast.Module, kind: str) -> str:
    """Return the module that defines the dataclass `kind` used in `tree`; empty for other types."""
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
        value, origin = constant(tree, annotation.id)
        return annotation.id if isinstance(value, ast.Name) else _spell(origin, value)
    if isinstance(annotation, ast.Constant):
        return "null" if annotation.value is None else str(annotation.value)
    if isinstance(annotation, ast.BinOp):
        return f"{_spell(tree, annotation.left)} or {_spell(tree, annotation.right)}"
    if not isinstance(annotation, ast.Subscript):
        return ast.unparse(annotation)
    parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    kind = ast.unparse(annotation.value)
    if kind == "Annotated":
        return _spell(tree, parts[0])
    if kind == "Literal":
        return "one of " + ", ".join(ast.unparse(part).strip("'") for part in parts)
    if kind in ("tuple", "list", "Sequence"):
        if kind != "tuple" or ast.unparse(parts[-1]) == "...":
            return f"list of {_spell(tree, parts[0])}"
        return f"{len(parts)} values ({', '.join(_spell(tree, part) for part in parts)})"
    if kind in ("dict", "Mapping"):
        return f"a mapping of {_spell(tree, parts[0])} to {_spell(tree, parts[1])}"
    return ast.unparse(annotation)


def _bounds(tree: ast.Module, annotation: ast.expr) -> str:
    """Return the range that an annotation states, also in a type alias; empty without one."""
    if isinstance(annotation, ast.Name):
        value, origin = constant(tree, annotation.id)
        return "" if isinstance(value, ast.Name) else _bounds(origin, value)
    for call in (node for node in ast.walk(annotation) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) == "Bounds":
            ends = [constant(tree, end.id)[0] if isinstance(end, ast.Name) else end for end in call.args]
            low, high = map(ast.literal_eval, ends)
            return str(Bounds(low, high))
    return ""


def _given(value: object) -> str:
    """Return a value of the YAML as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _default(tree: ast.Module, field: ast.AnnAssign) -> str:
    """Return the default in the source, with constants replaced by their values."""
    if field.value is None:
        return REQUIRED
    value, origin = field.value, tree
    if isinstance(value, ast.Name):
        value, origin = constant(tree, value.id)
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "tuple" and isinstance(value.args[0], ast.Name):
        value, origin = constant(tree, value.args[0].id)
    if isinstance(value, (ast.Tuple, ast.Dict)):
        items = value.elts if isinstance(value, ast.Tuple) else [key for key in value.keys if key is not None]
        items = [constant(origin, item.id)[0] if isinstance(item, ast.Name) else item for item in items]
        return "[" + ", ".join(_listed(ast.literal_eval(item)) for item in items) + "]"
    text = ast.unparse(value)
    spelled = {"None": "null", "True": "true", "False": "false", "field(default_factory=dict)": "{}"}
    return spelled.get(text, text.strip("'"))


def _listed(value: object) -> str:
    """Return an item of a list as it is typed: text with a comma in quotes."""
    return f"'{value}'" if isinstance(value, str) and "," in value else str(value)


def constant(tree: ast.Module, name: str) -> tuple[ast.expr, ast.Module]:
    """Return the value of a module-level constant and the module that assigns it."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if ast.unparse(target) == name:
                    return statement.value, tree
                if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                    places = [ast.unparse(item) for item in target.elts]
                    if name in places:
                        return statement.value.elts[places.index(name)], tree
        if isinstance(statement, ast.ImportFrom) and statement.module and name in {a.name for a in statement.names}:
            if not _is_ours(statement.module):
                break
            return constant(parse(statement.module), name)
    return ast.Name(name), tree


def _is_ours(module: str) -> bool:
    """Return whether the module belongs to this project: to `dexgrasp` or to `dexgrasp_ros`."""
    return module.partition(".")[0] in ("dexgrasp", "dexgrasp_ros")


@functools.cache
def parse(module: str) -> ast.Module:
    """Return the source of a module as a syntax tree; the module is not imported."""
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)  # imports the package around it, which holds nothing
    except ModuleNotFoundError as error:
        raise explain_missing(error) from error
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)
