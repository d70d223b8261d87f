"""No command executes anything that stands in a file: every command, every key that takes a path, hostile files."""

import base64
import hashlib
import importlib
import io
import json
import os
import pickle
import signal
import time
import traceback
import zipfile
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dexgrasp import assets
from dexgrasp.configs.schema import fields as hints
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.deploy.bundle import contract_sha256, sha256

CODE = ("plugins", "cluster")
"""Keys that are trusted: code of the user, and a cluster that executes code."""
NO_PATH = ("mount", "disturbance", "host", "serial", "families", "variants", "disturbances", "presets", "kinds")
"""Keys of text that names no file."""
LIMIT_S = 60.0
"""A command that takes longer is stopped; whether it has executed something is seen all the same."""


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, flag):
        self.flag = str(flag)

    def __reduce__(self):
        return (os.mkdir, (self.flag,))


def old_zip(path, flag):
    """A checkpoint as Stable-Baselines3 writes it, with pickles in its JSON and in the places of its tensors."""
    trap = pickle.dumps(Trap(f"{flag}_{path.stem}"))
    data = {"ep_info_buffer": {":type:": "x", ":serialized:": base64.b64encode(trap).decode()}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))
        for name in ("policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"):
            archive.writestr(name, trap)


def object_arrays(flag):
    """An .npz whose arrays are pickles."""
    buffer = io.BytesIO()
    names = ("vertices", "faces", "points", "normals", "in/step", "depth", "names")
    np.savez(buffer, **{name: np.array([Trap(f"{flag}_npz")], dtype=object) for name in names})
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder that is run, bundle, hand, library, recording and meshes at once; and the folder of the flags."""
    folder, flags = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("flags")
    trap = pickle.dumps(Trap(flags / "pickle"))
    for name in ("policy.zip", "best.zip", "last.zip"):
        old_zip(folder / name, flags / "zip")
    for name in ("policy.pth", "policy.onnx", "last.window", "best.pkl", "mesh.stl", "mesh.obj", "depth_000000.png"):
        (folder / name).write_bytes(trap)
    tags = f"a: !!python/object/apply:os.mkdir ['{flags / 'yaml'}']\n"
    for name in ("hand.yaml", "arm.yaml", "camera.yaml", "metadata.yaml", "driver.yaml", "camera.json"):
        (folder / name).write_text(tags)
    code = f"import os\nos.mkdir({str(flags / 'plugin')!r})\n"
    (folder / "evil_plugin.py").write_text(code)
    config = {"plugins": [str(folder / "evil_plugin.py")], "policy": "zero", "hand": "allegro", "side": "right"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "tagged.yaml").write_text(tags)
    arrays = object_arrays(flags / "a")
    for name in ("golden.npz", "object.npz", "log.npz", "depth_000000.npz", "000000.npz"):
        (folder / name).write_bytes(arrays)
    for name in ("output/example_shadow/graspdata/0.npy", "assets/hand/shadow/right_hand.xml"):
        (folder / name).parent.mkdir(parents=True)
    (folder / "assets/hand/shadow/right_hand.xml").write_bytes(assets.path("hands/shadow/hand.xml").read_bytes())
    grasp = folder / "output/example_shadow/graspdata/0.npy"
    np.save(grasp, np.array(Trap(flags / "grasp"), dtype=object), allow_pickle=True)
    np.save(folder / "depth_000000.npy", np.array([Trap(flags / "npy")], dtype=object), allow_pickle=True)
    entry = json.loads((assets.path("objects") / "manifest.json").read_text())
    first = entry["objects"][0] | {"file": "object.npz", "sha256": hashlib.sha256(arrays).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(entry | {"objects": [first]}))
    contract = json.loads(assets.path("policies/allegro/student/bundle/contract.json").read_text())
    contract["files"] = {name: sha256((folder / name).read_bytes()) for name in ("policy.onnx", "golden.npz")}
    contract["training"]["config"]["plugins"] = config["plugins"]
    contract["sha256"] = contract_sha256(contract)
    (folder / "contract.json").write_text(json.dumps(contract))
    (folder / "run.json").write_text(json.dumps({"kind": "evaluate", "starts": []}))
    (folder / "hand.xml").write_text('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><mujoco>&e;</mujoco>')
    return folder, flags


def test_the_traps_work(hostile, tmp_path):
    folder, _ = hostile
    pickle.loads(pickle.dumps(Trap(tmp_path / "a")))
    yaml.unsafe_load(f"a: !!python/object/apply:os.mkdir ['{tmp_path / 'b'}']")
    with pytest.raises(RuntimeError, match="corrupt file"):  # after the pickle was executed
        torch.load(io.BytesIO(pickle.dumps(Trap(tmp_path / "c"))), weights_only=False)
    for found in ("a", "b", "c"):
        assert (tmp_path / found).is_dir()
    with zipfile.ZipFile(folder / "best.zip") as archive:
        assert b"serialized" in archive.read("data")


def schema_of(command):
    module, _, name = command.schema.partition(":")
    return getattr(importlib.import_module(module), name)


def takes_text(hint):
    return hint in (str, Path) or any(takes_text(part) for part in getattr(hint, "__args__", ()))


def path_keys(command):
    """The keys of a command that may name a file or a folder."""
    found = [key for key, hint in hints(schema_of(command)).items() if takes_text(hint) and "Literal" not in str(hint)]
    return [key for key in found if key not in (*CODE, *NO_PATH)]


VALID = {"policy": "allegro/student", "out": "{tmp}/out", "source": "sim", "bag": "{tmp}/bag", "library": "shipped"}
VALID |= {"sources": "[sim]"}
VALID |= {"what": "policies", "shell": "bash", "meshes": "{tmp}", "run": "{tmp}"}
VALID |= {"model": str(assets.path("hands/leap/hand.xml"))}
"""Values of required keys while another key names the hostile file."""
SMALL = {"trials": "1", "num_envs": "1", "frames": "1", "port": "0", "n": "1", "steps": "5", "iterations": "1"}
"""Keys that keep a command short where it takes the file."""


def required_keys(command):
    return [f.name for f in fields(schema_of(command)) if f.default is f.default_factory is MISSING]


def test_every_required_key_has_a_valid_value_here():
    missing = {(command.words, key) for command in COMMANDS for key in required_keys(command) if key not in VALID}
    assert not missing


def words_of(command, key, value, tmp):
    """A command line in which `key` has the hostile value and all other required keys have valid ones."""
    schema = schema_of(command)
    given = {name: VALID[name].format(tmp=tmp) for name in required_keys(command)}
    if "out" in hints(schema):
        given["out"] = f"{tmp}/out"
    given |= {name: text for name, text in SMALL.items() if name in hints(schema)}
    if command.words == "train":
        given |= {"recipe": "student" if key == "teacher" else "teacher", "validation_objects": "shipped"}
        given["objects"] = "generated:4"
    given[key] = str(value)
    return [*command.words.split(), *(f"{name}={text}" for name, text in given.items())]


def run(words, tmp):
    """Run a command line in a child process; return its output."""
    log = tmp / "log"
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir(tmp)
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for descriptor in (1, 2):
                os.dup2(target, descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    end_s = time.monotonic() + LIMIT_S
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > end_s:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.01)
    return log.read_text(errors="replace")


PAIRS = [(command, key) for command in COMMANDS for key in path_keys(command)]
SAMPLE = {
    *(("evaluate", key) for key in ("policy", "objects", "hand")),
    ("benchmark dexgraspbench", "folder"),
    *(("train", key) for key in ("teacher", "init_checkpoint")),
    *(("video", "run"), ("checkpoint upgrade", "source"), ("bench deploy", "policy")),
}
"""Pairs that the default suite tries, with the folder alone."""


def test_every_command_that_takes_a_path_is_tried():
    without = {command.words for command in COMMANDS} - {command.words for command, _ in PAIRS}
    assert without == {"list", "completion"}


@pytest.mark.parametrize(
    ("command", "key"),
    [
        pytest.param(
            command,
            key,
            id=f"{command.words}-{key}",
            marks=() if (command.words, key) in SAMPLE else pytest.mark.slow,
        )
        for command, key in PAIRS
    ],
)
def test_a_hostile_folder_executes_nothing(hostile, tmp_path, command, key):
    folder, flags = hostile
    words = words_of(command, key, folder, tmp_path)
    text = run(words, tmp_path)
    assert sorted(flags.iterdir()) == [], f"{words}: {text}"
    assert "Trap" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("command", "key"), PAIRS, ids=[f"{command.words}-{key}" for command, key in PAIRS])
def test_a_hostile_file_executes_nothing(hostile, tmp_path, command, key):
    folder, flags = hostile
    for name in ("best.zip", "best.pkl", "tagged.yaml", "golden.npz", "hand.yaml", "mesh.stl"):
        words = words_of(command, key, folder / name, tmp_path)
        text = run(words, tmp_path)
        assert sorted(flags.iterdir()) == [], f"{words}: {text}"


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=[command.words for command in COMMANDS])
def test_a_hostile_saved_configuration_executes_nothing(hostile, tmp_path, command):
    folder, flags = hostile
    for name in ("config.yaml", "tagged.yaml", "best.pkl"):
        text = run([*command.words.split(), f"config={folder / name}"], tmp_path)
        assert sorted(flags.iterdir()) == [], text
