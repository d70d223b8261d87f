"""Parameters of a node, declared from and read into a dataclass.

Nested dataclasses become dotted names.

Types, ranges and descriptions come from the dataclass (configs/schema.py). Unknown parameters are warned of.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from dexgrasp import configs
from dexgrasp.configs.schema import current_name, describe_type, field_docstrings, fields, put
from dexgrasp.utils.text import comma_separated, did_you_mean

T = TypeVar("T")
ROS_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides")


class ParameterError(ValueError):
    """Refuses a parameter's value; the text names the parameter and what is expected."""


@dataclasses.dataclass(frozen=True)
class _Parameter:
    name: str
    hint: Any
    default: Any
    meaning: str

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


def declare(node: Node, schema: type[T], changeable: Sequence[str] = ()) -> T:
    """Declare every field of the dataclass as a parameter and return the dataclass with the given values.

    Raises ParameterError.

    Parameters are read-only except those named `changeable`, which `read` reads again. A parameter that was given
    under its name of the last release counts, with a warning.
    """
    known = list(_walk(schema))
    earlier = _given_by_earlier_names(node, schema, [parameter.name for parameter in known])
    for parameter in known:
        text = (
            f"{parameter.meaning} ({describe_type(parameter.hint)}{', required' if parameter.required else ''})".strip()
        )
        default = None if parameter.required else _plain(parameter.default)
        descriptor = ParameterDescriptor(
            name=parameter.name, description=text, read_only=parameter.name not in changeable, dynamic_typing=True
        )
        node.declare_parameter(parameter.name, earlier.get(parameter.name, default), descriptor)
    return read(node, schema)


def read(node: Node, schema: type[T]) -> T:
    """Return the dataclass with the values that its declared parameters have now. Raises ParameterError."""
    tree: dict[str, Any] = {}
    for parameter in _walk(schema):
        name = parameter.name
        value = _from_ros(node.get_parameter(name).value, parameter.hint)
        if value is None and parameter.required:
            give = f"give --ros-args -p {name}:=<{describe_type(parameter.hint)}>"
            raise ParameterError(f"{node.get_name()}: '{name}' has no value; {give}")
        put(tree, name, value)
    try:
        return configs.from_dict(schema, tree, node.get_name())
    except configs.ConfigError as error:
        raise ParameterError(str(error)) from error


def names(schema: type) -> list[str]:
    """Return the names of the parameters that `declare` declares."""
    return [parameter.name for parameter in _walk(schema)]


def _walk(schema: type, prefix: str = "", given: Any = dataclasses.MISSING) -> Iterator[_Parameter]:
    """Parameters in the order of the fields; `given` is an instance whose values are the defaults."""
    meanings, hints = field_docstrings(schema), fields(schema)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        default = _default(field) if given is dataclasses.MISSING else getattr(given, field.name)
        if dataclasses.is_dataclass(hint):
            yield from _walk(cast(type, hint), f"{prefix}{field.name}.", default)
        else:
            yield _Parameter(name=prefix + field.name, hint=hint, default=default, meaning=meanings.get(field.name, ""))


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    """Return a default for ROS: the empty text for None and for an empty list, which has no type there."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return list(value) or ""
    return str(value) if isinstance(value, Path) else value


def _from_ros(value: Any, hint: Any) -> Any:
    """Return a parameter's value as a plain value.

    ROS has no null and no empty list, and reads a typed `5` as a number.
    """
    if get_origin(hint) is tuple:
        if value is None or isinstance(value, (str, int, float)):
            return [] if value == "" else value
        return [_from_ros(item, get_args(hint)[0]) for item in value]
    options = (hint, *get_args(hint))
    if value == "" and type(None) in options:
        return None
    if type(value) in (int, float) and {str, Path}.intersection(options):
        return str(value)
    return value


def _given_by_earlier_names(node: Node, schema: type, known: Sequence[str]) -> dict[str, Any]:
    """Return the values given under earlier names, by current name.

    Warns of earlier names and of unknown parameters. Raises ParameterError where a parameter is given under both names.
    """
    given: dict[str, Any] = getattr(node, "_parameter_overrides", {})  # rclpy ignores unknown ones in silence
    found = {}
    for name in sorted(set(given) - set(known)):
        if node.has_parameter(name) or name.startswith(ROS_PARAMETERS):
            continue
        new_name, value = current_name(schema, name, given[name].value)
        if new_name != name and new_name in given:
            raise ParameterError(f"parameter '{name}' is the old name of '{new_name}': give '{new_name}' alone")
        if new_name in known:
            node.get_logger().warning(
                f"parameter '{name}' is now called '{new_name}'; the old name goes with the next release"
            )
            found[new_name] = value
        else:
            hint = did_you_mean(name, known)
            node.get_logger().warning(f"unknown parameter '{name}' is ignored.{hint} Known: {comma_separated(known)}")
    return found
