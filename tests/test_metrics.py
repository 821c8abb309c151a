"""Metrics, intervals and tests against values computed by hand, by scipy, or by enumeration."""

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
    confusion_matrix,
    holm_correction,
    in_top_k,
    mean_and_std,
    precision_and_f1,
    sign_flip_test,
    top_k_accuracy,
    wilson_interval,
)

SCORES = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6], [0.5, 0.3, 0.2]])
LABELS = np.array([0, 0, 2, 2])


def test_in_top_k():
    assert in_top_k(SCORES, LABELS, 1).tolist() == [True, False, True, False]
    assert in_top_k(SCORES, LABELS, 2).tolist() == [True, False, True, False]  # a tie counts against
    assert in_top_k(SCORES, LABELS, 3).tolist() == [True, True, True, True]


def test_unreadable_videos_count_as_wrong():
    assert top_k_accuracy(SCORES, LABELS) == {"top1": 0.5, "top5": 1.0}
    assert top_k_accuracy(SCORES, LABELS, n_unreadable=4) == {"top1": 0.25, "top5": 0.5}
    assert top_k_accuracy(np.zeros((0, 3)), np.zeros(0, int)) == {"top1": 0.0, "top5": 0.0}


def test_constant_scores_have_no_accuracy():
    assert top_k_accuracy(np.ones((6, 6)), np.arange(6))["top1"] == 0


def test_nan_scores_have_no_accuracy():
    assert not in_top_k(np.full((3, 4), np.nan), np.array([0, 1, 2]), 1).any()


def test_average_views():
    assert average_views(np.array([[[1.0, 0.0], [0.0, 0.5]]])).tolist() == [[0.5, 0.25]]


def test_confusion_matrix():
    assert confusion_matrix(SCORES.argmax(1), LABELS, 3).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]


@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 1000))
def test_diagonal_of_confusion_matrix_is_top1(n, classes, seed):
    """Its rows add up to the number of samples of each class."""
    rng = np.random.default_rng(seed)
    scores, labels = rng.random((n, classes)), rng.integers(0, classes, n)
    counts = confusion_matrix(scores.argmax(1), labels, classes)
    assert counts.sum() == n
    assert counts.sum(1).tolist() == np.bincount(labels, minlength=classes).tolist()
    assert np.isclose(np.trace(counts) / n, top_k_accuracy(scores, labels)["top1"])


# Rows are true: of the first class 8 are correct and 2 predicted as the second, and so on; the last has no video.
COUNTS = np.array([[8, 2, 0, 0], [4, 4, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])


def test_precision_and_f1():
    precision, f1 = precision_and_f1(COUNTS, np.array([10, 10, 3, 0]))  # two of the second class were unreadable
    assert precision[:2] == pytest.approx([8 / 15, 4 / 6])
    assert np.isnan(precision[2:]).all()  # never predicted
    assert f1[:3] == pytest.approx([2 * 8 / (10 + 15), 2 * 4 / (10 + 6), 0])
    assert np.isnan(f1[3])  # no video and never predicted


def test_confused_pairs():
    assert confused_pairs(COUNTS, most=9) == [(1, 0, 4), (2, 0, 3), (0, 1, 2)]
    assert confused_pairs(COUNTS, most=1) == [(1, 0, 4)]
    assert confused_pairs(np.diag([3, 4]), most=9) == []
    tied = np.array([[8, 2, 0], [0, 2, 2], [0, 0, 9]])
    assert confused_pairs(tied, most=9) == [(1, 2, 2), (0, 1, 2)]  # half of a class before a fifth of one


def test_calibration_by_hand():
    confidence = np.array([0.1, 0.2, 0.5, 0.51, 0.9, 1.0])
    correct = np.array([False, True, True, False, True, True])
    binned = calibration(confidence, correct, bins=2)
    assert binned.n.tolist() == [3, 3]  # 0.5 is in the lower bin, 1 in the last
    assert binned.confidence == pytest.approx([0.8 / 3, 2.41 / 3])
    assert binned.accuracy == pytest.approx([2 / 3, 2 / 3])
    assert binned.error == pytest.approx(((2 - 0.8) + (2.41 - 2)) / 6)


def test_calibration_of_few_and_of_no_predictions():
    perfect = calibration(np.array([1.0, 1.0]), np.array([True, True]))
    assert (len(perfect.n), perfect.n.sum(), perfect.error) == (15, 2, 0)
    assert np.isnan(perfect.accuracy[:-1]).all()
    assert calibration(np.zeros(0), np.zeros(0, bool)).error == 0


@given(st.integers(1, 200), st.integers(0, 1000))
def test_calibration_bins_hold_every_prediction(n, seed):
    rng = np.random.default_rng(seed)
    confidence, correct = rng.random(n), rng.random(n) < 0.5
    binned = calibration(confidence, correct)
    filled = binned.n > 0
    assert binned.n.sum() == n
    assert (binned.n * binned.accuracy)[filled].sum() == pytest.approx(correct.sum())
    edges = np.arange(16) / 15
    assert (binned.confidence[filled] >= edges[:-1][filled] - 1e-9).all()
    assert (binned.confidence[filled] <= edges[1:][filled] + 1e-9).all()
    assert 0 <= binned.error <= 1


@given(st.integers(1, 300), st.floats(0, 1))
def test_wilson_interval_agrees_with_scipy(n, share):
    correct = round(share * n)
    expected = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_wilson_interval_without_trials_is_everything():
    assert wilson_interval(0, 0) == (0, 1)


def single_runs(only_first, only_second, both=7):
    """Differences between two networks with one run each: videos that only one of them predicts correctly."""
    return np.array([1] * only_first + [-1] * only_second + [0] * both)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1),
        (5, 5, 1),
        (1, 0, 1),  # 2 * 1/2
        (6, 0, 2 / 64),
        (0, 6, 2 / 64),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (9, 3, 2 * (1 + 12 + 66 + 220) / 4096),
    ],
)
def test_sign_flip_test_of_single_runs_is_mcnemars(only_first, only_second, p):
    """McNemar's exact p is twice the lower tail of a binomial distribution over the discordant videos, at most 1."""
    assert sign_flip_test(single_runs(only_first, only_second)) == pytest.approx(p)


