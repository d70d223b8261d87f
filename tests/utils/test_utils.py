"""Helpers shared by all layers: atomic files, locks, timers, rotations against scipy."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp.utils import files
from dexgrasp.utils.files import (
    append_text,
    atomic_folder,
    atomic_path,
    folder_lock,
    remove_partial_folders,
    remove_partials,
    restore_folder,
    write_bytes,
    write_json,
    write_text,
)
from dexgrasp.utils.rotations import Pose, quat_from_rotvec, quat_multiply, quat_rotate, rotvec_from_quat
from dexgrasp.utils.text import OS_ERRORS, os_error_text
from dexgrasp.utils.timers import (
    LapTimer,
    Stopwatch,
    Timing,
    cpu_seconds,
    device_clock,
    latency_percentiles,
    latency_summary,
)


def quat(rotation):
    return rotation.as_quat(scalar_first=True)


def same_rotation(a, b):
    """Quaternions q and -q are one rotation."""
    return min(np.abs(a - b).max(), np.abs(a + b).max()) < 1e-14


def test_quaternions_agree_with_scipy():
    rotations = Rotation.random(300, rng=np.random.default_rng(0))
    vectors = np.random.default_rng(1).normal(size=(300, 3))
    for a, b, vector in zip(rotations, rotations[::-1], vectors, strict=True):
        assert same_rotation(quat_multiply(quat(a), quat(b)), quat(a * b))
        assert np.allclose(quat_rotate(quat(a), vector), a.apply(vector), rtol=0, atol=1e-14)
        assert same_rotation(quat_from_rotvec(a.as_rotvec()), quat(a))
        assert np.allclose(rotvec_from_quat(-quat(a)), a.as_rotvec(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("angle", [0.0, 1e-300, 1e-12, 1e-6, 1.0, np.pi - 1e-9])
def test_rotation_vectors_survive_the_way_there_and_back(angle):
    rotvec = angle * np.array([0.6, 0.0, -0.8])
    assert np.allclose(rotvec_from_quat(quat_from_rotvec(rotvec)), rotvec, rtol=1e-12, atol=0)
    assert same_rotation(quat_from_rotvec(rotvec), quat(Rotation.from_rotvec(rotvec)))


def test_products_of_quaternions_are_those_with_numpys_cross_product_to_the_bit():
    """Recordings of a grasp are repeated bit for bit."""
    rng = np.random.default_rng(3)
    for kind in (np.float64, np.float32):
        for a, b in rng.normal(size=(200, 2, 4)).astype(kind):
            axis, once = a[1:], 2.0 * np.cross(a[1:], b[1:])
            assert np.array_equal(quat_rotate(a, b[1:]), b[1:] + a[0] * once + np.cross(axis, once))
            assert np.array_equal(quat_multiply(a, b)[1:], a[0] * b[1:] + b[0] * a[1:] + np.cross(axis, b[1:]))


def test_poses_agree_with_matrices():
    rotations = Rotation.random(2, rng=np.random.default_rng(2))
    a, b = (Pose.of(pos, quat(r)) for pos, r in zip(([1.0, 2, 3], [-0.5, 0, 0.25]), rotations, strict=True))

    def matrix(pose):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_quat(pose.quat, scalar_first=True).as_matrix()
        T[:3, 3] = pose.pos_m
        return T

    assert np.allclose(matrix(a @ b), matrix(a) @ matrix(b), atol=1e-14)
    assert np.allclose(matrix(a.inverse()), np.linalg.inv(matrix(a)), atol=1e-14)
    assert np.allclose(a.normal, matrix(a)[:3, 0], atol=1e-14)
    assert a.angle_rad(b) == pytest.approx((rotations[0].inv() * rotations[1]).magnitude(), abs=1e-13)
    half = Pose(a.pos_m, a.quat).step_towards(b, a.distance_m(b) / 2, a.angle_rad(b) / 2)
    assert np.allclose(half.pos_m, (a.pos_m + b.pos_m) / 2)
    assert half.angle_rad(a) == pytest.approx(half.angle_rad(b)) == pytest.approx(a.angle_rad(b) / 2)
    assert np.array_equal(a.step_towards(b, 10, 4).quat, b.quat) and np.array_equal(
        a.step_towards(b, 10, 4).pos_m, b.pos_m
    )


def test_a_file_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path) as partial:
        assert partial.parent == path.parent and partial.suffix == ".txt" and str(os.getpid()) in partial.name
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    with pytest.raises(OSError), atomic_path(path) as partial:
        partial.write_text("never seen")
        raise OSError("disk full")
    assert path.read_text() == "half" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_folder_is_replaced_as_a_whole_and_foreign_entries_stay(exchange, tmp_path, monkeypatch):
    if not exchange:  # as on a file system that cannot exchange folders
        monkeypatch.setattr(files, "_exchange", lambda *_: (_ for _ in ()).throw(OSError(errno.EINVAL, "no")))
    bundle = tmp_path / "bundle"
    for content in ("old", "new"):
        with atomic_folder(bundle, own=("graph", "contract")) as partial:
            (partial / "graph").write_text(content)
            if content == "old":
                (partial / "contract").touch()
        (bundle / "notes").mkdir(exist_ok=True)
        (bundle / "notes/mine.txt").write_text("mine")
    with pytest.raises(OSError), atomic_folder(bundle, own=("graph",)) as partial:
        (partial / "graph").write_text("torn")
        raise OSError
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        *("bundle", "bundle/graph", "bundle/notes", "bundle/notes/mine.txt")
    ]
    assert (bundle / "graph").read_text() == "new" and (bundle / "notes/mine.txt").read_text() == "mine"


def test_a_replacement_that_was_killed_between_two_renames_is_undone(tmp_path):
    (tmp_path / ".old-bundle").mkdir()
    (tmp_path / ".old-bundle/graph").touch()
    (tmp_path / ".partial-1-bundle").mkdir()
    (tmp_path / ".partial-1-other").mkdir()
    restore_folder(tmp_path / "bundle")
    remove_partial_folders(tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-1-other", "bundle"]
    assert (tmp_path / "bundle/graph").exists()
    (tmp_path / ".old-bundle").mkdir()
    remove_partial_folders(tmp_path / "bundle")
    assert not (tmp_path / ".old-bundle").exists()


def test_a_full_disk_names_the_file_and_leaves_whole_lines(tmp_path, monkeypatch):
    append_text(tmp_path / "log", "whole\n")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for write in (append_text, write_text):
        with pytest.raises(OSError, match=r"No space left on device: '.*/log'"):
            write(tmp_path / "log", "more\n")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_text_bytes_and_json_are_written_as_given(tmp_path):
    write_text(tmp_path / "a", "größer\n")
    assert (tmp_path / "a").read_bytes() == "größer\n".encode()
    write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    write_json(tmp_path / "c", {"x": 0.1 + 0.2, "tensor": torch.arange(2), "array": np.eye(1), "path": tmp_path})
    assert json.loads((tmp_path / "c").read_text()) == {
        "x": 0.30000000000000004,
        "tensor": [0, 1],
        "array": [[1.0]],
        "path": str(tmp_path),
    }


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, value, error):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(error):
        write_json(tmp_path / "a.json", value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1\n"


@pytest.mark.parametrize("write", [write_text, write_json, lambda path, text: write_bytes(path, text.encode())])
def test_a_file_is_replaced_in_one_step(write, tmp_path, monkeypatch):
    write(tmp_path / "a", "old")
    before = (tmp_path / "a").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    write_text(tmp_path / "a", "text")
    assert calls == [str(tmp_path / f".partial-{os.getpid()}-a"), "rename", str(tmp_path)]
    append_text(tmp_path / "a", "more")
    assert calls[3:] == [str(tmp_path / "a")] and (tmp_path / "a").read_text() == "textmore"


def test_partial_files_of_killed_processes_are_removed_and_others_stay(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".partial-1-x.npz").touch()
    (tmp_path / "deep" / "x.npz").touch()
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["x.npz"]


def test_a_locked_folder_makes_others_wait(tmp_path):
    order = []

    def second():
        with folder_lock(tmp_path / "folder"):
            order.append("second")

    with folder_lock(tmp_path / "folder"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_nested_parts_are_counted_once():
    now = iter([0.0, 1.0, 3.0, 10.0])
    watch = Stopwatch(lambda: next(now))
    with watch.timing("outer"), watch.timing("inner"):
        pass
    assert watch.seconds == {"inner": 2.0, "outer": 8.0}


def test_cpu_seconds_count_child_processes_and_no_sleep():
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    before_s = cpu_seconds()
    time.sleep(0.3)
    slept_s = cpu_seconds() - before_s
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert slept_s < 0.15
    assert 0.28 <= cpu_seconds() - before_s - slept_s < 3.0


def test_laps_are_the_times_between_calls():
    laps = LapTimer()
    laps.start()
    time.sleep(0.01)
    laps("sleep")
    laps("nothing")
    assert 10 <= laps.ms["sleep"][0] < 1000 and laps.ms["nothing"][0] < laps.ms["sleep"][0]


def test_latency_percentiles_by_hand():
    assert latency_percentiles(range(101)) == (50.0, 95.0, 99.0)
    assert latency_summary([4.0, 1.0, 3.0, 2.0], 95) == {"median": 2.5, "p95": pytest.approx(3.85), "min": 1.0}
    log = Timing(kept=3)
    for seconds in (9.0, 1.0, np.nan, 2.0, 3.0):
        log.add("tick", seconds)
    assert log.percentiles_ms()["tick"] == pytest.approx((2000.0, 2900.0, 2980.0))


def test_the_clock_of_the_cpu_does_not_count_sleep():
    clock = device_clock(torch.device("cpu"))
    start = clock()
    time.sleep(0.1)
    assert clock() - start < 0.09


def test_errors_of_the_system_name_the_path_and_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "full/below").mkdir(parents=True)
    tries = {
        "missing": "does not exist: check the path",
        ".": "is a folder, expected a file",
        "file/below": "leads through a file as if it were a folder: check the path",
        "loop": "is a link that leads back to itself: check the path",
        "x" * 300: "has too long a name: give a shorter path",
    }
    for name, reason in tries.items():
        with pytest.raises(OSError) as caught:
            (tmp_path / name).read_bytes()
        assert os_error_text(caught.value) == f"{tmp_path / name} {reason}"
    with pytest.raises(OSError) as caught:
        (tmp_path / "full").rmdir()
    assert os_error_text(caught.value) == f"{tmp_path / 'full'} is a folder that holds files: give another path"
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"1")
    assert os_error_text(caught.value) == f"a file {OS_ERRORS[errno.ENOSPC]}"
    assert os_error_text(FileNotFoundError("no bag 'x'")) == "no bag 'x'"
    assert os_error_text(OSError(errno.EBADMSG, "Bad message", b"a")) == "a cannot be used: Bad message"
    assert os_error_text(OSError(errno.EBADMSG, "Bad message")) == "Bad message"
