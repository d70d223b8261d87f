"""The folder or file that a command writes: whose it may be, one process at a time, what `force=true` does."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dexgrasp import assets
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.cli.option_docs import keys
from dexgrasp.policies.public_benchmark.object_sets import object_sets
from dexgrasp.policies.run_directory import Run, kind_of_run
from dexgrasp.utils.files import OLD, PARTIAL
from dexgrasp.utils.output import FolderKind, claim_file, claimed_folder, forced, words_of_kind
from tests.helpers.faults import contents
from tests.helpers.write_guard import only_writes_below

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {
    "hands new": [str(Path(__file__).parents[2] / "examples/three_finger_hand/hand.xml")],
    "objects import": ["meshes"],
    "objects scan": ["views"],
    "objects compare": ["shipped", "shipped"],
    "train": ["objects=generated:4", "validation_objects=generated:2:validation"],
    "compare": ["zero", "synergy"],
    "benchmark": ["ycb", "ycb"],
    "benchmark dexgraspbench": ["bench"],
    "benchmark grasps": ["evaluation", "hand_model=right_hand.xml"],
    "report": ["runs/a"],
    "video": ["runs/a"],
    "export": ["policy=allegro/student"],
    "publish": ["policy=allegro/student"],
    "bench ablations": ["teacher=allegro/teacher"],
    "checkpoint sb3": ["allegro/teacher"],
    "calibrate camera": ["views"],
    "replay": ["bag", "policy=allegro/student"],
}
"""Words without which a command is no command."""


def has_out(command):
    try:
        return any(key.name == "out" for key in keys(command.schema, command.config))
    except ImportError:
        return False


WRITERS = [command for command in COMMANDS if has_out(command)]
FOLDERS = [command for command in WRITERS if not command.out_is_file]


class Box:
    """Configuration of a command."""


BOX = FolderKind("box", lambda path: (path / "box").exists())


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a folder of the user, and inputs that exist."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/config.yaml").write_text("a: 1\n")
    (tmp_path / "docs/README.md").write_text("my notes\n")
    for name in ("meshes", "views", "bag"):
        (tmp_path / name).mkdir()
    for name in object_sets()["ycb"].names:
        (tmp_path / "ycb" / name).mkdir(parents=True)
        (tmp_path / "ycb" / name / "textured.obj").write_text("")
    for name in ("output/example_shadow/graspdata/0.npy", "assets/hand/shadow/right_hand.xml"):
        (tmp_path / "bench" / name).parent.mkdir(parents=True)
        (tmp_path / "bench" / name).write_text("")
    (tmp_path / "right_hand.xml").write_text("")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/run.json").write_text('{"kind": "evaluate"}')
    (tmp_path / "evaluation/config.yaml").write_text("{}\n")
    camera = {"width": 640, "height": 480, "fx": 600, "fy": 600, "cx": 320, "cy": 240}
    (tmp_path / "views/camera.json").write_text(json.dumps(camera))
    return tmp_path


def state(folder):
    """Everything below a folder, with the times of change of files."""
    return {
        path: (path.is_file() and path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


def line(command, out):
    return [*command.words.split(), *NEEDED.get(command.words, []), f"out={out}"]


@pytest.mark.parametrize("command", FOLDERS, ids=lambda command: command.words)
def test_no_command_writes_into_a_folder_of_the_user(command, here, capsys):
    before = state(here)
    assert main(line(command, "docs")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: out=docs holds other files (README.md, config.yaml) and is no " in error
    assert "choose another out=, or give force=true, which moves the folder to docs.replaced-1" in error
    assert state(here) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", FOLDERS, ids=lambda command: command.words)
def test_no_command_writes_into_a_run_of_another_command_or_a_shipped_policy(command, here, capsys):
    if command.words != "bench deploy":
        (here / "docs/run.json").write_text('{"kind": "benchdeploy"}')
        assert main(line(command, "docs")) == 2
        assert "out=docs is a run of 'bench deploy' and is no " in capsys.readouterr().err
    if command.words not in ("publish", "export"):
        teacher = assets.ROOT / "policies/allegro/teacher"
        before = state(teacher)
        assert main(line(command, teacher)) == 2
        assert state(teacher) == before


@pytest.mark.parametrize("out", ["/", "/etc", "/usr/lib", "/etc/ssl", ".", "..", "docs/..", "link", "nowhere"])
def test_places_that_are_no_folder_of_results(out, here, capsys):
    (here / "link").symlink_to("docs")
    (here / "nowhere").symlink_to("gone")
    before = state(here)
    for command in ("objects generate n=1", "evaluate trials=1", "export policy=allegro/student", "calibrate board"):
        for force in ([], ["force=true"]) if out != "link" else ([],):
            with only_writes_below(here):  # a command that does not refuse changes nothing either
                assert main([*command.split(), f"out={out}", *force]) == 2
    assert "out=" in capsys.readouterr().err and state(here) == before


@pytest.mark.parametrize(
    "out", ["s3://bucket/run", "http://host/run", "file:///tmp/run", "gs:/bucket", "hdfs://a/b.png"]
)
def test_an_address_is_no_out_of_any_command(out, here, capsys):
    before = state(here)
    for command in WRITERS if out.startswith("s3") else ():
        assert main(line(command, out)) == 2, command.words
        error = capsys.readouterr().err
        ends = f"out={out} is an address, expected a folder or file of this machine: write to one, then copy it there\n"
        # a wrong suffix is told first
        assert error.endswith(ends) or re.search(r"(must be|is) an? \.\w+", error), (
            error
        )  # a wrong suffix is told first
    for claim in (claim_file, lambda out: claimed_folder(out, BOX).__enter__(), lambda out: Run.claim(Path(out), Box)):
        with pytest.raises(ValueError, match=r"out=\w+:/.* is an address"):
            claim(out)
    assert state(here) == before


def test_a_name_with_a_colon_is_a_folder(here):
    with claimed_folder("a:b", BOX), claimed_folder("C:/x", BOX), claimed_folder("here/12:30", BOX):
        assert Path("a:b").is_dir() and Path("C:/x").is_dir() and Path("here/12:30").is_dir()


def test_runs_are_named_by_the_command_that_writes_them(here, capsys):
    named = {}
    for command in COMMANDS:
        named.setdefault(kind_of_run(command.schema.split(":")[1]), []).append(command.words)
    for kind, words in named.items():
        assert words_of_kind(kind) in (*words, words[0].split()[-1]), words
    assert main(["calibrate", "board", "out=docs"]) == 2
    assert "(README.md, config.yaml) and is no run of 'calibrate board': choose another" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["objects generate n=1", "export policy=allegro/student", "publish policy=allegro/student"]
)
def test_an_empty_out_is_not_the_working_directory(command, here, capsys):
    before = state(here)
    assert main([*command.split(), "out="]) == 2
    assert "out" in capsys.readouterr().err and state(here) == before


def test_a_process_that_writes_a_folder_keeps_all_others_out_and_frees_it_when_killed(here):
    hold = (
        "import sys, time; from dexgrasp.utils.output import *; from pathlib import Path\n"
        "with claimed_folder('run', FolderKind('box', lambda path: True)): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert other.stdout and other.stdout.readline() == b"held\n"
    try:
        with (
            pytest.raises(OSError, match=rf"run is in use by process {other.pid} on .*choose another out="),
            claimed_folder("run", BOX),
        ):
            pass
        with pytest.raises(OSError, match="is in use"), forced(), claimed_folder("run", BOX):
            pass
    finally:
        other.kill()
        other.communicate()
    with claimed_folder("run", BOX) as path:
        assert path.is_dir()


def test_of_two_threads_one_writes_a_folder(here):
    refused = []

    def second():
        try:
            with claimed_folder("run", BOX):
                pass
        except OSError as error:
            refused.append(str(error))

    with claimed_folder("run", BOX) as path:
        (path / "box").touch()
        with claimed_folder("run", BOX):  # the command itself, once more
            pass
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(10)
    assert len(refused) == 1 and "is in use by" in refused[0]


def test_a_refusal_after_the_claim_leaves_no_folder(here):
    with pytest.raises(ValueError), claimed_folder("a/b/run", BOX):
        raise ValueError
    assert not (here / "a").exists()
    (here / "empty").mkdir()
    with pytest.raises(ValueError), claimed_folder("empty", BOX):
        raise ValueError
    assert (here / "empty").is_dir()


def test_force_moves_the_old_content_aside_and_says_where(here, caplog):
    for number in (1, 2):
        with forced(), claimed_folder("docs", BOX) as path:
            assert [entry.name for entry in path.iterdir()] == [".lock"]
            (path / "box").write_text(str(number))
            with claimed_folder(path / "inner", BOX) as inner:
                (inner / "box").touch()
            with claimed_folder(path / "inner", BOX) as inner:
                assert (inner / "box").exists()  # force holds for what was there before the command
    assert not (here / "docs.replaced-1/.lock").exists()
    assert (here / "docs.replaced-1/README.md").read_text() == "my notes\n"
    assert (here / "docs.replaced-2/box").read_text() == "1" and (here / "docs/box").read_text() == "2"
    assert "what was at docs (2 entries: README.md, config.yaml) is now at docs.replaced-1" in caplog.text
    assert {record.name for record in caplog.records} == {"dexgrasp"}  # the log that commands show and save


def test_a_link_to_a_folder_of_the_kind_stays_a_link(here):
    (here / "disk").mkdir()
    (here / "run").symlink_to("disk")
    with claimed_folder("run", BOX) as path:
        (path / "box").touch()
    assert (here / "run").is_symlink() and (here / "disk/box").exists()


def test_unfinished_files_of_killed_processes_go_and_those_of_other_runs_stay(here):
    for folder in ("run", "run/deep", "run/other"):
        (here / folder).mkdir()
        (here / folder / ".partial-1-x").touch()
        (here / folder / "box").touch()
    (here / "run/other/.lock").touch()
    (here / "run/.partial-7-bundle").mkdir()
    (here / ".partial-1-run").mkdir()
    (here / ".partial-1-runs").mkdir()
    with claimed_folder("run", BOX):
        pass
    left = sorted(str(path.relative_to(here)) for path in here.rglob(".partial*"))
    assert left == [".partial-1-runs", "run/other/.partial-1-x"]


def test_a_folder_whose_replacement_was_killed_is_put_back_before_it_is_claimed(here):
    (here / f"{OLD}run").mkdir()
    (here / f"{OLD}run/box").write_text("old")
    with claimed_folder("run", BOX) as path:
        assert (path / "box").read_text() == "old"
    assert not (here / f"{OLD}run").exists()


def test_a_path_through_a_folder_that_is_missing_creates_only_the_folder_it_leads_to(here):
    before = set(os.listdir(here))
    with claimed_folder("missing/../run", BOX) as path:
        assert path == here.resolve() / "run"
        (path / "box").touch()
    assert set(os.listdir(here)) - before == {"run"}


def test_a_file_takes_no_place_of_a_folder_and_leftovers_of_its_killed_writers_go(here):
    with pytest.raises(ValueError, match=r"out=docs is no regular file: choose another out="):
        claim_file("docs")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"{PARTIAL}{ended.pid}-a.html", f"{PARTIAL}{os.getpid()}-a.html", f"{PARTIAL}{ended.pid}-b.html"):
        (here / name).touch()
    assert claim_file("a.html") == Path("a.html")
    left = {path.name for path in here.glob(f"{PARTIAL}*")}
    assert left == {f"{PARTIAL}{os.getpid()}-a.html", f"{PARTIAL}{ended.pid}-b.html"}


def test_a_file_is_replaced_only_if_a_command_has_written_it(here, caplog):
    (here / "mine.html").write_text("<html>mine</html>")
    with pytest.raises(ValueError, match=r"out=mine.html exists and was not written by dexgrasp"):
        claim_file("mine.html")
    with forced():
        assert claim_file("mine.html") == Path("mine.html")
    assert (here / "mine.html.replaced-1").read_text() == "<html>mine</html>" and not (here / "mine.html").exists()
    assert main(["objects", "show", "shipped", "most=4", "out=sheet.png"]) == 0
    assert main(["objects", "show", "shipped", "most=4", "out=sheet.png"]) == 0
    assert set(contents(here)) >= {"sheet.png"}


def test_force_is_no_key_of_a_configuration(here, capsys):
    assert main(["evaluate", "force=true", "--cfg"]) == 0
    assert "\nforce:" not in capsys.readouterr().out
    assert main(["evaluate", "force=maybe"]) == 2
    assert "'force' expects true or false, got 'maybe'" in capsys.readouterr().err
    assert main(["list", "what=hands", "force=true"]) == 2
    assert "`dexgrasp list` has no key out" in capsys.readouterr().err
