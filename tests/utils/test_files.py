"""Files and folders that appear whole: what is kept, what is on the disk, what a full disk and other threads do."""

import errno
import os
import resource
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from dexgrasp.utils import files
from dexgrasp.utils.files import (
    LOCK,
    OLD,
    PARTIAL,
    FolderInUseError,
    FolderMovedError,
    append_text,
    atomic_folder,
    atomic_path,
    cache_folder,
    expand_user,
    folder_lock,
    remove_partial_folders,
    remove_partials,
    remove_partials_of,
    restore_folder,
    write_text,
)


@pytest.fixture
def synced(monkeypatch):
    """Paths that were written to the disk, in order."""
    paths, fsync = [], os.fsync

    def recorded(handle):
        paths.append(Path(os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    return paths


@contextmanager
def largest_file(size):
    """Writes beyond so many bytes of a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tree(folder):
    """Names below a folder with what they hold or point to."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_return(tmp_path, synced):
    write_text(tmp_path / "a", "text")
    assert [path.parent for path in synced] == [tmp_path, tmp_path.parent]
    assert synced[0].name.startswith(PARTIAL) and synced[1] == tmp_path
    synced.clear()
    append_text(tmp_path / "log", "line\n")
    assert synced == [tmp_path / "log"]


def test_a_folder_is_on_the_disk_with_all_it_holds(tmp_path, synced):
    with atomic_folder(tmp_path / "run", own=()) as partial:
        (partial / "deep").mkdir()
        (partial / "deep/a").write_text("1")
    assert {path.name for path in synced[:-1]} == {partial.name, "deep", "a"} and synced[-1] == tmp_path


def test_no_handle_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        write_text(tmp_path / "a", "text")
        append_text(tmp_path / "a", "more")
        with folder_lock(tmp_path):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_new_folder_replaces_what_is_its_own_and_keeps_the_rest(tmp_path):
    run = tmp_path / "very" / "deep" / "run"
    with atomic_folder(run, own=()) as partial:
        (partial / "old").write_text("old")
    (run / "zoo" / "deep").mkdir(parents=True)
    (run / "zoo" / "deep" / "kept").write_text("kept")
    (run / "zoo" / "link").symlink_to("deep")
    (run / "aside").symlink_to("zoo")
    (run / "nowhere").symlink_to("absent")
    (run / "notes").write_text("notes")
    os.mkfifo(run / "pipe")
    (run / f"{PARTIAL}7-x").write_text("half")
    (run / LOCK).write_text("a process")
    inodes = [(run / name).stat().st_ino for name in ("notes", "zoo/deep/kept")]
    with atomic_folder(run, own=("old", "new")) as partial:
        (partial / "new").write_text("new")
        assert (run / "old").exists()
    assert tree(run) == {
        "new": "new",
        "notes": "notes",
        "zoo/deep/kept": "kept",
        "zoo/link": "deep",
        "aside": "zoo",
        "nowhere": "absent",
    }
    assert [(run / name).stat().st_ino for name in ("notes", "zoo/deep/kept")] == inodes  # linked, not copied
    assert os.listdir(run.parent) == ["run"] and (run / "pipe").is_fifo()


def test_a_file_system_without_hard_links_copies_what_is_kept(tmp_path, monkeypatch):
    def link(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    run = tmp_path / "run"
    run.mkdir()
    (run / "notes").write_text("notes")
    (run / "aside").symlink_to("notes")
    monkeypatch.setattr(os, "link", link)
    with atomic_folder(run, own=()) as partial:
        (partial / "new").write_text("new")
    assert tree(run) == {"new": "new", "notes": "notes", "aside": "notes"} and (run / "aside").is_symlink()


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "run", own=("a",)) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(OSError), atomic_folder(tmp_path / "run", own=("a",)) as partial:
        (partial / "a").write_text("torn")
        raise OSError
    assert tree(tmp_path) == {"run/a": "old"}


@pytest.mark.parametrize(("number", "replaced"), [(errno.ENOSYS, True), (errno.EACCES, False)])
def test_a_file_system_that_cannot_exchange_folders_renames_twice(tmp_path, monkeypatch, number, replaced):
    with atomic_folder(tmp_path / "run", own=("a",)) as partial:
        (partial / "a").write_text("old")

    def exchange(one, other):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_exchange", exchange)
    try:
        with atomic_folder(tmp_path / "run", own=("a",)) as partial:
            (partial / "a").write_text("new")
    except OSError as error:
        assert error.errno == number and not replaced
    assert tree(tmp_path) == {"run/a": "new" if replaced else "old"}


def test_a_line_for_which_there_is_no_room_leaves_the_file_as_it_was(tmp_path):
    log = tmp_path / "log"
    append_text(log, "0123456789\n")
    with largest_file(16), pytest.raises(OSError) as caught:
        append_text(log, "0123456789\n")
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(log)
    assert log.read_text() == "0123456789\n"
    with largest_file(5), pytest.raises(OSError, match="File too large") as caught:
        write_text(tmp_path / "new", "0123456789\n")
    assert caught.value.filename == str(tmp_path / "new") and os.listdir(tmp_path) == ["log"]


def test_leftovers_are_removed_but_not_those_of_another_run(tmp_path):
    (tmp_path / "in" / f"{PARTIAL}1-folder" / "deep").mkdir(parents=True)
    (tmp_path / "in" / f"{PARTIAL}1-folder" / "deep" / "a").write_text("")
    (tmp_path / "in" / f"{PARTIAL}2-file").write_text("")
    (tmp_path / "in" / "kept").write_text("kept")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / LOCK).write_text("")
    (tmp_path / "other" / f"{PARTIAL}3-file").write_text("half")
    remove_partials(tmp_path)
    assert tree(tmp_path) == {"in/kept": "kept", f"other/{LOCK}": "", f"other/{PARTIAL}3-file": "half"}
    assert os.listdir(tmp_path / "in") == ["kept"]


@pytest.mark.parametrize("there", [True, False])
def test_a_replacement_at_which_a_process_was_killed_is_ended(tmp_path, there):
    """Killed after the first of two renames the old folder comes back; after the second it goes."""
    run, names = tmp_path / "run", [f"{OLD}run", f"{PARTIAL}7-run", f"{PARTIAL}7-other-run", f"{PARTIAL}8-runs"]
    for name in [*names, *(["run"] if there else [])]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    restore_folder(run)
    assert (run / "a").read_text() == ("run" if there else f"{OLD}run") and (tmp_path / names[1] / "a").exists()
    remove_partial_folders(run)
    left = {name: text for name, text in tree(tmp_path).items() if not name.endswith(LOCK)}
    assert left == {"run/a": "run" if there else f"{OLD}run", f"{names[2]}/a": names[2], f"{names[3]}/a": names[3]}


@pytest.mark.parametrize("change", ["moved", "above", "removed", "replaced"])
@pytest.mark.parametrize("write", [write_text, append_text, lambda path, text: write_text(path.parent / "sub/b", text)])
def test_nothing_is_written_in_the_place_of_a_locked_folder_that_is_gone(tmp_path, change, write):
    folder, said = tmp_path / "runs" / "one", r"runs/one was moved or removed while this command wrote to it"
    folder.mkdir(parents=True)
    with folder_lock(folder):
        write_text(folder / "a", "before")
        if change == "removed":
            shutil.rmtree(folder)
        elif change == "above":
            folder.parent.rename(tmp_path / "moved")
        else:
            folder.rename(tmp_path / "moved")
        if change == "replaced":
            shutil.copytree(tmp_path / "moved", folder)
        before = tree(tmp_path)
        with pytest.raises(FolderMovedError, match=said):
            write(folder / "a", "after")
        assert tree(tmp_path) == before and ("runs" in os.listdir(tmp_path)) == (change != "above")
        write_text(tmp_path / "beside", "free")
    write_text(folder / "a", "free again")


def test_a_folder_that_is_moved_while_a_file_is_written_is_named(tmp_path):
    folder = tmp_path / "one"
    with (
        folder_lock(folder),
        pytest.raises(FolderMovedError, match="one was moved or removed"),
        atomic_path(folder / "a") as partial,
    ):
        partial.write_text("half")
        folder.rename(tmp_path / "moved")
    assert not folder.exists()


def test_a_locked_folder_that_its_own_process_replaces_stays_in_place(tmp_path):
    folder = tmp_path / "one"
    with folder_lock(folder):
        for number in range(2):
            with atomic_folder(folder, own=("a",)) as partial:
                (partial / "a").write_text(str(number))
            write_text(folder / "b", "after")
        folder.rename(tmp_path / "moved")
        with atomic_folder(folder, own=("a",)) as partial:  # whole, in the place that was asked for
            (partial / "a").write_text("last")
        folder.rename(tmp_path / "again")
        folder.mkdir()
        (folder / "a").write_text("of another")
        with pytest.raises(FolderMovedError), atomic_folder(folder, own=("a",)) as partial:
            (partial / "a").write_text("2")
    assert (folder / "a").read_text() == "of another" and (tmp_path / "again" / "a").read_text() == "last"


def test_a_lock_holds_on_a_full_disk(tmp_path):
    with largest_file(0), folder_lock(tmp_path), pytest.raises(OSError):
        (tmp_path / "a").write_text("1")
    with folder_lock(tmp_path, wait=False):
        pass


def test_a_lock_names_who_holds_it_and_holds_for_one_thread(tmp_path):
    folder, said = tmp_path / "deep" / "run", []

    def from_aside():
        try:
            with folder_lock(folder, wait=False):
                said.append("locked")
        except FolderInUseError as error:
            said.append(str(error))

    def aside():
        thread = threading.Thread(target=from_aside)
        thread.start()
        thread.join()

    with folder_lock(folder), folder_lock(folder, wait=False):
        aside()
    aside()
    holder = (folder / LOCK).read_text()
    assert said == [f"{folder} is in use by {holder.strip()}: wait for its end, or choose another out=", "locked"]
    assert str(os.getpid()) in holder and holder.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"DEXGRASP_CACHE": "/one", "XDG_CACHE_HOME": "/two"}, "/one/objects"),
        ({"XDG_CACHE_HOME": "/two"}, "/two/dexgrasp/objects"),
        ({}, "/folder/of/me/.cache/dexgrasp/objects"),
        ({"DEXGRASP_CACHE": "~/mine"}, "/folder/of/me/mine/objects"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, given, folder):
    for name in ("DEXGRASP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (given | {"HOME": "/folder/of/me"}).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_the_folder_of_an_unknown_user_is_a_name(monkeypatch):
    monkeypatch.setenv("HOME", "/mine")
    assert expand_user("~/runs") == Path("/mine/runs")
    assert expand_user("~nobody-here/runs") == Path("~nobody-here/runs")


def test_what_killed_processes_left_of_a_file_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout.strip()
    left, endless = tmp_path / f"{PARTIAL}{ended}-a[1].html", tmp_path / f"{PARTIAL}{'9' * 30}-a[1].html"
    names = f"{PARTIAL}{os.getpid()}-a[1].html", f"{PARTIAL}1-a[1].html", f"{PARTIAL}{ended}-a1.html", "a[1].html"
    kept = [tmp_path / name for name in (*names, f"{PARTIAL}mine-a[1].html")]
    for path in (left, endless, *kept):
        path.touch()
    remove_partials_of(tmp_path / "a[1].html")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
