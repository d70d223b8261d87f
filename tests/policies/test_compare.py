"""Two policies on the same trials: counts by hand, McNemar's test against its formula, the command's exit status."""

import json
from math import comb

import pytest

from dexgrasp.policies.cli import main
from dexgrasp.policies.evaluation.compare import pair
from dexgrasp.sim.task.outcomes import Outcome


def outcomes(marks):
    return [
        Outcome(
            trial=i,
            object=f"thing_{i}",
            disturbance="none",
            success=mark == "+",
            failure="" if mark == "+" else "missed",
            lift_m=0.0,
            slip_m=0.0,
            penetration_m=0.0,
        )
        for i, mark in enumerate(marks)
    ]


def test_trials_are_paired():
    paired = pair(outcomes("++--+"), outcomes("+-+-+"))
    assert (paired.both, paired.neither, paired.trials) == (2, 1, 5)
    assert [o.object for o in paired.gained] == ["thing_2"]
    assert [o.object for o in paired.lost] == ["thing_1"]
    assert paired.difference == 0.0


def test_the_p_value_is_that_of_a_fair_coin():
    # 2 gained, 8 lost: P(at most 2 heads of 10) = (1 + 10 + 45) / 1024
    paired = pair(outcomes("+" * 8 + "--"), outcomes("-" * 8 + "++"))
    tail = sum(comb(10, k) for k in range(3)) / 1024
    assert paired.p_value("less") == pytest.approx(tail)
    assert paired.p_value() == pytest.approx(2 * tail)
    assert paired.difference == pytest.approx(-0.6)


def test_policies_that_end_alike_differ_by_chance_alone():
    assert pair(outcomes("+-"), outcomes("+-")).p_value("less") == 1.0


def test_other_trials_cannot_be_paired():
    with pytest.raises(ValueError, match="not about the same trials: 2 and 3"):
        pair(outcomes("++"), outcomes("++-"))


SMALL = ("trials=6", "num_threads=1", "physics=turbo", "task.hold_s=0.2", "task.lift_s=0.4", "task.grasp_s=1.0")


def test_the_command_tells_a_loss_by_its_exit_status(tmp_path, capsys):
    worse = ["compare", "synergy", "random", *SMALL, f"out={tmp_path / 'worse'}", "alpha=0.4"]
    assert main.main(worse) == 1
    assert "significantly worse" in capsys.readouterr().out
    result = json.loads((tmp_path / "worse/compare.json").read_text())
    assert result["trials"] == 6 and len(result["lost"]) > len(result["gained"])
    assert main.main(["compare", "synergy", "zero", *SMALL, f"out={tmp_path / 'same'}"]) == 0
    told = capsys.readouterr().out
    assert "B - A: +0.0 points, McNemar p = 1.000" in told
    assert told.splitlines()[-2] == "camera errors: none; camera=d435 adds those of a D435"


def test_one_policy_is_not_enough(capsys):
    assert main.main(["compare", "synergy"]) == 2
    assert "dexgrasp compare A B" in capsys.readouterr().err


def test_both_policies_are_looked_for_before_the_first_is_run(tmp_path, capsys):
    assert main.main(["compare", "synergy", "nothing", f"out={tmp_path / 'run'}"]) == 2
    assert "no policy 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
