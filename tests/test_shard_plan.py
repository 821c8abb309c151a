"""Who reads what of the shards: every sample once, equal steps for every rank, order repeatable from any point."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.shards.plan import (
    Reader,
    Route,
    Visit,
    scored_route,
    training_length,
    training_route,
    visits,
    window_order,
)

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)
SMALL = st.integers(1, 5)


def epoch(sizes, rank=0, ranks=1, workers=1, *, batch=2, seed=0, number=0, window=4, done=0):
    """A rank's batches of sample numbers, in the order in which a loader hands them over: its workers in turn."""
    parts = []
    for worker in range(workers):
        reader = Reader(rank, ranks, worker, workers)
        route = training_route(sizes, reader, batch=batch, seed=seed, epoch=number, window=window, done=done)
        samples = route.samples().tolist()
        parts.append([samples[i : i + batch] for i in range(0, len(samples), batch)])
    turns = max(map(len, parts))
    return [part[turn] for turn in range(turns) for part in parts if turn < len(part)]


@given(SIZES, SMALL, SMALL, SMALL, st.integers(0, 3), st.integers(1, 40))
def test_ranks_yield_equally_many_and_together_everything(sizes, ranks, workers, batch, seed, window):
    n = sum(sizes)
    parts = [epoch(sizes, rank, ranks, workers, batch=batch, seed=seed, window=window) for rank in range(ranks)]
    steps = -(-training_length(n, ranks) // batch)
    assert {len(part) for part in parts} == {steps}
    for part in parts:
        assert sum(map(len, part)) == training_length(n, ranks)
        assert all(len(samples) == batch for samples in part[:-1])  # only the last one may be short
    seen = list(chain(*chain(*parts)))
    assert set(seen) == set(range(n))
    assert len(seen) - n < ranks


@given(SIZES, SMALL, SMALL, SMALL)
def test_scoring_sees_each_sample_once(sizes, ranks, workers, batch):
    n = sum(sizes)
    readers = [[Reader(r, ranks, w, workers) for w in range(workers)] for r in range(ranks)]
    parts = [[s for x in row for s in scored_route(n, x, batch=batch).samples().tolist()] for row in readers]
    assert list(chain(*parts)) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(SIZES, SMALL, SMALL, SMALL, st.integers(0, 20), st.data())
def test_resumed_epochs_go_on_exactly(sizes, ranks, workers, batch, window, data):
    rank = data.draw(st.integers(0, ranks - 1))
    whole = epoch(sizes, rank, ranks, workers, batch=batch, window=window)
    batches = data.draw(st.integers(0, len(whole)))
    done = sum(map(len, whole[:batches]))
    assert epoch(sizes, rank, ranks, workers, batch=batch, window=window, done=done) == whole[batches:]


def test_resuming_within_a_batch_is_refused():
    with pytest.raises(ValueError, match="whole batches of 2 samples, found 3"):
        epoch([9], done=3)


def test_order_is_of_seed_and_epoch():
    sizes = [5, 7, 6]
    assert epoch(sizes) == epoch(sizes)
    assert len({str(epoch(sizes, seed=seed, number=number)) for seed in range(3) for number in range(3)}) == 9


@given(st.integers(0, 60), st.integers(0, 30))
def test_nothing_moves_as_far_as_the_window(n, window):
    order = window_order(n, window, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(n))
    assert (np.abs(order - np.arange(n)) < max(1, window)).all()


def test_a_window_mixes():
    order = window_order(1000, 100, np.random.default_rng(0))
    assert np.abs(order - np.arange(1000)).mean() > 20


@pytest.mark.parametrize(
    ("line", "order", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], [Visit(0, (0, 1, 2), (0, 1, 2))]),
        ([2, 3, 4], [2, 0, 1], [Visit(0, (2,), (0,)), Visit(1, (0, 1), (1, 2))]),
        ([3, 4, 5, 0, 1, 2], [1, 0, 3], [Visit(1, (0, 1), (0, 1)), Visit(0, (0,), (3,))]),  # two samples are done
        ([0, 1, 2, 0, 1], [0, 1, 2, 3, 4], [Visit(0, (0, 1, 2), (0, 1, 2)), Visit(0, (0, 1), (3, 4))]),
        ([6, 0], [0, 1], [Visit(1, (3,), (0,)), Visit(0, (0,), (1,))]),
        ([], [], []),
    ],
)
def test_visits(line, order, expected):
    """Two shards, of three and four samples."""
    route = Route(np.array(line, np.int64), np.array(order, np.int64))
    assert list(visits(route, [3, 4])) == expected


@given(SIZES, SMALL, st.integers(0, 9), st.data())
def test_visits_bring_what_the_route_yields_and_no_shard_before_it(sizes, workers, window, data):
    worker, batches = data.draw(st.integers(0, workers - 1)), data.draw(st.integers(0, sum(sizes) // 2))
    reader = Reader(0, 1, worker, workers)
    route = training_route(sizes, reader, batch=2, seed=1, epoch=1, window=window, done=2 * batches)
    starts = np.cumsum(sizes) - sizes
    found = {}
    for visit in visits(route, sizes):
        assert list(visit.samples) == sorted(set(visit.samples))
        assert all(0 <= sample < sizes[visit.shard] for sample in visit.samples)
        found |= dict(zip(visit.places, (starts[visit.shard] + visit.samples).tolist(), strict=True))
    assert [found[place] for place in route.order.tolist()] == route.samples().tolist()
    assert len(found) == len(route.order)
