"""Times functions alternately and compares their times.

The speed of a machine drifts with its temperature and with other processes. If every repeat times each function once,
a drift affects all of them equally, and the ratio of two functions within a repeat is more precise than the ratio of
their medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

MIN_SECONDS = 0.2  # a function that is faster is called several times per repeat


@dataclass(frozen=True)
class Times:
    """The durations of all calls of one function.

    Attributes:
        repeats: In seconds, one sequence per repeat of one call or more.
    """

    repeats: Sequence[Sequence[float]]

    @property
    def calls(self) -> list[float]:
        """The durations of all calls in seconds."""
        return [seconds for calls in self.repeats for seconds in calls]

    def quantile(self, share: float) -> float:
        """Return a quantile of all calls in seconds, interpolated linearly.

        Args:
            share: From 0 (minimum) to 1 (maximum).
        """
        ordered = sorted(self.calls)
        position = share * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    @property
    def median_seconds(self) -> float:
        """The median of all calls."""
        return self.quantile(0.5)


@dataclass(frozen=True)
class Speedup:
    """How many times as fast a function is as another: median, minimum and maximum over the repeats."""

    median: float
    min: float
    max: float


def speedup(reference: Times, other: Times) -> Speedup:
    """Return the speedup of a function over a reference that was timed in the same repeats.

    Args:
        reference: Times of the reference.
        other: Times of the function.
    """
    ratios = [median(a) / median(b) for a, b in zip(reference.repeats, other.repeats, strict=True)]
    return Speedup(median(ratios), min(ratios), max(ratios))


def time_alternately(
    functions: Mapping[Key, Callable[[], object]],
    repeats: int,
    *,
    min_seconds: float = MIN_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Times]:
    """Time every function once per repeat, after a first call that is not counted.

    Every second repeat runs in reverse order, so that no function always follows the same one.

    Args:
        functions: The functions by name.
        repeats: How often each function is timed.
        min_seconds: In each repeat a function is called until this time has passed.
        clock: Returns the time in seconds.
    """
    for function in functions.values():
        function()
    times: dict[Key, list[list[float]]] = {name: [] for name in functions}
    order = list(functions)
    for _ in range(repeats):
        for name in order:
            times[name].append(_time_calls(functions[name], min_seconds, clock))
        order.reverse()
    return {name: Times(found) for name, found in times.items()}


def _time_calls(function: Callable[[], object], min_seconds: float, clock: Callable[[], float]) -> list[float]:
    seconds: list[float] = []
    while not seconds or sum(seconds) < min_seconds:
        started = clock()
        function()
        seconds.append(clock() - started)
    return seconds
