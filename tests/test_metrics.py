"""Scores by hand-written tables."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from msfnet.metrics import average_views, confusion, in_top, top_k

SCORES = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6], [0.5, 0.3, 0.2]])
LABELS = np.array([0, 0, 2, 2])


def test_in_top():
    assert in_top(SCORES, LABELS, 1).tolist() == [True, False, True, False]
    assert in_top(SCORES, LABELS, 2).tolist() == [True, False, True, False]  # a tie counts against
    assert in_top(SCORES, LABELS, 3).tolist() == [True, True, True, True]


def test_top_k_counts_failed_videos_as_wrong():
    assert top_k(SCORES, LABELS) == {"top1": 0.5, "top5": 1.0}
    assert top_k(SCORES, LABELS, failed=4) == {"top1": 0.25, "top5": 0.5}
    assert top_k(np.zeros((0, 3)), np.zeros(0, int)) == {"top1": 0.0, "top5": 0.0}


def test_a_network_that_says_the_same_of_all_scores_nothing():
    assert top_k(np.ones((6, 6)), np.arange(6))["top1"] == 0


def test_confusion():
    assert confusion(SCORES.argmax(1), LABELS, 3).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_average_views():
    assert average_views(np.array([[[1.0, 0.0], [0.0, 0.5]]])).tolist() == [[0.5, 0.25]]


@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 1000))
def test_confusion_holds_every_answer_and_its_diagonal_is_top_1(n, classes, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.random((n, classes)), rng.integers(0, classes, n)
    counts = confusion(scores.argmax(1), labels, classes)
    assert counts.sum() == n
    assert counts.sum(1).tolist() == np.bincount(labels, minlength=classes).tolist()
    assert np.isclose(np.trace(counts) / n, top_k(scores, labels)["top1"])
