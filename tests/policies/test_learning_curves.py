"""progress.csv: continued over starts, whole after a kill; validations counted once over a resume."""

import csv
import os
from types import SimpleNamespace

import pytest

from dexgrasp.policies.algorithms.learner import Learner
from dexgrasp.policies.training.learning_curves import CLOCK, ProgressCsv, read_columns, read_rows

TEXT = f"{CLOCK},rollout/success\n" + "".join(f"{i},0.5\n" for i in range(100))


@pytest.fixture
def progress(tmp_path):
    (tmp_path / "progress.csv").write_text(TEXT)
    return tmp_path / "progress.csv"


def test_opening_the_file_again_loses_no_row(progress):
    ProgressCsv(progress, 1000)
    assert progress.read_text() == TEXT


def test_a_kill_while_the_file_is_opened_loses_no_row(progress, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ProgressCsv(progress, 40)
    assert progress.read_text() == TEXT


def test_rows_of_undone_iterations_and_a_torn_line_go(progress):
    progress.write_text(TEXT + "10")
    assert len(read_rows(progress)) == 100 and read_columns(progress)["rollout/success"][0][-1] == 99
    curves = ProgressCsv(progress, 40)
    assert [row[CLOCK] for row in read_rows(progress)] == [str(i) for i in range(41)]
    curves.write({CLOCK: 41, "rollout/success": 0.25}, {CLOCK: (), "rollout/success": ()})
    assert progress.read_text().endswith("\n40,0.5\n41,0.25\n")


def test_a_new_column_comes_behind_the_others_and_leaves_earlier_cells_empty(progress):
    curves = ProgressCsv(progress, 1)
    keys = (CLOCK, "rollout/success", "validation/success")
    curves.write(dict(zip(keys, (2, 0.5, 0.75), strict=True)), dict.fromkeys(keys, ()))
    assert list(csv.reader(progress.read_text().splitlines())) == [
        *(list(keys), ["0", "0.5", ""], ["1", "0.5", ""], ["2", "0.5", "0.75"])
    ]
    assert read_columns(progress)["validation/success"] == ([2.0], [0.75])


def test_a_validation_that_is_repeated_after_a_resume_counts_once():
    learner = SimpleNamespace(iteration=25, validated_iteration=0, validations_since_best=0, best_validation=0.0)
    found = []
    for iteration, rate in ((25, 0.5), (50, 0.25), (50, 0.25), (75, 0.4), (100, 0.5)):
        learner.iteration = iteration
        Learner.record_validation(learner, rate)
        found.append(learner.validations_since_best)
    assert found == [0, 1, 1, 2, 0]
