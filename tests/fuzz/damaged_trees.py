"""Damage of plain values: every key of a tree, in every way in which a file may be wrong."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Path = tuple[Any, ...]
DELETED, BESIDE = object(), object()
"""Marks of a key that is taken away, and of an unknown key beside it."""

REPLACEMENTS = [
    *(DELETED, DELETED, DELETED, BESIDE, BESIDE, BESIDE),
    *(None, True, False, "", "text", "1", "../../etc/passwd", "/dev/zero", "a\nb\0c", "x" * 5_000),
    *(0, -1, 1, 2, 1.5, 1e-300, 1e308, -1e308, 10**30, 10**400, float("nan"), float("inf"), float("-inf")),
    *([], [None], [None] * 3, [1], [1, 2, 3, 4, 5], [[]], [[1.0]], list(range(300))),
    *({}, {"key": {"key": 1}}, {"": None}, {"a": {"b": {"c": {}}}}),
]
"""Values that stand in for a good one."""


def paths(tree: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the place of every value of a tree but the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from paths(value, (*at, key))


def damaged(tree: Any, path: Path, value: Any) -> Any:
    """Return a copy of a tree with another value at a place, or the tree as it is where the place is gone."""
    found = copy.deepcopy(tree)
    level = found
    try:
        for key in path[:-1]:
            level = level[key]
        if value is DELETED:
            del level[path[-1]]
        elif value is BESIDE and isinstance(level, dict):
            level["unknown_key"] = None
        elif value is not BESIDE:
            level[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        return tree
    return found


def damages(tree: Any, most: int = 2) -> st.SearchStrategy[list[tuple[Path, Any]]]:
    """Return a strategy for one or several damages of a tree: place and new value."""
    return st.lists(
        st.tuples(st.sampled_from(list(paths(tree))), st.sampled_from(REPLACEMENTS)), min_size=1, max_size=most
    )


def apply(tree: Any, changes: list[tuple[Path, Any]]) -> Any:
    """Return the tree with all damages."""
    for path, value in changes:
        tree = damaged(tree, path, value)
    return tree


def check_refusal(error: Exception, name: str) -> None:
    """Check that a refusal is one line that names the file and is short enough to read."""
    assert isinstance(error, (ValueError, OSError)) and not isinstance(error, UnicodeError), repr(error)
    said = str(error)
    assert name in said, said[:300]
    assert "\n" not in said and "\0" not in said and len(said) < 4000, said[:300]
