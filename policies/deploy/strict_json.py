"""Read JSON of an unknown author: no duplicate keys, no NaN, no numbers beyond a float, limited depth."""

import json
import math
from typing import Any

MAX_DEPTH = 32
"""Largest depth of nested lists and mappings."""
MAX_DIGITS = 18
"""Largest number of digits of an integer, sign included."""


def parse(text: bytes) -> Any:
    """Return the value of a JSON document in UTF-8. Raises ValueError in one line."""
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value, MAX_DEPTH)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key '{key}' stands twice in one mapping")
        found[key] = value
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"holds {name}, which is no number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds {text[:20]}, which is too large for a number")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"holds an integer of {len(text)} digits, at most {MAX_DIGITS} are read")
    return int(text)


def _check_depth(value: Any, levels: int) -> None:
    if isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, levels - 1)
