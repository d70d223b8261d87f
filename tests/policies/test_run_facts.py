"""What a run directory records of its process: checkout, machine, command; names of new runs."""

import os
import platform
import subprocess
import sys

import pytest

from dexgrasp.policies import run_directory
from dexgrasp.policies.run_directory import collect_facts, default_path, git_state, inputs_have_changed, read_facts
from dexgrasp.utils.files import write_json


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository with one commit, in the place of this one."""
    monkeypatch.setattr(run_directory, "ROOT", tmp_path.resolve())
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words):
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", str(tmp_path), *author, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    return tmp_path, git


def test_the_state_of_a_checkout(checkout, monkeypatch):
    folder, git = checkout
    assert git_state() is None  # no commit yet
    git("commit", "-q", "-m", "first")
    assert git_state() == {"hash": git("rev-parse", "HEAD"), "dirty": False}
    (folder / "new.txt").write_text("not tracked")
    assert git_state() == {"hash": git("rev-parse", "HEAD"), "dirty": False}
    (folder / "code.py").write_text("2\n")
    assert git_state() == {"hash": git("rev-parse", "HEAD"), "dirty": True}
    (folder / "deep").mkdir()
    monkeypatch.setattr(run_directory, "ROOT", folder.resolve() / "deep")
    assert git_state() is None  # a checkout of something else, which contains an installation


def test_machine_and_command_are_recorded(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dexgrasp", "evaluate", "seed=3"])
    facts = collect_facts(3)
    assert facts["machine"] == {"platform": platform.platform(), "cpus": os.cpu_count()}
    assert (facts["command"], facts["seed"]) == (["dexgrasp", "evaluate", "seed=3"], 3)


def test_new_runs_of_one_second_are_numbered_from_two(tmp_path, monkeypatch):
    class Now:
        @staticmethod
        def now(zone):
            return run_datetime(2025, 1, 31, 12, 5, 9, tzinfo=zone)

    run_datetime = run_directory.datetime
    monkeypatch.setattr(run_directory, "datetime", Now)
    monkeypatch.chdir(tmp_path)
    for name in ("dig-20250131-120509", "dig-20250131-120509-2", "dig-20250131-120509-3"):
        assert str(default_path("dig")) == f"runs/{name}"
        default_path("dig").mkdir(parents=True)


@pytest.mark.parametrize("text", ["[1]", "5", "{", "null", ""])
def test_a_run_json_that_is_none_holds_no_facts(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert read_facts(tmp_path) == {} and read_facts(tmp_path / "absent") == {}


def test_a_finished_run_whose_input_is_gone_has_changed_inputs(tmp_path):
    inputs = {"policy": {"value": str(tmp_path / "absent.zip"), "sha256": "0" * 64}}
    write_json(tmp_path / "run.json", {"inputs": inputs, "versions": run_directory.versions()})
    assert inputs_have_changed(tmp_path)
    write_json(tmp_path / "run.json", {"inputs": {}, "versions": run_directory.versions()})
    assert not inputs_have_changed(tmp_path)
    write_json(tmp_path / "run.json", {"inputs": {}, "versions": run_directory.versions() | {"numpy": "1.0"}})
    assert inputs_have_changed(tmp_path)
