"""Run directories: what they record, that files appear whole, and progress without a terminal."""

import dataclasses
import json
import logging
import re
import shutil
import time
from contextlib import ExitStack

import numpy as np
import pytest
import yaml

from dexgrasp import configs
from dexgrasp.policies import run_directory
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.hands.tuning import TuneHandCfg
from dexgrasp.policies.input_identity import InputFile
from dexgrasp.policies.run_directory import Run
from dexgrasp.utils.progress import Progress


@dataclasses.dataclass(frozen=True)
class DigCfg:
    seed: int = 7
    trials: int = 10
    depth_m: float = 0.5


@dataclasses.dataclass(frozen=True)
class FillCfg:
    seed: int = 7


def test_a_run_directory_holds_configuration_versions_git_seed_and_log(tmp_path):
    with Run.open(tmp_path / "run", DigCfg()) as run:
        logging.getLogger("dexgrasp").info("dug %d holes", 3)
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {"seed": 7, "trials": 10, "depth_m": 0.5}
    facts = json.loads((run.path / "run.json").read_text())
    assert facts["seed"] == 7
    assert facts["versions"].keys() == {"python", "dexgrasp", "mujoco", "torch", "numpy", "onnxruntime"}
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["git"] is None or len(facts["git"]["hash"]) == 40
    assert "dug 3 holes" in (run.path / "run.log").read_text()


@dataclasses.dataclass(frozen=True)
class EngineCfg:
    engine: str = "cpu"


def test_versions_of_the_gpu_engine_are_recorded_beside_the_others_where_it_runs(tmp_path):
    usual = {"python", *run_directory.PACKAGES}
    for engine, more in (("cpu", set()), ("warp", {"mujoco-warp", "warp-lang"})):
        with Run.open(tmp_path / engine, EngineCfg(engine)) as run:
            assert set(run.facts["versions"]) == usual | more
            assert run.facts["kind"] == "engine" and run.facts["inputs"] == {} and run.start == 0


@pytest.mark.parametrize("change", ["moved", "removed", "replaced"])
def test_a_run_that_was_moved_away_is_not_begun_anew_in_its_old_place(tmp_path, change):
    said = r"run was moved or removed while this command wrote to it: .* out= that folder"
    with pytest.raises(OSError, match=said), Run.open(tmp_path / "run", DigCfg()) as run:
        run.file("part/one.txt").write_text("1")
        if change == "removed":
            shutil.rmtree(run.path)
        else:
            run.path.rename(tmp_path / "elsewhere")
        if change == "replaced":
            shutil.copytree(tmp_path / "elsewhere", run.path)
        run.file("part/two.txt")
    assert change == "replaced" or not (tmp_path / "run").exists()
    if change != "removed":
        assert sorted(path.name for path in (tmp_path / "elsewhere" / "part").iterdir()) == ["one.txt"]
        assert "was moved or removed" in (tmp_path / "elsewhere" / "run.log").read_text()


def test_messages_before_the_log_file_is_open_are_in_it(tmp_path):
    with Run.claim(tmp_path / "run", DigCfg) as run:
        logging.getLogger("dexgrasp").info("before the record")
        run.record(DigCfg())
    assert (run.path / "run.log").read_text().count("before the record") == 1


def test_another_python_changes_no_result_and_another_library_does():
    before, now = {"python": "3.11", "numpy": "1.0", "torch": None}, {"python": "3.12", "numpy": "2.0", "mujoco": "3"}
    assert run_directory._changed_versions(before, now) == ["numpy: 1.0 then, 2.0 now"]


def test_a_folder_that_is_no_run_is_told_from_another_run(tmp_path):
    with pytest.raises(ValueError, match="is no run directory: expected the out= of `dexgrasp evaluate`"):
        run_directory.check_evaluation(tmp_path)


def test_without_a_free_name_a_run_is_refused(tmp_path, monkeypatch):
    taken = [tmp_path / name for name in ("dig-1", "dig-2")]
    for path in taken:
        path.mkdir()
    monkeypatch.setattr(run_directory, "_default_paths", lambda kind: taken)
    with pytest.raises(OSError, match=r"runs/ has no free name for a run of 'dig': give out=FOLDER"):
        Run.open("", DigCfg())


def test_the_log_file_is_closed_after_an_error_and_names_it(tmp_path):
    with pytest.raises(OSError), Run.open(tmp_path / "run", DigCfg()) as run:
        raise OSError("no shovel")
    logging.getLogger("dexgrasp").info("later")
    text = (run.path / "run.log").read_text()
    assert "failed: OSError: no shovel" in text
    assert "later" not in text


