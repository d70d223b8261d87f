"""Run evaluation, training and the viewer side by side, and fail where memory, handles or threads of one grow.

    python tests/soak/run.py [minutes=120] [interval_s=10] [out=DIR]

Every interval, resident memory, open handles and threads of each command and of its children are stored in
OUT/samples.csv. A page is connected to the viewer all the time and replaced every minute. Samples of the warm-up, the
first quarter of the time but at most 20 minutes, do not count. Of the rest, the median of the last tenth is compared
with the median of the first tenth. Exit status 1: memory grew or shrank by more than 3 %, handles or threads grew, or
a command ended early.
"""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

ROOT = Path(__file__).resolve().parents[2]
# Few objects: the viewer keeps the compiled model of each, about 1 MiB, from its first use on.
WARM_UP_SHARE, WARM_UP_MIN = 0.25, 20.0
MEMORY_SHARE = 0.03
"""Largest change of resident memory after the warm-up, as a share."""
PAGE_S = 60.0
"""Time after which another page replaces the one that is connected to the viewer [s]."""
FOREVER = 1_000_000
"""Trials and iterations that no run of hours reaches."""
COMMANDS = {
    "evaluate": (
        "evaluate",
        "policy=allegro/student",
        "objects=generated:8",
        "num_envs=8",
        f"trials={FOREVER}",
        "num_threads=1",
    ),
    "train": (
        "train",
        "recipe=student",
        "teacher=allegro/teacher",
        "objects=generated:8",
        "validation_objects=generated:8:validation",
        "num_envs=8",
        "num_threads=1",
        "validation_interval=5",
        "validation_trials=8",
        "distillation.gradient_steps=4",
        f"iterations={FOREVER}",
    ),
    "viewer": ("viewer", "policy=allegro/student", "objects=generated:8", "port=0"),
}


@dataclass(frozen=True)
class Sample:
    """Use of one command and its children."""

    time_min: float
    memory_mib: float
    handles: int
    threads: int


@dataclass
class Command:
    """A running command with its samples."""

    name: str
    process: psutil.Popen
    log: Path
    samples: list[Sample] = field(default_factory=list)

    def sample(self, time_min):
        family = [self.process, *self.process.children(recursive=True)]
        memory = sum(each.memory_info().rss for each in family) / 2**20
        handles = sum(each.num_fds() for each in family)
        self.samples.append(Sample(time_min, memory, handles, sum(each.num_threads() for each in family)))


def growth(samples):
    """Return what grew too much over samples in order of time, as text; empty where nothing did."""
    first, last, _ = ends(samples, "memory_mib")
    wrong = ["memory"] if abs(last / first - 1) > MEMORY_SHARE else []
    for name in ("handles", "threads"):
        first, last, _ = ends(samples, name)
        wrong += [name] if last > first else []
    return ", ".join(wrong)


def warm(samples, minutes):
    """Return the samples after the warm-up of a run of so many minutes."""
    return [sample for sample in samples if sample.time_min >= min(WARM_UP_SHARE * minutes, WARM_UP_MIN)]


def start(name, out):
    """Start a command with its log in `out`."""
    arguments = [*COMMANDS[name], *([] if name == "viewer" else [f"out={out / name}"])]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    log = out / f"{name}.log"
    with log.open("w") as sink:
        process = psutil.Popen(
            [sys.executable, "-m", "dexgrasp", *arguments],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
    return Command(name, process, log)


def look_at(viewer, stopped):
    """Receive what the viewer sends, through a new page every minute, until `stopped` is set."""
    import viser
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    while not stopped.is_set():
        found = re.search(r"viewer: http://(\S+?)/?\s", viewer.log.read_text())
        if found is None:
            stopped.wait(1.0)
            continue
        protocol, origin = Subprotocol(f"viser-v{viser.__version__}"), Origin(f"http://{found[1]}")
        try:
            with connect(f"ws://{found[1]}", subprotocols=[protocol], origin=origin, max_size=None) as page:
                end_s = time.monotonic() + PAGE_S
                while not stopped.is_set() and time.monotonic() < end_s:
                    with contextlib.suppress(TimeoutError):
                        page.recv(timeout=1.0)
        except (OSError, ConnectionClosed):
            stopped.wait(1.0)


def ends(samples, name):
    """Return the median of the first and of the last tenth of the samples, and the largest."""
    values, tenth = [getattr(sample, name) for sample in samples], max(1, len(samples) // 10)
    return median(values[:tenth]), median(values[-tenth:]), max(values)


def report(commands, minutes):
    """Print one line per command; return whether nothing grew."""
    print("command   samples   memory [MiB]: first, last, most    change    handles     threads")
    good = True
    for command in commands:
        samples = warm(command.samples, minutes)
        if len(samples) < 10:
            print(f"{command.name:10}{len(samples):7}   too few samples after the warm-up; see {command.log}")
            good = False
            continue
        memory, handles, threads = (ends(samples, name) for name in ("memory_mib", "handles", "threads"))
        wrong = growth(samples)
        print(
            f"{command.name:10}{len(samples):7}{memory[0]:17.1f},{memory[1]:8.1f},{memory[2]:8.1f}"
            f"{memory[1] / memory[0] - 1:+10.2%}{handles[0]:6g} ->{handles[1]:3g}{threads[0]:6g} ->{threads[1]:3g}"
            f"   {'GREW: ' + wrong if wrong else 'flat'}"
        )
        good &= not wrong
    return good


def main(arguments):
    """Run for the asked time; return the exit status."""
    options = {"minutes": "120", "interval_s": "10", "out": ""} | dict(text.split("=", 1) for text in arguments)
    minutes, interval_s = float(options["minutes"]), float(options["interval_s"])
    out = Path(options["out"] or tempfile.mkdtemp(prefix="dexgrasp-soak-")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends with the table, as after Ctrl-C
    begin_s = time.monotonic()
    commands = [start(name, out) for name in COMMANDS]
    stopped = threading.Event()
    page = threading.Thread(target=look_at, args=(commands[-1], stopped))
    page.start()
    print(f"soak: {minutes:g} minutes; logs and samples in {out}", flush=True)
    ended = []
    try:
        with (out / "samples.csv").open("w", newline="") as sink:
            table = csv.writer(sink)
            table.writerow(["command", "time_min", "memory_mib", "handles", "threads"])
            while (time_min := (time.monotonic() - begin_s) / 60) < minutes and not ended:
                for command in commands:
                    command.sample(time_min)
                    s = command.samples[-1]
                    table.writerow([command.name, f"{s.time_min:.3f}", f"{s.memory_mib:.2f}", s.handles, s.threads])
                sink.flush()
                time.sleep(interval_s)
                ended = [command for command in commands if command.process.poll() is not None]
    except KeyboardInterrupt:
        minutes = (time.monotonic() - begin_s) / 60
        print(f"soak: interrupted after {minutes:.0f} minutes")
    finally:
        stopped.set()
        for command in commands:
            if command.process.poll() is None:
                command.process.terminate()
        for command in commands:
            try:
                command.process.wait(120)
            except psutil.TimeoutExpired:
                command.process.kill()
        page.join()
    for command in ended:
        print(f"soak: {command.name} ended early with status {command.process.returncode}: see {command.log}")
    good = report(commands, minutes)
    print(f"soak: {minutes:.0f} minutes, load of the machine {os.getloadavg()[2]:.1f} on {os.cpu_count()} processors")
    return 0 if good and not ended else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
