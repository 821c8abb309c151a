"""Who reads which samples of the shards, and in which order: a pure function of sizes, seed, epoch and reader.

Integers in, indices out. Nothing is opened here.

An epoch is one line of all samples: shard after shard, the shards in an order drawn from seed and epoch. Each rank
takes an equal stretch of it, each of its workers a stretch of that, so that a reader streams few shards and those from
one end. Within its stretch a worker yields samples in a drawn order in which each moves by less than a window.

The rule for what does not divide: in training the last stretch goes on at the start of the line, so that every rank
yields as many samples as every other, and fewer than the number of ranks are seen twice. In scoring none is seen
twice, and the stretches differ by one sample at most. Samples go to workers a whole batch at a time, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msfnet.types import Ints


@dataclass(frozen=True)
class Reader:
    """One of the processes that read an epoch together: a worker of a rank."""

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Route:
    """A reader's way: `line` holds sample numbers in the order they are read, `order` places on it as yielded."""

    line: Ints
    order: Ints

    def samples(self) -> Ints:
        """Sample numbers in the order they are yielded."""
        return self.line[self.order]


@dataclass(frozen=True)
class Visit:
    """One passage through a shard: the samples wanted of it, rising, and their places on the route's line."""

    shard: int
    samples: tuple[int, ...]  # numbers within the shard
    places: tuple[int, ...]


def training_length(n_samples: int, ranks: int) -> int:
    """The samples that each rank yields in an epoch of training."""
    return -(-n_samples // ranks)


def scored_stretch(n_samples: int, rank: int, ranks: int) -> tuple[int, int]:
    """Where a rank's part of a split to score starts and stops."""
    return n_samples * rank // ranks, n_samples * (rank + 1) // ranks


def training_route(
    sizes: Sequence[int], reader: Reader, *, batch: int, seed: int, epoch: int, window: int, done: int = 0
) -> Route:
    """A reader's route through one epoch of shards of these sizes.

    `done` samples of the rank's are left out: what it has seen already, whole batches of it. The other readers must be
    as many as they were; workers are then renumbered so that batches come in the order that they would have had.
    """
    length = training_length(sum(sizes), reader.ranks)
    role, skipped = _resumed(reader, batch, done, length)
    start, stop = _worker_stretch(length, batch, role, reader.workers)
    first = reader.rank * length + start
    line = _epoch_line(sizes, seed, epoch)
    places = np.arange(first, first + stop - start) % max(1, len(line))
    order = window_order(stop - start, window, np.random.default_rng((seed, epoch, first, 1)))
    return Route(line[places], order[skipped:])


def scored_route(n_samples: int, reader: Reader, *, batch: int, done: int = 0) -> Route:
    """A reader's route through samples that are to be scored, in their own order, without the `done` first."""
    first, last = scored_stretch(n_samples, reader.rank, reader.ranks)
    role, skipped = _resumed(reader, batch, done, last - first)
    start, stop = _worker_stretch(last - first, batch, role, reader.workers)
    return Route(np.arange(first + start, first + stop), np.arange(skipped, stop - start))


def window_order(n: int, window: int, rng: np.random.Generator) -> Ints:
    """A random order of n places in which each comes less than `window` turns before or after its own: n.

    So a reader holds fewer than `window` samples, and one that resumes reads again fewer than that.
    """
    return np.argsort(np.arange(n) + window * rng.random(n), kind="stable")


def visits(route: Route, sizes: Sequence[int]) -> Iterator[Visit]:
    """The shards to pass through, in the order of the line, for the samples that the route yields."""
    places = np.sort(route.order)
    samples = route.line[places]
    ends = np.cumsum(sizes)
    shards = np.searchsorted(ends, samples, side="right")
    turns = np.flatnonzero(np.diff(samples) <= 0) + 1  # the line goes back: another shard, or the same once more
    breaks = np.union1d(np.flatnonzero(np.diff(shards)) + 1, turns).astype(np.int64)
    for part in np.split(np.arange(len(samples)), breaks):
        if len(part):
            shard = int(shards[part[0]])
            within = samples[part] - (ends[shard] - sizes[shard])
            yield Visit(shard, tuple(within.tolist()), tuple(places[part].tolist()))


def _epoch_line(sizes: Sequence[int], seed: int, epoch: int) -> Ints:
    """All samples, shard after shard in the epoch's order: N."""
    starts = np.cumsum(sizes) - sizes
    order = np.random.default_rng((seed, epoch, 0, 2)).permutation(len(sizes))
    parts = [np.arange(starts[shard], starts[shard] + sizes[shard]) for shard in order]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _worker_stretch(length: int, batch: int, worker: int, workers: int) -> tuple[int, int]:
    """Where a worker's part of its rank's samples starts and stops, so that its batches are those of its turns.

    Turns go round the workers; the batch of the last one may be short.
    """
    batches = -(-length // batch)
    turns = np.array([len(range(w, batches, workers)) for w in range(workers)])
    samples = turns * batch
    if batches:
        samples[(batches - 1) % workers] -= batches * batch - length
    stop = int(samples[: worker + 1].sum())
    return stop - int(samples[worker]), stop


def _resumed(reader: Reader, batch: int, done: int, length: int) -> tuple[int, int]:
    """Whose part a worker takes after `done` samples of its rank, and how many of that have been yielded."""
    if done % batch and done != length:
        raise ValueError(f"expected to resume after whole batches of {batch} samples, found {done}")
    batches = -(-done // batch)
    role = (reader.worker + batches) % reader.workers
    start, stop = _worker_stretch(length, batch, role, reader.workers)
    return role, min(stop - start, len(range(role, batches, reader.workers)) * batch)
