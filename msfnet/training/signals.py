"""SIGTERM and Ctrl-C as wishes that a run grants between two steps. Knows signals, not what is done with them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and did, at a moment that it can go on from."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class StopRequests:
    """What was asked for so far. Outside of `held` blocks a request raises Interrupted at once; within, it waits there."""

    def __init__(self) -> None:
        self.wanted = 0  # the signal's number
        self.holding = False

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.wanted == signal_number == signal.SIGINT:  # Ctrl-C twice: at once, and nothing is saved
            raise KeyboardInterrupt
        self.wanted = signal_number
        if not self.holding:
            raise Interrupted(signal_number)

    @contextmanager
    def held(self, hold: bool = True) -> Iterator[None]:
        """What is in the block is not interrupted (or with `hold` false, in the midst of what is not: it is)."""
        before, self.holding = self.holding, hold
        try:
            if self.wanted and not hold:
                raise Interrupted(self.wanted)
            yield
        finally:
            self.holding = before


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Take the signals for as long as the block lasts. In other threads than the main one none arrive."""
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.signal(number, requests.handle) for number in SIGNALS}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
