"""Checkpoints: plain data that runs no code, refusal of damaged and hostile files, old files, SB3."""

import base64
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from dexgrasp import configs
from dexgrasp.policies.agents.base import ActorAgent
from dexgrasp.policies.agents.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from dexgrasp.policies.cli.checkpoint import Sb3Cfg, UpgradeCfg, export_sb3, read_sb3_checkpoint, upgrade
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.deploy.shipped import place
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.train import train
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.utils.tensor_archive import HEADER, TENSORS, ArchiveError, read_archive, write_archive
from tests.helpers.golden_trials import machine
from tests.helpers.untrained_checkpoint import TASK, make_run, make_teacher_run

OLD = Path(__file__).parents[1] / "data" / "old_checkpoint"
"""A teacher's run of two environments, stopped after two of four iterations, as version 0.1.0 left it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A student's run."""
    return make_run(tmp_path_factory.mktemp("student"))


@pytest.fixture
def copied(run, tmp_path):
    """The student's checkpoint, to be damaged."""
    return Path(shutil.copy(run / "best.zip", tmp_path / "best.zip"))


def rewrite(path, header=None, tensors=None, extra=(), compression=zipfile.ZIP_STORED):
    """Write the archive at `path` anew: with another header (text), other tensors (bytes), further entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries |= {name: value for name, value in ((HEADER, header), (TENSORS, tensors)) if value is not None}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in [*entries.items(), *extra]:
            archive.writestr(name, value)


def changed_header(path, *keys, value):
    """The header of the archive with another value under these keys, as text."""
    header, _ = read_archive(path)
    place = header
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(header)


def changed_index(path, **change):
    """The tensors of the archive, whose first entry in the index is changed."""
    with zipfile.ZipFile(path) as archive:
        content = archive.read(TENSORS)
    (length,) = struct.unpack_from("<Q", content)
    index = json.loads(content[8 : 8 + length])
    index[next(iter(index))] |= change
    text = json.dumps(index).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


class Trap:
    """Makes a folder on unpickling."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return (os.mkdir, (self.flag,))


def test_an_archive_gives_back_what_was_written_and_equal_data_give_equal_bytes(tmp_path):
    tensors = {
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "matrix": torch.randn(3, 5),
        "turned": torch.randn(4, 2).T,
        "none": torch.zeros(0, 7),
        "flags": torch.tensor([True, False]),
        "counts": torch.tensor([1, -(2**40)]),
    }
    header = {"floor": -np.inf, "name": "Grüße", "list": [1, 2.5, None]}
    for name in ("one", "two"):
        write_archive(tmp_path / name, header, tensors)
    got_header, got = read_archive(tmp_path / "one")
    assert got_header == header and list(got) == list(tensors)
    assert all(torch.equal(got[name], value) and got[name].dtype == value.dtype for name, value in tensors.items())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one", "two"]


def test_the_tensors_are_in_the_safetensors_format(tmp_path):
    """Read by hand as the format's page describes it."""
    write_archive(tmp_path / "one", {}, {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([7])})
    content = zipfile.ZipFile(tmp_path / "one").read("tensors.safetensors")
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0 and json.loads(content[8 : 8 + length]) == {
        "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [8, 16]},
    }
    assert content[8 + length :] == np.float32([1.0, 2.0]).tobytes() + np.int64([7]).tobytes()


