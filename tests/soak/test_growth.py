"""The verdict of the soak: what counts as growth."""

import pytest

from dexgrasp.policies.cli import main as cli
from tests.soak.run import COMMANDS, Sample, growth, warm


def samples(memory=lambda k: 500.0, handles=lambda k: 8, threads=lambda k: 2):
    return [Sample(0.5 * k, memory(k), handles(k), threads(k)) for k in range(200)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ""),
        ({"memory": lambda k: 500 + 0.075 * k}, ""),  # 2.7 % between the middles of the tenths
        ({"memory": lambda k: 500 + 0.1 * k}, "memory"),
        ({"memory": lambda k: 500 - 0.1 * k}, "memory"),
        ({"memory": lambda k: 500 + 100 * (k == 150)}, ""),  # one peak
        ({"handles": lambda k: 8 + k % 2}, ""),
        ({"handles": lambda k: 8 + (k > 100)}, "handles"),
        ({"threads": lambda k: 2 + k // 90, "memory": lambda k: 500 + k}, "memory, threads"),
    ],
)
def test_growth_is_a_change_of_the_level_and_not_a_peak(given, expected):
    assert growth(samples(**given)) == expected


def test_the_warm_up_is_a_quarter_of_the_time_but_at_most_twenty_minutes():
    assert warm(samples(), 40)[0].time_min == 10
    assert warm(samples(), 120)[0].time_min == 20


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_the_soak_are_accepted(name, capsys):
    assert cli.main([*COMMANDS[name], "--cfg"]) == cli.OK, capsys.readouterr().err
