"""Parameters of a node, declared from and read into a dataclass.

Nested dataclasses become dotted names.

Types, ranges and descriptions come from the dataclass (configs/schema.py). Unknown parameters are warned of.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from dexgrasp import configs
from dexgrasp.configs.schema import current_name, describe_type, field_docstrings, fields, put
from dexgrasp.utils.bounds import Bounds
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
    limits: Bounds | None = None

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


def declare(node: Node, schema: type[T], changeable: Sequence[str] = ()) -> T:
    """Declare every field of the dataclass as a parameter and return the dataclass with the given values.

    Raises ParameterError.

    Parameters are read-only except those named `changeable`, which `read` reads again. A parameter that was given
    under its name of the last release counts, with a warning. Descriptors hold the ranges of numbers.
    """
    known = list(_walk(schema))
    earlier = _given_by_earlier_names(node, schema, [parameter.name for parameter in known])
    for parameter in known:
        default = None if parameter.required else _plain(parameter.default)
        value = earlier.get(parameter.name, default)
        node.declare_parameter(parameter.name, value, ParameterDescriptor(dynamic_typing=True))
    found = read(node, schema)
    for parameter in known:  # after `read`, whose errors say more than those of rclpy
        node.set_descriptor(parameter.name, _descriptor(parameter, parameter.name not in changeable))
    return found


def read(node: Node, schema: type[T], changes: Mapping[str, Any] | None = None) -> T:
    """Return the dataclass with the values that its declared parameters have now. Raises ParameterError.

    `changes`: values by name that take the place of those.
    """
    tree: dict[str, Any] = {}
    for parameter in _walk(schema):
        name = parameter.name
        given = changes[name] if changes and name in changes else node.get_parameter(name).value
        value = _from_ros(given, parameter.hint)
        if value is None and parameter.required:
            give = f"give --ros-args -p {name}:=<{describe_type(parameter.hint)}>"
            raise ParameterError(f"{node.get_name()}: '{name}' has no value; {give}")
        put(tree, name, value)
    try:
        return configs.from_dict(schema, tree, node.get_name())
    except configs.ConfigError as error:
        raise ParameterError(str(error)) from error


def check_changes(node: Node, schema: type, refusal: Callable[[str, Any], str]) -> None:
    """Accept changes of declared parameters only where `refusal` and the dataclass allow them.

    `refusal`: returns why the parameter of a name may not take a value now, or an empty text.
    """
    known = set(names(schema))

    def check(parameters: Sequence[Parameter]) -> SetParametersResult:
        changes = {item.name: item.value for item in parameters if item.name in known}
        reason = next(filter(None, (refusal(name, value) for name, value in changes.items())), "")
        try:
            if changes and not reason:
                read(node, schema, changes)
        except ValueError as error:
            reason = str(error)
        return SetParametersResult(successful=not reason, reason=reason)

    node.add_on_set_parameters_callback(check)


def _descriptor(parameter: _Parameter, read_only: bool) -> ParameterDescriptor:
    """Return the descriptor of a parameter; the range of a number is that of its field."""
    kind = f"{describe_type(parameter.hint)}{', required' if parameter.required else ''}"
    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=f"{parameter.meaning} ({kind})".strip(),
        read_only=read_only,
        dynamic_typing=True,
    )
    limits = parameter.limits
    if limits is None:
        return descriptor
    if parameter.hint is int:
        descriptor.integer_range = [IntegerRange(from_value=int(limits.low), to_value=int(limits.high))]
    elif parameter.hint is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=limits.low * 1.0, to_value=limits.high * 1.0)]
    else:
        descriptor.additional_constraints = f"each number in {limits}"
    return descriptor


def names(schema: type) -> list[str]:
    """Return the names of the parameters that `declare` declares."""
    return [parameter.name for parameter in _walk(schema)]


def _walk(schema: type, prefix: str = "", given: Any = dataclasses.MISSING) -> Iterator[_Parameter]:
    """Parameters in the order of the fields; `given` is an instance whose values are the defaults."""
    meanings, hints, limits = field_docstrings(schema), fields(schema), _limits(schema)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        default = _default(field) if given is dataclasses.MISSING else getattr(given, field.name)
        if dataclasses.is_dataclass(hint):
            yield from _walk(cast(type, hint), f"{prefix}{field.name}.", default)
        else:
            yield _Parameter(
                name=prefix + field.name,
                hint=hint,
                default=default,
                meaning=meanings.get(field.name, ""),
                limits=limits.get(field.name),
            )


def _limits(schema: type) -> dict[str, Bounds]:
    """Return the ranges of the fields that have one."""
    notes = {name: get_args(hint)[1:] for name, hint in get_type_hints(schema, include_extras=True).items()}
    return {name: item for name, extra in notes.items() for item in extra if isinstance(item, Bounds)}


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
