"""Progress of long work: a bar on a terminal, else a plain line every few seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

LINE_EVERY_S = 5.0
T = TypeVar("T")


def track(items: Iterable[T], total: int, label: str, show: bool = True) -> Iterator[T]:
    """The items again, with count, rate and time left on stderr."""
    if not show:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=label)
    else:
        yield from _lines(items, total, label)


def _lines(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= LINE_EVERY_S:
            said, rate = now, done / (now - start)
            left_s = (total - done) / rate
            print(f"{label}: {done}/{total}, {rate:.1f}/s, {left_s:.0f} s left", file=sys.stderr, flush=True)
