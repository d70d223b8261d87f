"""`dexgrasp bench engine`: its recorded controls reproduce the episode, and the whole command runs."""

import json

import numpy as np
import pytest

from dexgrasp.policies.benchmarks import engine
from dexgrasp.policies.benchmarks.engine import BenchEngineCfg, make_task
from dexgrasp.policies.cli.main import main
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg

FAST = PhysicsCfg("turbo", timestep_s=0.01, integrator="discrete", cone="pyramidal", impratio=5.0, condim=3)
SHORT = TaskCfg(grasp_s=0.4, lift_s=0.2, hold_s=0.2)


@pytest.fixture(scope="module")
def task(household):
    return make_task(SHORT, HandSpec.load("allegro"), household, FAST, envs=2, threads=1, seed=0)


def test_impossible_options_are_refused():
    for key, value in {"num_envs": (0,), "threads": (), "presets": (), "repeats": 0}.items():
        with pytest.raises(ValueError, match=key):
            BenchEngineCfg(**{key: value})


def test_an_episode_is_timed_and_its_controls_end_in_its_last_state(task):
    batch = task.engine.batch
    episode = engine._episode(task, 0)
    assert task.engine.batch is batch and "step" not in vars(batch)
    substeps = sum(nstep for _, _, nstep in episode["controls"])
    assert substeps == task.episode_steps * round(1 / task.cfg.rate_hz / FAST.timestep_s)
    assert sum(episode["parts"].values()) == pytest.approx(episode["cpu_s"], rel=0.05)
    assert set(episode["parts"]) == {"physics", "features", "rewards", "reset", "rest"}
    assert min(episode["parts"].values()) > 0
    assert engine._bare_cpu_s(task, episode["controls"], episode["start"], episode["end"]) > 0
    wrong = [(ctrl + 0.1, push, nstep) for ctrl, push, nstep in episode["controls"]]
    with pytest.raises(RuntimeError, match="ended in another state"):
        engine._bare_cpu_s(task, wrong, episode["start"], episode["end"])


def test_steps_of_single_rows_are_not_recorded_as_steps_of_all(task):
    recorder = engine.RecordedBatch(task.engine.batch, engine.Stopwatch())
    with pytest.raises(ValueError, match=r"stepped rows \[1\] only"):
        recorder.step(np.array([1], dtype=np.int32), nstep=2)
    assert recorder.controls == []


@pytest.mark.slow
def test_the_command_measures_every_cell(tmp_path, household, capsys):
    words = [f"{key}={value}" for key, value in (("grasp_s", 0.4), ("lift_s", 0.2), ("hold_s", 0.2))]
    words = [f"task.{word}" for word in words] + ["randomization=train", f"objects={household.path}", f"out={tmp_path}"]
    assert main(["bench", "engine", "num_envs=[2]", "threads=[1]", "presets=[turbo]", "repeats=1", *words]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    (cell,) = found["cells"]
    assert (cell["preset"], cell["envs"], cell["threads"]) == ("turbo", 2, 1)
    assert cell["over_bare"] > 1 and sum(cell["shares"].values()) == pytest.approx(1.0)
    assert cell["mb_per_env"] > 0
    training = {"training_teacher", "training_student"}
    assert set(found["others"]) == {"thread_pool", "async_vector_env", "randomization", *training}
    shown = capsys.readouterr().out
    assert "control steps, whole task" in shown
    for stage in ("teacher", "student"):
        rate = found["others"][f"training_{stage}"]["per_cpu_s"]
        assert f"training of a {stage}, updates included, 2 environments: {rate:,.0f} per_cpu_s" in shown
        assert rate > 0
