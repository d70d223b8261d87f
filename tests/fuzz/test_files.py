"""Damaged configurations, checkpoints and run directories: refused in one line that names the file, or harmless."""

import shutil

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dexgrasp import configs
from dexgrasp.policies.cli import main as cli
from dexgrasp.policies.evaluation import html_report
from tests.fuzz.damage import damaged_checkpoints, damaged_json, damaged_lines, damaged_yaml
from tests.fuzz.oracle import run, without_work
from tests.helpers.untrained_checkpoint import make_run, make_teacher_run

QUIET = {"suppress_health_check": list(HealthCheck), "deadline": None, "database": None, "phases": [Phase.generate]}
SAMPLE, MANY = 10, 250

TINY = [
    *("trials=2", "num_envs=2", "num_threads=1", "physics=turbo"),
    *("task.grasp_s=0.2", "task.lift_s=0.1", "task.hold_s=0.1", "attempts=1"),
]
"""An evaluation of two short trials."""


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """A working directory with a student, a teacher, and a finished evaluation."""
    folder = tmp_path_factory.mktemp("damaged")
    for name, make in (("student", make_run), ("teacher", make_teacher_run)):
        (folder / name).mkdir()
        make(folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DEXGRASP_CACHE", str(folder / "cache"))
        patch.setattr(html_report, "draw_object", lambda model: b"")
        assert cli.main(["evaluate", "policy=zero", *TINY, "out=whole"]) == 0
        yield folder


@pytest.fixture
def only_checks(monkeypatch):
    """Commands do no work."""
    without_work(monkeypatch)


def both(amount):
    """Return the settings of a sample, with the same cases each time."""
    return settings(max_examples=amount, derandomize=True, **QUIET)


def check_config(here, command, content):
    """A damaged saved configuration is refused with its name, or a key; a whole one is taken."""
    file = here / "saved.yaml"
    file.write_bytes(content)
    outcome = run([command, "config=saved.yaml"], out=file)
    if outcome.refused:
        named = (
            "saved.yaml",
            "hand",
            "mount",
            "objects",
            "policy",
            "teacher",
            "init_checkpoint",
            "task",
            "reward",
            "num_envs",
            "cluster",
        )
        assert any(word in outcome.message for word in named), outcome.message


CONFIGS = {"train": "student/config.yaml", "evaluate": "whole/config.yaml"}


@pytest.mark.parametrize("command", CONFIGS)
@pytest.mark.usefixtures("only_checks")
def test_a_sample_of_damaged_configurations(here, command):
    both(SAMPLE)(given(damaged_yaml(here / CONFIGS[command]))(lambda content: check_config(here, command, content)))()


@pytest.mark.slow
@pytest.mark.parametrize("command", CONFIGS)
@pytest.mark.usefixtures("only_checks")
def test_many_damaged_configurations(here, command):
    both(MANY)(given(damaged_yaml(here / CONFIGS[command]))(lambda content: check_config(here, command, content)))()


def check_checkpoint(here, name, content):
    """A damaged checkpoint is refused with its name; one that is taken has weights that are finite."""
    file, out = here / "damaged.zip", here / "made.zip"
    file.write_bytes(content)
    out.unlink(missing_ok=True)
    outcome = run(["checkpoint", "sb3", "damaged.zip", "out=made.zip"], out=out)
    if outcome.refused:
        assert "damaged.zip" in outcome.message, outcome.message


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_a_sample_of_damaged_checkpoints(here, name):
    drawn = damaged_checkpoints(here / name / "best.zip", here)
    both(SAMPLE)(given(drawn)(lambda content: check_checkpoint(here, name, content)))()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["student", "teacher"])
def test_many_damaged_checkpoints(here, name):
    drawn = damaged_checkpoints(here / name / "best.zip", here)
    both(MANY)(given(drawn)(lambda content: check_checkpoint(here, name, content)))()


USES = (
    ["evaluate", "policy=damaged.zip", *TINY],
    ["train", "init_checkpoint=damaged.zip", "num_envs=2", "iterations=1", "objects=shipped"],
    ["train", "recipe=student", "teacher=damaged.zip", "num_envs=2", "iterations=1", "objects=shipped"],
    ["export", "policy=damaged.zip", "trials=1"],
    ["publish", "policy=damaged.zip"],
    ["compare", "zero", "damaged.zip", *TINY],
)
"""Commands that read a checkpoint; training is refused for its objects before it begins."""


@pytest.mark.slow
@pytest.mark.parametrize("words", USES, ids=lambda words: " ".join(words[:2]))
def test_commands_with_damaged_checkpoints(here, words):
    def check(content):
        (here / "damaged.zip").write_bytes(content)
        shutil.rmtree(here / "made", ignore_errors=True)
        outcome = run([*words, "out=made"], out=here / "made")
        named = ("damaged.zip", "objects", "run.json", "trials=1 ")
        assert not outcome.refused or any(word in outcome.message for word in named), outcome.message

    name = "teacher" if "recipe=student" in words else "student"
    both(20)(given(damaged_checkpoints(here / name / "best.zip", here))(check))()


FILES = {
    "config.yaml": damaged_yaml,
    "run.json": damaged_json,
    "result.json": damaged_json,
    "diagnostics.json": damaged_json,
    "trials.jsonl": damaged_lines,
}
READERS: tuple[list[str], ...] = (
    ["report", "copy", "out=made.html"],
    ["evaluate", "policy=zero", *TINY, "out=copy"],
    ["publish", "policy=student", "results=[copy]", "out=made"],
    ["video", "copy", "trial=7", "out=made.mp4"],
    ["evaluate", "config=copy", "--cfg"],
)
"""Commands that read a finished evaluation."""


def check_run(here, file, words, content):
    """A damaged run directory is refused with its name, or does not matter to the command."""
    shutil.rmtree(here / "copy", ignore_errors=True)
    shutil.copytree(here / "whole", here / "copy")
    (here / "copy" / file).write_bytes(content)
    for left in ("made", "made.html", "made.mp4"):
        shutil.rmtree(here / left, ignore_errors=True)
        (here / left).unlink(missing_ok=True)
    target = next((word[4:] for word in words if word.startswith("out=")), "copy")
    outcome = run(words, out=here / target)
    if outcome.refused:
        assert "copy" in outcome.message or "student" in outcome.message or "trial" in outcome.message, outcome.message


@pytest.mark.parametrize("file", FILES)
def test_a_sample_of_damaged_run_directories(here, file):
    drawn = st.tuples(st.sampled_from(READERS), FILES[file](here / "whole" / file))
    both(SAMPLE // 3)(given(drawn)(lambda case: check_run(here, file, *case)))()


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_many_damaged_run_directories(here, file):
    drawn = st.tuples(st.sampled_from(READERS), FILES[file](here / "whole" / file))
    both(MANY // 2)(given(drawn)(lambda case: check_run(here, file, *case)))()


def test_a_whole_file_of_each_kind_is_taken(here):
    """What the cases damage is accepted undamaged, so that a refusal is due to the damage."""
    assert configs.read_plain(here / "whole/config.yaml")["trials"] == 2
    for words in (*READERS[:2], READERS[4]):
        shutil.rmtree(here / "copy", ignore_errors=True)
        shutil.copytree(here / "whole", here / "copy")
        assert cli.main(list(words)) == 0
    for name in ("student", "teacher"):
        assert cli.main(["checkpoint", "sb3", f"{name}/best.zip", "out=made.zip"]) == 0
