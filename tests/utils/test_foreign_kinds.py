"""Files that are not what their name says are named as such by every reader of checkpoints, libraries and settings."""

import json

import pytest

from dexgrasp.configs.loader import read_plain
from dexgrasp.policies.agents.checkpoint import read_checkpoint
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.objects.library import ObjectModel
from dexgrasp.utils.readers import foreign_kind

CONTENTS = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "a Git LFS pointer"),
    (b"\x1f\x8b\x08\0", "compressed with gzip"),
    (b"BZh91AY", "compressed with bzip2"),
    (b"\n<!doctype HTML><html></html>", "a web page"),
    (b"<?xml version='1.0'?><html></html>", "a web page"),
    (b"", "it is empty"),
    (b"\0" * 600, "all zeros"),
]
READERS = {
    "policy.zip": read_checkpoint,
    "object.npz": ObjectModel.load,
    "manifest.json": lambda path: ObjectLibrary(path.parent),
    "config.yaml": read_plain,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("content", "said"), CONTENTS)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as refusal:
        READERS[name](tmp_path / name)
    assert name in str(refusal.value)


def test_what_is_expected_is_not_taken_for_another_kind():
    for content in (b"a: 1\n", b" " * 600, b"<mujoco/>", json.dumps({}).encode(), b"\0" * 80 + b"\x0c\0\0\0", b"o x\n"):
        assert foreign_kind(content) == ""
    assert foreign_kind(b"PK\x03\x04", is_zip=True) == "" and "ZIP" in foreign_kind(b"PK\x03\x04")
