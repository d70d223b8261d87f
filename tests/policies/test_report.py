"""`dexgrasp report`: the command that repeats a run, reports written again, runs side by side with paired tests."""

import json
import re
import shlex
from dataclasses import asdict, replace
from html import unescape
from itertools import product
from math import comb

import pytest

from dexgrasp import configs
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.evaluation import conditions as conditions_module
from dexgrasp.policies.evaluation import html_report
from dexgrasp.policies.evaluation.conditions import camera_errors_note, conditions, repeat_command
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config
from dexgrasp.policies.evaluation.evaluate import diagnostics, object_facts
from dexgrasp.policies.evaluation.report import compare_outcomes
from dexgrasp.policies.evaluation.stored_run import StoredRun
from dexgrasp.policies.evaluation.trial_store import JsonLinesStore
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.task.outcomes import Outcome

NAMES = open_library("shipped").names


def load(*words):
    return apply_policy_config(configs.load(EvaluateCfg, "evaluate", words))


def outcomes(marks, attempts=1, objects=NAMES):
    return [
        Outcome(
            trial=i,
            object=objects[i % len(objects)],
            disturbance="none",
            success=mark == "+",
            failure="" if mark == "+" else "missed",
            lift_m=0.0,
            slip_m=0.0,
            penetration_m=0.0,
            attempts=attempts,
        )
        for i, mark in enumerate(marks)
    ]


def run_of(folder, marks, cfg=None, **facts):
    """A run directory with these outcomes, as an interrupted evaluation leaves it: without result.json."""
    cfg = cfg or load(f"trials={len(marks) or 1}")
    folder.mkdir()
    configs.save(cfg, folder / "config.yaml")
    known = {"kind": "evaluate", "git": None, "versions": {"python": "3"}, "starts": ["2026-01-02T03:04:05Z"]}
    (folder / "run.json").write_text(json.dumps(known | facts))
    JsonLinesStore(folder / "trials.jsonl").append([asdict(one) for one in outcomes(marks)])
    return folder


