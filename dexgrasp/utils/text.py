"""Words of messages: the nearest known names, names in a row, tables."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

SIMILARITY = 0.7
"""Least similarity, 0 to 1, of a name that is suggested: a transposition or a missing letter lies above it."""


def nearest_names(word: str, known: Iterable[object], most: int = 1) -> list[str]:
    """Return the known names most like `word`, the nearest first, at most `most`; none below SIMILARITY."""
    return get_close_matches(word, [str(name) for name in known], n=most, cutoff=SIMILARITY)


def did_you_mean(word: str, known: Iterable[object], most: int = 1) -> str:
    """Return " Did you mean 'x'?" with the known names nearest to `word`; empty where none is like it."""
    near = nearest_names(word, known, most)
    return f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def comma_separated(words: Iterable[object]) -> str:
    """Return the words with commas between them, or `none`."""
    return ", ".join(str(word) for word in words) or "none"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned columns; the first row holds the titles and is underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
