"""Accuracy, calibration, confidence intervals and significance tests, as pure functions of arrays.

`scores` are N K, higher is better; `labels` are N, from 0 to K - 1. This module is independent of networks and files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msfnet.types import Bools, Floats, Ints

# Accuracy


def in_top_k(scores: Floats, labels: Ints, k: int) -> Bools:
    """Return whether each true class is among the `k` classes with the highest scores: N.

    Ties count against the true class, so that constant scores have an accuracy of zero, and so have NaN scores.

    Args:
        scores: N K, higher is better.
        labels: The true class of each sample: N.
        k: Number of classes that may contain the true one.
    """
    own = scores[np.arange(len(labels)), labels]
    others_as_good = (~(scores < own[:, None])).sum(1) - 1
    return others_as_good < k


def top_k_accuracy(scores: Floats, labels: Ints, n_unreadable: int = 0) -> dict[str, float]:
    """Return top-1 and top-5 accuracy from 0 to 1, under the keys `top1` and `top5`; both are 0 without any sample.

    Args:
        scores: N K, higher is better.
        labels: The true class of each sample: N.
        n_unreadable: Further samples that could not be scored and count as wrong.
    """
    total = len(labels) + n_unreadable
    return {f"top{k}": float(in_top_k(scores, labels, k).sum() / total) if total else 0.0 for k in (1, 5)}


def average_views(scores: Floats) -> Floats:
    """Return the scores of each video, averaged over its views: N V K -> N K."""
    return scores.mean(1)


# Confusion matrix


def confusion_matrix(predicted: Ints, labels: Ints, n_classes: int) -> Ints:
    """Return how often class i was predicted as class j: K K, rows true, columns predicted.

    Args:
        predicted: The predicted class of each sample: N.
        labels: The true class of each sample: N.
        n_classes: K.
    """
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def precision_and_f1(confusion: Ints, n_videos: Ints) -> tuple[Floats, Floats]:
    """Return precision and F1 score of each class: K and K.

    Precision is NaN for a class that was never predicted, F1 for one that was neither predicted nor has videos.

    Args:
        confusion: Confusion matrix K K of the videos that were scored.
        n_videos: Videos of each class, unreadable ones included, which lower the recall: K.
    """
    correct, n_predicted = np.diag(confusion), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        return correct / n_predicted, 2 * correct / (n_videos + n_predicted)


def confused_pairs(confusion: Ints, most: int) -> list[tuple[int, int, int]]:
    """Return the most frequent mistakes as (true class, predicted class, count), most frequent first.

    Pairs with equal counts are ordered by their share of the true class, highest first.

    Args:
        confusion: Confusion matrix K K.
        most: Largest number of pairs to return.
    """
    wrong = confusion - np.diag(np.diag(confusion))
    totals = confusion.sum(1)
    pairs = [(int(i), int(j), int(wrong[i, j])) for i, j in np.argwhere(wrong)]
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[2] / totals[pair[0]], pair))[:most]


# Calibration


@dataclass(frozen=True)
class Calibration:
    """Predictions in B bins of equal width by confidence (Guo et al., 2017).

    `n` is the number of predictions of each bin, `confidence` their mean confidence and `accuracy` the share that is
    correct: B each. Confidence and accuracy of an empty bin are NaN.
    """

    n: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over predictions of |confidence - accuracy|; 0 without any."""
        filled = self.n > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float((gaps * self.n[filled]).sum() / self.n.sum()) if filled.any() else 0.0


def calibration(confidence: Floats, correct: Bools, bins: int = 15) -> Calibration:
    """Sort predictions into bins by their confidence.

    Args:
        confidence: Probability of each predicted class, above 0 and at most 1: N.
        correct: Whether each prediction is correct: N.
        bins: Number of bins; each includes its upper bound.
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / n for values in (confidence, correct)]
    return Calibration(n, *means)


# Confidence intervals and significance

SIGNIFICANCE_LEVEL = 0.05  # a difference with a smaller p-value is called significant


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval (1927) of a proportion, such as an accuracy.

    Args:
        correct: Number of successes.
        n: Number of trials; without any the interval is 0 to 1.
    """
    z = 1.959964
    if not n:
        return 0.0, 1.0
    share, spread = correct / n, z / n * math.sqrt(correct * (n - correct) / n + z * z / 4)
    center, scale = share + z * z / (2 * n), 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def sign_flip_test(differences: Ints) -> float:
    """Return the p-value of the exact two-sided sign-flip test, a paired permutation test.

    Under the null hypothesis each difference is as likely to be negative as positive. p is the probability that the
    sum of the differences is at least as far from zero as it is. Where all differences are -1, 0 or 1, as between two
    networks with one run each, this is McNemar's exact test (1947).

    Args:
        differences: For each video that two networks were scored on, how much more often the first predicts it
            correctly than the second: V.
    """
    probability = np.ones(1)  # probability of each possible sum, from the lowest to the highest
    for size, n in zip(*np.unique(np.abs(differences[differences != 0]), return_counts=True), strict=True):
        binomial = np.zeros(2 * size * n + 1)
        binomial[:: 2 * size] = [
            math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
            for k in range(n + 1)
        ]
        probability = np.convolve(probability, binomial)
    observed = abs(int(differences.sum()))
    return min(1.0, 2 * float(probability[len(probability) // 2 + observed :].sum())) if observed else 1.0


def bootstrap_difference(
    first: Bools, second: Bools, groups: Ints, n_samples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95% confidence interval of the difference of two accuracies, by a two-level bootstrap.

    Videos of one group are correlated, so groups are resampled with all their videos, the same ones for both networks;
    the runs of each network are resampled independently. The interval therefore covers both sources of variance
    (Efron, 1979; Davison and Hinkley, 1997, section 3.8). A single run says nothing about the variance of runs.

    Args:
        first: Whether each run of the first network predicts each video correctly: R V.
        second: The same of the second network, on the same videos: R' V.
        groups: The group of each video, from 0 to G - 1: V.
        n_samples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups)
    counts = [np.array([np.bincount(groups, weights=run) for run in correct]) for correct in (first, second)]  # R G
    differences = []
    for _ in range(n_samples):
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)))
        correct = [(own @ times)[rng.integers(len(own), size=len(own))].mean() for own in counts]
        differences.append((correct[0] - correct[1]) / (sizes @ times))
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(low), float(high)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several tests, corrected for their number by Holm's method (1979).

    Args:
        p_values: One of each test, in any order, which is kept.
    """
    corrected, highest = list(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1); the latter is NaN for a single value.

    Args:
        values: One or more numbers.
    """
    std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), std
