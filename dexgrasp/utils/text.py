"""Words of messages: the nearest known names, names in a row."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest_names(word: str, known: Iterable[object], most: int = 1) -> list[str]:
    """Return the known names that are most like `word`, the nearest first, at most `most`."""
    return get_close_matches(word, [str(name) for name in known], n=most)


def did_you_mean(word: str, known: Iterable[object], most: int = 1) -> str:
    """Return " Did you mean 'x'?" with the known names nearest to `word`; empty where none is like it."""
    near = nearest_names(word, known, most)
    return f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def comma_separated(words: Iterable[object]) -> str:
    """Return the words with commas between them, or `none`."""
    return ", ".join(str(word) for word in words) or "none"
