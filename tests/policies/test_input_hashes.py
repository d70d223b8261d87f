"""Hashes of inputs, worked out with hashlib from the bytes that they stand for."""

import hashlib
import json
import os
import sys
from dataclasses import asdict, make_dataclass

import pytest

from dexgrasp import assets
from dexgrasp.policies.agents.registry import POLICIES
from dexgrasp.policies.input_identity import READERS, current_sha256, identify_inputs
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.objects.generator import VERSION


def hash_of(*parts):
    """SHA-256 of parts, each after its length and a space."""
    return hashlib.sha256(b"".join(f"{len(part)} ".encode() + part for part in parts)).hexdigest()


def file_hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def configuration(**values):
    return make_dataclass("Cfg", values)(**values)


def test_policies_are_their_checkpoint_or_the_files_of_their_bundle_or_their_name():
    student = assets.path("policies/allegro/student")
    bundle = [student / "bundle" / name for name in ("contract.json", "policy.onnx", "golden.npz")]
    assert READERS["policy"](str(student / "bundle")) == hash_of(*(path.read_bytes() for path in bundle))
    assert READERS["policy"]("allegro/teacher") == file_hash(assets.path("policies/allegro/teacher/policy.zip"))
    assert READERS["policy"]("zero") == hash_of(b"zero") and "zero" in POLICIES
    for key in ("teacher", "init_checkpoint"):
        assert READERS[key]("allegro/student") == file_hash(student / "policy.zip")


def test_libraries_are_their_entries_in_order_or_the_name_that_generates_them():
    entries = open_library("shipped").entries
    assert len(entries) > 1
    expected = hash_of(*(json.dumps(asdict(entry), sort_keys=True).encode() for entry in entries))
    for key in ("objects", "validation_objects"):
        assert READERS[key]("shipped") == expected
        assert READERS[key]("generated:4") == hash_of(f"generated {VERSION} 4 train".encode())
        assert READERS[key]("generated:4:test") == hash_of(f"generated {VERSION} 4 test".encode())


def test_a_hand_is_the_names_and_contents_of_the_files_that_are_read(tmp_path):
    (tmp_path / "hand/meshes").mkdir(parents=True)
    model = '<mujoco><asset><mesh file="meshes/b.stl"/></asset></mujoco>'
    files = {"hand.yaml": "model: hand.xml", "hand.xml": model, "meshes/b.stl": "b", "notes.txt": "not read"}
    for name, text in files.items():
        (tmp_path / "hand" / name).write_text(text)
    expected = hash_of(b"hand.xml", model.encode(), b"hand.yaml", b"model: hand.xml", b"meshes/b.stl", b"b")
    assert READERS["hand"](str(tmp_path / "hand")) == expected
    os.rename(tmp_path / "hand/meshes/b.stl", tmp_path / "hand/meshes/c.stl")
    assert READERS["hand"](str(tmp_path / "hand")) != expected


def test_plugins_are_their_source_or_a_name_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first_plugin.py").write_text("a = 1\n")
    (tmp_path / "second_plugin.py").write_text("b = 2\n")
    expected = hash_of(b"a = 1\n", b"b = 2\n")
    assert READERS["plugins"]("first_plugin.py,second_plugin") == expected
    assert READERS["plugins"]("second_plugin,first_plugin") == hash_of(b"b = 2\n", b"a = 1\n")
    assert READERS["plugins"]("absent_plugin") == hash_of(b"absent_plugin")
    assert READERS["plugins"]("sys") == hash_of(b"sys")  # has no file


def test_options_that_are_given_are_identified_and_others_are_left_out():
    cfg = configuration(policy="zero", objects="", plugins=("absent_plugin", "sys"), hand="", seed=3)
    found = identify_inputs(cfg)
    assert {key: (item.value, item.sha256) for key, item in found.items()} == {
        "policy": ("zero", hash_of(b"zero")),
        "plugins": ("absent_plugin,sys", hash_of(b"absent_plugin", b"sys")),
    }
    assert current_sha256({"policy": "zero", "of_a_later_version": "x"}) == {"policy": hash_of(b"zero")}


@pytest.mark.parametrize("key", ["policy", "teacher"])
def test_a_policy_that_is_missing_is_an_error(key, tmp_path):
    with pytest.raises((OSError, ValueError), match="absent"):
        READERS[key](str(tmp_path / "absent.zip"))
