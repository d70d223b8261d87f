"""`dexgrasp bench gpu`, `bench engine engine=warp` and training on Warp, on Warp's CPU backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dexgrasp import configs
from dexgrasp.policies.benchmarks.gpu import NO_GPU, BenchGpuCfg, _task_and_actions
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.evaluation.config import EvaluateCfg

ROOT = Path(__file__).resolve().parents[2]
TINY = ("warp.nconmax=160", "warp.njmax=480", "task.grasp_s=0.4", "task.lift_s=0.2", "task.hold_s=0.2")


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match=r"takes 1 to 64 values, got 0"):
        BenchGpuCfg(num_envs=())
    with pytest.raises(ValueError, match="with engine=warp leave cluster out"):
        EvaluateCfg(cluster="local", engine="warp")


@pytest.mark.slow
def test_one_command_measures_everything(tmp_path, capsys):
    pytest.importorskip("mujoco_warp", reason="needs the extra `gpu`")
    assert main(["bench", "gpu", "trials=2", f"out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [one["warp"]["trials"] for one in found["parity"]["grasps"]["seeds"].values()] == [2, 2, 2]
    (cell,) = found["stepping"]
    assert cell["per_s"] > 0
    assert sum(cell["shares"].values()) == pytest.approx(1.0)
    assert 0 < cell["buffers"]["rows"] <= cell["buffers"]["njmax"]
    assert found["learning"]["shares"]["physics"] > 0 or found["is_gpu"]
    assert found["versions"]["mujoco-warp"]
    shown = capsys.readouterr().out
    assert "seed 0 on Warp once more: 100.0 % end alike" in shown or found["is_gpu"]
    assert shown.count(NO_GPU) == 2 or found["is_gpu"]


@pytest.mark.slow
def test_a_limit_that_is_not_reached_makes_no_difference(allegro, household, monkeypatch):
    """Every setting starts from the same states, with the same motion of the palm."""
    pytest.importorskip("mujoco_warp", reason="needs the extra `gpu`")
    from dexgrasp.policies.benchmarks import gpu_physics

    limits = ({}, {"max_contacts_per_sensor": 128}, {"iterations": 1})
    monkeypatch.setattr(gpu_physics, "LIMITS", limits)
    monkeypatch.setattr(gpu_physics, "REPEATS", 1)
    cfg = configs.load(BenchGpuCfg, "bench_gpu", ["task.grasp_s=0.2", "task.lift_s=0.1", "task.hold_s=0.1", *TINY[:2]])
    task, actions = _task_and_actions(cfg, allegro, household, cfg.physics, 3)
    rows = gpu_physics.compare_limits(task, actions, cfg.warp)
    assert [row["limits"] for row in rows] == list(limits)
    assert rows[0]["gap_p99"] == rows[1]["gap_p99"] == 0 < rows[2]["gap_p99"]
    assert rows[2]["iterations"] == 1 < rows[0]["iterations"]


@pytest.mark.slow
def test_the_bench_of_the_engine_takes_it(tmp_path, capsys):
    pytest.importorskip("mujoco_warp", reason="needs the extra `gpu`")
    given = ("engine=warp", "num_envs=[2]", "presets=[balanced]", f"out={tmp_path}", *TINY)
    assert main(["bench", "engine", *given]) == 0
    assert json.loads((tmp_path / "bench.json").read_text())["cells"][0]["envs"] == 2
    assert "stepping, 2 environments" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_training_runs_on_it_goes_on_and_spreads_over_ranks(processes, tmp_path, household):
    """Two processes have a Warp device each; here both are this machine's processor."""
    pytest.importorskip("mujoco_warp", reason="needs the extra `gpu`")
    given = (
        "engine=warp",
        "num_envs=2",
        f"objects={household.path}",
        "validation_interval=9",
        f"out={tmp_path / 'run'}",
        *TINY,
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    for iterations in (2, 3):
        words = [sys.executable, *launcher, "-m", "dexgrasp", "train", *given, f"iterations={iterations}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-2000:]
    rows = (tmp_path / "run" / "progress.csv").read_text().splitlines()
    assert len(rows) == 1 + 3
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["versions"]["mujoco-warp"]
    assert len(facts["starts"]) == 2
