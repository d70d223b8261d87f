"""Run a task for many items in separate processes; a crash or an exceeded limit costs one item."""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_HEAVY = ["numpy", "scipy.spatial", "trimesh", "manifold3d", "mujoco"]
"""Packages that the first process imports for all later ones, which start by a fork of it."""
_NOTICE_S = 5.0
"""Time after which a task that still runs is reported; again after twice the time, and so on."""
_IDLE_SHARE = 0.01
"""Share of the clock's time below which a process does not compute: on a busy machine it gets little more."""


@dataclass(frozen=True)
class TaskLimits:
    """Limits of one task; a task that exceeds one is ended, also in native code."""

    time_s: float
    """Longest computing time; a task that hardly computes is ended after this time by the clock."""
    memory_gib: float
    """Largest address space of a process."""
    clock_s: float = float("inf")
    """Longest time by the clock, which on a busy machine is longer than the computing time."""


@dataclass(frozen=True)
class TaskFailure:
    """Outcome of a task that gave no result."""

    reason: str
    """Cause in one line: a signal, an exit status or a limit."""
    may_pass_later: bool = False
    """Whether the cause may lie in the machine, which was busy, and not in the item."""


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_in_processes(
    task: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    limits: TaskLimits | None = None,
    notice: Callable[[T, float], None] | None = None,
) -> Generator[tuple[T, R | TaskFailure], None, None]:
    """Yield (item, task(item)) in order of completion, or (item, TaskFailure) where there is no result.

    `notice(item, seconds)` is called in this process for a task that takes longer than some seconds.

    Without limits, and with one worker or one item, the task runs in this process. Otherwise processes are started with
    single-threaded numerics; they end with this process, even if it is killed. Exceptions of the task are raised here.
    Close the generator (`contextlib.closing`) if you may stop early: running tasks are then killed.
    """
    if limits is None and (workers <= 1 or len(items) <= 1):
        for item in items:
            yield item, task(item)
        return
    killed = []
    with contextlib.closing(_run(task, items, workers, limits, notice)) as finished:
        for item, result in finished:
            if isinstance(result, _Killed):
                killed.append(item)
            else:
                yield item, result
    # the system sends SIGKILL when memory is short: once more, alone
    with contextlib.closing(_run(task, killed, 1, limits, notice)) as finished:
        yield from finished


class _Killed(TaskFailure):
    """Failure by a signal from outside, which says nothing about the task."""


def _run(
    task: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    limits: TaskLimits | None,
    notice: Callable[[T, float], None] | None,
) -> Generator[tuple[T, R | TaskFailure], None, None]:
    todo = deque(items)
    idle: list[_Worker[T, R]] = []
    busy: list[_Worker[T, R]] = []
    try:
        while todo or busy:
            while todo and len(busy) < workers:
                busy.append(idle.pop() if idle else _Worker(task, limits))
                busy[-1].give(todo.popleft())
            wait_s = min(min(worker.left_s(), worker.notice_in_s(notice is not None)) for worker in busy)
            connection.wait([worker.pipe for worker in busy], None if wait_s == float("inf") else max(wait_s, 0.0))
            for worker in list(busy):
                outcome = worker.outcome()
                if outcome is None:
                    if notice and worker.notice_in_s() <= 0:
                        notice(worker.item, worker.noticed_s())
                    continue
                busy.remove(worker)
                if worker.alive:
                    idle.append(worker)
                yield worker.item, outcome[0]
    finally:
        with _without_signals():
            for worker in [*busy, *idle]:
                worker.kill()


