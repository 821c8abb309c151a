"""Class-balanced sampling: how often and how evenly videos are drawn, and always the same for the same seed."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.sampling import balanced_order
from msfnet.data.video_loader import TrainSampler

labels_of = st.lists(st.integers(0, 6), min_size=1, max_size=80)


@settings(max_examples=100, deadline=None)
@given(labels_of, st.floats(0, 1), st.integers(0, 10**6))
def test_classes_and_videos_are_drawn_evenly(labels, balance, seed):
    labels = np.array(labels)
    order = balanced_order(labels.tolist(), balance, np.random.default_rng(seed))
    assert len(order) == len(labels)
    sizes = np.bincount(labels)
    shares = np.where(sizes, sizes ** (1 - balance), 0)
    expected = len(labels) * shares / shares.sum()
    counts = np.bincount(order, minlength=len(labels))
    for label in np.unique(labels):
        own = counts[labels == label]
        assert abs(own.sum() - expected[label]) < 1 + 1e-6
        assert own.max() - own.min() <= 1
        assert own.sum() >= 1


@settings(max_examples=30, deadline=None)
@given(labels_of, st.floats(0, 1), st.integers(0, 10**6))
def test_order_depends_on_the_seed_alone(labels, balance, seed):
    one, other = (balanced_order(labels, balance, np.random.default_rng(seed)).tolist() for _ in range(2))
    assert one == other


def test_class_proportions_over_many_epochs():
    labels = [0] * 30 + [1] * 7 + [2] * 3
    orders = [balanced_order(labels, 1.0, np.random.default_rng(seed)) for seed in range(300)]
    counts = np.bincount(np.concatenate(orders), minlength=40)
    by_class = np.bincount(labels, counts) / 300
    assert by_class == pytest.approx(40 / 3, abs=0.15)
    assert counts[:30].min() > 0.6 * counts[:30].mean()
    half = [balanced_order(labels, 0.5, np.random.default_rng(seed)) for seed in range(300)]
    shares = np.sqrt([30, 7, 3])
    found = np.bincount(labels, np.bincount(np.concatenate(half), minlength=40)) / 300
    assert found == pytest.approx(40 * shares / shares.sum(), abs=0.15)


def test_train_sampler_is_a_function_of_seed_and_epoch():
    labels = [0] * 20 + [1] * 4
    sampler = TrainSampler(24, 5, seed=3, draw=partial(balanced_order, labels, 1.0))
    whole = list(sampler)
    first = [pair for batch in whole for pair in batch]
    assert len(first) == 24
    assert sum(labels[index] for index, _ in first) == 12
    assert len({seed for _, seed in first}) == 24  # a video shown twice shows two clips
    sampler.set_epoch(1)
    assert list(sampler) != whole
    sampler.set_epoch(0, start_batch=2)
    assert list(sampler) == whole[2:]
