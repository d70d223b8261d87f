"""progress.csv: continued over starts, whole after a kill, complete when the checkpoint is written."""

import csv
import os
from types import SimpleNamespace

import pytest
from stable_baselines3.common.logger import Logger

from dexgrasp.policies.algorithms.learner import IterationCallback, Learner
from dexgrasp.policies.algorithms.ppo import GraspPPO
from dexgrasp.policies.training.learning_curves import CLOCK, ProgressCsv, read_columns, read_rows
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.task.grasp_task import TaskCfg

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


def test_the_row_of_an_iteration_holds_its_update_and_validation_before_its_checkpoint(progress):
    """A checkpoint keeps no values of the logger: every value of its iteration must be on the disk by then."""
    seen = []

    class Watch(IterationCallback):
        def on_iteration_end(self, learner):
            learner.logger.record("validation/success", 0.1 * learner.iteration)

        def on_iteration_logged(self, learner):
            row = read_rows(progress)[-1]
            assert not learner.logger.name_to_value
            seen.append((int(row[CLOCK]), float(row["validation/success"]), bool(row.get("train/kl"))))

    task = TaskCfg(rate_hz=10.0, grasp_s=0.4, lift_s=0.2, hold_s=0.2)
    model = GraspPPO(GraspVecEnv(2, obs="both", task=task, num_threads=1), seed=0)
    model.set_logger(Logger(None, [ProgressCsv(progress, -1)]))
    steps = 2 * model.num_steps
    model.learn(2 * steps, [Watch()])
    assert seen == [(steps, 0.1, False), (2 * steps, 0.2, True)]  # the first iteration learns the scales alone


def test_validations_without_a_better_one_are_counted():
    learner = SimpleNamespace(iteration=0, validated_iteration=0, validations_since_best=0, best_validation=0.0)
    found = []
    for learner.iteration, rate in ((25, 0.5), (50, 0.25), (75, 0.4), (100, 0.5)):
        Learner.record_validation(learner, rate)
        found.append((learner.validated_iteration, learner.validations_since_best))
    assert found == [(25, 0), (50, 1), (75, 2), (100, 0)]