def test_an_interruption_is_in_the_log_and_a_nested_file_gets_its_folders(tmp_path):
    with pytest.raises(KeyboardInterrupt), Run.open(tmp_path / "run", DigCfg()) as run:
        run.file("a/b/hole.txt").write_text("deep")
        raise KeyboardInterrupt
    assert (tmp_path / "run/a/b/hole.txt").read_text() == "deep"
    text = (run.path / "run.log").read_text()
    assert text.rstrip().endswith("interrupted") and "failed" not in text
    with Run.open(tmp_path / "run", DigCfg()):  # the folder is free again
        pass


@pytest.mark.parametrize("under_way", [KeyboardInterrupt(), ValueError("no such hole"), None])
def test_an_error_at_the_end_of_a_run_does_not_hide_the_exception_under_way(tmp_path, under_way):
    held = ExitStack()

    @held.push
    def fail(kind, error, _):
        assert error is under_way and kind is (under_way and type(under_way))
        raise OSError("the file system is gone")

    with pytest.raises(OSError, match="gone") as failed, Run(tmp_path, held):
        if under_way is not None:
            raise under_way
    assert failed.value.__context__ is under_way


def test_going_on_keeps_the_earlier_start(tmp_path):
    for _ in range(2):
        Run.open(tmp_path / "run", DigCfg(), may_differ=()).close()
    assert len(json.loads((tmp_path / "run/run.json").read_text())["starts"]) == 2


def test_that_inputs_are_not_compared_is_said_where_there_are_any(tmp_path, caplog):
    for inputs, said in (({}, 0), ({"policy": InputFile("zero", "0" * 64)}, 1)):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/run.json").write_text('{"kind": "dig"}')  # as written before inputs were recorded
        with Run.claim(tmp_path / "run", DigCfg) as run:
            run.record(DigCfg(), inputs=inputs, may_differ=())
        assert caplog.text.count("did not record its inputs: they are not compared") == said
        shutil.rmtree(tmp_path / "run")


def test_a_run_with_another_configuration_is_refused_and_the_difference_is_named(tmp_path):
    Run.open(tmp_path / "run", DigCfg()).close()
    Run.open(tmp_path / "run", DigCfg(trials=20), may_differ=("trials",)).close()
    with pytest.raises(ValueError, match=r"depth_m: 0\.5 then, 0\.6 now\): choose another out="):
        Run.open(tmp_path / "run", DigCfg(trials=20, depth_m=0.6), may_differ=("trials",))


def test_an_option_that_came_after_the_run_counts_as_it_is_by_default(tmp_path):
    Run.open(tmp_path / "run", DigCfg()).close()
    (tmp_path / "run/config.yaml").write_text("seed: 7\ntrials: 10\n")
    Run.open(tmp_path / "run", DigCfg(), may_differ=()).close()
    (tmp_path / "run/config.yaml").write_text("seed: 7\ntrials: 10\n")
    with pytest.raises(ValueError, match=r"depth_m: 0\.5 then, 0\.6 now\)"):
        Run.open(tmp_path / "run", DigCfg(depth_m=0.6), may_differ=())


def test_the_default_directory_is_named_after_command_and_time_and_is_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(2):
        with Run.open("", DigCfg()) as run:
            paths.append(run.path)
    assert paths[0] != paths[1]
    assert all(path.parent.name == "runs" and path.name.startswith("dig-") for path in paths)


def test_outside_a_checkout_the_git_state_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "ROOT", tmp_path)
    assert run_directory.git_state() is None


def test_without_a_terminal_progress_is_a_line_with_share_rate_and_time_left(monkeypatch, capsys):
    now_s = iter([100.0, 100.0, 102.0, 108.0, 108.0, 108.0, 108.0, 108.0, 108.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now_s))
    with Progress(10, "dig", done=2) as progress:
        progress.advance(2)  # 2 s after the start: nothing yet
        progress.advance(2, "1 worm")  # 8 s after the start: 4 pieces in 8 s, 4 left
        assert capsys.readouterr().err == "dig: 6/10 (60 %), 0.5/s, 8 s left, 1 worm\n"


def test_a_note_within_a_step_is_a_line_where_the_last_one_is_old_enough(monkeypatch, capsys):
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    with Progress(2, "dig") as progress:
        for now_s[0] in range(1, 13):
            progress.tell_sometimes(f"shovel {now_s[0]}")
        progress.advance()  # 2 s after the last line
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["dig: 0/2, shovel 5", "dig: 0/2, shovel 10", "dig: 1/2 (50 %), 0.1/s, 12 s left"]