WHOLE = r"is not a whole checkpoint: "
HOSTILE = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-5000]), WHOLE),
    "text": (lambda path: path.write_text("not a zip"), WHOLE + "it is no whole zip file"),
    "pickled": (
        lambda path: path.write_bytes(pickle.dumps(Trap(str(path.with_name("ran"))))),
        WHOLE + "it is no whole zip file",
    ),
    "pickle_inside": (
        lambda path: rewrite(path, extra=[("policy.pth", pickle.dumps(Trap(str(path.with_name("ran")))))]),
        WHOLE + "its entries are ",
    ),
    "pickle_as_header": (lambda path: rewrite(path, header=pickle.dumps(Trap(str(path.with_name("ran"))))), WHOLE),
    "pickle_as_tensors": (lambda path: rewrite(path, tensors=pickle.dumps(Trap(str(path.with_name("ran"))))), WHOLE),
    "path_traversal": (
        lambda path: rewrite(path, extra=[("../../escaped.json", "{}")]),
        WHOLE + r"its entries are \['\.\./\.\./escaped",
    ),
    "twice": (lambda path: rewrite(path, extra=[(HEADER, "{}")]), WHOLE + "an entry occurs twice"),
    "zip_bomb": (
        lambda path: rewrite(path, tensors=bytes(50_000_000), compression=zipfile.ZIP_DEFLATED),
        WHOLE + "its entries are compressed",
    ),
    "huge_index": (
        lambda path: rewrite(path, tensors=struct.pack("<Q", 2**62) + bytes(100)),
        WHOLE + f"{TENSORS} claims an index of {2**62} bytes",
    ),
    "huge_tensor": (
        lambda path: rewrite(path, tensors=changed_index(path, shape=[2**40, 2**40])),
        r"shape \[1099511627776, 1099511627776\] takes \d+ bytes, its place has 88",
    ),
    "negative_shape": (lambda path: rewrite(path, tensors=changed_index(path, shape=[-2, -11])), "expected dtype"),
    "outside": (
        lambda path: rewrite(path, tensors=changed_index(path, data_offsets=[2**33, 2**33 + 88])),
        "overlap, leave gaps or do not fill it",
    ),
    "overlapping": (
        lambda path: rewrite(path, tensors=changed_index(path, data_offsets=[88, 176])),
        "overlap, leave gaps or do not fill it",
    ),
    "type_of_objects": (lambda path: rewrite(path, tensors=changed_index(path, dtype=["O"])), "expected dtype"),
    "nested": (lambda path: rewrite(path, header="[" * 200_000), WHOLE),
    "list_header": (lambda path: rewrite(path, header="[]"), "holds a list, expected an object"),
    "other_format": (
        lambda path: rewrite(path, header=changed_header(path, "format", value="recipe")),
        "is no checkpoint: its header says format 'recipe'",
    ),
    "newer": (
        lambda path: rewrite(path, header=changed_header(path, "version", value=2)),
        "has version 2, this dexgrasp reads 1 to 1: update dexgrasp",
    ),
    "version_text": (
        lambda path: rewrite(path, header=changed_header(path, "version", value="1")),
        "has version 1, this dexgrasp",
    ),
    "text_for_number": (
        lambda path: rewrite(path, header=changed_header(path, "state", "iteration", value="4")),
        r"'iteration' expects int, got '4'",
    ),
    "list_for_object": (
        lambda path: rewrite(path, header=changed_header(path, "manifest", value=[])),
        "'manifest' of its header is a list",
    ),
    "unknown_key": (
        lambda path: rewrite(path, header=changed_header(path, "architecture", "hiden", value=[8])),
        r"unknown key 'hiden'\. Did you mean 'hidden'",
    ),
    "huge_network": (
        lambda path: rewrite(path, header=changed_header(path, "architecture", "hidden", value=[10**9, 10**9])),
        r"its tensors are those of hidden=\[64, 32\], it states \[1000000000, 1000000000\]",
    ),
    "no_configuration": (
        lambda path: rewrite(path, header=changed_header(path, "manifest", value={})),
        "lacks a configuration with hand, side, task",
    ),
    "unknown_task": (
        lambda path: rewrite(path, header=changed_header(path, "manifest", "config", "task", value={"rate": 1})),
        "unknown key 'rate'",
    ),
}
"""Kind of a damaged or hostile checkpoint -> how a file becomes one, and the error that refuses it."""


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("damage", "error"), HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_or_hostile_checkpoint_is_one_line_and_nothing_runs(copied, damage, error):
    damage(copied)
    before = set(copied.parent.parent.rglob("*"))
    with pytest.raises(ValueError, match=error) as raised:
        load_checkpoint(copied)
    assert str(raised.value).startswith(str(copied)) and "\n" not in str(raised.value)
    assert set(copied.parent.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("actor.net.0.bias", None, r"not those of hidden|hidden=\[32\]"),
        ("critic.net.0.bias", None, r"not those of a student: .*Missing key.*critic\.net\.0\.bias"),
        ("critic.net.0.bias", torch.zeros(7), r"not those of a student: .*size mismatch"),
        ("actor.extra", torch.zeros(7), r"not those of a student: .*Unexpected key.*actor\.extra"),
    ],
)
def test_tensors_of_other_networks_are_refused(copied, name, value, error):
    data = read_checkpoint(copied)
    tensors = {key: tensor for key, tensor in data.tensors.items() if key != f"policy/{name}"}
    write_checkpoint(copied, replace(data, tensors=tensors | ({f"policy/{name}": value} if value is not None else {})))
    with pytest.raises(ValueError, match=error):
        load_checkpoint(copied)


