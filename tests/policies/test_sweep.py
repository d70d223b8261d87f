"""Saved configurations, `--cfg`, and sweeps: product, one folder per job, resumption, failures, table."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dexgrasp import configs
from dexgrasp.configs import multirun
from dexgrasp.policies.cli import main as cli
from dexgrasp.policies.cli import sweep
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.run_directory import Run

ROOT = Path(__file__).resolve().parent.parent.parent
BY_WORDS = {command.words: command for command in COMMANDS}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory; jobs find this working tree."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=1,2,3", ["seed=1", "seed=2", "seed=3"]),
        ("seed=range(1,4)", ["seed=1", "seed=2", "seed=3"]),
        ("policy=allegro/student,leap/student", ["policy=allegro/student", "policy=leap/student"]),
        ("objects=generated:10,generated:20", ["objects=generated:10", "objects=generated:20"]),
        ("families=[mug,bowl]", ["families=[mug,bowl]"]),
        ("families=[mug],[bowl]", ["families=[mug]", "families=[bowl]"]),
        ("task.reward.lift=0.5,1e-3", ["task.reward.lift=0.5", "task.reward.lift=0.001"]),
        ("out=a=b", ["out=a=b"]),
        ("seed=1,2,1", ["seed=1", "seed=2"]),
        ("seed=1,1", ["seed=1"]),
    ],
)
def test_the_values_of_a_word_in_hydras_syntax(word, values):
    assert multirun.sweep_values(word) == values


def test_jobs_are_the_product_of_all_swept_keys():
    words = ["trials=4", "seed=1,2", "task.lift_m=0.12,0.15"]
    assert multirun.common(words) == ["trials=4"]
    assert multirun.expand(words) == [
        ("seed=1", "task.lift_m=0.12"),
        ("seed=1", "task.lift_m=0.15"),
        ("seed=2", "task.lift_m=0.12"),
        ("seed=2", "task.lift_m=0.15"),
    ]


def test_a_sweep_runs_skips_what_is_done_and_goes_on_after_a_failure(here, capfd):
    blocked = here / "sweep/n=2"
    line = ["objects", "generate", "n=1,2", "families=box", "workers=1", "out=sweep", "-m"]
    blocked.mkdir(parents=True)
    (blocked / "notes").write_text("a file of somebody else")
    (here / "sweep/sweep.json").write_text('{"command": "objects generate", "jobs": []}')
    assert main(line) == 1
    out, err = capfd.readouterr()
    table = [text.split()[:2] for text in out.splitlines() if text.startswith("n=")]
    assert table == [["n=1", "done"], ["n=2", "failed"]]
    assert "dexgrasp objects generate: error: " in err
    (blocked / "notes").unlink()
    (here / "sweep/n=1/manifest.json").unlink()  # if the job ran again, it would write it
    assert main(line) == 0
    stored = json.loads((here / "sweep/sweep.json").read_text())
    assert stored["command"] == "objects generate"
    assert [(job["words"], job["status"]) for job in stored["jobs"]] == [
        (["families=box", "workers=1", "n=1"], "done"),
        (["families=box", "workers=1", "n=2"], "done"),
    ]
    assert not (here / "sweep/n=1/manifest.json").exists()
    assert len(json.loads((here / "sweep/n=2/manifest.json").read_text())["objects"]) == 2


def test_a_sweep_over_a_decimal_value_of_a_dotted_key_keeps_its_list_in_its_out_and_finds_it_again(here, capsys):
    words = ["task.lift_m=0.12,0.14", "out=runs/v1.2"]
    root = sweep.root(BY_WORDS["evaluate"], words)
    jobs = sweep.plan(root, words)
    assert [(job.folder, job.status) for job in jobs] == [
        ("runs/v1.2/task.lift_m=0.12", "waiting"),
        ("runs/v1.2/task.lift_m=0.14", "waiting"),
    ]
    done = [replace(job, status="done") for job in jobs]  # as if both had run: no process is started
    root.mkdir(parents=True)
    assert sweep.run(BY_WORDS["evaluate"], root, done) == 0
    assert [str(path.relative_to(here)) for path in here.rglob("*.json")] == ["runs/v1.2/sweep.json"]
    assert "sweep: runs/v1.2; the same command with out=runs/v1.2" in capsys.readouterr().out
    assert root == Path("runs/v1.2") and sweep.plan(root, words) == done


@pytest.mark.slow
def test_a_sweep_of_evaluate_ends_with_one_table_of_success_rates(here, capfd):
    words = ["policy=synergy,zero", "trials=6", "num_envs=6", "physics=turbo", "task.hold_s=0.5", "out=sweep", "-m"]
    assert main(["evaluate", *words]) == 0
    table = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith("policy=")]
    assert [row[:2] for row in table] == [["policy=synergy", "done"], ["policy=zero", "done"]]
    for row in table:
        result = json.loads((here / "sweep" / row[0] / "result.json").read_text())
        assert row[3] == f"{100 * result['success_rate']:.1f}" and row[-1] == "6"
    # the configuration of a job starts the command again, with later words
    saved = "config=sweep/policy=zero/config.yaml"
    assert main(["evaluate", saved, "seed=5", "physics=balanced", "--cfg"]) == 0
    tree = yaml.safe_load(capfd.readouterr().out)
    before = configs.read_plain(here / "sweep/policy=zero/config.yaml")
    expected = before | {"seed": 5, "out": "", "physics": configs.read_plain(configs.ROOT / "physics/balanced.yaml")}
    assert tree == expected


def test_results_of_training_and_comparison_in_the_table(tmp_path):
    (tmp_path / "progress.csv").write_text(
        "time/total_timesteps,rollout/success,validation/success\n10,0.5,\n20,0.55,0.25\n30,0.6,\n"
    )
    assert sweep._result(tmp_path) == {"last validation %": "25.0", "training %": "60.0"}
    (tmp_path / "compare.json").write_text('{"difference": -0.125, "p_value": 0.0312}')
    assert sweep._result(tmp_path) == {"difference %": "-12.5", "p": "0.031"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "seed=1", "-m"], "-m runs several values of a key, for instance seed=1,2,3"),
        (["evaluate", "seed=1..3", "-m"], "'seed=1..3' is one value, a range is written seed=range(1,4)"),
        (["evaluate", "seed=1,", "-m"], "'seed=1,' has an empty value, give for instance seed=1,2"),
        (["evaluate", "seed=1,2"], "'seed' expects int, got '1,2'; add -m to run each value of 'seed=1,2'"),
        (["evaluate", "policy=zero,synergy"], "; add -m to run each value of 'policy=zero,synergy'"),
        (["evaluate", "physics=turbo,balanced"], "; add -m to run each value of 'physics=turbo,balanced'"),
        (["evaluate", "seed=1,x", "-m"], "evaluate: error: 'seed' expects int, got 'x'"),
        (["evaluate", "policy=synergy,sinergy", "-m"], "no policy 'sinergy'. Did you mean 'synergy'?"),
        (["list", "what=hands,arms", "-m"], "`dexgrasp list` has no key out"),
        (["video", "runs/a", "trial=1,2", "-m"], "`dexgrasp video` writes one file and cannot be swept: leave out -m"),
        (["objects", "show", "most=4,9", "-m"], "`dexgrasp objects show` writes one file and cannot be swept"),
        (["evaluate", "seed=1,2", "-m", "--cfg"], "--cfg prints one configuration"),
    ],
)
def test_a_sweep_with_a_mistake_runs_no_job(words, message, here, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(here.iterdir())


def test_an_interrupted_sweep_says_so_and_its_job_ends_too(here):
    line = [sys.executable, "-m", "dexgrasp", "objects", "generate", "n=3000,4000", "workers=1", "out=sweep", "-m"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder = here / "sweep/n=3000/objects"
    deadline = 600
    while deadline and not folder.exists():
        deadline -= 1
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "n=3000  interrupted" in out and "n=4000  waiting" in out


def test_the_names_of_jobs_are_folder_names():
    assert sweep._folder_name(["seed=1", "task.lift_m=0.12"]) == "seed=1,task.lift_m=0.12"
    a, b = sweep._folder_name(["policy=runs/a"]), sweep._folder_name(["policy=runs_a"])
    assert a.startswith("policy=runs_a-") and b == "policy=runs_a"
    assert len(sweep._folder_name([f"families=[{'mug,' * 60}]"])) < 100


def test_a_printed_configuration_starts_the_command_again(here, capsys):
    assert main(["train", "recipe=student", "teacher=allegro/teacher", "--cfg"]) == 0
    (here / "printed.yaml").write_text(capsys.readouterr().out)
    command = BY_WORDS["train"]
    assert cli.load(command, ["config=printed.yaml"]) == cli.load(
        command, ["recipe=student", "teacher=allegro/teacher"]
    )
    assert not (here / "runs").exists()


def test_a_recipe_behind_a_saved_configuration_replaces_its_keys_alone(here):
    command = BY_WORDS["train"]
    configs.save(cli.load(command, ["seed=3", "gamma=0.9"]), here / "config.yaml")
    found = cli.load(command, ["config=.", "recipe=refinement", "teacher=x"])
    assert (found.stage, found.seed, found.iterations, found.task.hold_s) == ("student", 3, 220, 2.5)
    assert found.gamma == 0.985  # the recipe sets it, and comes later


def test_a_saved_configuration_of_an_earlier_version_is_read(here):
    tree = configs.as_dict(cli.load(BY_WORDS["train"], []))
    tree["epochs"] = tree.pop("num_epochs") + 2
    (here / "old.yaml").write_text(yaml.safe_dump(tree))
    assert cli.load(BY_WORDS["train"], ["config=old.yaml"]).num_epochs == 7


def test_a_configuration_of_another_command_is_refused(here, capsys):
    evaluate = cli.load(BY_WORDS["evaluate"], [])
    with Run.open(here / "run", evaluate):
        pass
    assert main(["train", "config=run/config.yaml"]) == 2
    known = "config=run/config.yaml is of a run of `dexgrasp demo` or `dexgrasp evaluate`, not of `dexgrasp train`"
    assert known in capsys.readouterr().err
    (here / "run/config.yaml").rename(here / "alone.yaml")
    assert main(["train", "config=alone.yaml"]) == 2
    error = capsys.readouterr().err
    assert "config=alone.yaml is no configuration of `dexgrasp train`, which has no policy, " in error
    assert "It fits `dexgrasp demo` or `dexgrasp evaluate`" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["config=nowhere.yaml"], "config=nowhere.yaml: no such file. Expected the config.yaml of a run directory"),
        (["seed=1", "config=a.yaml"], "comes first: later words win over the saved values, so that 'seed=1'"),
        (["config=a.yaml", "config=b.yaml"], "config=FILE is given once, got config=a.yaml and config=b.yaml"),
    ],
)
def test_a_saved_configuration_that_cannot_be_used(words, message, here, capsys):
    assert main(["train", *words]) == 2
    assert message in capsys.readouterr().err
