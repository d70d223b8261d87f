"""Tasks in separate processes: results, crashes, limits of time and memory, exceptions, users' scripts."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dexgrasp.utils import process_pool
from dexgrasp.utils.process_pool import TaskFailure, TaskLimits, run_in_processes

ROOT = Path(__file__).parents[2]


def _misbehave(how):
    match how:
        case "exits":
            os._exit(9)
        case "crashes":
            ctypes.string_at(0)
        case "sleeps in native code":
            ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
        case "computes":
            while True:
                pass
        case "wants memory":
            return len(bytearray(3 << 30))
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raises":
            raise ValueError("no such thing")
    return how.upper()


def test_one_task_that_misbehaves_costs_its_own_result_only():
    ways = ["good", "exits", "crashes", "sleeps in native code", "computes", "wants memory", "is killed", "better"]
    start = time.monotonic()
    limits = TaskLimits(time_s=2.0, memory_gib=2.0)
    found = {item: getattr(result, "reason", result) for item, result in run_in_processes(_misbehave, ways, 1, limits)}
    assert time.monotonic() - start < 60
    assert (found.pop("good"), found.pop("better")) == ("GOOD", "BETTER")
    assert found == {
        "exits": "its process ended with status 9 (a crash, or more than 2 GiB of memory)",
        "crashes": "its process died of SIGSEGV (a crash, or more than 2 GiB of memory)",
        "sleeps in native code": "not done within 2 s",
        "computes": "not done within 2 s",
        "wants memory": "more than 2 GiB of memory",
        "is killed": "its process was killed twice (SIGKILL); is memory short?",
    }


def _computes_half_of_the_time(_):
    while True:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
        time.sleep(0.05)


def test_a_task_ends_by_the_clock_on_a_busy_machine_and_is_reported_before(monkeypatch):
    """It may compute for 100 s, and has computed for less than the 2 s that passed: the machine may be the cause."""
    monkeypatch.setattr(process_pool, "_NOTICE_S", 0.5)
    reports, limits = [], TaskLimits(time_s=100.0, memory_gib=2.0, clock_s=2.0)
    start = time.monotonic()
    ((item, failure),) = run_in_processes(
        _computes_half_of_the_time, ["mesh"], 1, limits, lambda *report: reports.append(report)
    )
    assert time.monotonic() - start < 30 and item == "mesh" and isinstance(failure, TaskFailure)
    assert failure.may_pass_later
    assert re.fullmatch(
        r"not done within 2 s by the clock, of which it computed [012] s: the machine is busy", failure.reason
    )
    assert [name for name, _ in reports] == ["mesh", "mesh"]  # after 0.5 and 1 s
    assert [seconds for _, seconds in reports] == pytest.approx([0.5, 1.0], abs=0.4)


def _killed_once(path):
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_process_that_the_system_killed_is_tried_again(tmp_path):
    """The kernel kills for want of memory, which several processes may have used up together."""
    (result,) = run_in_processes(_killed_once, [tmp_path / "mark"], 2, TaskLimits(60, 4))
    assert result[1] == "done"


def test_without_limits_a_process_that_dies_is_a_failure_and_an_exception_is_raised():
    found = dict(run_in_processes(_misbehave, ["good", "exits"], workers=2))
    assert found["good"] == "GOOD" and isinstance(found["exits"], TaskFailure)
    with pytest.raises(ValueError, match="no such thing"):
        list(run_in_processes(_misbehave, ["raises", "good"], workers=2))


def test_a_script_without_a_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from dexgrasp.utils.process_pool import run_in_processes\n"
        "print('top of the script')\n"
        "print(sorted(dict(run_in_processes(abs, [-1, -2], workers=2)).values()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "top of the script\n[1, 2]\n"


def test_processes_end_when_their_parent_is_killed(tmp_path):
    code = (
        "from pathlib import Path; from tests.utils.test_process_pool import _note_and_wait as task;"
        "from dexgrasp.utils.process_pool import run_in_processes;"
        f"list(run_in_processes(task, [Path({str(tmp_path)!r}, n) for n in 'ab'], workers=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    children = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(children) == 2
    while any(_is_running(child) for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)


def _note_and_wait(path):
    path.with_suffix(".partial").write_text(str(os.getpid()))
    path.with_suffix(".partial").rename(path.with_suffix(".pid"))
    time.sleep(1000)


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
