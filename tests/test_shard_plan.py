"""Which worker reads which samples: each once, equally many for every rank, and repeatable from any batch."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.shards.plan import (
    Route,
    ShardPass,
    Worker,
    eval_route,
    samples_per_rank,
    shard_passes,
    shuffle_in_window,
    train_route,
)

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)
SMALL = st.integers(1, 5)


def epoch(sizes, rank=0, ranks=1, workers=1, *, batch=2, seed=0, number=0, window=4, done=0):
    """A rank's batches of sample numbers, in the order in which a DataLoader returns them: its workers in turn."""
    parts = []
    for worker in range(workers):
        reader = Worker(rank, ranks, worker, workers)
        route = train_route(sizes, reader, batch=batch, seed=seed, epoch=number, window=window, done=done)
        samples = route.samples().tolist()
        parts.append([samples[i : i + batch] for i in range(0, len(samples), batch)])
    turns = max(map(len, parts))
    return [part[turn] for turn in range(turns) for part in parts if turn < len(part)]


@given(SIZES, SMALL, SMALL, SMALL, st.integers(0, 3), st.integers(1, 40))
def test_ranks_yield_equally_many_samples(sizes, ranks, workers, batch, seed, window):
    n = sum(sizes)
    parts = [epoch(sizes, rank, ranks, workers, batch=batch, seed=seed, window=window) for rank in range(ranks)]
    steps = -(-samples_per_rank(n, ranks) // batch)
    assert {len(part) for part in parts} == {steps}
    for part in parts:
        assert sum(map(len, part)) == samples_per_rank(n, ranks)
        assert all(len(samples) == batch for samples in part[:-1])  # only the last one may be short
    seen = list(chain(*chain(*parts)))
    assert set(seen) == set(range(n))
    assert len(seen) - n < ranks


@given(SIZES, SMALL, SMALL, SMALL)
def test_evaluation_reads_each_sample_once(sizes, ranks, workers, batch):
    n = sum(sizes)
    readers = [[Worker(r, ranks, w, workers) for w in range(workers)] for r in range(ranks)]
    parts = [[s for x in row for s in eval_route(n, x, batch=batch).samples().tolist()] for row in readers]
    assert list(chain(*parts)) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(SIZES, SMALL, SMALL, SMALL, st.integers(0, 20), st.data())
def test_resumed_epochs_continue_exactly(sizes, ranks, workers, batch, window, data):
    rank = data.draw(st.integers(0, ranks - 1))
    whole = epoch(sizes, rank, ranks, workers, batch=batch, window=window)
    batches = data.draw(st.integers(0, len(whole)))
    done = sum(map(len, whole[:batches]))
    assert epoch(sizes, rank, ranks, workers, batch=batch, window=window, done=done) == whole[batches:]


def test_resuming_within_a_batch_is_refused():
    with pytest.raises(ValueError, match="whole batches of 2 samples, found 3"):
        epoch([9], done=3)


def test_order_depends_on_seed_and_epoch():
    sizes = [5, 7, 6]
    assert epoch(sizes) == epoch(sizes)
    assert len({str(epoch(sizes, seed=seed, number=number)) for seed in range(3) for number in range(3)}) == 9


@given(st.integers(0, 60), st.integers(0, 30))
def test_samples_move_less_than_the_window(n, window):
    order = shuffle_in_window(n, window, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(n))
    assert (np.abs(order - np.arange(n)) < max(1, window)).all()


def test_window_shuffles():
    order = shuffle_in_window(1000, 100, np.random.default_rng(0))
    assert np.abs(order - np.arange(1000)).mean() > 20


@pytest.mark.parametrize(
    ("sequence", "order", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], [ShardPass(0, (0, 1, 2), (0, 1, 2))]),
        ([2, 3, 4], [2, 0, 1], [ShardPass(0, (2,), (0,)), ShardPass(1, (0, 1), (1, 2))]),
        (
            [3, 4, 5, 0, 1, 2],
            [1, 0, 3],
            [ShardPass(1, (0, 1), (0, 1)), ShardPass(0, (0,), (3,))],
        ),  # two samples are done
        ([0, 1, 2, 0, 1], [0, 1, 2, 3, 4], [ShardPass(0, (0, 1, 2), (0, 1, 2)), ShardPass(0, (0, 1), (3, 4))]),
        ([6, 0], [0, 1], [ShardPass(1, (3,), (0,)), ShardPass(0, (0,), (1,))]),
        ([], [], []),
    ],
)
def test_shard_passes(sequence, order, expected):
    """Two shards, of three and four samples."""
    route = Route(np.array(sequence, np.int64), np.array(order, np.int64))
    assert list(shard_passes(route, [3, 4])) == expected


@given(SIZES, SMALL, st.integers(0, 9), st.data())
def test_shard_passes_read_what_the_route_yields(sizes, workers, window, data):
    worker, batches = data.draw(st.integers(0, workers - 1)), data.draw(st.integers(0, sum(sizes) // 2))
    reader = Worker(0, 1, worker, workers)
    route = train_route(sizes, reader, batch=2, seed=1, epoch=1, window=window, done=2 * batches)
    starts = np.cumsum(sizes) - sizes
    found = {}
    for found_pass in shard_passes(route, sizes):
        assert list(found_pass.samples) == sorted(set(found_pass.samples))
        assert all(0 <= sample < sizes[found_pass.shard] for sample in found_pass.samples)
        found |= dict(zip(found_pass.positions, (starts[found_pass.shard] + found_pass.samples).tolist(), strict=True))
    assert [found[place] for place in route.order.tolist()] == route.samples().tolist()
    assert len(found) == len(route.order)