@given(st.integers(0, 400), st.integers(0, 400))
def test_sign_flip_test_of_single_runs_agrees_with_scipy(only_first, only_second):
    n = only_first + only_second
    expected = binomtest(only_first, n).pvalue if n else 1
    assert sign_flip_test(single_runs(only_first, only_second)) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_flip_test_enumerates_all_signs(differences):
    """The p-value equals the share of all 2^n assignments of signs with a sum at least as far from zero."""
    sums = [
        sum(sign * d for sign, d in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    expected = sum(abs(total) >= abs(sum(differences)) for total in sums) / len(sums)
    assert sign_flip_test(np.array(differences, dtype=int)) == pytest.approx(expected)


def test_bootstrap_of_single_runs_has_the_normal_width():
    """Of 400 videos 60 are correct in the first run only, 40 in the second only: 5 +- 1.96 x 2.47 points."""
    first = np.array([[True] * 60 + [False] * 40 + [True] * 300])
    second = np.array([[False] * 60 + [True] * 40 + [True] * 300])
    low, high = bootstrap_difference(first, second, np.arange(400))
    error = math.sqrt((100 / 400 - 0.05**2) / 400)
    assert low == pytest.approx(0.05 - 1.96 * error, abs=0.004)
    assert high == pytest.approx(0.05 + 1.96 * error, abs=0.004)
    assert (low, high) == bootstrap_difference(first, second, np.arange(400))


def test_bootstrap_with_identical_videos_in_groups():
    """Groups of four identical videos carry as much information as one video each, and less than four."""
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 50)) < 0.7, rng.random((2, 50)) < 0.5
    grouped = bootstrap_difference(np.repeat(first, 4, 1), np.repeat(second, 4, 1), np.repeat(np.arange(50), 4))
    assert grouped == pytest.approx(bootstrap_difference(first, second, np.arange(50)))
    low, high = bootstrap_difference(np.repeat(first, 4, 1), np.repeat(second, 4, 1), np.arange(200))
    assert high - low < 0.9 * (grouped[1] - grouped[0])


def test_bootstrap_weights_groups_by_their_videos():
    """Two groups, with 1 video for the first network and 3 for the second: one of them twice, or each once."""
    correct = np.array([[True, False, False, False]])
    low, high = bootstrap_difference(correct, ~correct, np.array([0, 1, 1, 1]))
    assert (low, high) == (-1, 1)
    assert bootstrap_difference(correct, ~correct, np.zeros(4, dtype=int)) == (-0.5, -0.5)


def test_holm_correction_by_hand():
    assert holm_correction([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_correction([0.6, 0.7]) == [1, 1]
    assert holm_correction([]) == []


def test_mean_and_std():
    assert mean_and_std([1, 2, 3]) == (2, 1)
    mean, std = mean_and_std([0.5])
    assert mean == 0.5
    assert math.isnan(std)
