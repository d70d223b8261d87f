"""Random options of all commands: refused in one line or accepted, nothing outside a range is accepted."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dexgrasp.policies.cli import main as cli
from tests.fuzz.options import WORDS, command_lines
from tests.fuzz.oracle import Outcome, run, without_work

QUIET = {"suppress_health_check": list(HealthCheck), "deadline": None, "database": None, "phases": [Phase.generate]}
SAMPLE, ALL = 60, 5000


@pytest.fixture(scope="module", autouse=True)
def _here(tmp_path_factory):
    """A working directory with a file and a folder; commands do no work."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "meshes").mkdir()
    (folder / "empty.yaml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DEXGRASP_CACHE", str(folder / "cache"))
        without_work(patch)
        yield


def check(drawn):
    """Run a drawn command line; one with a value outside a range is refused, and names a key."""
    command, words, wrong = drawn
    outcome: Outcome = run(words)
    if wrong and "--cfg" not in words:
        assert outcome.refused, words
    return command, outcome


@settings(max_examples=SAMPLE, derandomize=True, **QUIET)
@given(command_lines())
def test_a_sample_of_options(drawn):
    check(drawn)


@pytest.mark.slow
@settings(max_examples=ALL // 2, derandomize=True, **QUIET)
@given(command_lines())
def test_many_options(drawn):
    check(drawn)


@pytest.mark.slow
@settings(max_examples=ALL // 2, print_blob=True, **QUIET)
@given(command_lines())
def test_many_options_of_a_fresh_seed(drawn):
    check(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.words)
def test_words_that_are_no_options(command):
    for word in WORDS:
        run([*command.words.split(), word])
