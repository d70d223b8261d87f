"""Evaluation with the real task: counts that add up, runs that go on after a kill, videos."""

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch

from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation import html_report, videos
from dexgrasp.policies.evaluation.config import EvaluateCfg, make_task
from dexgrasp.policies.evaluation.episodes import BlockProgress
from dexgrasp.policies.evaluation.evaluate import best_video, demo, diagnostics, evaluate, summarise
from dexgrasp.policies.evaluation.trial_store import JsonLinesStore, TrialPlan, in_order, starts_of_trials
from dexgrasp.policies.networks.actor_critic import GraspPolicy
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, backend
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.outcomes import FAILURES, Outcome
from tests.helpers.untrained_checkpoint import save

FAST = PhysicsCfg("turbo", timestep_s=0.01, integrator="discrete", cone="pyramidal", impratio=5.0, condim=3)
SHORT = TaskCfg(grasp_s=1.5, lift_s=0.5, hold_s=0.5)
CFG = EvaluateCfg(trials=5, num_envs=2, num_threads=1, task=SHORT, physics=FAST)
COUNTS = {"success_rate", "successes", "trials", "wilson95"}
RESULT_KEYS = COUNTS | {"per_object", "per_disturbance", "failures", "config", "versions", "git", "code", "seed"}


@pytest.fixture(autouse=True, scope="module")
def _no_pictures():
    """Pictures of objects take most of an evaluation this small; test_report looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_report, "draw_object", lambda model: b"")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run directory of CFG, complete."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    evaluate(replace(CFG, out=str(out)))
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(finished, tmp_path / "copy")


def result_of(run):
    """result.json without the directory's own name."""
    result = json.loads((run / "result.json").read_text())
    result["config"].pop("out")
    return result


def outcome(trial, name="box", disturbance="none", failure="", **numbers):
    return Outcome(
        trial=trial,
        object=name,
        disturbance=disturbance,
        success=not failure,
        failure=failure,
        **{"lift_m": 0.15, "slip_m": 0.0, "penetration_m": 0.001} | numbers,
    )


def task_of(rows, cfg=CFG):
    return make_task(cfg, HandSpec.load("allegro"), open_library("shipped"), "none", rows)


def test_the_result_has_exactly_its_keys_and_its_counts_add_up(finished):
    result = json.loads((finished / "result.json").read_text())
    assert set(result) == RESULT_KEYS
    assert set(result["failures"]) == set(FAILURES)
    assert result["trials"] == 5
    assert result["successes"] + sum(result["failures"].values()) == 5
    assert sum(row["trials"] for row in result["per_object"].values()) == 5
    assert sum(row["successes"] for row in result["per_object"].values()) == result["successes"]
    assert result["per_disturbance"] == {"none": {key: result[key] for key in COUNTS}}


def test_objects_take_equal_turns(finished):
    names = open_library("shipped").names
    stored = JsonLinesStore(finished / "trials.jsonl").read()
    assert [(o.trial, o.object) for o in stored] == [(i, names[i % len(names)]) for i in range(5)]


@pytest.mark.parametrize("cut", [0, 1, 400, -1, -30])
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(finished, copied, cut):
    log = copied / "trials.jsonl"
    log.write_bytes(log.read_bytes()[:cut])
    (copied / "result.json").unlink()
    evaluate(replace(CFG, out=str(copied)))
    assert result_of(copied) == result_of(finished)
    assert log.read_text() == (finished / "trials.jsonl").read_text()


