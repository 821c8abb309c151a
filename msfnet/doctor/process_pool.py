"""Runs a function in worker processes, where a task that crashes or hangs its process does not affect other tasks.

Function, arguments and results are pickled, and workers are spawned, not forked, so that it works on every platform.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

from msfnet.types import UserError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Heartbeat = Callable[[], None]  # a task that takes long calls it, which postpones its timeout

_CONTEXT = multiprocessing.get_context("spawn")
_HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Failure:
    """Why a task has no result.

    Attributes:
        kind: `crash` (its process died), `timeout` (neither a heartbeat nor a result in time) or `exception`.
        detail: One line: `signal 11` or `exit code 1`; the timeout; type and message of the exception.
    """

    kind: Literal["crash", "timeout", "exception"]
    detail: str


class _Signal(Enum):
    """Messages of a worker process that are no results: it has started, or it is still at work."""

    HEARTBEAT = "heartbeat"


def imap_unordered(
    function: Callable[[Argument, Heartbeat], Result],
    arguments: Sequence[Argument],
    *,
    processes: int,
    timeout_seconds: float,
) -> Iterator[tuple[int, Result | Failure]]:
    """Call `function(argument, heartbeat)` on every argument, as `multiprocessing.Pool.imap_unordered` does.

    A worker process that dies, or that sends neither a heartbeat nor a result for `timeout_seconds`, is replaced, and
    only the task that it was working on has no result. All processes end with the iterator.

    Args:
        function: What to call; a function of a module, so that it can be pickled.
        arguments: One argument per task.
        processes: Number of worker processes.
        timeout_seconds: Longest time between two heartbeats of a task.

    Yields:
        Index and result of each task, in the order in which tasks end.

    Raises:
        UserError: Worker processes cannot be started, as in a script without a guard of its main module.
    """
    tasks = deque(enumerate(arguments))
    workers: list[_Worker[Argument, Result]] = []
    try:
        for _ in range(min(processes, len(tasks))):
            workers.append(_Worker(function, timeout_seconds))
        while tasks or any(worker.task is not None for worker in workers):
            for position, worker in enumerate(workers):
                if tasks and worker.task is None:
                    if worker.dead:
                        workers[position] = worker = _Worker(function, timeout_seconds)
                    worker.submit(*tasks.popleft())
            busy = [worker for worker in workers if worker.task is not None]
            wait([worker.connection for worker in busy], timeout=_HEARTBEAT_SECONDS)
            for worker in busy:
                yield from worker.results()
    finally:
        for worker in workers:
            worker.kill()


class _Worker(Generic[Argument, Result]):
    """One worker process, and the index of the task that it is working on: `task`, None while it is idle."""

    def __init__(self, function: Callable[[Argument, Heartbeat], Result], timeout_seconds: float) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.timeout_seconds = timeout_seconds
        self.task: int | None = None
        self.started = self.dead = False
        self.deadline = math.inf  # importing modules in a new process is not the task's time

    def submit(self, index: int, argument: Argument) -> None:
        self.task = index
        if self.started:
            self.deadline = time.monotonic() + self.timeout_seconds
        with suppress(OSError):  # a process that died while it was idle: `results` finds out
            self.connection.send(argument)

    def results(self) -> Iterator[tuple[int, Result | Failure]]:
        """Yield the result of the task if it has ended."""
        try:
            while self.task is not None and self.connection.poll():
                message = self.connection.recv()
                self.started, self.deadline = True, time.monotonic() + self.timeout_seconds
                if message is not _Signal.HEARTBEAT:
                    yield self._end_task(message)
        except (EOFError, OSError):
            self.process.join()
            if not self.started:
                raise UserError(
                    "worker processes cannot be started; a script that calls this needs `if __name__ == '__main__':`"
                ) from None
            yield self._end_task(Failure("crash", _describe_exit(self.process.exitcode)))
            self.kill()
        if self.task is not None and time.monotonic() > self.deadline:
            self.kill()
            yield self._end_task(Failure("timeout", f"{self.timeout_seconds:.0f} seconds"))

    def _end_task(self, result: Result | Failure) -> tuple[int, Result | Failure]:
        task, self.task = self.task, None
        assert task is not None
        return task, result

    def kill(self) -> None:
        self.dead = True
        self.process.kill()
        self.process.join()
        self.connection.close()


def _describe_exit(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, function: Callable[[Any, Heartbeat], Any]) -> None:
    """Run a worker process: receive arguments and send results until the parent process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    last_sent = 0.0

    def heartbeat() -> None:
        nonlocal last_sent
        if time.monotonic() - last_sent > _HEARTBEAT_SECONDS:
            last_sent = time.monotonic()
            connection.send(_Signal.HEARTBEAT)

    try:
        connection.send(_Signal.HEARTBEAT)
        while True:
            argument = connection.recv()
            try:
                result = function(argument, heartbeat)
            except Exception as error:  # any: one task must not end the others
                result = Failure("exception", f"{type(error).__name__}: {' '.join(str(error).split())}")
            connection.send(result)
    except (EOFError, OSError):
        return
