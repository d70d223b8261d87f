"""Expansion of sweeps (`seed=1,2,3 task.lift_m=0.12,0.15`) into jobs, in Hydra's syntax."""

import re
from collections.abc import Sequence
from itertools import product


def expand(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the words that each job adds to the common ones: all combinations of the swept values.

    `key=a,b`, `key=range(1,4)` and `key=choice(a,b)` are swept; a list is one value in brackets: `key=[a,b]`. A word
    that Hydra's grammar does not know is one value. One empty job if nothing is swept.
    """
    return list(product(*(values for word in words if len(values := sweep_values(word)) > 1)))


def common(words: Sequence[str]) -> list[str]:
    """Return the words that all jobs of a sweep share."""
    return [values[0] for word in words if len(values := sweep_values(word)) == 1]


def sweep_values(word: str) -> list[str]:
    """Return one word for each different value of a swept word; otherwise the word itself."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, _ = word.partition("=")
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            return [word]
        return list(dict.fromkeys(f"{key}={_unquoted(value)}" for value in override.sweep_string_iterator()))
    except HydraException:
        return [word]


def _unquoted(value: str) -> str:
    """Return the value without the quotes or the escapes of Hydra's grammar."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else re.sub(r"\\(.)", r"\1", value)
