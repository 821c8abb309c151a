"""Timing functions in turn, and what the times say. Knows functions and a clock, and nothing of networks.

A machine is seldom quiet: its speed drifts with its temperature and with whatever else runs. Where every round times
each function, a drift hits all of them alike, and the ratio of two within a round says more than that of their medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

TURN_SECONDS = 0.2  # a function that takes less is called again within its turn


@dataclass(frozen=True)
class Times:
    """The seconds of each call of one function: a sequence a round, of one call or more."""

    rounds: Sequence[Sequence[float]]

    @property
    def calls(self) -> list[float]:
        return [seconds for calls in self.rounds for seconds in calls]

    def quantile(self, share: float) -> float:
        """The seconds that this share of all calls does not exceed, between two calls in proportion."""
        ordered = sorted(self.calls)
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    @property
    def median_seconds(self) -> float:
        return self.quantile(0.5)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as another function: median, least and most over the rounds."""

    median: float
    least: float
    most: float


def ratio(reference: Times, other: Times) -> Ratio:
    """Of two functions that were timed in the same rounds: the reference's seconds by the other's, round by round."""
    each = [median(a) / median(b) for a, b in zip(reference.rounds, other.rounds, strict=True)]
    return Ratio(median(each), min(each), max(each))


def time_in_turn(
    functions: Mapping[Key, Callable[[], object]],
    rounds: int,
    *,
    turn_seconds: float = TURN_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Times]:
    """Call every function in every round, again and again until its turn has lasted so long: its times.

    Each is called once before the first round, uncounted. Every other round goes backwards, so that none always
    follows the same one.
    """
    for function in functions.values():
        function()
    times: dict[Key, list[list[float]]] = {name: [] for name in functions}
    order = list(functions)
    for _ in range(rounds):
        for name in order:
            times[name].append(_turn(functions[name], turn_seconds, clock))
        order.reverse()
    return {name: Times(found) for name, found in times.items()}


def _turn(function: Callable[[], object], turn_seconds: float, clock: Callable[[], float]) -> list[float]:
    seconds: list[float] = []
    while not seconds or sum(seconds) < turn_seconds:
        started = clock()
        function()
        seconds.append(clock() - started)
    return seconds
