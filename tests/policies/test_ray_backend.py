"""Evaluation in pieces: each block alone gives what the whole run gives, and nothing is lost or counted twice."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dexgrasp.policies.evaluation import ray_backend
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import evaluate, run_trials
from dexgrasp.policies.evaluation.trial_store import (
    COLUMNS,
    FIELDS,
    JsonLinesStore,
    ParquetStore,
    TrialBlock,
    TrialPlan,
    has_trials,
)
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg, ResetCfg, draw_episode
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.outcomes import Outcome

ROOT = Path(__file__).resolve().parents[2]
FAST = PhysicsCfg("turbo", timestep_s=0.01, integrator="discrete", cone="pyramidal", impratio=5.0, condim=3)
SHORT = TaskCfg(grasp_s=1.5, lift_s=0.5, hold_s=0.5)
WORDS = ["physics=turbo", "task.grasp_s=1.5", "task.lift_s=0.5", "task.hold_s=0.5", "num_envs=2", "trials=24"]
PATIENCE_S = 240


@pytest.fixture(scope="module")
def cfg(household):
    """Six trials in blocks of two or three on four objects: a block never holds all of them."""
    return EvaluateCfg(
        objects=str(household.path), trials=6, num_envs=2, num_threads=1, task=SHORT, physics=FAST, disturbance="heavy"
    )


@pytest.fixture(scope="module")
def whole(cfg, household, tmp_path_factory):
    """Outcomes of all trials side by side in one process."""
    path = tmp_path_factory.mktemp("whole") / "trials.jsonl"
    with Run.open(path.parent / "one", cfg) as run:
        return run_trials(replace(cfg, num_envs=6), HandSpec.load("allegro"), household, run)[0]


OUTCOME = {
    "trial": 0,
    "object": "box",
    "disturbance": "none",
    "success": True,
    "failure": "",
    "lift_m": 0.15,
    "slip_m": 0.0,
    "penetration_m": 0.001,
}


def row(trial, name="box", **changes):
    outcome = Outcome(**OUTCOME | {"trial": trial, "object": name})
    measured = {"rest_pose": 0, "seed": 0, "block_s": 1.0, "worker": "host:1", "peak_mib": 300.0}
    return asdict(outcome) | measured | changes


@pytest.mark.parametrize("rows", [2, 3])
def test_blocks_alone_in_any_order_give_the_outcomes_of_the_whole_run(cfg, household, whole, rows):
    cfg = replace(cfg, num_envs=rows)
    found = []
    for block in reversed(cfg.plan(household).blocks()):
        found += ray_backend.run_one(cfg, ray_backend.part_for(household, block.trials), block)
    found.sort(key=lambda row: row["trial"])
    assert [{name: row[name] for name in FIELDS} for row in found] == [asdict(outcome) for outcome in whole]
    assert all(row.keys() == COLUMNS.keys() for row in found)
    for row in found:
        random = TrialRandom.of_trials(torch.tensor([cfg.seed]), torch.tensor([row["trial"]]))
        drawn = draw_episode(random, ResetCfg(), RandomizationCfg(), 16)
        chances = np.cumsum(household[row["object"]].rest_prob)
        assert row["rest_pose"] == next(i for i, chance in enumerate(chances) if float(drawn.rest) <= chance)


def test_a_block_brings_its_objects_and_no_others(household):
    part = ray_backend.part_for(household, range(3, 6))
    assert [part.names[trial % len(part)] for trial in (3, 4, 5)] == [household.names[i] for i in (3, 0, 1)]
    assert (
        part.most_pieces
        == household.most_pieces
        > max(e.pieces for e in household.part(["box_train_s0_00000"]).entries)
    )
    part.path = Path("nowhere")
    assert np.array_equal(part[household.names[3]].vertices, household[household.names[3]].vertices)
    with pytest.raises(KeyError, match="no object"):
        part[household.names[2]]


def test_a_long_block_brings_each_object_once(household):
    assert ray_backend.part_for(household, range(8, 18)).names == household.names


def test_the_last_block_is_as_long_as_the_others_but_requests_only_what_was_asked_for():
    plan = TrialPlan(disturbances=["none", "heavy"], trials=5, rows=2, objects=["box", "mug"])
    blocks = plan.blocks()
    assert [(block.disturbance, list(block.trials)) for block in blocks[2:4]] == [("none", [4, 5]), ("heavy", [0, 1])]
    assert plan.requested(blocks[2]) == [("none", 4)]
    stored = [Outcome(**OUTCOME | {"trial": trial, "disturbance": "heavy"}) for trial in (7, 3, 1, 0)]
    assert plan.remaining(stored) == [*blocks[:3], *blocks[4:]]
    assert [outcome.trial for outcome in plan.select(stored)] == [0, 1, 3]


def test_both_stores_keep_every_trial_and_run_whole_blocks(tmp_path):
    """Rows of one and a half blocks, as a start with other blocks leaves them: both run trials 2 and 3 next."""
    pytest.importorskip("pyarrow", reason="needs the extra `ray`")
    plan = TrialPlan(disturbances=["none"], trials=5, rows=2, objects=["box", "mug"])
    names = ["box", "mug", "box"]
    lines, parquet = JsonLinesStore(tmp_path / "trials.jsonl"), ParquetStore(tmp_path / "trials")
    for store in (lines, parquet):
        assert store.resume(plan) == [] and plan.remaining([]) == plan.blocks()
        store.append([row(trial, names[trial]) for trial in (0, 1)])
        store.append([row(2)])
        stored = store.resume(plan)
        assert [outcome.trial for outcome in stored] == [0, 1, 2] == [outcome.trial for outcome in store.read()]
        assert plan.missing(plan.blocks()[1], stored) == [TrialBlock("none", range(3, 4))]
        assert plan.remaining(stored) == [TrialBlock("none", range(2, 4)), TrialBlock("none", range(4, 6))]


def test_auto_means_the_cluster_in_the_environment_or_this_machine(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_backend.find_cluster("auto") == "local" == ray_backend.find_cluster("local")
    assert ray_backend.find_cluster("ray://head:10001") == "ray://head:10001"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert ray_backend.find_cluster(address) == address
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert ray_backend.find_cluster("auto") == address
        assert ray_backend.find_cluster("local") == "local"
    for asked in (address, "auto"):  # gone: found out at once
        with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {address}: 'ray start --head' starts"):
            ray_backend.find_cluster(asked)


def test_a_worker_with_other_versions_is_refused(cfg, household):
    with pytest.raises(ValueError, match=r"the driver has .*'mujoco': '1\.0'.*: install the same there"):
        ray_backend._run_checked(
            cfg, household, cfg.plan(household).blocks()[0], ray_backend.versions() | {"mujoco": "1.0"}
        )


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_without_ray_the_error_says_what_to_install(monkeypatch, cfg, missing, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"cluster=\.\.\. needs Ray and pyarrow: pip install -e '\.\[ray\]'"):
        evaluate(replace(cfg, cluster="auto", out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_rows_come_back_from_parquet_as_they_were(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra `ray`")
    store = ParquetStore(tmp_path / "trials")
    store.append([row(2), row(3, "mug", lift_m=math.nan, rest_pose=4)])
    store.append([row(0)])
    found = {outcome.trial: outcome for outcome in store.read()}
    assert sorted(found) == [0, 2, 3]
    assert found[2] == Outcome(**OUTCOME | {"trial": 2})
    assert math.isnan(found[3].lift_m) and found[3].object == "mug"
    assert has_trials(tmp_path) and not has_trials(tmp_path / "trials")


def test_a_table_with_a_trial_twice_or_torn_or_of_other_objects_is_refused(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra `ray`")
    store = ParquetStore(tmp_path)
    store.append([row(0), row(1, "mug")])
    plan = TrialPlan(disturbances=["none"], trials=2, rows=2, objects=["box", "mug"])
    assert [outcome.trial for outcome in store.resume(plan)] == [0, 1]
    with pytest.raises(ValueError, match="trial 1 with 'mug', not with 'cup': the objects have changed"):
        store.resume(TrialPlan(disturbances=["none"], trials=2, rows=2, objects=["box", "cup"]))
    store.append([row(1, "mug")])
    with pytest.raises(ValueError, match="holds trials twice"):
        store.read()
    torn = tmp_path / "none-000000001.parquet"
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"none-000000001\.parquet is damaged .* remove it"):
        store.read()


def command(out, household, *more):
    words = ["evaluate", f"objects={household.path}", f"out={out}", *WORDS, *more]
    return [sys.executable, "-m", "dexgrasp", *words]


def wait_for(condition, process):
    end_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.05)
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_cost_nothing_but_time(household, tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    import pyarrow.parquet as pq

    out, table = tmp_path / "spread", tmp_path / "spread/trials"

    def workers():
        files = list(table.glob("*.parquet"))
        return [int(pq.read_table(path)["worker"][0].as_py().split(":")[1]) for path in files]

    driver = subprocess.Popen(command(out, household, "cluster=local"), cwd=ROOT, stdout=-1, stderr=-1, text=True)
    victim = wait_for(workers, driver)[0]
    os.kill(victim, signal.SIGKILL)
    stored = len(workers())
    seen = wait_for(lambda: pids if len(pids := workers()) >= stored + 3 else None, driver)
    driver.kill()
    driver.communicate()
    before = {path.name: path.read_bytes() for path in table.glob("*.parquet")}
    assert 4 <= len(before) < 12
    end_s = time.monotonic() + PATIENCE_S
    while any(alive(pid) for pid in seen):
        assert time.monotonic() < end_s, "workers outlive their driver"
        time.sleep(0.2)

    again = subprocess.run(
        command(out, household, "cluster=local"), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert again.returncode == 0, again.stderr
    simulated = json.loads((out / "diagnostics.json").read_text())["trials_simulated"]
    assert simulated == 24 - 2 * len(before)
    assert all((table / name).read_bytes() == data for name, data in before.items())
    assert pq.read_table(table).num_rows == 24

    subprocess.run(command(tmp_path / "single", household, "num_threads=1"), cwd=ROOT, check=True, capture_output=True)
    runs = [tmp_path / "single", out]
    single, spread = (json.loads((run / "result.json").read_text()) for run in runs)
    for result in (single, spread):
        for key in ("out", "cluster", "num_threads"):
            result["config"].pop(key)
    assert single == spread
    logs = [(run / "trials.jsonl").read_text() for run in runs]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_an_error_on_a_worker_is_told_as_if_it_were_here(household, tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    words = command(tmp_path / "run", household, "cluster=local", "task.use_scripted_grasp=false")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert (
        "error: policy=synergy is the scripted grasp of the task, which task.use_scripted_grasp=false removes"
        in done.stderr
    )
