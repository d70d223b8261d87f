"""A dataclass as the parameters of a node: declared, typed, described, checked. Nested dataclasses become dotted names.

What is wrong is said with the parameter, what was expected and what came; unknown names are warned of.
"""

import ast
import dataclasses
import inspect
import math
import textwrap
import types
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

T = TypeVar("T")
OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides")


class ParameterError(ValueError):
    """A parameter with a value that the node cannot take; the text names it and what is expected."""


def declare(node: Node, schema: type[T], changeable: Sequence[str] = ()) -> T:
    """Declares every field of the dataclass and returns it with the values that were given.

    Parameters are read-only but for those named `changeable`: these `read` reads again.
    """
    known = []
    for name, hint, default, meaning in _walk(schema):
        text = f"{meaning} ({_spell(hint)}{'' if _is_set(default) else ', required'})".strip()
        descriptor = ParameterDescriptor(
            name=name, description=text, read_only=name not in changeable, dynamic_typing=True
        )
        node.declare_parameter(name, _plain(default) if _is_set(default) else None, descriptor)
        known.append(name)
    _warn_of_unknown(node, known)
    return read(node, schema)


def read(node: Node, schema: type[T]) -> T:
    """The dataclass with the values that its declared parameters have now. Raises ParameterError."""
    return _build(node, schema, "")


def names(schema: type) -> list[str]:
    """Names of the parameters that `declare` declares."""
    return [name for name, *_ in _walk(schema)]


def _build(node: Node, schema: type[T], prefix: str) -> T:
    values = {}
    for key, hint in _fields(schema).items():
        if dataclasses.is_dataclass(hint):
            values[key] = _build(node, hint, f"{prefix}{key}.")  # pyright: ignore[reportArgumentType]
        else:
            values[key] = convert(node.get_parameter(prefix + key).value, hint, prefix + key)
    try:
        return schema(**values)
    except ValueError as error:
        raise ParameterError(f"{prefix.rstrip('.') or node.get_name()}: {error}") from error


def convert(value: Any, hint: Any, name: str) -> Any:
    """A parameter's value as the type of its field: whole numbers serve as real ones, numbers as text."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or value == "":
            return None
        return convert(value, next(arg for arg in args if arg is not type(None)), name)
    if origin is tuple and _is_row(value):
        kinds = args if args[-1] is not Ellipsis else [args[0]] * len(value)
        if len(kinds) == len(value):
            return tuple(convert(item, kind, name) for item, kind in zip(value, kinds, strict=True))
    if origin is Literal and value in args:
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint in (int, float) and type(value) in (int, hint) and math.isfinite(value):
        return hint(value)
    if hint in (str, Path) and type(value) in (str, int, float):
        return hint(str(value))
    if value is None:
        raise ParameterError(f"parameter '{name}' has no value; give --ros-args -p {name}:=<{_spell(hint)}>")
    raise ParameterError(f"parameter '{name}' expects {_spell(hint)}, got {value!r}")


def _walk(schema: type, prefix: str = "", given: Any = dataclasses.MISSING) -> Iterator[tuple[str, Any, Any, str]]:
    """Name, type, default and meaning of each parameter; `given` is an instance whose values are the defaults."""
    meanings = _meanings(schema)
    for field, hint in zip(dataclasses.fields(schema), _fields(schema).values(), strict=True):
        default = getattr(given, field.name) if _is_set(given) else _default(field)
        if dataclasses.is_dataclass(hint):
            yield from _walk(hint, f"{prefix}{field.name}.", default)  # pyright: ignore[reportArgumentType]
        else:
            yield prefix + field.name, hint, default, meanings.get(field.name, "")


def _fields(schema: type) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_set(default: Any) -> bool:
    return default is not dataclasses.MISSING


def _meanings(schema: type) -> dict[str, str]:
    """The docstring below each field of a dataclass."""
    body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]).body
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _plain(value: Any) -> Any:
    """A default as ROS holds it; nothing stands for None and for an empty list, which has no type there."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return list(value) or ""
    return str(value) if isinstance(value, Path) else value


def _is_row(value: Any) -> bool:
    return value == "" or (not isinstance(value, (str, bytes)) and hasattr(value, "__len__"))


def _spell(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(arg) for arg in args)
    if origin is tuple:
        size = "a list" if Ellipsis in args else f"{len(args)} values"
        return f"{size} of {_spell(args[0])}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return words.get(hint) or ("nothing" if hint is type(None) else str(hint))


def _warn_of_unknown(node: Node, known: Sequence[str]) -> None:
    given: dict[str, Any] = getattr(node, "_parameter_overrides", {})  # rclpy ignores them in silence
    for name in sorted(set(given) - set(known)):
        if not node.has_parameter(name) and not name.startswith(OF_ROS):
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            node.get_logger().warning(f"unknown parameter '{name}' is ignored.{hint} Known: {', '.join(known)}")
