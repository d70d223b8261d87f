"""Small real runs with random options in range, the ends of ranges included: they end well or in one line."""

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dexgrasp.policies.cli import main as cli
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.evaluation import html_report
from tests.fuzz.options import inside, known, one_number
from tests.fuzz.oracle import ERROR, HANGS_S, LIMIT_S, files_of

QUIET = {"suppress_health_check": list(HealthCheck), "deadline": None, "database": None, "phases": [Phase.generate]}
MANY = 300

SHORT = ("task.grasp_s=0.2", "task.lift_s=0.1", "task.hold_s=0.1")
TRIALS = ("trials=2", "num_envs=2", "num_threads=1", "physics=turbo", "attempts=1", *SHORT)
RUNS = {
    "evaluate": ("policy=random", *TRIALS),
    "compare": ("zero", "random", *TRIALS),
    "train": (
        *("num_envs=4", "num_threads=1", "iterations=1", "objects={train}", "validation_objects={validation}"),
        *("validation_trials=2", "physics=turbo", "num_minibatches=1", "hidden=[8]", "tracker=none", *SHORT),
    ),
    "randomization show": ("n=20",),
    "objects generate": ("n=2", "workers=1"),
    "objects show": ("shipped", "most=1", "out={out}.png"),
    "calibrate board": ("dpi=60",),
    "bench segmentation": ("scenes=1",),
    "bench perception": ("frames=2",),
    "bench deploy": ("steps=5",),
}
"""Commands with small work."""

FIXED = {
    *(word.partition("=")[0] for words in RUNS.values() for word in words if "=" in word),
    *("out", "plugins", "source", "cluster", "engine", "tracker", "videos", "workers", "resume", "stage", "teacher"),
    *(
        "init_checkpoint",
        "policy",
        "objects",
        "validation_objects",
        "hand",
        "mount",
        "a",
        "b",
        "task.class_name",
        "name",
    ),
    *("num_epochs", "time_limit_min", "families", "task.camera.model", "physics.name", "task.randomization.name"),
    *("task.randomization.size_scales", "physics.timestep_s", "precision", "disturbance"),
}
"""Keys that decide the amount of work, or name things."""


def run_in_process(words, out) -> tuple[int, str]:
    """Run a command line in a forked process that is killed after the time limit; return status and errors."""
    log = Path("errors.txt").absolute()
    if (child := os.fork()) == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 1))
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            # not those of pytest
            with open(descriptor, "w", buffering=1) as sys.stdout, contextlib.redirect_stderr(sys.stdout):
                status = cli.main(list(words))
        except BaseException as error:
            os.write(2, f"Traceback: {error!r}\n".encode())
            status = 99
        os._exit(status)
    end_s = time.monotonic() + HANGS_S
    while time.monotonic() < end_s:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"still running after {HANGS_S} s: {words}")


@st.composite
def small_runs(draw):
    """Draw a command with small work and up to three options in range."""
    command = draw(st.sampled_from([command for command in COMMANDS if command.words in RUNS]))
    options = [key for key in known(command) if key.name not in FIXED and not key.name.startswith("warp.")]
    drawn = [key for key in options if key.choices or (one_number(key.kind) and key.bounds)]
    words = [*command.words.split(), *RUNS[command.words]]
    chosen = draw(st.lists(st.sampled_from(drawn), max_size=3, unique=True)) if drawn else []
    values = {key.name: draw(st.sampled_from(key.choices) if key.choices else inside(key)) for key in chosen}
    return words + [f"{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory, household):
    """A working directory, and libraries of training and validation objects."""
    from dexgrasp.sim.objects.generator import generate

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DEXGRASP_CACHE", str(folder / "cache"))
        patch.setattr(html_report, "draw_object", lambda model: b"")
        validation = generate(1, folder / "validation", split="validation", workers=1, progress=False)
        yield {"train": str(household.path), "validation": str(validation.path), "out": str(folder / "made")}


def check(places, words):
    """Run a drawn command line; it ends well or is refused in one line, and writes into its own folder."""
    out = Path(places["out"]) / str(time.monotonic_ns())
    words = [word.format(**places | {"out": out}) for word in words]
    words += [] if any(word.startswith("out=") for word in words) else [f"out={out}"]
    before = files_of(Path.cwd(), places["out"])
    before.pop(str(Path("errors.txt").absolute()), None)
    status, text = run_in_process(words, out)
    assert "Traceback" not in text and "internal error" not in text and status in (0, 1, 2), (
        words,
        status,
        text[-500:],
    )
    if status == cli.MISUSED:
        assert ERROR.fullmatch(text.splitlines()[-1]), (words, text[-500:])
    after = files_of(Path.cwd(), places["out"])
    after.pop(str(Path("errors.txt").absolute()))
    assert after == before, words


@pytest.mark.slow
def test_many_small_runs(places):
    settings(max_examples=MANY, derandomize=True, **QUIET)(given(small_runs())(lambda words: check(places, words)))()


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_each_small_run_ends_well_by_itself(places, command):
    check(places, [*command.split(), *RUNS[command]])
