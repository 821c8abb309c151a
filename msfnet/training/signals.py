"""Defers SIGTERM and SIGINT until training is between two steps, where it can be interrupted and resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from msfnet.types import Interrupted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT") if hasattr(signal, name))


class SignalHandler:
    """Remembers a signal while it is deferred, and raises Interrupted for it at once where it is not.

    Attributes:
        received: Number of the signal that arrived last; 0 if none has.
    """

    def __init__(self) -> None:
        self.received = 0
        self._deferring = False

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Handle a signal; `signal.signal` calls this."""
        if self.received == signal_number == signal.SIGINT:  # a second Ctrl-C ends the run without saving its state
            raise KeyboardInterrupt
        self.received = signal_number
        if not self._deferring:
            raise Interrupted(signal_number)

    @contextmanager
    def deferred(self, defer: bool = True) -> Iterator[None]:
        """Defer signals that arrive within the block; with `defer` false, let them interrupt a part of such a block."""
        before, self._deferring = self._deferring, defer
        try:
            if self.received and not defer:
                raise Interrupted(self.received)
            yield
        finally:
            self._deferring = before


@contextmanager
def handle_signals() -> Iterator[SignalHandler]:
    """Handle signals within the block; outside the main thread, to which Python delivers them, this does nothing."""
    handler = SignalHandler()
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    before = {number: signal.signal(number, handler.handle) for number in SIGNALS}
    try:
        yield handler
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
