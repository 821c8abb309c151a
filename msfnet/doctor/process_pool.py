"""Work in processes of its own: what crashes a process, or never ends, costs one piece of work and not the run.

Knows nothing of videos. The function and its arguments are pickled; processes are spawned, so it works everywhere.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from msfnet.types import UserError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Beat = Callable[[], None]  # called while work goes on, so that long work can be told from work that hangs

_CONTEXT = multiprocessing.get_context("spawn")
_BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Lost:
    """A piece of work that gave no result, and why."""

    reason: str


def cores() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # only Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def isolated(
    function: Callable[[Argument, Beat], Result],
    arguments: Sequence[Argument],
    *,
    processes: int,
    silence_seconds: float,
) -> Iterator[tuple[int, Result | Lost]]:
    """`function(argument, beat)` of every argument, as each is ready: its position and its result.

    A process that dies, or says nothing (neither beat nor result) for `silence_seconds`, is replaced, and what it was
    at is Lost; so is what raises an exception. Raises UserError when processes cannot be started at all.
    """
    waiting = deque(enumerate(arguments))
    workers: list[_Worker[Argument, Result]] = []
    try:
        for _ in range(min(processes, len(waiting))):
            workers.append(_Worker(function, silence_seconds))
        while waiting or any(worker.index is not None for worker in workers):
            for position, worker in enumerate(workers):
                if worker.index is None and waiting:
                    if worker.dead:
                        workers[position] = worker = _Worker(function, silence_seconds)
                    worker.give(*waiting.popleft())
            busy = [worker for worker in workers if worker.index is not None]
            wait([worker.connection for worker in busy], timeout=_BEAT_SECONDS)
            for worker in busy:
                yield from worker.take()
    finally:
        for worker in workers:
            worker.kill()


class _Worker(Generic[Argument, Result]):
    """One process, and the piece of work it is at (`index`, None when it is idle)."""

    def __init__(self, function: Callable[[Argument, Beat], Result], silence_seconds: float) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.silence_seconds = silence_seconds
        self.index: int | None = None
        self.deadline = 0.0
        self.dead = False
        try:
            self.connection.recv()  # it has started
        except (EOFError, OSError):
            raise UserError(
                "worker processes cannot be started; a script that calls this needs `if __name__ == '__main__':`"
            ) from None

    def give(self, index: int, argument: Argument) -> None:
        self.index, self.deadline = index, time.monotonic() + self.silence_seconds
        with suppress(OSError):  # it may have died while idle: `take` will find that out
            self.connection.send(argument)

    def take(self) -> Iterator[tuple[int, Result | Lost]]:
        """The result of its work, where there is one now."""
        assert self.index is not None
        try:
            while self.index is not None and self.connection.poll():
                self.deadline = time.monotonic() + self.silence_seconds
                message = self.connection.recv()
                if message is not None:
                    yield self._done(message)
        except (EOFError, OSError):
            self.process.join()
            yield self._done(Lost(f"crashed the decoder ({_ended(self.process.exitcode)})"))
            self.kill()
        if self.index is not None and time.monotonic() > self.deadline:
            self.kill()
            yield self._done(Lost(f"nothing came of it for {self.silence_seconds:.0f} seconds"))

    def _done(self, result: Result | Lost) -> tuple[int, Result | Lost]:
        index, self.index = self.index, None
        assert index is not None
        return index, result

    def kill(self) -> None:
        self.dead = True
        self.process.kill()
        self.process.join()
        self.connection.close()


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code}"
    return f"exit code {code}"


def _serve(connection: Connection, function: Callable[[Any, Beat], Any]) -> None:
    """A worker process: takes arguments and sends results until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    last_beat = 0.0

    def beat() -> None:
        nonlocal last_beat
        if time.monotonic() - last_beat > _BEAT_SECONDS:
            last_beat = time.monotonic()
            connection.send(None)

    try:
        connection.send(None)
        while True:
            argument = connection.recv()
            try:
                result = function(argument, beat)
            except Exception as error:
                result = Lost(f"{type(error).__name__}: {' '.join(str(error).split())}")
            connection.send(result)
    except (EOFError, OSError):
        return