def test_only_what_is_missing_is_simulated_again(copied):
    lines = (copied / "trials.jsonl").read_text().splitlines(keepends=True)
    (copied / "trials.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    evaluate(replace(CFG, out=str(copied)))
    # blocks of two: trials 0 and 1 stand, the torn block of 2 and 3 is run again, then 4
    assert json.loads((copied / "diagnostics.json").read_text())["trials_simulated"] == 3


@pytest.mark.parametrize("cut", [None, -1])
def test_more_trials_add_to_those_that_are_there(copied, cut, caplog):
    """Blocks of 2 then, of 4 now: the first four trials, or all five, lie beside each other in no block of now."""
    log = copied / "trials.jsonl"
    log.write_bytes(before := b"".join(log.read_bytes().splitlines(keepends=True)[:cut]))
    stored = before.count(b"\n")
    wider = replace(CFG, out=str(copied), trials=stored + 2, num_threads=2)
    with caplog.at_level("INFO", "dexgrasp"):
        result = evaluate(wider)
    assert result["trials"] == stored + 2
    assert f"goes on: {stored} of {stored + 2} trials were finished" in caplog.text
    assert log.read_bytes().startswith(before)
    assert log.read_bytes().count(b"\n") == stored + 2
    starts = {trial: start for (_, trial), start in starts_of_trials(copied / "blocks.jsonl").items()}
    assert [starts[i] for i in range(stored + 2)] == [0] * stored + [1, 1]


def test_trials_do_not_depend_on_what_ran_beside_them(finished, tmp_path):
    evaluate(replace(CFG, out=str(tmp_path / "wide"), num_envs=5, num_threads=2))
    assert (tmp_path / "wide/trials.jsonl").read_text() == (finished / "trials.jsonl").read_text()


def test_another_configuration_in_the_same_directory_is_refused(copied):
    with pytest.raises(
        ValueError, match=r"holds another run \(seed: 0 then, 1 now\): choose another out=, or give force=true"
    ):
        evaluate(replace(CFG, out=str(copied), seed=1))


def test_a_log_that_is_damaged_in_the_middle_is_refused(copied):
    lines = (copied / "trials.jsonl").read_text().splitlines(keepends=True)
    (copied / "trials.jsonl").write_text(lines[0] + "{broken\n" + lines[2])
    with pytest.raises(ValueError, match=r"trials\.jsonl is damaged before its last line"):
        evaluate(replace(CFG, out=str(copied)))


def test_trials_of_a_version_that_knew_no_second_attempt_are_refused(copied):
    log = copied / "trials.jsonl"
    log.write_text(log.read_text().replace(', "attempts": 1', ""))
    with pytest.raises(ValueError, match="trials had one attempt: choose another out="):
        evaluate(replace(CFG, out=str(copied)))


def test_stored_trials_of_other_objects_are_refused():
    stored = [outcome(0, "box"), outcome(1, "cup")]
    with pytest.raises(ValueError, match="trial 1 with 'cup' stands where trial 1 with 'mug' belongs"):
        in_order(stored, TrialPlan(disturbances=["none"], trials=4, rows=2, objects=["box", "mug"]))


def test_a_number_that_is_not_finite_survives_the_log(tmp_path):
    store = JsonLinesStore(tmp_path / "log")
    store.append([asdict(outcome(0, failure="unstable", lift_m=math.nan))])
    assert '"lift_m": null' in (tmp_path / "log").read_text()
    assert math.isnan(store.read()[0].lift_m)


@pytest.mark.parametrize(
    ("trials", "num_envs", "rows"), [(200, 64, 50), (5, 2, 2), (100, 64, 50), (10, 64, 10), (65, 64, 33)]
)
def test_blocks_are_of_one_size_and_waste_little(trials, num_envs, rows):
    assert EvaluateCfg(trials=trials, num_envs=num_envs).rows() == rows


def test_impossible_numbers_are_refused_by_name():
    with pytest.raises(ValueError, match=r"trials must lie in 1\.\.10000000, got 0"):
        EvaluateCfg(trials=0)


def test_all_disturbances_run_the_same_trials_in_turn(tmp_path):
    result = evaluate(replace(CFG, out=str(tmp_path / "run"), disturbance="all", trials=2))
    names = ["none", "shift3", "shift5", "force", "heavy", "slippery"]
    assert list(result["per_disturbance"]) == names
    assert result["trials"] == 12 == result["successes"] + sum(result["failures"].values())
    stored = JsonLinesStore(tmp_path / "run/trials.jsonl").read()
    assert [(o.disturbance, o.trial) for o in stored] == [(name, trial) for name in names for trial in (0, 1)]


def test_what_succeeded_at_the_first_attempt_is_counted_apart():
    outcomes = [outcome(0, attempts=1), outcome(1, attempts=3), outcome(2, failure="missed", attempts=1)]
    outcomes += [outcome(i, disturbance="heavy", attempts=2 - i % 2) for i in range(3)]
    notes = diagnostics(outcomes, {})
    assert notes["at_first_attempt"] == {"none": 1, "heavy": 1}


def test_failures_are_counted_by_name_and_an_unknown_one_is_an_error():
    facts = [{"versions": {}, "git": None, "trials": 3}]
    outcomes = [outcome(0), outcome(1, failure="missed"), outcome(2, "mug", failure="missed")]
    result = summarise(replace(CFG, trials=3), outcomes, facts)
    assert result["failures"] == {
        "missed": 2,
        "dropped_in_lift": 0,
        "dropped_in_hold": 0,
        "pushed_away": 0,
        "unstable": 0,
    }
    assert result["per_object"]["box"] == {"successes": 1, "trials": 2}
    with pytest.raises(ValueError, match=r"reports failures \['bored'\]; known: \['missed'"):
        summarise(CFG, [outcome(0, failure="bored")], facts)


def test_the_synergy_is_the_scripted_grasp_without_correction_and_needs_it():
    task = task_of(2)
    assert (make_policy("synergy", task).act({}) == torch.zeros(2, task.num_actions)).all()
    without = task_of(1, replace(CFG, task=replace(SHORT, use_scripted_grasp=False)))
    with pytest.raises(ValueError, match=r"policy=synergy .* task\.use_scripted_grasp=false removes"):
        make_policy("synergy", without)


def test_random_actions_belong_to_the_trial_and_not_to_the_row():
    wide, narrow = make_policy("random", task_of(3)), make_policy("random", task_of(1))
    wide.reset([7, 8, 9])
    narrow.reset([9])
    for _ in range(3):
        assert torch.equal(wide.act({})[2:], narrow.act({}))
    wide.reset([9, 8, 7])
    narrow.reset([9])
    assert torch.equal(wide.act({})[:1], narrow.act({}))


def test_an_unknown_policy_is_refused_with_the_nearest_and_the_known():
    with pytest.raises(
        ValueError,
        match=r"no policy 'sinergy'\. Did you mean 'synergy'\? Expected random, synergy, zero, ability/student",
    ):
        make_policy("sinergy", task_of(1))


def test_videos_show_different_objects_and_failures():
    outcomes = [
        outcome(0, failure="missed"),
        outcome(1, failure="missed"),
        outcome(2, "mug", failure="dropped_in_hold"),
        outcome(3),
    ]
    assert [o.trial for o in videos.choose(outcomes, 2)] == [3, 2, 0]
    assert videos.file_name(outcomes[2]) == "failure_2_mug.mp4"
    assert videos.file_name(outcome(4, disturbance="force")) == "success_4_box_force.mp4"


def test_progress_is_told_within_a_block(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dexgrasp.utils.progress.LINE_EVERY_S", 0.0)
    result = evaluate(replace(CFG, out=str(tmp_path / "run"), trials=3, num_envs=2))
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("evaluate: ")]
    ended = "(50 per attempt), 0 of the block's 2 trials ended"  # 2.5 s at 20 Hz
    steps = [f"control step {i + 1} {ended}" for i in range(50)]
    assert lines[:50] == [f"evaluate: 0/3, {step}" for step in steps]
    assert lines[50].startswith("evaluate: 2/3 (67 %), ")
    assert lines[51:101] == [f"evaluate: 2/3, {step}" for step in steps]
    assert len(lines) == 102 and lines[101].startswith("evaluate: 3/3 (100 %), ")
    assert lines[101].endswith(f"{result['successes']} success{'es' * (result['successes'] != 1)}")
    assert "camera errors  none; camera=d435 adds those of a D435" in told.out


def test_trials_that_grasp_again_and_trials_that_ended_are_counted():
    task, told = task_of(3), []
    watch = BlockProgress(task, told.append)
    task.reset(trials=[0, 1, 2])
    watch()
    task.steps_since_pregrasp[0] = task.episode_steps
    task.outcome_tracker.attempts[1] = 2
    watch()
    assert told == [
        "control step 1 (50 per attempt), 0 of the block's 3 trials ended",
        "control step 2 (50 per attempt), 1 of the block's 3 trials ended, 1 grasped again",
    ]


def test_the_demo_ends_with_the_rate_a_video_and_the_report(tmp_path, capsys):
    try:
        backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))
    out = tmp_path / "demo"
    result = demo(replace(CFG, out=str(out), trials=2, videos=1))
    rate, video, report = capsys.readouterr().out.splitlines()[-3:]
    assert rate.startswith(
        f"success rate  {50 * result['successes']:.1f} % ({result['successes']} of 2 trials; 95 % interval"
    )
    assert video == f"video         {best_video(out / 'videos')}"
    assert report == f"report        {out / 'report.html'}"
    for path in (out / "videos").iterdir():
        frames, _ = imageio_ffmpeg.count_frames_and_secs(path)
        assert frames == 50  # 2.5 s at 20 Hz


