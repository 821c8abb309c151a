"""EvalResult by hand-written tables."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from msfnet.metrics import (
    average_views,
    bootstrap_difference,
    calibration,
    confused_pairs,
    confusion,
    holm_correction,
    in_top,
    mcnemar,
    mean_and_spread,
    precision_and_f1,
    sign_flip_test,
    top_k,
    wilson_interval,
)

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


def test_a_network_whose_scores_are_no_numbers_has_nothing_right():
    assert not in_top(np.full((3, 4), np.nan), np.array([0, 1, 2]), 1).any()


# Rows are true: 8 of the first class are right, 2 are taken for the second, and so on; no video is of the last.
COUNTS = np.array([[8, 2, 0, 0], [4, 4, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])


def test_precision_and_f1():
    precision, f1 = precision_and_f1(COUNTS, np.array([10, 10, 3, 0]))  # two of the second class could not be read
    assert precision[:2] == pytest.approx([8 / 15, 4 / 6])
    assert np.isnan(precision[2:]).all()  # never said
    assert f1[:3] == pytest.approx([2 * 8 / (10 + 15), 2 * 4 / (10 + 6), 0])
    assert np.isnan(f1[3])  # never there


def test_confused_pairs():
    assert confused_pairs(COUNTS, most=9) == [(1, 0, 4), (2, 0, 3), (0, 1, 2)]
    assert confused_pairs(COUNTS, most=1) == [(1, 0, 4)]
    assert confused_pairs(np.diag([3, 4]), most=9) == []
    tied = np.array([[8, 2, 0], [0, 2, 2], [0, 0, 9]])
    assert confused_pairs(tied, most=9) == [(1, 2, 2), (0, 1, 2)]  # half of a class before a fifth of one


def test_calibration_by_hand():
    confidence = np.array([0.1, 0.2, 0.5, 0.51, 0.9, 1.0])
    right = np.array([False, True, True, False, True, True])
    binned = calibration(confidence, right, bins=2)
    assert binned.n.tolist() == [3, 3]  # 0.5 is in the lower bin, 1 in the last
    assert binned.confidence == pytest.approx([0.8 / 3, 2.41 / 3])
    assert binned.accuracy == pytest.approx([2 / 3, 2 / 3])
    assert binned.error == pytest.approx(((2 - 0.8) + (2.41 - 2)) / 6)


def test_calibration_of_few_answers_and_of_none():
    perfect = calibration(np.array([1.0, 1.0]), np.array([True, True]))
    assert (len(perfect.n), perfect.n.sum(), perfect.error) == (15, 2, 0)
    assert np.isnan(perfect.accuracy[:-1]).all()
    assert calibration(np.zeros(0), np.zeros(0, bool)).error == 0


@given(st.integers(1, 200), st.integers(0, 1000))
def test_calibration_loses_no_answer(n, seed):
    rng = np.random.default_rng(seed)
    confidence, right = rng.random(n), rng.random(n) < 0.5
    binned = calibration(confidence, right)
    filled = binned.n > 0
    assert binned.n.sum() == n
    assert (binned.n * binned.accuracy)[filled].sum() == pytest.approx(right.sum())
    edges = np.arange(16) / 15
    assert (binned.confidence[filled] >= edges[:-1][filled] - 1e-9).all()
    assert (binned.confidence[filled] <= edges[1:][filled] + 1e-9).all()
    assert 0 <= binned.error <= 1


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_interval_of_a_share_is_wilsons(n, share):
    right = round(share * n)
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson_interval")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_share_of_nothing_may_be_any():
    assert wilson_interval(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1), (5, 5, 1), (1, 0, 1), (6, 0, 2 / 64), (0, 6, 2 / 64), (8, 2, 2 * 56 / 1024)],
)
def test_mcnemar_by_hand(only_first, only_second, p):
    assert mcnemar(only_first, only_second) == pytest.approx(p)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    n = only_first + only_second
    expected = binomtest(only_first, n).pvalue if n else 1
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_flips_count_every_way_of_signs(differences):
    """Against all 2^n of them."""
    sums = [
        sum(sign * d for sign, d in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    expected = sum(abs(total) >= abs(sum(differences)) for total in sums) / len(sums)
    assert sign_flip_test(np.array(differences, dtype=int)) == pytest.approx(expected)


@given(st.integers(0, 300), st.integers(0, 300))
def test_sign_flips_of_single_runs_are_mcnemars_test(only_first, only_second):
    differences = np.array([1] * only_first + [-1] * only_second + [0] * 7)
    assert sign_flip_test(differences) == pytest.approx(mcnemar(only_first, only_second), rel=1e-6)


def test_the_bootstrap_of_single_runs_has_the_width_of_the_textbook():
    """Of 400 videos 60 are right in the first alone, 40 in the second alone: 5 +- 1.96 x 2.47 points."""
    first = np.array([[True] * 60 + [False] * 40 + [True] * 300])
    second = np.array([[False] * 60 + [True] * 40 + [True] * 300])
    low, high = bootstrap_difference(first, second, np.arange(400))
    error = math.sqrt((100 / 400 - 0.05**2) / 400)
    assert low == pytest.approx(0.05 - 1.96 * error, abs=0.004)
    assert high == pytest.approx(0.05 + 1.96 * error, abs=0.004)
    assert (low, high) == bootstrap_difference(first, second, np.arange(400))


def test_videos_of_one_group_tell_no_more_than_one_of_them():
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 50)) < 0.7, rng.random((2, 50)) < 0.5
    alike = bootstrap_difference(np.repeat(first, 4, 1), np.repeat(second, 4, 1), np.repeat(np.arange(50), 4))
    assert alike == pytest.approx(bootstrap_difference(first, second, np.arange(50)))
    low, high = bootstrap_difference(np.repeat(first, 4, 1), np.repeat(second, 4, 1), np.arange(200))
    assert high - low < 0.9 * (alike[1] - alike[0])


def test_a_group_counts_as_many_times_as_it_has_videos():
    """Two groups, 1 video that the first has right and 3 that the second has: drawn twice each, or one of each."""
    right = np.array([[True, False, False, False]])
    low, high = bootstrap_difference(right, ~right, np.array([0, 1, 1, 1]))
    assert (low, high) == (-1, 1)
    assert bootstrap_difference(right, ~right, np.zeros(4, dtype=int)) == (-0.5, -0.5)


def test_holm_by_hand():
    assert holm_correction([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_correction([0.6, 0.7]) == [1, 1]
    assert holm_correction([]) == []


def test_mean_and_spread():
    assert mean_and_spread([1, 2, 3]) == (2, 1)
    mean, spread = mean_and_spread([0.5])
    assert mean == 0.5
    assert math.isnan(spread)
