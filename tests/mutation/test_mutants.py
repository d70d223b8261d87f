"""The mutants that tests/mutation/run.py makes, of a function of a few lines."""

import pytest

pytest.importorskip("mutmut", reason="needs the extra `dev`")

from tests.mutation.mutants import make_mutants

CODE = '''"""A module."""

LIMIT = 2.0
LARGEST = 1.7e308


class Settings:
    share: float = 0.5


def clamp(value: float, low=1) -> float:
    """Return a value within limits."""
    if value < low and low:
        raise ValueError("too small")
    return min(value, LIMIT)
'''
CHANGES = {
    "LIMIT: LIMIT = 2.0  ->  LIMIT = 2.5",
    "clamp: def clamp(value: float, low=1) -> float:  ->  def clamp(value: float, low=2) -> float:",
    "clamp: if value < low and low:  ->  if (not (value < low and low)):",
    "clamp: if value < low and low:  ->  if value <= low and low:",
    "clamp: if value < low and low:  ->  if value < low or low:",
    'clamp: raise ValueError("too small")  ->  pass',
    "clamp: return min(value, LIMIT)  ->  return max(value, LIMIT)",
    "clamp: return min(value, LIMIT)  ->  return value",
    "clamp: return min(value, LIMIT)  ->  return LIMIT",
}


def test_mutants_change_one_thing_and_no_default_of_an_option_and_no_text(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(CODE)
    mutants, total = make_mutants(path)
    assert {mutant.name for mutant in mutants} == CHANGES and total == len(CHANGES)
    for mutant in mutants:
        compile(mutant.code, "module.py", "exec")
    some, total = make_mutants(path, sample=4, seed=1)
    assert len(some) == 4 and total == len(CHANGES) and {mutant.name for mutant in some} < CHANGES
    assert make_mutants(path, left_out=["clamp"])[1] == 1
