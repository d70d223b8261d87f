"""Read JSON of an unknown author: no duplicate keys, no NaN, no numbers beyond a float, limited depth."""

import json
import math
from typing import Any

MAX_DEPTH = 32
"""Largest depth of nested lists and mappings."""
MAX_INTEGER = 10**18
"""Largest magnitude of an integer."""


def parse(text: bytes) -> Any:
    """Return the value of a JSON document in UTF-8. Raises ValueError in one line, with the key."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_mapping)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    _check(value, "", MAX_DEPTH)
    return value


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key '{key}' stands twice in one mapping")
        found[key] = value
    return found


def _check(value: Any, key: str, levels: int) -> None:
    """Raise ValueError for a number that is not finite or too large, and below `levels` further levels."""
    too_large = isinstance(value, int) and abs(value) > MAX_INTEGER
    if too_large or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"'{key}' is no finite number, or too large")
    if isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"'{key[:100]}' is nested deeper than {MAX_DEPTH} levels")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            below = f"{key}[{name}]" if isinstance(value, list) else f"{key}.{name}".lstrip(".")
            _check(item, below, levels - 1)
