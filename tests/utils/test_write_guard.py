"""The guard that keeps faulty code under test from changing the machine."""

import os
import shutil

import pytest

from dexgrasp.utils import files
from tests.helpers.write_guard import WriteOutsideError, only_writes_below

WRITES = {
    "open": lambda place: (place / "new").write_text("x"),
    "append": lambda place: (place / "file").open("a"),
    "mkdir": lambda place: (place / "folder").mkdir(),
    "remove": lambda place: (place / "file").unlink(),
    "rmdir": lambda place: (place / "empty").rmdir(),
    "rename away": lambda place: os.rename(place, place.with_name("moved")),
    "rename within": lambda place: os.replace(place / "file", place / "other"),
    "link": lambda place: os.link(place / "file", place / "other"),
    "symlink": lambda place: (place / "other").symlink_to("file"),
    "rmtree": shutil.rmtree,
    "move": lambda place: shutil.move(place / "file", place / "other"),
    "chmod": lambda place: (place / "file").chmod(0),
    "exchange": lambda place: files._exchange(place / "empty", place / "file"),
    "through a link": lambda place: (place.parent / "inside/link/new").write_text("x"),
}


@pytest.fixture
def place(tmp_path):
    """A folder outside, beside the folder `inside`, which holds a link to it."""
    (tmp_path / "outside/empty").mkdir(parents=True)
    (tmp_path / "outside/file").write_text("mine")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/link").symlink_to("../outside")
    return tmp_path / "outside"


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_outside_fails_and_changes_nothing(place, write):
    with only_writes_below(place.parent / "inside"), pytest.raises(WriteOutsideError, match="outside"):
        write(place)
    assert sorted(os.listdir(place)) == ["empty", "file"] and (place / "file").read_text() == "mine"


def test_reading_anywhere_and_writing_inside_stay_allowed(place):
    inside = place.parent / "inside"
    with only_writes_below(inside):
        assert (place / "file").read_text() == "mine"
        (inside / "a/b").mkdir(parents=True)
        (inside / "a/b/c").write_text("x")
        os.replace(inside / "a/b/c", inside / "d")
        shutil.rmtree(inside / "a")
    (place / "file").write_text("other")
    assert sorted(os.listdir(inside)) == ["d", "link"]