class _Worker(Generic[T, R]):
    """One process that performs one task after the other."""

    item: T

    def __init__(self, task: Callable[[T], R], limits: TaskLimits | None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_HEAVY)
        self.limits, self.alive = limits, True
        self._started_s = self._check_s = self._used_s = 0.0
        self._notice_s = _NOTICE_S
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, task, limits), daemon=True)
        try:
            with _without_signals(), _single_threaded(), _without_main_module():
                self._process.start()
                theirs.close()
            self.pipe.recv()  # it is ready
        except (EOFError, OSError) as error:
            self.kill()
            status = self._process.exitcode
            raise ChildProcessError(f"a worker process could not be started (exit status {status})") from error
        except BaseException:
            self.kill()
            raise

    def give(self, item: T) -> None:
        """Start the task for an item."""
        self.item, self._started_s, self._used_s = item, time.monotonic(), self._computing_s()
        self._notice_s = _NOTICE_S
        self._check_s = self._started_s + (
            min(self.limits.time_s, self.limits.clock_s) if self.limits else float("inf")
        )
        with contextlib.suppress(BrokenPipeError):  # the process died while idle: `outcome` says so
            self.pipe.send(item)

    def left_s(self) -> float:
        """Return the time until the limit may be reached."""
        return self._check_s - time.monotonic()

    def notice_in_s(self, is_wanted: bool = True) -> float:
        """Return the time until the task is to be reported."""
        return self._started_s + self._notice_s - time.monotonic() if is_wanted else float("inf")

    def noticed_s(self) -> float:
        """Return the time that the task has taken by the clock, and set the time of the next report."""
        self._notice_s *= 2
        return time.monotonic() - self._started_s

    def outcome(self) -> tuple[R | TaskFailure] | None:
        """Return the result or the failure of the task, None while it runs; raise its exception."""
        if not self.pipe.poll():
            failure = self._time_failure(self.limits) if self.limits and self.left_s() <= 0 else None
            if failure is None:
                return None
            self.kill()
            return (failure,)
        try:
            result, error = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            self.kill()
            return (_failure(self._process.exitcode, self.limits),)
        if error is not None:
            raise error
        return (result,)

    def _time_failure(self, limits: TaskLimits) -> TaskFailure | None:
        """Return the failure of a task that has exceeded a limit of time; else set the time of the next look."""
        used_s, clock_s = self._computing_s() - self._used_s, time.monotonic() - self._started_s
        if used_s >= limits.time_s or (used_s <= _IDLE_SHARE * clock_s and clock_s >= limits.time_s):
            return TaskFailure(f"not done within {limits.time_s:g} s")
        if clock_s >= limits.clock_s:
            busy = f"not done within {limits.clock_s:g} s by the clock, of which it computed {used_s:.0f} s"
            return TaskFailure(f"{busy}: the machine is busy", may_pass_later=True)
        self._check_s = time.monotonic() + min(max(limits.time_s - used_s, 1.0), limits.clock_s - clock_s)
        return None

    def _computing_s(self) -> float:
        """Return the CPU time of the process [s]."""
        try:
            with open(f"/proc/{self._process.pid}/stat") as file:
                numbers = file.read().rpartition(")")[2].split()
        except OSError:  # it ended
            return 0.0
        return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End the process at once."""
        self.alive = False
        with _without_signals():
            if self._process.pid is not None:
                self._process.kill()
                self._process.join(5)
            self.pipe.close()


def _failure(exit_code: int | None, limits: TaskLimits | None) -> TaskFailure:
    code = exit_code or 0
    memory = f" (a crash, or more than {limits.memory_gib:g} GiB of memory)" if limits else " (a crash)"
    if code >= 0:
        return TaskFailure(f"its process ended with status {code}{memory}")
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    if -code in (signal.SIGKILL, signal.SIGTERM):
        return _Killed(f"its process was killed twice ({name}); is memory short?")
    return TaskFailure(f"its process died of {name}{memory}")


def _serve(pipe: Any, task: Callable[[T], R], limits: TaskLimits | None) -> None:
    """Perform tasks until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and kills this process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if limits is not None:
        _limit(resource.RLIMIT_AS, int(limits.memory_gib * 2**30))
        _limit(resource.RLIMIT_CORE, 0)
        if os.environ.get("DEXGRASP_DEBUG") != "1":  # what native code prints before it dies is no message for users
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        pipe.send(None)
        while True:
            item = pipe.recv()
            if limits is not None:  # ends native code that outlives the parent
                used = resource.getrusage(resource.RUSAGE_SELF)
                _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + 2 * limits.time_s) + 1)
            try:
                answer = task(item), None
            except MemoryError as error:
                reason = f"more than {limits.memory_gib:g} GiB of memory" if limits else ""
                answer = (TaskFailure(reason), None) if limits else (None, error)
            except Exception as error:
                answer = None, error
            _send(pipe, answer)


def _send(pipe: Any, answer: tuple[Any, Exception | None]) -> None:
    try:
        pipe.send(answer)
    except OSError:
        raise
    except Exception as error:  # it cannot be pickled
        pipe.send((None, RuntimeError(f"{type(error).__name__}: {error}; answer {str(answer)[:200]}")))


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back for a moment; they are handled afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep new processes from running the user's script again, which may lack a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
