"""Build the dataclasses of commands from their source: fields, types, ranges and defaults.

Importing the configuration of `train` imports torch and MuJoCo, which takes seconds. A class made here has the fields
and the name of the real one, so that `configs.load` refuses a wrong word with the text of the real class, at once.
What only the real class knows, its `__post_init__`, is checked when the command is loaded.
"""

import ast
import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from dexgrasp.policies.cli import option_docs
from dexgrasp.utils import bounds
from dexgrasp.utils.bounds import Bounds

PLAIN = {"bool": bool, "int": int, "float": float, "str": str, "Path": Path, "Any": Any, "None": types.NoneType}
"""Types of values that are typed on a command line, by their names."""


def source_schema(schema: str) -> type:
    """Return a dataclass with the fields of `module:Class`, read from its source.

    Raises ImportError where the package of the class is not installed.
    """
    module, _, name = schema.partition(":")
    return _dataclass(module, name)


@functools.cache
def _dataclass(module: str, name: str) -> type:
    fields = list(dict(_fields(module, name)).values())
    return dataclasses.make_dataclass(name, fields, frozen=True, namespace={"__post_init__": bounds.check})


def _fields(module: str, name: str) -> Iterator[tuple[str, tuple[str, Any, Any]]]:
    """Yield (name, (name, type, dataclass field)) of a class and of those it extends."""
    tree = option_docs.parse(module)
    body = option_docs.class_of(tree, name, module)
    for base in map(ast.unparse, body.bases):
        yield from _fields(option_docs.module_of_class(tree, base) or module, base.rpartition(".")[2])
    for field, _ in option_docs.annotated_fields(body):
        key = ast.unparse(field.target)
        yield key, (key, _hint(tree, module, field), _default(tree, module, field))


def _hint(tree: ast.Module, module: str, field: ast.AnnAssign) -> Any:
    """Return the type of a field; `tuple(TABLE)` as default means names of that table."""
    if (names := _names_of_table(tree, field.value)) is not None:
        return tuple[Literal[names], ...]
    return _type(tree, module, field.annotation)


def _names_of_table(tree: ast.Module, default: ast.expr | None) -> tuple[str, ...] | None:
    if not isinstance(default, ast.Call) or ast.unparse(default.func) != "tuple":
        return None
    if not isinstance(default.args[0], ast.Name):
        return None
    with suppress(ValueError):
        return tuple(ast.literal_eval(key) for key in _table_keys(option_docs.constant(tree, default.args[0].id)[0]))
    return None


def _table_keys(value: ast.expr) -> list[ast.expr]:
    if not isinstance(value, ast.Dict):
        raise ValueError("no table in the source")
    return [key for key in value.keys if key is not None]


def _type(tree: ast.Module, module: str, annotation: ast.expr) -> Any:
    """Return the type that an annotation stands for; Any where the source does not tell."""
    if isinstance(annotation, ast.Constant):
        return types.NoneType if annotation.value is None else Any
    if isinstance(annotation, ast.BinOp):
        return _type(tree, module, annotation.left) | _type(tree, module, annotation.right)
    if isinstance(annotation, ast.Subscript):
        return _subscript(tree, module, annotation)
    kind = ast.unparse(annotation)
    if kind in PLAIN:
        return PLAIN[kind]
    if nested := _nested(tree, module, kind):
        return nested
    if isinstance(annotation, ast.Name):
        value, home = option_docs.constant(tree, annotation.id)
        return Any if isinstance(value, ast.Name) else _type(home, module, value)
    return Any


def _subscript(tree: ast.Module, module: str, annotation: ast.Subscript) -> Any:
    parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    kind = ast.unparse(annotation.value)
    if kind == "Literal":
        return Literal[tuple(ast.literal_eval(part) for part in parts)]
    first = _type(tree, module, parts[0])
    if kind == "Annotated":
        found = _bounds(tree, parts[1])
        return first if found is None else Annotated[first, found]
    if kind == "tuple" and ast.unparse(parts[-1]) != "...":
        return tuple[tuple(_type(tree, module, part) for part in parts)]
    if kind in ("tuple", "Sequence"):
        return tuple[first, ...]
    if kind == "list":
        return list[first]
    if kind not in ("dict", "Mapping"):
        return Any
    return {"dict": dict, "Mapping": Mapping}[kind][first, _type(tree, module, parts[1])]


def _bounds(tree: ast.Module, call: ast.expr) -> Bounds | None:
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "Bounds":
        return None
    low, high = (_value(tree, argument) for argument in call.args)
    return Bounds(low, high, **{str(word.arg): _value(tree, word.value) for word in call.keywords})


def _value(tree: ast.Module, expression: ast.expr) -> Any:
    """Return the value of literals and of constants of the source. Raises ValueError for other expressions."""
    if isinstance(expression, ast.Name):
        found, home = option_docs.constant(tree, expression.id)
        if isinstance(found, ast.Name):
            raise ValueError(f"{expression.id} is no constant of the source")
        return _value(home, found)
    if isinstance(expression, ast.Tuple):
        return tuple(_value(tree, item) for item in expression.elts)
    return ast.literal_eval(expression)


def _default(tree: ast.Module, module: str, field: ast.AnnAssign) -> Any:
    """Return the field of the dataclass with its default."""
    nested = _nested(tree, module, ast.unparse(field.annotation))
    if nested is not None:
        return dataclasses.field(default_factory=nested, kw_only=True)
    if field.value is None:
        return dataclasses.field(kw_only=True)
    if (names := _names_of_table(tree, field.value)) is not None:
        return dataclasses.field(default=names, kw_only=True)
    if ast.unparse(field.value) == "field(default_factory=dict)":
        return dataclasses.field(default_factory=dict, kw_only=True)
    return dataclasses.field(default=_value(tree, field.value), kw_only=True)


def _nested(tree: ast.Module, module: str, kind: str) -> type | None:
    """Return the class of a nested configuration, None for other types."""
    name = kind.rpartition(".")[2]
    if not name.endswith("Cfg") or not name.isidentifier():
        return None
    if any(isinstance(item, ast.ClassDef) and item.name == name for item in tree.body):
        return _dataclass(module, name)
    return _dataclass(option_docs.module_of_class(tree, kind), name)
