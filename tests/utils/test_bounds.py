"""Ranges of configuration fields: every number has one, every value outside is refused, help shows it."""

import dataclasses
import importlib
import math
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from dexgrasp import assets, configs
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.option_docs import keys
from dexgrasp.utils.bounds import Bounds, OutOfBoundsError, bounded, bounds_of

OTHERS = (
    "dexgrasp.perception.grasp_planning.scoring:ScoreCfg",
    "dexgrasp.perception.tracking.icp:IcpCfg",
    "dexgrasp.task_options:MakeCfg",
    "dexgrasp_ros.drivers.config:AdapterCfg",
    "dexgrasp_ros.grasping.config:GraspNodeCfg",
    "dexgrasp_ros.nodes.identification_node:IdentificationCfg",
    "dexgrasp_ros.nodes.joint_test_node:JointTestNodeCfg",
    "dexgrasp_ros.nodes.leap_state_node:LeapStateCfg",
    "dexgrasp_ros.nodes.recorder_node:RecorderCfg",
    "dexgrasp_ros.perception.config:PerceptionCfg",
    "dexgrasp_ros.simulation.sim_robot:SimRobotCfg",
)
"""Configurations beside those of commands."""


def schemas():
    """Return every configuration class that can be imported here, nested ones included, by name."""
    found, wanted = {}, []
    for place in [*(command.schema for command in COMMANDS), *OTHERS]:
        module, _, name = place.partition(":")
        try:
            wanted.append(getattr(importlib.import_module(module), name))
        except ImportError:  # a package of an extra, for instance rclpy
            continue
    while wanted:
        schema = wanted.pop()
        found[schema.__name__] = schema
        wanted += [part for hint in configs.schema.fields(schema).values() for part in nested(hint)]
    return found


def nested(hint):
    """Yield the dataclasses in a type."""
    if dataclasses.is_dataclass(hint):
        yield hint
    for part in get_args(hint):
        yield from nested(part)


SCHEMAS = schemas()


def numbers(hint):
    """Return whether a type holds int or float."""
    if get_origin(hint) is Literal:
        return False
    return hint in (int, float) or any(numbers(part) for part in get_args(hint))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_every_number_of_a_configuration_has_a_range(schema):
    hints = get_type_hints(schema, include_extras=True)
    named = [field.name for field in dataclasses.fields(schema) if numbers(hints[field.name])]
    assert [name for name in named if bounds_of(hints[name]) is None] == []


