"""Scores of predictions: pure functions of arrays. `scores` are N K, higher is better; `labels` are N in 0..K-1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from msfnet.arrays import Floats, Ints


def in_top(scores: Floats, labels: Ints, k: int) -> npt.NDArray[np.bool_]:
    """Whether fewer than `k` classes score above the true one: N. A tie counts against, so a constant scores zero."""
    own = scores[np.arange(len(labels)), labels]
    others_as_good = (scores >= own[:, None]).sum(1) - 1
    return others_as_good < k


def top_k(scores: Floats, labels: Ints, failed: int = 0) -> dict[str, float]:
    """Share of right answers among the first 1 and 5, `failed` more counted as wrong. With no answers, zero."""
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
