"""Ranges of configuration fields: declared in their annotations, checked when a dataclass is made.

    @dataclass(frozen=True)
    @bounded
    class MotorCfg:
        rate_hz: Annotated[float, Bounds(1, 1000)] = 20.0

Values outside are refused from YAML, the command line and Python alike; help and reference pages show the ranges.
"""

import functools
import types
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """Range of a number, or of every number in a tuple, list or mapping."""

    low: float
    """Least value."""
    high: float
    """Greatest value."""
    ordered: bool = False
    """Whether the first number must not exceed the second one: a range (low, high)."""
    items: tuple[int, int] = (0, 64)
    """Least and largest number of items in a list or mapping."""

    def __str__(self) -> str:
        return f"{_short(self.low)}..{_short(self.high)}"


class OutOfBoundsError(ValueError):
    """Refuses the value of a field; the text names class, field, range and value."""

    def __init__(self, owner: str, field: str, reason: str) -> None:
        super().__init__(f"{owner}.{field} {reason}")
        self.field, self.reason = field, reason


Seed = Annotated[int, Bounds(0, 9223372036854775807)]
"""Seed of random numbers: 0..2^63 - 1."""
Share = Annotated[float, Bounds(0, 1)]
"""Share or probability."""
Threads = Annotated[int, Bounds(0, 1024)]
"""Number of threads or processes; 0: chosen by the command."""
NumTrials = Annotated[int, Bounds(1, 10_000_000)]
"""Number of trials."""
NumEnvs = Annotated[int, Bounds(1, 65_536)]
"""Number of parallel environments."""
TrialNumber = Annotated[int, Bounds(0, 1_000_000_000)]
"""Number of one trial, counted from 0."""


def bounded(cls: type[T]) -> type[T]:
    """Check the ranges and choices of a dataclass before its own `__post_init__`.

    The decorator stands below `@dataclass`, which calls what it adds.
    """
    own: Callable[[Any], None] | None = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:  # noqa: N807 - the name that dataclasses call
        check(self)
        if own is not None:
            own(self)

    cls.__post_init__ = __post_init__  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def check(cfg: Any) -> None:
    """Raise OutOfBoundsError for the first field outside its range or choices."""
    for name, hint in _hints(type(cfg)).items():
        if reason := _reason(getattr(cfg, name), hint, None):
            raise OutOfBoundsError(type(cfg).__name__, name, reason)


def bounds_of(hint: Any) -> Bounds | None:
    """Return the bounds in an annotation, also in a part of it; None without any."""
    if get_origin(hint) is Annotated:
        return next((item for item in hint.__metadata__ if isinstance(item, Bounds)), None)
    return next((found for part in get_args(hint) if (found := bounds_of(part))), None)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the annotations of the fields that hold numbers or choices."""
    hints = {name: hint for name, hint in get_type_hints(cls, include_extras=True).items() if name in _fields(cls)}
    return {name: hint for name, hint in hints.items() if bounds_of(hint) or _has_choices(hint)}


def _fields(cls: type) -> Mapping[str, Any]:
    return getattr(cls, "__dataclass_fields__", {})


def _has_choices(hint: Any) -> bool:
    return get_origin(hint) is Literal or any(_has_choices(part) for part in get_args(hint))


def _reason(value: Any, hint: Any, bounds: Bounds | None) -> str:
    """Return what is wrong with a value, as the end of a sentence; empty where nothing is."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _reason(value, args[0], bounds_of(hint) or bounds)
    if origin in (Union, types.UnionType):
        return _reason_of_union(value, args, bounds)
    if origin is Literal:
        return "" if value in args else f"must be one of {', '.join(map(str, args))}, got {value!r}"
    if origin in (tuple, list, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return _reason_of_items(value, hint, bounds)
    if bounds is None or hint not in (int, float):
        return ""
    kind, words = (Integral, "a whole number") if hint is int else (Real, "a number")
    if isinstance(value, bool) or not isinstance(value, kind):
        return f"expects {words} in {bounds}, got {value!r}"
    return "" if bounds.low <= value <= bounds.high else f"must lie in {bounds}, got {value}"  # type: ignore[operator]


def _reason_of_union(value: Any, args: tuple[Any, ...], bounds: Bounds | None) -> str:
    if value is None and type(None) in args:
        return ""
    several = isinstance(value, Iterable) and not isinstance(value, str)
    options = [arg for arg in args if arg is not type(None)]
    fitting = [arg for arg in options if (get_origin(arg) in (tuple, list)) == several]
    return _reason(value, (fitting or options)[0], bounds)


def _reason_of_items(value: Any, hint: Any, bounds: Bounds | None) -> str:
    """Return what is wrong with the items of a tuple, list or mapping."""
    args = get_args(hint)
    if isinstance(value, str) or not isinstance(value, Iterable) or not isinstance(value, Sized):
        return f"expects several values, got {value!r}"
    fixed = get_origin(hint) is tuple and Ellipsis not in args
    if fixed and len(value) != len(args):
        return f"expects {len(args)} values, got {len(value)}"
    if bounds is not None and not fixed and not bounds.items[0] <= len(value) <= bounds.items[1]:
        return f"takes {bounds.items[0]} to {bounds.items[1]} values, got {len(value)}"
    items = list(value.values()) if isinstance(value, Mapping) else list(value)
    kinds = args if fixed else [args[-1] if isinstance(value, Mapping) else args[0]] * len(items)
    for item, kind in zip(items, kinds, strict=True):
        if reason := _reason(item, kind, bounds):
            return reason
    if bounds is not None and bounds.ordered and not items[0] <= items[1]:
        return f"must satisfy low <= high, got {tuple(items)}"
    return ""


def _short(number: float) -> str:
    if number == 2**63 - 1:
        return "2^63 - 1"
    return f"{number:.15g}" if 1e5 <= abs(number) < 1e15 else f"{number:g}"
