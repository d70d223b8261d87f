"""Words of messages: numbers with their nouns, tables as wide as the terminal."""

import random

import pytest

from dexgrasp.utils import text as text_module
from dexgrasp.utils.text import counted, install_command, one_line, text_table


@pytest.mark.parametrize(
    ("count", "nouns", "said"),
    [
        (0, ("object",), "0 objects"),
        (1, ("object",), "1 object"),
        (1, ("mesh", "meshes"), "1 mesh"),
        (2, ("family", "families"), "2 families"),
        (1440, ("trial",), "1,440 trials"),
    ],
)
def test_a_number_has_the_noun_that_fits(count, nouns, said):
    assert counted(count, *nouns) == said


def test_numbers_stand_at_the_right_and_words_at_the_left():
    rows = [("preset", "steps/s", "source"), ("reference", "1,234", "measured"), ("turbo", "56", "none yet")]
    assert text_table(rows).splitlines() == [
        "preset     steps/s  source",
        "---------  -------  --------",
        "reference    1,234  measured",
        "turbo           56  none yet",
    ]


def test_columns_that_do_not_fit_follow_behind_the_first_one_again():
    rows = [("name", "aaaa", "bbbb", "cccc"), ("x", "1.00", "2.00", "3.00")]
    assert text_table(rows, width=16) == (
        "name  aaaa  bbbb\n----  ----  ----\nx     1.00  2.00\n\nname  cccc\n----  ----\nx     3.00"
    )


def test_no_line_is_wider_than_the_terminal_and_no_cell_is_lost():
    """Random tables of up to 14 columns; every word is at most 20 characters, so that two columns always fit."""
    draw = random.Random(0)
    words = ["1.5 mm", "98.8 % (97.9 – 99.3)", "-", "joints and palm pose of one camera", "allegro/student", "3"]
    for _ in range(200):
        width, size = draw.randint(44, 100), draw.randint(1, 14)
        rows = [[draw.choice(words) for _ in range(size)] for _ in range(draw.randint(1, 5))]
        rows = [["first" + str(k), *row] for k, row in enumerate(rows)]
        text = text_table(rows, width)
        assert max(map(len, text.splitlines())) <= width, text
        kept = sorted(word for line in text.splitlines() for word in line.split() if not set(word) <= {"-", "–"})
        tables = text.count("\n\n") + 1
        given = [word for row in rows for cell in [*row[1:], *row[:1] * tables] for word in cell.split()]
        assert kept == sorted(word for word in given if not set(word) <= {"-", "–"})


def test_a_text_of_several_lines_becomes_one_and_is_cut():
    assert one_line(ValueError("a  b\n\tc")) == "a b c"
    assert one_line("a  b\nc", 3) == "a b"
    assert one_line("") == ""


def test_an_extra_is_installed_from_the_clone_or_from_the_package(tmp_path, monkeypatch):
    assert install_command("viz") == "pip install -e '.[viz]' -c constraints.txt"
    monkeypatch.setattr(text_module, "__file__", str(tmp_path / "site-packages/dexgrasp/utils/text.py"))
    assert install_command("viz") == "pip install 'dexgrasp[viz]'"