def test_the_last_line_of_progress_is_printed_once(monkeypatch, capsys):
    now_s = iter(10.0 * step for step in range(100))  # each step is slow enough for a line
    monkeypatch.setattr(time, "monotonic", lambda: next(now_s))
    with Progress(2, "dig") as progress:
        progress.advance()
        progress.advance()
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == ["dig: 1/2 ", "dig: 2/2 "]


def test_a_run_of_another_command_is_left_alone(tmp_path):
    Run.open(tmp_path, DigCfg()).close()
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(
        ValueError, match=r"is a run of 'dig' and is no run of 'fill': choose another out=, or give force=true"
    ):
        Run.open(tmp_path, FillCfg())
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_refused_new_run_leaves_nothing_and_one_with_results_stays(tmp_path):
    with pytest.raises(ValueError), Run.open(tmp_path / "a/run", DigCfg()) as run:
        run.file("trials.jsonl").write_text("")
        raise ValueError("no such task")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError), Run.open(tmp_path / "mine", DigCfg()):
        raise ValueError("no such task")
    assert (tmp_path / "mine").is_dir() and not list((tmp_path / "mine").glob("[!.]*"))
    with pytest.raises(ValueError), Run.open(tmp_path / "run", DigCfg()) as run:
        run.file("trials.jsonl").write_text("{}")
        raise ValueError("later")
    with pytest.raises(ValueError), Run.open(tmp_path / "run", DigCfg(), may_differ=()):
        raise ValueError("once more")
    assert {"trials.jsonl", "run.json", "config.yaml", "run.log"} <= {file.name for file in run.path.iterdir()}


def test_options_of_groups_explain_the_differences_of_runs(tmp_path):
    first = configs.load(EvaluateCfg, "evaluate", ["camera=d435", "seed=1"])
    Run.open(tmp_path / "run", first).close()
    now = configs.load(EvaluateCfg, "evaluate", ["camera=d435_latest", "physics=turbo", "seed=2", "task.hold_s=1"])
    with pytest.raises(ValueError) as error:
        Run.open(tmp_path / "run", now, may_differ=("out",))
    told = str(error.value).partition("(")[2].partition(")")[0].split(", ")
    assert sorted(told) == sorted(
        [
            *("camera=d435 then", "camera=d435_latest now", "physics=reference then", "physics=turbo now"),
            *("seed: 1 then", "2 now", "task.hold_s: 3.0 then", "1.0 now"),
        ]
    )


def test_a_new_folder_is_named_after_the_words_of_its_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [run_directory.default_path(kind).name for kind in ("evaluate", "showrandomization", "benchdeploy")]
    assert [name[:-16] for name in names] == ["evaluate", "randomization-show", "bench-deploy"]


def test_a_command_of_two_words_explains_its_groups_as_well(tmp_path):
    usual = configs.load(TuneHandCfg, "hands_tune", ["hand=leap"])
    other = configs.load(TuneHandCfg, "hands_tune", ["hand=leap", "camera=d435"])
    Run.open(tmp_path / "run", usual).close()
    with pytest.raises(ValueError, match=r"holds another run \(camera=first_frame then, camera=d435 now\)"):
        Run.open(tmp_path / "run", other, may_differ=())


def test_a_configuration_that_no_option_of_a_group_has_is_explained_key_by_key(tmp_path):
    one, two = (
        configs.load(
            EvaluateCfg, "evaluate", ["policy=zero", f"task.camera.latency_steps={n}", f"task.camera.mode={mode}"]
        )
        for n, mode in ((1, "latest"), (2, "tracked"))
    )
    Run.open(tmp_path / "run", one).close()
    with pytest.raises(
        ValueError, match=r"holds another run \(task\.camera\.mode: 'latest' then, 'tracked' now, task\.camera\.late"
    ):
        Run.open(tmp_path / "run", two, may_differ=())


def test_the_log_of_a_full_disk_says_nothing_and_that_of_a_wrong_message_does(tmp_path, capsys):
    Run.open(tmp_path / "run", DigCfg()).close()
    (tmp_path / "run/run.log").unlink()
    (tmp_path / "run/run.log").symlink_to("/dev/full")
    with Run.open(tmp_path / "run", DigCfg()):
        logging.getLogger("dexgrasp").info("dug")
    assert "Traceback" not in capsys.readouterr().err
    with Run.open(tmp_path / "other", DigCfg()):
        (file,) = (one for one in logging.getLogger("dexgrasp").handlers if isinstance(one, logging.FileHandler))
        file.handle(logging.makeLogRecord({"msg": "dug %d holes", "args": ("three",)}))
    assert "TypeError" in capsys.readouterr().err


