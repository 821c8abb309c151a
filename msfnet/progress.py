"""Progress of long work: a bar with the time left in a terminal or notebook, and lines of the log elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

LINES = 10  # lines of the log per task, if it takes long enough
LINE_SECONDS = 10.0  # shortest time between two lines

Advance = Callable[[int], None]


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Report the progress of one task, where messages of level INFO are logged.

    Args:
        title: What is being done, such as `epoch 3/40`.
        total: Number of steps of the task.
        done: Steps that were done before, by an interrupted run.

    Yields:
        A function that advances the task by a number of steps.
    """
    if not log.isEnabledFor(logging.INFO):
        yield lambda n: None
    elif sys.stderr.isatty() or "ipykernel" in sys.modules:
        with _bar(title, total, done) as advance:
            yield advance
    else:
        yield _lines(title, total, done)


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total, completed=done)
        yield lambda n: bars.advance(task, n)


def _lines(title: str, total: int, done: int) -> Advance:
    started = logged = time.monotonic()
    first, tenth = done, done * LINES // max(total, 1)

    def advance(n: int) -> None:
        nonlocal done, tenth, logged
        done += n
        now = time.monotonic()
        if done * LINES // max(total, 1) > tenth and now - logged >= LINE_SECONDS:
            tenth, logged = done * LINES // max(total, 1), now
            left_minutes = (now - started) / (done - first) * (total - done) / 60
            log.info("%s: %d of %d, %.0f min left", title, done, total, left_minutes)

    return advance
