"""Signals that are deferred, granted and insisted on."""

import signal
import threading

import pytest

from msfnet.training.signals import handle_signals
from msfnet.types import Interrupted


def test_a_deferred_signal_waits_until_it_is_allowed():
    with handle_signals() as handler, handler.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert handler.received == signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"), handler.deferred(False):
            raise AssertionError("a signal that waits interrupts before anything else begins")


def test_a_signal_interrupts_at_once_where_it_is_not_deferred():
    with handle_signals(), pytest.raises(Interrupted) as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.signal_number == signal.SIGTERM


def test_a_second_interrupt_does_not_wait():
    """Ctrl-C twice ends a run without saving its state, and is no Interrupted."""
    with handle_signals() as handler, handler.deferred():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as insisted:
            signal.raise_signal(signal.SIGINT)
        assert type(insisted.value) is KeyboardInterrupt


def test_the_handlers_of_before_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with handle_signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    with pytest.raises(ZeroDivisionError), handle_signals():
        _ = 1 / 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_another_thread_handles_none():
    """Python allows handlers in the main thread alone."""
    seen = []

    def work():
        with handle_signals() as handler, handler.deferred():
            seen.append(handler.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]
