"""A shipped policy: its card says what the run directories say, and nothing of the machine that it came from."""

import json

import pytest
import torch

from dexgrasp import configs
from dexgrasp.policies.agents.checkpoint import load_checkpoint, read_checkpoint
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import evaluate
from dexgrasp.policies.export.model_card import PublishCfg, _processes, _starts, publish
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.train import train
from tests.policies.test_train import TINY


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    root = tmp_path_factory.mktemp("ship")
    small = [*TINY, "num_envs=4", f"out={root / 'run'}", "iterations=3", "gamma=0.97"]
    train(configs.load(TrainCfg, "train", small))
    short = ["trials=4", "num_threads=1", "physics=turbo", "task.hold_s=0.2"]
    evaluate(configs.load(EvaluateCfg, "evaluate", [f"policy={root / 'run'}", f"out={root / 'eval'}", *short]))
    publish(PublishCfg(str(root / "run"), str(root / "out"), (str(root / "eval"),), "a few things"))
    return root


def test_the_card_counts_steps_and_gives_results_with_their_intervals(shipped):
    text = (shipped / "out/README.md").read_text()
    assert "# allegro, teacher" in text and "Trained on a few things: 0.00 million control steps" in text
    assert "| run | 3 | 0.00 |" in text and "gamma=0.97" in text
    result = json.loads((shipped / "eval/result.json").read_text())
    low, high = (100 * end for end in result["wilson95"])
    rate = 100 * result["success_rate"]
    assert (
        f"| shipped | floating | turbo | off | first_frame | points | none | 4 | {rate:.1f} % "
        f"| {rate:.1f} % ({low:.1f} – {high:.1f}) |" in text
    )
    assert "Start noise: palm ±12 mm, approach ±20 mm, tilt sd 3.4°, fingers ±2.9°." in text


def test_a_teacher_has_no_bundle_to_sign(shipped, tmp_path):
    with pytest.raises(ValueError, match="has no bundle to sign"):
        publish(PublishCfg(str(shipped / "run"), str(tmp_path / "out"), sign="key.pem"))
    assert not (tmp_path / "out").exists()


def test_nothing_names_a_folder_of_the_machine(shipped):
    for name in ("README.md", "config.yaml"):
        assert str(shipped) not in (shipped / "out" / name).read_text()
    inside = read_checkpoint(shipped / "out/policy.zip").manifest
    assert inside["config"]["out"] == "run" and str(shipped) not in str(inside)
    assert (shipped / "out/curves.png").stat().st_size > 1000


def test_the_manifest_comes_along_and_the_tensors_stay_as_they_were(shipped):
    before, after = (read_checkpoint(shipped / place) for place in ("run/best.zip", "out/policy.zip"))
    for fact in ("git", "versions", "iteration"):
        assert after.manifest[fact] == before.manifest[fact]
    assert after.state == before.state and after.architecture == before.architecture
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[name], value) for name, value in before.tensors.items())
    assert load_checkpoint(shipped / "out").training["run"]["versions"] == before.manifest["versions"]


def test_a_shipped_policy_is_evaluated_by_its_folder(shipped):
    cfg = configs.load(
        EvaluateCfg,
        "evaluate",
        [
            f"policy={shipped / 'out'}",
            f"out={shipped / 'again'}",
            "trials=4",
            "num_threads=1",
            "physics=turbo",
            "task.hold_s=0.2",
        ],
    )
    first = json.loads((shipped / "eval/result.json").read_text())
    assert evaluate(cfg)["successes"] == first["successes"]


def test_the_clock_of_every_start_counts():
    assert _starts([10.0, 20.0, 5.0, 7.0]) == [20.0, 7.0]


def test_the_steps_of_an_iteration_tell_how_many_processes_there_were():
    task = {"rate_hz": 20.0, "grasp_s": 1.8, "lift_s": 0.8, "hold_s": 1.5}  # 82 steps
    assert _processes({"num_envs": 128, "task": task}, [2 * 128 * 82.0, 4 * 128 * 82.0]) == ["2 processes"]
    assert _processes({"num_envs": 256, "task": task}, [256 * 82.0]) == []
