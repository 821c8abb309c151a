"""Progress of long work in the log, as a bar, and not at all."""

import io
import logging
import sys

import pytest
from conftest import logged

from msfnet import progress as progress_module
from msfnet.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: a list whose last value is the time in seconds."""
    times = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: times[-1])
    return times


def lines_of(clock, total, done, seconds_per_step):
    lines = []
    with logged(lines.append), progress("reading", total, done) as advance:
        for _ in range(total - done):
            clock.append(clock[-1] + seconds_per_step)
            advance(1)
    return lines


def test_a_long_task_logs_a_line_for_each_tenth(clock):
    lines = lines_of(clock, 20, 0, 60)
    assert len(lines) == 10
    assert lines[0] == "reading: 2 of 20, 18 min left"
    assert lines[-1] == "reading: 20 of 20, 0 min left"


def test_the_time_left_counts_only_the_steps_of_this_process(clock):
    """Half was done by an interrupted run, in no time that this one knows."""
    assert lines_of(clock, 20, 10, 60)[0] == "reading: 12 of 20, 8 min left"


def test_a_short_task_logs_nothing(clock):
    assert lines_of(clock, 100, 0, 0.01) == []


def test_lines_are_at_least_ten_seconds_apart(clock):
    """A tenth takes 5 seconds, so that every other one is logged."""
    assert len(lines_of(clock, 100, 0, 0.5)) == 5


def test_an_empty_task_is_possible(clock):
    assert lines_of(clock, 0, 0, 1) == []


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, lines = Terminal(), []
    monkeypatch.setattr(sys, "stderr", terminal)
    with logged(lines.append), progress("reading", 3) as advance:
        advance(2)
    assert "reading" in terminal.getvalue()
    assert lines == []


def test_a_quiet_program_reports_nothing(monkeypatch, clock):
    monkeypatch.setattr(logging.getLogger("msfnet"), "level", logging.WARNING)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    monkeypatch.setattr(logging.getLogger("msfnet"), "handlers", [handler])
    logging.getLogger("msfnet").manager._clear_cache()
    with progress("reading", 2) as advance:
        clock.append(1000.0)
        advance(2)
    assert records == []