def outside(hint, bounds):
    """Yield values of a field that its range must refuse."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from outside(args[0], bounds)
    elif hint is int:
        yield from (int(bounds.low) - 1, int(bounds.high) + 1, -(10**30), 10**30, 10**400, math.nan, "1", True)
    elif hint is float:
        step = 1e-6 * (bounds.high - bounds.low)
        yield from (bounds.low - step, bounds.high + step, -1e308, 1e308, math.nan, math.inf, -math.inf, "1")
    elif origin is dict:
        yield from ({"a": value} for value in outside(args[1], bounds))
    elif origin is tuple:
        length = 1 if Ellipsis in args else len(args)
        yield from ((value, *[bounds.low] * (length - 1)) for value in outside(args[0], bounds))
        if Ellipsis in args:
            yield (bounds.low,) * (bounds.items[1] + 1)
        if bounds.ordered:
            yield (bounds.high, bounds.low)
    else:
        yield from outside(next(part for part in args if numbers(part)), bounds)


REQUIRED: dict[Any, Any] = {str: "x", float: 0.0}


def required(schema):
    """Return values of the fields without a default."""
    hints = configs.schema.fields(schema)
    plain = [f for f in dataclasses.fields(schema) if f.default is f.default_factory is dataclasses.MISSING]
    values = {}
    for field in plain:
        hint = hints[field.name]
        sample = REQUIRED.get(hint, get_args(hint)[0] if get_origin(hint) is Literal else (0.0, 0.0, 0.0))
        values[field.name] = {} if hint not in REQUIRED and "Mapping" in str(hint) else sample
    return values


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_values_outside_a_range_are_refused_by_name_from_python(schema):
    hints, base = get_type_hints(schema, include_extras=True), required(schema)
    for field in dataclasses.fields(schema):
        bounds = bounds_of(hints[field.name])
        for value in outside(hints[field.name], bounds) if bounds else ():
            with pytest.raises(OutOfBoundsError, match=rf"^\w+\.{field.name} (must|expects|takes)") as caught:
                schema(**base | {field.name: value})
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_a_choice_that_does_not_exist_is_refused_from_python(schema):
    hints, base = configs.schema.fields(schema), required(schema)
    for name, hint in hints.items():
        if get_origin(hint) is Literal:
            with pytest.raises(OutOfBoundsError, match=rf"{name} must be one of .*, got 'wrong'"):
                schema(**base | {name: "wrong"})


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_help_shows_the_range_that_the_class_checks(command):
    """The text is read from the source, the range from the class."""
    schema = getattr(importlib.import_module(command.schema.partition(":")[0]), command.schema.partition(":")[2])
    for key in keys(command.schema, command.config):
        if key.kind == "group":
            continue
        level, *parents = schema, *key.name.split(".")[:-1]
        for part in parents:
            level = configs.schema.fields(level)[part]
        bounds = bounds_of(get_type_hints(level, include_extras=True)[key.name.rpartition(".")[2]])
        assert key.bounds == ("" if bounds is None else str(bounds))


@pytest.mark.parametrize("name", assets.policies())
def test_the_configurations_of_shipped_policies_are_in_range(name):
    from dexgrasp.policies.training.config import TrainCfg

    file = assets.path(f"policies/{name}") / "config.yaml"
    assert configs.from_dict(TrainCfg, configs.read_plain(file), str(file)).stage in ("teacher", "student")


@dataclasses.dataclass(frozen=True)
@bounded
class MotorCfg:
    """A configuration with one field of each kind."""

    rate_hz: Annotated[float, Bounds(1, 50)] = 20.0
    gains: Annotated[tuple[float, ...], Bounds(0, 1, items=(1, 3))] = (0.5,)
    limits: Annotated[tuple[float, float], Bounds(-2, 2, ordered=True)] = (-1.0, 1.0)
    steps: Annotated[int | None, Bounds(1, 9)] = None
    extra: Annotated[dict[str, float], Bounds(-1, 1)] = dataclasses.field(default_factory=dict)
    name: str = "motor"

    def __post_init__(self) -> None:
        if self.rate_hz == 13:
            raise ValueError("rate_hz 13 is unlucky")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rate_hz", 0.5, "must lie in 1..50, got 0.5"),
        ("rate_hz", math.nan, "must lie in 1..50, got nan"),
        ("rate_hz", "20", "expects a number in 1..50, got '20'"),
        ("gains", (), "takes 1 to 3 values, got 0"),
        ("gains", (0.1, 2.0), "must lie in 0..1, got 2.0"),
        ("limits", (1.0, -1.0), "must satisfy low <= high, got (1.0, -1.0)"),
        ("limits", (1.0,), "expects 2 values, got 1"),
        ("limits", 1.0, "expects several values, got 1.0"),
        ("steps", 2.5, "expects a whole number in 1..9, got 2.5"),
        ("extra", {"a": 0.0, "b": -3.0}, "must lie in -1..1, got -3.0"),
    ],
)
def test_a_refusal_names_range_and_value(key, value, message):
    with pytest.raises(OutOfBoundsError) as caught:
        MotorCfg(**{key: value})
    assert str(caught.value) == f"MotorCfg.{key} {message}"


def test_values_in_range_stay_as_they_are_and_own_checks_follow():
    cfg = MotorCfg(rate_hz=np.float32(1.0), gains=(1, 0), steps=np.int64(9), extra={"a": 1})
    assert (cfg.gains, cfg.limits, cfg.name) == ((1, 0), (-1.0, 1.0), "motor")
    with pytest.raises(ValueError, match="13 is unlucky"):
        MotorCfg(rate_hz=13)