def test_weights_that_are_not_finite_are_refused(copied):
    header, tensors = read_archive(copied)
    tensors["policy/actor.net.0.weight"][3, 4] = float("nan")
    write_archive(copied, header, tensors)
    with pytest.raises(ValueError, match=r"tensor 'policy/actor\.net\.0\.weight' holds values that are not finite"):
        load_checkpoint(copied)


def test_every_command_refuses_a_hostile_checkpoint_in_one_line(copied, tmp_path, capsys):
    rewrite(copied, extra=[("policy.pth", pickle.dumps(Trap(str(tmp_path / "ran"))))])
    stage = [
        "recipe=student",
        f"out={tmp_path / 'new'}",
        "objects=generated:8",
        "validation_objects=generated:4:validation",
    ]
    for words in (
        ["evaluate", f"policy={copied}", "trials=2"],
        ["export", f"run={copied}", f"out={tmp_path / 'bundle'}"],
        ["train", *stage, f"teacher={copied}", "num_envs=2"],
        ["checkpoint", "upgrade", str(copied)],
        ["checkpoint", "sb3", str(copied), f"out={tmp_path / 'sb3.zip'}"],
    ):
        assert main(words) == 2
        assert f"{copied} is not a whole checkpoint" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "ran").exists()


def old_run(folder):
    """A copy of the run of version 0.1.0."""
    return Path(shutil.copytree(OLD, folder))


@pytest.mark.slow
def test_an_old_checkpoint_is_told_with_the_command_that_converts_it(tmp_path, capsys):
    old = old_run(tmp_path / "run") / "last.zip"
    line = f"{old} was written by an older dexgrasp"
    hint = f"convert it once with `dexgrasp checkpoint upgrade {old}`"
    words = ["train", *resume_words(tmp_path / "run")]
    for command in (["evaluate", f"policy={old}", "trials=2"], ["export", f"run={old}", "out=x"], words):
        assert main(command) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert line in said and said.endswith(hint)


def test_upgrade_keeps_every_number(tmp_path):
    folder = old_run(tmp_path / "run")
    upgrade(UpgradeCfg(str(folder)))
    data = read_checkpoint(folder / "last.zip")
    with zipfile.ZipFile(OLD / "last.zip") as archive:
        plain, manifest = json.loads(archive.read("data")), yaml.safe_load(archive.read("manifest.yaml"))
        weights, optimizer = (
            torch.load(io.BytesIO(archive.read(f"{name}.pth")), weights_only=True)
            for name in ("policy", "policy.optimizer")
        )
    assert data.group("policy").keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in data.group("policy").items())
    names = [name for name, _ in load_checkpoint(folder).policy.named_parameters()]
    moments = {f"{names[i]}/{key}": value for i, kept in optimizer["state"].items() for key, value in kept.items()}
    assert data.group("optimizer").keys() == moments.keys() and len(moments) == 3 * len(names)
    assert all(torch.equal(value, moments[name]) for name, value in data.group("optimizer").items())
    assert moments["log_std/exp_avg"].shape == (22,)  # the order of names is that of the numbers
    assert moments["critic.net.2.weight/exp_avg"].shape == (1, 8)
    assert data.manifest == manifest
    state = data.state
    assert (state.iteration, state.num_timesteps, state.learning_rate) == (2, 40, plain["lr"])
    assert state.iteration_stats == plain["iteration_stats"] and state.trials == (2, 2)
    assert len(state.recent_successes) == 4
    curriculum = data.group("curriculum")
    assert curriculum["counts"].shape == (2, 8) and float(curriculum["counts"][1].sum()) == pytest.approx(2 * 0.98 + 2)
    assert float(curriculum["weights"].sum()) == pytest.approx(1.0)
    assert float(curriculum["open_weights"].sum()) == pytest.approx(1.0)
    assert not torch.equal(curriculum["open_weights"], curriculum["weights"])
    assert (folder / "last.zip.old").read_bytes() == (OLD / "last.zip").read_bytes()


