"""Which worker reads which samples of the shards, and in which order: a pure function of sizes, seed and epoch.

Integers in, indices out. No file is opened here.

An epoch is a sequence of all samples: shard after shard, the shards in an order drawn from seed and epoch. Each rank
takes an equal contiguous part of it, and each of its workers a contiguous part of that, so that a worker streams few
shards, each from one end. Within its part a worker yields samples in a shuffled order, in which each moves by less than
the shuffle window.

Where the samples do not divide among the ranks: in training the part of the last rank continues at the start of the
sequence, so that every rank yields as many samples as every other, and fewer samples than there are ranks come twice.
In evaluation none comes twice, and the parts differ by one sample at most. The workers of a rank yield whole batches in
turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msfnet.types import Ints


@dataclass(frozen=True)
class Worker:
    """One of the processes that read an epoch together: worker `number` of rank `rank`."""

    rank: int = 0
    ranks: int = 1
    number: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Route:
    """What a worker reads and yields.

    Args:
        sequence: Indices of samples in the order in which they are read.
        order: Places in `sequence` in the order in which they are yielded.
    """

    sequence: Ints
    order: Ints

    def samples(self) -> Ints:
        """Return the indices of samples in the order in which they are yielded."""
        return self.sequence[self.order]


@dataclass(frozen=True)
class ShardPass:
    """One pass over a shard.

    Args:
        shard: Number of the shard.
        samples: Indices of the samples that are read, within the shard, ascending.
        positions: Their positions in the sequence of the route.
    """

    shard: int
    samples: tuple[int, ...]
    positions: tuple[int, ...]


def samples_per_rank(n_samples: int, ranks: int) -> int:
    """Return how many samples each rank yields in an epoch of training."""
    return -(-n_samples // ranks)


def eval_part(n_samples: int, rank: int, ranks: int) -> tuple[int, int]:
    """Return where a rank's part of the samples to evaluate starts and stops."""
    return n_samples * rank // ranks, n_samples * (rank + 1) // ranks


def train_route(
    sizes: Sequence[int], worker: Worker, *, batch: int, seed: int, epoch: int, window: int, done: int = 0
) -> Route:
    """Plan what a worker reads in an epoch of training.

    Args:
        sizes: Samples of each shard.
        worker: The worker.
        batch: Samples of a batch of one rank.
        seed: Seed of all orders.
        epoch: Number of the epoch.
        window: Size of the shuffle window.
        done: Samples that the rank has yielded before, whole batches of them, where the epoch is resumed. The rest
            comes in the order that it would have had, if ranks and workers are as many as before.
            Workers are renumbered.
    """
    length = samples_per_rank(sum(sizes), worker.ranks)
    role, skipped = _resumed(worker, batch, done, length)
    start, stop = _worker_part(length, batch, role, worker.workers)
    first = worker.rank * length + start
    sequence = _epoch_sequence(sizes, seed, epoch)
    positions = np.arange(first, first + stop - start) % max(1, len(sequence))
    order = shuffle_in_window(stop - start, window, np.random.default_rng((seed, epoch, first, 1)))
    return Route(sequence[positions], order[skipped:])


def eval_route(n_samples: int, worker: Worker, *, batch: int, done: int = 0) -> Route:
    """Plan what a worker reads of `n_samples` samples in their own order; `done` is as in `train_route`."""
    first, last = eval_part(n_samples, worker.rank, worker.ranks)
    role, skipped = _resumed(worker, batch, done, last - first)
    start, stop = _worker_part(last - first, batch, role, worker.workers)
    return Route(np.arange(first + start, first + stop), np.arange(skipped, stop - start))


def shuffle_in_window(n: int, window: int, rng: np.random.Generator) -> Ints:
    """Draw an order N of n positions in which each moves by less than `window`.

    So a worker holds fewer than `window` samples, and one that resumes reads fewer than that again.
    """
    return np.argsort(np.arange(n) + window * rng.random(n), kind="stable")


def shard_passes(route: Route, sizes: Sequence[int]) -> Iterator[ShardPass]:
    """Yield the passes over shards, in the order of the sequence, that read the samples of a route."""
    positions = np.sort(route.order)
    samples = route.sequence[positions]
    ends = np.cumsum(sizes)
    shards = np.searchsorted(ends, samples, side="right")
    restarts = np.flatnonzero(np.diff(samples) <= 0) + 1  # the sequence goes back: to another shard, or the same again
    breaks = np.union1d(np.flatnonzero(np.diff(shards)) + 1, restarts).astype(np.int64)
    for part in np.split(np.arange(len(samples)), breaks):
        if len(part):
            shard = int(shards[part[0]])
            within = samples[part] - (ends[shard] - sizes[shard])
            yield ShardPass(shard, tuple(within.tolist()), tuple(positions[part].tolist()))


def _epoch_sequence(sizes: Sequence[int], seed: int, epoch: int) -> Ints:
    """Return all samples, shard after shard in the epoch's order: N."""
    starts = np.cumsum(sizes) - sizes
    order = np.random.default_rng((seed, epoch, 0, 2)).permutation(len(sizes))
    parts = [np.arange(starts[shard], starts[shard] + sizes[shard]) for shard in order]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _worker_part(length: int, batch: int, number: int, workers: int) -> tuple[int, int]:
    """Return the start and stop of a worker's part of its rank's samples; workers yield batches in turn.

    The last batch may be short.
    """
    n_batches = -(-length // batch)
    counts = np.array([len(range(w, n_batches, workers)) for w in range(workers)])
    samples = counts * batch
    if n_batches:
        samples[(n_batches - 1) % workers] -= n_batches * batch - length
    stop = int(samples[: number + 1].sum())
    return stop - int(samples[number]), stop


def _resumed(worker: Worker, batch: int, done: int, length: int) -> tuple[int, int]:
    """Return whose part a worker reads after `done` samples of its rank, and how many of it have been yielded."""
    if done % batch and done != length:
        raise ValueError(f"expected to resume after whole batches of {batch} samples, found {done}")
    n_batches = -(-done // batch)
    role = (worker.number + n_batches) % worker.workers
    start, stop = _worker_part(length, batch, role, worker.workers)
    return role, min(stop - start, len(range(role, n_batches, worker.workers)) * batch)
