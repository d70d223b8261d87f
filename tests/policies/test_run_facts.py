"""What a run directory records of its process: checkout, machine, command; names of new runs."""

import os
import platform
import subprocess
import sys

import pytest

from dexgrasp.policies import run_directory
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.run_directory import collect_facts, default_path, git_state, inputs_have_changed, read_facts
from dexgrasp.utils.files import write_json
from dexgrasp.utils.readers import DamagedFileError


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


NO_RUN_JSON = (
    *(b"[1]", b"5", b"{", b"null", b"", b'"evaluate"', b"\xff\xfe", b'{"starts": "\xe9"}', b"[" * 100_000),
    *(b'{"starts": 5}', b'{"starts": {}}', b'{"starts": [5]}', b'{"starts": [{}]}', b'{"starts": [[1]]}'),
    *(b'{"starts": [{"time": 5}]}', b'{"starts": [{"time": "t", "git": 5}]}', b'{"starts": [null]}'),
    *(b'{"starts": [{"time": "t", "versions": [1]}]}', b'{"inputs": []}', b'{"inputs": {"policy": 5}}'),
    *(b'{"inputs": {"policy": {"value": "zero"}}}', b'{"inputs": {"policy": {"value": 1, "sha256": "0"}}}'),
    *(b'{"versions": 1}', b'{"versions": {"numpy": 1}}', b'{"git": "abc"}', b'{"git": {"hash": null}}', b'{"kind": 5}'),
)


@pytest.mark.parametrize("content", NO_RUN_JSON, ids=lambda content: content[:40].decode(errors="replace"))
def test_a_damaged_run_json_is_named_in_one_line_and_stays(tmp_path, content, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    file = tmp_path / "run/run.json"
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"run\.json is damaged or no "):
        read_facts(tmp_path / "run")
    assert inputs_have_changed(tmp_path / "run")
    if content != b'{"kind": 5}':  # a run of a command that does not exist
        assert main(["evaluate", "policy=zero", "objects=shipped", "trials=1", "out=run"]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("dexgrasp evaluate: error: run/run.json is damaged")
    assert file.read_bytes() == content and set(os.listdir(tmp_path / "run")) <= {"run.json", ".lock"}


def test_a_folder_without_run_json_holds_no_facts(tmp_path):
    assert read_facts(tmp_path) == {} and read_facts(tmp_path / "absent") == {}


def test_a_finished_run_whose_input_is_gone_has_changed_inputs(tmp_path):
    inputs = {"policy": {"value": str(tmp_path / "absent.zip"), "sha256": "0" * 64}}
    write_json(tmp_path / "run.json", {"inputs": inputs, "versions": run_directory.versions()})
    assert inputs_have_changed(tmp_path)
    write_json(tmp_path / "run.json", {"inputs": {}, "versions": run_directory.versions()})
    assert not inputs_have_changed(tmp_path)
    write_json(tmp_path / "run.json", {"inputs": {}, "versions": run_directory.versions() | {"numpy": "1.0"}})
    assert inputs_have_changed(tmp_path)


def test_versions_of_another_type_are_named_with_their_value(tmp_path):
    (tmp_path / "run.json").write_text('{"versions": 1}')
    with pytest.raises(DamagedFileError, match=r"run\.json is damaged .*: its versions is '1'; restore it"):
        read_facts(tmp_path)