def words_of(path):
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", path.read_text(), flags=re.S)).split())


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without pictures."""
    monkeypatch.setattr(html_report, "draw_object", lambda model: b"")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trials=72", "policy=allegro/student", "camera=d435"],
        ["policy=leap/teacher", "disturbance=all", "seed=7"],
        ["physics=turbo", "physics.condim=4", "randomization=train", "attempts=1"],
        ["task=paper", "task.camera.model=rendered", "task.randomization.size_scales=0.9,1.1", "task.hold_s=1.5"],
        ["camera=d435_latest", "task.camera.edge_dropout=0.5", "mount=ur5e", "num_envs=8"],
    ],
)
def test_the_command_of_a_report_gives_the_configuration_of_its_run(words):
    cfg = load(*words)
    command = shlex.split(repeat_command(configs.as_dict(cfg)))
    assert command[:2] == ["dexgrasp", "evaluate"]
    assert load(*command[2:]) == cfg
    assert len(command) - 2 <= len(words)  # and it is no longer than what was typed


D435 = "none; camera={} adds those of a D435"


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["policy=allegro/student"], D435.format("d435")),
        (["policy=leap/student", "task.camera.model=rendered"], D435.format("d435")),
        (["policy=allegro/teacher"], D435.format("d435")),  # takes any camera
        (["policy=synergy"], D435.format("d435")),
        (["policy=synergy", "task.camera.mode=latest"], D435.format("d435_latest")),
        (["policy=allegro/student", "camera=d435"], ""),
        (["policy=allegro/student", "task.camera.edge_dropout=0.1"], ""),
        (["policy=allegro/teacher", "camera=d435_latest"], ""),
        (["policy=synergy", "camera=d435_tracked"], ""),
    ],
)
def test_a_camera_without_errors_is_named_with_the_preset_that_adds_them(words, note):
    assert camera_errors_note(configs.as_dict(load(*words))) == note


def test_no_preset_is_named_where_none_has_the_observation_of_the_policy(monkeypatch):
    config = configs.as_dict(load("policy=synergy", "camera=published"))
    monkeypatch.setattr(conditions_module, "prescribes_camera", lambda name: True)
    assert camera_errors_note(config) == "none"
    config["task"]["camera"]["mode"] = "tracked"
    config["task"]["camera"]["frame_interval_steps"] = 3
    assert camera_errors_note(config) == "none"  # hold_frame_interval_steps and move_with_palm differ


def test_the_command_is_given_for_a_policy_that_is_gone_too():
    config = configs.as_dict(load("policy=allegro/student", "camera=d435")) | {"policy": "runs/gone"}
    assert repeat_command(config).startswith("dexgrasp evaluate policy=runs/gone camera=d435")


def test_conditions_name_the_errors_of_the_camera_and_changed_presets():
    text = conditions(configs.as_dict(load("camera=d435", "physics.condim=3", "randomization=train")), 5)
    assert text["camera"] == "tracked_updated: a frame every 3 control steps (8 in hold), 1 late"
    assert text["camera errors"] == (
        "disparity 0.08 px, depth steps 0.001 m, 30% of edge points missing, 2% flying, hand margin 0.003 m"
    )
    assert text["physics"] == "reference, changed"
    assert text["randomization"] == "train"
    changed = configs.as_dict(load("randomization=off", "task.randomization.joint_noise_rad=0.1"))  # not in off.yaml
    assert conditions(changed, 5)["randomization"] == "off, changed"


def test_identical_trials_are_compared_in_pairs_and_others_are_not():
    first, other = outcomes("+" * 8 + "--"), outcomes("-" * 8 + "++")
    paired = compare_outcomes(first, other, lambda one: one.success, same_start=True)
    assert paired.paired
    assert paired.points == pytest.approx(-60.0)
    assert paired.p_value == pytest.approx(2 * sum(comb(10, k) for k in range(3)) / 1024)  # 2 gained, 8 lost
    assert paired.text == "\N{MINUS SIGN}60.0 points, p = 0.109"
    fisher = compare_outcomes(first, other, lambda one: one.success, same_start=False)
    # 8/10 against 2/10: hypergeometric tail, both sides, (C(10,8)C(10,2) + C(10,9)C(10,1) + 1) / C(20,10) twice
    assert fisher.p_value == pytest.approx(2 * (45 * 45 + 100 + 1) / comb(20, 10))
    assert fisher.text.endswith("(unpaired)")
    assert fisher.sign == "minus"
    assert compare_outcomes(first, [], lambda one: one.success, same_start=True) is None
    few = compare_outcomes(first[:3], other[:3], lambda one: one.success, same_start=True)
    assert few.text == "\N{MINUS SIGN}100.0 points"  # no p-value from three trials
    nine = compare_outcomes(outcomes("+" * 9), outcomes("-" * 9), lambda one: one.success, same_start=True)
    assert nine.p_value == pytest.approx(2 / 512) and nine.sign == ""  # no colour without a printed p-value
    assert nine.text == "\N{MINUS SIGN}100.0 points"


def test_an_interrupted_run_is_reported_from_its_trials(tmp_path, undrawn, capsys):
    run = run_of(tmp_path / "run", "++-+", load("trials=10"))
    assert main(["report", str(run)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"{run}: 75.0 % of 4 trials (95 % interval 30.1 – 95.4 %), interrupted: 4 of 10 trials",
        f"report: {run / 'report.html'}",
    ]
    words = words_of(run / "report.html")
    assert "interrupted: 4 of 10 trials have finished" in words
    assert "success with up to 3 attempts: 3 of 4 trials" in words


def finished(folder, marks):
    """A finished run whose objects have gone since."""
    run = run_of(folder, marks, replace(load(f"trials={len(marks)}"), objects=str(folder / "gone")))
    notes = diagnostics(outcomes(marks), object_facts(outcomes(marks), open_library("shipped")))
    (run / "diagnostics.json").write_text(json.dumps(notes))
    return run


def test_runs_whose_objects_are_gone_or_renamed_are_reported_from_diagnostics_json(tmp_path, undrawn):
    run = finished(tmp_path / "run", "++-+")
    assert main(["report", str(run)]) == 0
    words = words_of(run / "report.html")
    assert (
        "success with up to 3 attempts: 3 of 4 trials" in words
        and "No pictures: the objects are not where they were" in words
    )
    assert main(["report", str(run), str(finished(tmp_path / "b", "+++-")), f"out={tmp_path / 'both.html'}"]) == 0
    assert "success 75.0 % 3/4 75.0 % 3/4" in words_of(tmp_path / "both.html")
    renamed = (run / "trials.jsonl").read_text().replace(NAMES[0], "renamed")
    (run / "trials.jsonl").write_text(renamed)
    stored = (run / "diagnostics.json").read_text().replace(NAMES[0], "renamed")
    (run / "diagnostics.json").write_text(stored)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(tmp_path / "run" / "gone"), "shipped"))
    assert main(["report", str(run)]) == 0
    assert "success with up to 3 attempts: 3 of 4 trials" in words_of(run / "report.html")


def test_an_interrupted_run_whose_objects_are_gone_or_renamed_is_refused_in_one_line(tmp_path, capsys):
    run = run_of(tmp_path / "run", "+-")
    (run / "trials.jsonl").write_text((run / "trials.jsonl").read_text().replace(NAMES[0], "renamed"))
    for words in ([str(run)], [str(run), str(run), f"out={tmp_path / 'both.html'}"]):
        assert main(["report", *words]) == 2
        error = capsys.readouterr().err
        *hint, error = error.splitlines()
        assert "'shipped' has no renamed any more" in error
        assert [f"warning: {run} is given more than once" in line for line in hint] == [True] * (len(words) > 1)
    gone = finished(tmp_path / "gone_run", "+-")
    (gone / "diagnostics.json").unlink()
    assert main(["report", str(gone)]) == 2
    error = capsys.readouterr().err
    assert "does not have all objects of the trials" in error and len(error.splitlines()) == 1


def test_a_trial_that_is_not_stored_is_refused_with_those_that_are(tmp_path):
    run = run_of(tmp_path / "run", "+" * 12)
    kept = [one for one in outcomes("+" * 12) if one.trial not in (4, 5, 6, 7, 9)]
    JsonLinesStore(run / "trials.jsonl").rewrite(kept)
    with pytest.raises(ValueError, match=r"has no trial 5: it has trials 0 to 3, 8, 10 to 11$"):
        StoredRun.read(run).outcome(5, "none")


def test_a_run_of_a_policy_that_is_gone_is_reported(tmp_path, undrawn):
    run = run_of(tmp_path / "run", "++-+")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("policy: synergy", "policy: runs/gone"))
    assert main(["report", str(run)]) == 0
    assert "dexgrasp evaluate policy=runs/gone trials=4" in words_of(run / "report.html")


def test_several_runs_stand_side_by_side_with_differences_to_the_first(tmp_path, capsys):
    a, b = (
        run_of(tmp_path / "a", "++++++++++--"),
        run_of(tmp_path / "b", "+++-------++", load("trials=12", "attempts=1")),
    )
    out = tmp_path / "both.html"
    assert main(["report", str(a), str(b), f"out={out}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {out}"
    words = words_of(out)
    # 2 gained, 7 lost of 12: two-sided binomial 2 (1 + 9 + 36) / 512
    assert "success 83.3 % 10/12 41.7 % 5/12 \N{MINUS SIGN}41.7 points, p = 0.180" in words
    assert "The runs have identical trials" in words
    assert "Options that differ (1) A: synergy (a) B: synergy (b) attempts 3 1" in words
    objects = words[words.index("Objects whose rates differ") :]
    assert f"{NAMES[3]} 100.0 % 1/1 0.0 % 0/1 \N{MINUS SIGN}100.0 points" in objects
    assert NAMES[0] not in objects  # equal in both
    assert "://" not in out.read_text()


def test_the_folder_of_a_sweep_stands_for_its_finished_jobs(tmp_path, capsys):
    sweep, out = tmp_path / "sweep", tmp_path / "all.html"
    sweep.mkdir()
    jobs = [run_of(sweep / f"seed={seed}", marks) for seed, marks in ((1, "++-+"), (2, "+--+"), (3, "++++"))]
    status = ("done", "done", "failed")
    rows = [{"name": job.name, "status": one} for job, one in zip(jobs, status, strict=True)]
    (sweep / "sweep.json").write_text(json.dumps({"command": "evaluate", "jobs": rows}))
    assert main(["report", str(sweep), f"out={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(jobs[0]), str(jobs[1]), "report"]
    assert " 75.0 % of 4 trials" in lines[0] and " 50.0 % of 4 trials" in lines[1]
    assert main(["report", *map(str, sorted(sweep.glob("*"))), f"out={out}"]) == 0  # seed=1 to 3 and sweep.json
    assert len(capsys.readouterr().out.splitlines()) == 4
    (sweep / "sweep.json").write_text(json.dumps({"command": "evaluate", "jobs": rows[2:]}))
    assert main(["report", str(sweep)]) == 2
    assert "is a sweep without a finished job" in capsys.readouterr().err


def test_runs_of_other_seeds_are_not_compared_in_pairs(tmp_path):
    a, b = run_of(tmp_path / "a", "+" * 12), run_of(tmp_path / "b", "-" * 12, load("trials=12", "seed=1"))
    assert main(["report", str(a), str(b), f"out={tmp_path / 'both.html'}"]) == 0
    words = words_of(tmp_path / "both.html")
    assert "\N{MINUS SIGN}100.0 points, p < 0.001 (unpaired)" in words
    assert "Where the trials differ" in words


def test_runs_of_different_objects_are_warned_of_at_the_top(tmp_path, capsys):
    a, b = run_of(tmp_path / "a", "+" * 12), run_of(tmp_path / "b", "-" * 12)
    JsonLinesStore(b / "trials.jsonl").rewrite(outcomes("-" * 12, objects=NAMES[20:40]))
    assert main(["report", str(a), str(b), f"out={tmp_path / 'both.html'}"]) == 0
    warning = f"{a} and {b} have no trial in common: their rates are of different objects"
    assert f"warning: {warning}" in capsys.readouterr().err
    words = words_of(tmp_path / "both.html")
    assert words.index(warning) < words.index("Bars: 95 %")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "dexgrasp report RUN [RUN ...]"),
        (["nowhere"], "nowhere is no run directory: expected the out= of `dexgrasp evaluate`"),
        (["nowhere", "out=a.pdf"], "nowhere is no run directory"),
    ],
)
def test_bad_input_is_refused_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_own_report_of_a_run_is_replaced_by_no_other(tmp_path, capsys, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        run_of(tmp_path / name, "+-")
    (tmp_path / "link").symlink_to("a")
    assert main(["report", "a", "out=link/report.html"]) == 0
    before = (tmp_path / "a" / "report.html").read_bytes()
    outs = ("a/report.html", "link/report.html", "b/../a/report.html", str(tmp_path / "a" / "report.html"))
    for words, out in product([["a", "b"], ["b", "a"], ["b"], ["a", "b", "b"]], outs):
        assert main(["report", *words, f"out={out}"]) == 2
        assert f"out={out} is the report of the run {tmp_path / 'a'} itself" in capsys.readouterr().err
    assert (tmp_path / "a" / "report.html").read_bytes() == before


def test_a_run_without_a_finished_trial_is_refused(tmp_path, capsys):
    run = run_of(tmp_path / "run", "")
    assert main(["report", str(run)]) == 2
    assert "holds no finished trial yet" in capsys.readouterr().err


def test_trials_at_the_first_attempt_are_compared_too(tmp_path):
    a, b = run_of(tmp_path / "a", "+" * 10), run_of(tmp_path / "b", "+" * 10)
    second = [replace(one, attempts=2) for one in outcomes("+" * 10)]
    JsonLinesStore(b / "trials.jsonl").rewrite(second)
    assert main(["report", str(a), str(b), f"out={tmp_path / 'both.html'}"]) == 0
    words = words_of(tmp_path / "both.html")
    assert "success 100.0 % 10/10 100.0 % 10/10 +0.0 points, p = 1.000" in words
    assert "success at the first attempt 100.0 % 10/10 0.0 % 0/10 \N{MINUS SIGN}100.0 points, p = 0.002" in words
