"""Show the progress of long work: a bar on a terminal, otherwise a plain line every few seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

LINE_EVERY_S = 5.0
T = TypeVar("T")


class Interval:
    """Clock that says when the next line about long work is due."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self) -> bool:
        """Return whether LINE_EVERY_S have passed since the start or the last True."""
        now_s = time.monotonic()
        if now_s - self._last_s < LINE_EVERY_S:
            return False
        self._last_s = now_s
        return True


class Progress:
    """Show on stderr how many of `total` equal steps are done, at which rate, and the time left.

    with Progress(len(trials), "evaluate") as progress:
        for trial in trials:
            progress.advance()
    """

    def __init__(self, total: int, what: str, done: int = 0) -> None:
        """`done`: steps finished by an earlier run; they count in the share done, not in the rate."""
        self.total, self.what, self.done, self._from = total, what, done, done
        self._note, self._printed = "", done
        self._started_s = self._line_s = time.monotonic()
        self._bar = _terminal_bar() if sys.stderr.isatty() else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished steps.

        `note` is shown after the counts, for instance the current success rate.
        """
        self.done += count
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=self._note)
        elif time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._print_line()

    def tell(self, note: str) -> None:
        """Show a note now, for instance which step takes long, until the next step is done."""
        if self._bar is not None:
            self._bar.update(self._task, note=note)
        else:
            print(f"{self.what}: {self.done}/{self.total}, {note}", file=sys.stderr, flush=True)

    def tell_sometimes(self, note: str) -> None:
        """Show a note, on a terminal at once, else where the last line is LINE_EVERY_S old."""
        if self._bar is not None:
            self._bar.update(self._task, note=note)
        elif time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            self.tell(note)

    def rate_hz(self) -> float:
        """Return the steps per second since the start of this run."""
        return (self.done - self._from) / max(time.monotonic() - self._started_s, 1e-9)

    def __enter__(self) -> "Progress":
        self._started_s = self._line_s = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self._from, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.done > self._printed:
            self._print_line()

    def _print_line(self) -> None:
        self._line_s, self._printed = time.monotonic(), self.done
        share = 100 * self.done / self.total if self.total else 100
        rate_hz = self.rate_hz()
        left = f"{(self.total - self.done) / rate_hz:.0f} s left" if rate_hz > 0 else "time left unknown"
        note = f", {self._note}" if self._note else ""
        line = f"{self.what}: {self.done}/{self.total} ({share:.0f} %), {rate_hz:.1f}/s, {left}{note}"
        print(line, file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, what: str, show: bool = True) -> Iterator[T]:
    """Yield `items` and show the progress on stderr unless `show` is false."""
    if not show:
        yield from items
        return
    with Progress(total, what) as progress:
        for item in items:
            yield item
            progress.advance()


def _terminal_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    shown = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()]
    return Bar(*shown, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
