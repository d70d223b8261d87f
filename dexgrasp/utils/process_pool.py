"""Run a task for many items in spawned processes; a process that crashes loses its own item only."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_in_processes(
    task: Callable[[T], R], items: Sequence[T], workers: int
) -> Generator[tuple[T, R | None], None, None]:
    """Yield (item, task(item)) in order of completion, or (item, None) where the process died.

    With one worker or one item the task runs in this process. Otherwise processes are spawned with single-threaded
    numerics; they end with this process, even if it is killed. Close the generator (`contextlib.closing`) if you may
    stop early: items that have not started are then cancelled.
    """
    if workers <= 1 or len(items) <= 1:
        for item in items:
            yield item, task(item)
        return
    pending = list(items)
    with _single_threaded():
        with contextlib.closing(_run_in_pool(task, items, workers)) as finished:
            for item, result in finished:
                pending.remove(item)
                yield item, result
        for item in pending:  # after a crash: one pool per remaining item, so that only the crashing one fails
            yield item, dict(_run_in_pool(task, [item], 1)).get(item)


def _run_in_pool(task: Callable[[T], R], items: Sequence[T], workers: int) -> Generator[tuple[T, R], None, None]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),))
    futures: dict[Future[R], T] = {pool.submit(task, item): item for item in items}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after an interruption: cancel what has not started


def _end_with_parent(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