def test_lines_of_the_log_begin_with_time_and_level(tmp_path):
    with Run.open(tmp_path / "run", DigCfg()) as run:
        logging.getLogger("dexgrasp").warning("deep")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING deep\n", (run.path / "run.log").read_text())


def test_a_run_that_ends_before_it_is_recorded_keeps_no_handler(tmp_path):
    before = list(logging.getLogger("dexgrasp").handlers)
    Run.claim(tmp_path / "run", DigCfg).close()
    with pytest.raises(ValueError), Run.claim(tmp_path / "run", DigCfg):
        raise ValueError("refused")
    assert logging.getLogger("dexgrasp").handlers == before


def test_a_package_that_is_not_installed_has_no_version():
    found = run_directory.versions(["numpy", "no-such-package"])
    assert found["numpy"] == np.__version__ and found["no-such-package"] is None


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "is no run directory: expected the out= of `dexgrasp evaluate`"),
        ({"run.json": "{}"}, "is no run directory"),
        ({"config.yaml": ""}, "is no run directory"),
        ({"run.json": '{"kind": "compare"}', "config.yaml": ""}, "compares two evaluations: take .*/a or .*/b$"),
        ({"run.json": '{"kind": "train"}', "config.yaml": ""}, "is a run of 'train', not of 'evaluate': take the out="),
        ({"run.json": '{"kind": "evaluate"}', "config.yaml": ""}, None),
        ({"run.json": "{}", "config.yaml": ""}, None),  # of the first version, which recorded no kind
    ],
)
def test_only_the_run_of_an_evaluation_is_taken_for_one(tmp_path, files, text):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    if text is None:
        run_directory.check_evaluation(tmp_path)
    else:
        with pytest.raises(ValueError, match=text):
            run_directory.check_evaluation(tmp_path)


def test_a_refused_run_whose_log_is_gone_already_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no such hole"), Run.open(tmp_path / "run", DigCfg()) as run:
        (run.path / "run.log").unlink()
        raise ValueError("no such hole")
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("[!.]*"))


def test_a_sweep_stands_for_its_finished_evaluations(tmp_path):
    """SWEEP/* of a shell also names sweep.json, and other runs may stand before and after the sweep."""
    sweep, one, two = tmp_path / "sweep", tmp_path / "one", tmp_path / "two"
    sweep.mkdir()
    jobs = [{"name": "a=1", "status": "done"}, {"name": "a=2", "status": "failed"}, {"name": "a=3", "status": "done"}]
    (sweep / "sweep.json").write_text(json.dumps({"command": "evaluate", "jobs": jobs}))
    evaluations = run_directory.evaluations
    assert evaluations([str(one), str(sweep), str(two)]) == [one, sweep / "a=1", sweep / "a=3", two]
    assert evaluations([str(one), str(sweep / "sweep.json"), str(two)]) == [one, two]
    assert evaluations([str(sweep / "sweep.json")]) == [sweep / "sweep.json"]  # alone: refused by its reader
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs[1:2]}))
    with pytest.raises(ValueError, match="is a sweep without a finished job: give its command again"):
        evaluations([str(sweep)])
    (sweep / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"sweep\.json"):
        evaluations([str(sweep)])


def test_an_interruption_names_the_outer_of_nested_runs(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt, match=f"kept; the same command with out={tmp_path / 'outer'} goes on$"),
        Run.open(tmp_path / "outer", DigCfg(), resumes=True),
        Run.open(tmp_path / "outer" / "a", DigCfg()),
    ):
        raise KeyboardInterrupt


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("written", ["", "1 m deep"])
def test_an_interruption_says_whether_something_was_finished(written, resumes, tmp_path):
    out = tmp_path / "run"
    begun = "what was finished is kept" if written else "nothing was finished yet"
    goes_on = f"; the same command with out={out} goes on" if resumes else f": {out}" if written else ""
    with (
        pytest.raises(KeyboardInterrupt, match=f"^{begun}{goes_on}$"),
        Run.open(out, DigCfg(), resumes=resumes) as run,
    ):
        run.file("holes.jsonl").write_text(written)
        raise KeyboardInterrupt


def test_a_command_may_say_itself_what_an_interruption_leaves(tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"^stopped after iteration 3$"), Run.open(tmp_path / "own", DigCfg()):
        raise KeyboardInterrupt("stopped after iteration 3")