def resume_words(folder):
    """The command that left the old run."""
    text = yaml.safe_load((OLD / "config.yaml").read_text())
    task = text["task"]
    return [
        *(
            f"{key}={text[key]}"
            for key in ("objects", "validation", "num_envs", "num_threads", "precision", "iterations")
        ),
        *("physics=turbo", "hidden=[8]", "num_minibatches=2", "validation_trials=2", "validation_interval=9"),
        *(f"task.{key}={task[key]}" for key in ("rate_hz", "grasp_s", "lift_s", "hold_s")),
        f"out={folder}",
    ]


def test_an_old_run_resumes_after_the_upgrade_exactly(tmp_path):
    """As version 0.1.0 itself went on; on another machine rounding leads elsewhere after a contact."""
    folder = old_run(tmp_path / "run")
    upgrade(UpgradeCfg(str(folder), keep=False))
    assert train(configs.load(TrainCfg, "train", resume_words(folder)))["iteration"] == 4
    expected = json.loads((OLD / "resumed.json").read_text())
    data = read_checkpoint(folder / "last.zip")
    assert data.state.num_timesteps == 80 and data.group("policy").keys() == expected["sums"].keys()
    if machine() == expected["machine"]:
        assert {name: float(value.double().sum()) for name, value in data.group("policy").items()} == expected["sums"]


def old_zip(path, **change):
    """The old zip with other entries of its JSON."""
    with zipfile.ZipFile(OLD / "last.zip") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["data"] = json.dumps(json.loads(entries["data"]) | change).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in entries.items():
            archive.writestr(name, value)
    return path


def serialized(content):
    """As Stable-Baselines3 puts a pickle into JSON."""
    return {":type:": "<class 'numpy.ndarray'>", ":serialized:": base64.b64encode(content).decode()}


@pytest.mark.parametrize("key", ["mastery", "opened_with", "resume", "ep_success_buffer"])
def test_a_pickle_in_an_old_zip_runs_nothing(tmp_path, key):
    flag = tmp_path / "ran"
    path = old_zip(tmp_path / "last.zip", **{key: serialized(pickle.dumps(Trap(str(flag))))})
    shutil.copy(OLD / "config.yaml", tmp_path)
    with pytest.raises(ValueError, match=r"a pickle in it names (posix|nt)\.mkdir, which is no plain data"):
        read_sb3_checkpoint(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="which is no plain data"):
        upgrade(UpgradeCfg(str(path), keep=False))
    assert not flag.exists() and path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"mastery": serialized(pickle.dumps(np.array([Trap("x")], dtype=object)))}, "which is no plain data"),
        ({"mastery": serialized(b"\x80\x05cut")}, "is not a whole checkpoint of an older version"),
        ({"mastery": {":serialized:": 7}}, "is not a whole checkpoint of an older version"),
        ({"iteration": "many"}, "is not a whole checkpoint of an older version: .*'iteration' expects int"),
    ],
)
def test_a_damaged_old_zip_is_refused(tmp_path, change, error):
    with pytest.raises(ValueError, match=error) as raised:
        read_sb3_checkpoint(old_zip(tmp_path / "last.zip", **change))
    assert "\n" not in str(raised.value)


def test_a_manifest_that_yaml_aliases_blow_up_is_refused(tmp_path):
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))
    path = tmp_path / "last.zip"
    with zipfile.ZipFile(OLD / "last.zip") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            manifest = f"a0: &a0 [lol]\n{levels}\n".encode() + old.read(name)
            new.writestr(name, manifest if name == "manifest.yaml" else old.read(name))
    with pytest.raises(ValueError, match=r"last\.zip is damaged or no YAML file: it holds more than 100000 values"):
        read_sb3_checkpoint(path)