def test_without_opengl_the_evaluation_goes_on_without_videos(tmp_path, monkeypatch, caplog):
    def unavailable():
        raise RenderUnavailable({"egl": "none"})

    monkeypatch.setattr(videos, "backend", unavailable)
    monkeypatch.setattr(html_report, "draw_object", lambda _: unavailable())
    result = evaluate(replace(CFG, out=str(tmp_path / "run"), trials=2, videos=1))
    assert result["trials"] == 2
    assert "no videos: no headless OpenGL" in caplog.text
    assert not (tmp_path / "run/videos").exists()


def test_a_policy_with_observations_of_an_own_task_is_loaded_for_it_and_told_from_others(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    from upright_grasp import UprightGrasp

    cfg = replace(SHORT, class_name="UprightGrasp")
    own = UprightGrasp(cfg, HandSpec.load("allegro"), open_library("shipped"), FAST, num_envs=2, num_threads=1)
    policy = GraspPolicy(own.layouts, own.num_actions, hidden=(32, 16))
    save(tmp_path, policy, TrainCfg(task=cfg, hidden=(32, 16), plugins=("upright_grasp.py",)))
    agent = make_policy(str(tmp_path), own)
    obs = own.reset()
    with torch.no_grad():
        assert torch.allclose(agent.act(obs), policy.eval().mean(obs))
    usual = make_task(CFG, HandSpec.load("allegro"), open_library("shipped"), "none", 2)
    with pytest.raises(ValueError, match=r"group 'teacher' the policy expects 3 values of 'object_up', the task gives"):
        make_policy(str(tmp_path), usual)
    with pytest.raises(ValueError, match=r"give plugins=upright_grasp\.py task\.class_name=UprightGrasp, as in its"):
        make_policy(str(tmp_path), usual)
