"""Trackers of a training: Weights & Biases offline, none."""

import csv
import json
import struct
import threading
from dataclasses import replace

import pytest

from dexgrasp.policies.agents.checkpoint import read_checkpoint, write_checkpoint
from dexgrasp.policies.cli.main import main

SMALL = "objects={objects} validation_objects=generated:4:validation num_envs=2 num_threads=1 validation_interval=1"
SMALL += " validation_trials=2 physics=turbo task.grasp_s=0.3 task.lift_s=0.2 task.hold_s=0.2"


def train(household, out, *words):
    return main(["train", *SMALL.format(objects=household).split(), f"out={out}", *words])


@pytest.fixture
def household_for_training(tmp_path_factory):
    """Two training objects."""
    from dexgrasp.sim.objects.generator import generate

    return generate(2, tmp_path_factory.mktemp("objects"), families=["box", "capsule"], workers=1, progress=False).path


def messages(data):
    """Yield the messages of a .wandb file: a log of LevelDB (blocks of 32 kB, fragments) behind a header of 7 bytes."""
    at, message = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # the end of a block is padded
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        message += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # complete, or the last fragment
            yield message
            message = b""


def records(folder):
    """Return the configuration and the scalars by step that the offline runs of a run directory hold."""
    from wandb.proto import wandb_internal_pb2

    config, history = {}, {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in messages(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            items = {(item.key or "/".join(item.nested_key)): item.value_json for item in record.history.item}
            if items:
                history[int(items["time/total_timesteps"])] = {key: json.loads(text) for key, text in items.items()}
    return config, history


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_configuration_and_scalars_are_in_the_offline_run_also_after_a_resumption(
    household_for_training, tmp_path, monkeypatch, capfd
):
    pytest.importorskip("wandb", reason="needs the extra `wandb`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    for iterations in (1, 2):
        assert train(household_for_training, run, "tracker=wandb", f"iterations={iterations}", "seed=5") == 0
    config, history = records(run)
    assert config["seed"] == 5 and config["task"]["lift_s"] == 0.2
    with (run / "progress.csv").open(newline="") as file:
        rows = {int(row["time/total_timesteps"]): row for row in csv.DictReader(file)}
    assert list(history) == list(rows) and len(rows) == 2
    for step, row in rows.items():
        assert history[step]["rollout/success"] == float(row["rollout/success"])
        assert history[step]["reward/lift"] == pytest.approx(float(row["reward/lift"]))
    assert len({path.name.rpartition("-")[2] for path in run.glob("wandb/offline-run-*")}) == 1  # one run, two starts


def test_a_training_that_cannot_begin_closes_its_tracker(household_for_training, tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    assert train(household_for_training, tmp_path / "run", "tracker=none", "iterations=1") == 0
    data = read_checkpoint(tmp_path / "run/last.zip")
    short = {name: value.reshape(-1)[:1] for name, value in data.tensors.items()}
    write_checkpoint(tmp_path / "run/last.zip", replace(data, tensors=short))  # refused after the tracker is open
    before = set(threading.enumerate())
    assert train(household_for_training, tmp_path / "run", "tracker=tensorboard", "iterations=2") == 2
    assert "last.zip" in capsys.readouterr().err
    assert [*(tmp_path / "run").glob("events.*")]  # it was open
    assert not [thread for thread in set(threading.enumerate()) - before if "Writer" in type(thread).__name__]


def test_no_tracker_leaves_progress_csv_alone(household_for_training, tmp_path):
    assert train(household_for_training, tmp_path / "run", "tracker=none", "iterations=1") == 0
    assert (tmp_path / "run/progress.csv").is_file()
    assert not [*(tmp_path / "run").glob("events.*"), *(tmp_path / "run").glob("wandb*")]