def test_the_rollouts_of_an_old_student_are_converted(tmp_path):
    kept = [{"student": torch.randn(3, 5), "true": torch.randn(3, 2)} for _ in range(2)]
    make_run(tmp_path)
    torch.save(kept, tmp_path / "last.window")
    upgrade(UpgradeCfg(str(tmp_path)))
    _, tensors = read_archive(tmp_path / "last.window")
    assert all(torch.equal(tensors[f"{i}/{name}"], kept[i][name]) for i in range(2) for name in ("student", "true"))
    torch.save([{"student": Trap(str(tmp_path / "ran"))}], tmp_path / "last.window")
    with pytest.raises(ValueError, match=r"last.window.old exists and is another file"):
        upgrade(UpgradeCfg(str(tmp_path)))
    (tmp_path / "last.window.old").unlink()
    with pytest.raises(ValueError, match="its tensors cannot be read"):
        upgrade(UpgradeCfg(str(tmp_path)))
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_up_to_date_stays_as_it_is(run, capsys):
    before = (run / "best.zip").read_bytes()
    upgrade(UpgradeCfg(str(run)))
    assert capsys.readouterr().out == f"up to date  {run / 'best.zip'}\n"
    assert (run / "best.zip").read_bytes() == before


@pytest.mark.parametrize(("make", "group"), [(make_run, "both"), (make_run, "student"), (make_teacher_run, "teacher")])
def test_ppo_of_stable_baselines_loads_and_plays_an_exported_policy(tmp_path, household, allegro, make, group):
    folder = make(tmp_path)
    export_sb3(Sb3Cfg(str(folder), str(tmp_path / "sb3.zip"), group))
    task = replace(TASK, grasp_s=0.4, lift_s=0.2, hold_s=0.2)
    env = GraspVecEnv(3, objects=household, hand=allegro, obs=group, task=task, num_threads=1)
    model = PPO.load(tmp_path / "sb3.zip", env=env, device="cpu")
    ours = ActorAgent(load_checkpoint(folder).actor, env.task)
    obs = env.reset()
    for _ in range(4):
        groups = env.task.observe()
        actions, _ = model.predict(obs, deterministic=True)
        want = ours.act(groups).clamp(-task.action_clip, task.action_clip)
        np.testing.assert_allclose(actions, want.numpy(), rtol=0, atol=2e-5)
        obs = env.step(actions)[0]
    assert np.abs(actions).max() > 0.01
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=3, return_episode_rewards=True)
    assert max(lengths) <= env.task.episode_steps and np.isfinite(rewards).all()


def test_ppo_of_stable_baselines_trains_an_exported_student_further(run, tmp_path, household, allegro):
    export_sb3(Sb3Cfg(str(run), str(tmp_path / "sb3.zip")))
    task = replace(TASK, grasp_s=0.2, lift_s=0.1, hold_s=0.1)
    env = GraspVecEnv(2, objects=household, hand=allegro, obs="both", task=task, num_threads=1)
    model = PPO.load(tmp_path / "sb3.zip", env=env, device="cpu", n_steps=8, batch_size=8, n_epochs=1)
    before = model.policy.grasp.actor.net[0].weight.detach().clone()
    model.learn(16)
    assert not torch.equal(model.policy.grasp.actor.net[0].weight, before)
    export_sb3(Sb3Cfg(str(run), str(tmp_path / "alone.zip"), "student"))
    alone = GraspVecEnv(2, objects=household, hand=allegro, obs="student", task=task, num_threads=1)
    with pytest.raises(ValueError, match="make the environment with obs='both'"):
        PPO.load(tmp_path / "alone.zip", env=alone, device="cpu").learn(16)


def test_the_shipped_policies_are_in_the_present_format():
    for name in ("allegro/teacher", "allegro/student", "leap/teacher", "leap/student"):
        checkpoint = load_checkpoint(place(name))
        assert checkpoint.stage == name.partition("/")[2] and isinstance(checkpoint.task, TaskCfg)
        assert checkpoint.state.num_timesteps > 1e6


def test_an_archive_of_something_else_is_no_window(tmp_path):
    (tmp_path / "last.window").write_bytes(b"cut")
    with pytest.raises(ArchiveError, match="it is no whole zip file"):
        read_archive(tmp_path / "last.window")
