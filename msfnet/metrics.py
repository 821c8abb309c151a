"""EvalResult of predictions: pure functions of arrays. `scores` are N K, higher is better; `labels` are N in 0..K-1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msfnet.types import Bools, Floats, Ints


def in_top(scores: Floats, labels: Ints, k: int) -> Bools:
    """Whether fewer than `k` classes score above the true one: N.

    A tie counts against, so that a constant scores zero, and so does a network whose scores are no numbers.
    """
    own = scores[np.arange(len(labels)), labels]
    others_as_good = (~(scores < own[:, None])).sum(1) - 1
    return others_as_good < k


def top_k(scores: Floats, labels: Ints, failed: int = 0) -> dict[str, float]:
    """Share of correct answers among the first 1 and 5, `failed` more counted as wrong. With no answers, zero."""
    total = len(labels) + failed
    return {f"top{k}": float(in_top(scores, labels, k).sum() / total) if total else 0.0 for k in (1, 5)}


def confusion(predicted: Ints, labels: Ints, n_classes: int) -> Ints:
    """How often class i was taken for class j: K K, rows true."""
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def average_views(scores: Floats) -> Floats:
    """One score for a video of the scores of its views: N V K -> N K."""
    return scores.mean(1)


# What a confusion matrix tells


def precision_and_f1(counts: Ints, n_videos: Ints) -> tuple[Floats, Floats]:
    """Of each class: K and K, from a confusion matrix K K and how many videos are of each class, failed ones included.

    Precision is the share of correct ones among those taken for the class; not a number where none was. F1 is its
    harmonic mean with the share of the class's videos that were found; not a number for a class that never occurs.
    """
    correct, said = np.diag(counts), counts.sum(0)
    with np.errstate(invalid="ignore"):
        return correct / said, 2 * correct / (n_videos + said)


def confused_pairs(counts: Ints, most: int) -> list[tuple[int, int, int]]:
    """(true class, taken for which, how often), most frequent first; among equals the larger share of its class."""
    wrong = counts - np.diag(np.diag(counts))
    totals = counts.sum(1)
    pairs = [(int(i), int(j), int(wrong[i, j])) for i, j in np.argwhere(wrong)]
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[2] / totals[pair[0]], pair))[:most]


# How far confidence can be believed


@dataclass(frozen=True)
class Calibration:
    """Answers in bins of equal width by their confidence (Guo et al., 2017): for each, B, how many there are, their
    mean confidence and the share that is correct, both not a number in empty bins.
    """

    n: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of confidence from accuracy, over answers; 0 without any."""
        filled = self.n > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float((gaps * self.n[filled]).sum() / self.n.sum()) if filled.any() else 0.0


def calibration(confidence: Floats, correct: Bools, bins: int = 15) -> Calibration:
    """Bins that include their upper end, from confidences above 0 up to 1 of answers that are correct or not: N each."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / n for values in (confidence, correct)]
    return Calibration(n, *means)


# How far numbers can be believed


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The interval that holds a share with 95 % confidence when `correct` of `n` were counted (Wilson, 1927)."""
    z = 1.959964
    if not n:
        return 0.0, 1.0
    share, spread = correct / n, z / n * math.sqrt(correct * (n - correct) / n + z * z / 4)
    center, scale = share + z * z / (2 * n), 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def mcnemar(only_first: int, only_second: int) -> float:
    """How likely two equally good networks differ at least so much: exact two-sided p of McNemar's test (1947).

    The counts are of videos that only one of the two has correct; the others say nothing of a difference.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


def sign_flip_test(differences: Ints) -> float:
    """How likely a sum at least so far from zero is when chance decides the sign of each difference: exact, two-sided.

    Of videos that two networks are compared on: how many more runs of the one have it correct than of the other. With
    one run of each that is McNemar's test.
    """
    likely = np.ones(1)  # of each sum, from the lowest to the highest
    for size, n in zip(*np.unique(np.abs(differences[differences != 0]), return_counts=True), strict=True):
        ways = np.zeros(2 * size * n + 1)
        ways[:: 2 * size] = [
            math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
            for k in range(n + 1)
        ]
        likely = np.convolve(likely, ways)
    reach = abs(int(differences.sum()))
    return min(1.0, 2 * float(likely[len(likely) // 2 + reach :].sum())) if reach else 1.0


def bootstrap_difference(
    first: Bools, second: Bools, groups: Ints, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """The interval that holds the difference of two shares of correct answers with 95 % confidence.

    Both are R V: which of the same videos each run of a network has correct, as many runs as there are; `groups` are V,
    0 to G - 1: from which of G sources each video is. Videos of one source are alike, so groups are drawn anew with all
    their videos, for both at once, and runs for each of its own: it holds the luck of both (Efron, 1979; Davison and
    Hinkley, 1997, section 3.8). Of a single run nothing is known of its luck.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups)
    found = [np.array([np.bincount(groups, weights=run) for run in correct]) for correct in (first, second)]  # R G each
    differences = []
    for _ in range(draws):
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)))
        runs = [(counts @ times)[rng.integers(len(counts), size=len(counts))].mean() for counts in found]
        differences.append((runs[0] - runs[1]) / (sizes @ times))
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(low), float(high)


def holm_correction(ps: Sequence[float]) -> list[float]:
    """p-values of several tests at once, so that one of many is not taken for a find by chance (Holm, 1979)."""
    adjusted, highest = list(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a sample (n - 1); of a single value not a number."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), spread
