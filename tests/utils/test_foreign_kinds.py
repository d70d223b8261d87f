"""Files that are not what their name says are named as such by every reader of checkpoints, libraries and settings."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import pytest

from dexgrasp.configs.loader import read_plain
from dexgrasp.policies.agents.checkpoint import read_checkpoint
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.objects.library import ObjectModel
from dexgrasp.utils.readers import foreign_file, foreign_kind

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


def test_each_kind_is_told_by_its_first_bytes_and_its_remedy():
    archive = io.BytesIO()
    zipfile.ZipFile(archive, "w").close()
    for content, said in (
        (gzip.compress(b"a"), "it is compressed with gzip: unpack it (gunzip)"),
        (bz2.compress(b"a"), "it is compressed with bzip2: unpack it (bunzip2)"),
        (lzma.compress(b"a"), "it is compressed with xz: unpack it (unxz)"),
        (archive.getvalue(), "it is an empty ZIP archive"),
        (b"PK\x03\x04\x14\0", "it is a ZIP archive: unpack it"),
        (bytes.fromhex("28b52ffd0458"), "it is compressed with Zstandard: unpack it (unzstd)"),
        (bytes.fromhex("377abcaf271c0004"), "it is a 7-Zip archive: unpack it"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "it is a Git LFS pointer, the file was not fetched: run `git lfs pull` in its repository",
        ),
        (b"\0", "its beginning is all zeros, as an interrupted copy leaves it: fetch it again"),
        (b"\n", "it is empty: fetch or write it again"),
        (b" " * 511, "it is empty: fetch or write it again"),
        (b" " * 512, ""),  # a head as long as is read: more may follow
        *(
            (content, "it is a web page, as an error of a download leaves it: fetch it again")
            for content in (
                b"<HTML>",
                b" <head>",
                b"\xef\xbb\xbf<body>",
                b"<!DOCTYPE HTML>",
                b"<!-- a --><html>",
                b"<?xml?><html>",
            )
        ),
        (b"<?xml?><robot>", ""),
        (b"a <html>", ""),
    ):
        assert foreign_kind(content) == said, content
    assert foreign_kind(archive.getvalue(), is_zip=True) == ""
    assert "gzip" in foreign_kind(gzip.compress(b"a"), is_zip=True)


def test_the_kind_of_a_file_is_told_from_its_beginning_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"\0" * 512 + b"a")
    assert foreign_file(tmp_path / "a").startswith("its beginning is all zeros")
    (tmp_path / "a").write_bytes(b"\0" * 511 + b"a")
    assert foreign_file(str(tmp_path / "a")) == ""
    (tmp_path / "a").write_bytes(b"PK\x03\x04")
    assert "ZIP" in foreign_file(tmp_path / "a") and foreign_file(tmp_path / "a", is_zip=True) == ""
    assert foreign_file(tmp_path) == foreign_file(tmp_path / "absent") == ""
