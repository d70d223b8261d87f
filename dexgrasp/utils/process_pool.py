"""Work spread over processes that survive a bad task."""

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
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def spread(task: Callable[[T], R], items: Sequence[T], workers: int) -> Generator[tuple[T, R | None], None, None]:
    """(item, task(item)) as they finish; (item, None) for an item whose process died (a crash, or out of memory).

    One worker works in this process.  Otherwise processes are spawned with single-threaded numerics; they end when
    this process does, also when it is killed.  Close the generator (contextlib.closing) when you may stop early:
    that drops what has not begun.
    """
    if workers <= 1 or len(items) <= 1:
        for item in items:
            yield item, task(item)
        return
    pending = list(items)
    with _single_threaded():
        with contextlib.closing(_pooled(task, items, workers)) as finished:
            for item, result in finished:
                pending.remove(item)
                yield item, result
        for item in pending:  # a process died: each of the rest gets a pool of its own, so only the culprit fails
            yield item, dict(_pooled(task, [item], 1)).get(item)


def _pooled(task: Callable[[T], R], items: Sequence[T], workers: int) -> Generator[tuple[T, R | None], None, None]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_watch_parent, initargs=(os.getpid(),))
    futures: dict[Future[R], T] = {pool.submit(task, item): item for item in items}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after an interruption: drop what has not begun


def _watch_parent(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means

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
