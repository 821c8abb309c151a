"""Measures the parts of training steps without making the CPU wait for the GPU."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

import torch

from msfnet.run_folder import TIMED_PARTS


@dataclass(frozen=True)
class _Span:
    """Time between two events on the GPU, which has been queued; at most `limit_seconds` of it count."""

    part: str
    start: torch.cuda.Event
    end: torch.cuda.Event
    limit_seconds: float = inf


class StepTimer:
    """Seconds that the parts of steps took: on the wall clock of a CPU, between CUDA events on a GPU.

    A GPU computes long after the call that asked for it has returned. Its events are read once they are complete, some
    steps later.

    Args:
        device: Where the network is.

    Attributes:
        seconds: Sum of each part of `TIMED_PARTS`, complete after `finish`.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(TIMED_PARTS, 0.0)
        self._on_gpu = device.type == "cuda"
        self._spans: deque[_Span] = deque()
        self._last: torch.cuda.Event | None = None  # the end of the last part that was queued

    def reset(self) -> None:
        """Start again from zero, as at the start of an epoch."""
        self.finish()
        self.seconds = dict.fromkeys(TIMED_PARTS, 0.0)

    def add(self, part: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.seconds[part] += seconds

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Measure what the block computes on the device."""
        if not self._on_gpu:
            started = time.monotonic()
            yield
            self.seconds[part] += time.monotonic() - started
            return
        start = _record()
        yield
        self._last = _record()
        self._spans.append(_Span(part, start, self._last))
        self._read_complete()

    @contextmanager
    def measure_wait(self, part: str) -> Iterator[None]:
        """Measure how long the device had nothing to do while the block waited for something else, such as data."""
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        if self._last is None:
            self.seconds[part] += seconds
            return
        previous, self._last = self._last, _record()  # their distance is the time for which the GPU was idle
        self._spans.append(_Span(part, previous, self._last, seconds))

    def finish(self) -> None:
        """Wait until everything that was measured is complete."""
        if self._spans:
            self._spans[-1].end.synchronize()
            self._read_complete()

    def _read_complete(self) -> None:
        while self._spans and self._spans[0].end.query():
            span = self._spans.popleft()
            self.seconds[span.part] += min(span.start.elapsed_time(span.end) / 1000, span.limit_seconds)


def _record() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
