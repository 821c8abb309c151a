"""Which videos an epoch shows when rare classes are to be seen more often: integers in, indices out.

Knows no video and no epoch: whatever is random comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msfnet.arrays import Ints


def balanced_order(labels: Sequence[int], balance: float, rng: np.random.Generator) -> Ints:
    """The order of an epoch of as many turns as there are videos, by the `labels` of these.

    A class of n videos gets turns in proportion to n^(1 - balance): with 1 every class has the same number, to within
    one, and on average over epochs exactly. Within a class no video has two turns more than another. Returns the number
    of the video at each turn.
    """
    classes, number = np.unique(np.asarray(labels), return_inverse=True)
    shares = np.bincount(number) ** (1 - balance)
    ends = np.floor(len(labels) * np.cumsum(shares) / shares.sum() + rng.random())
    ends[-1] = len(labels)
    quotas = np.diff(ends.astype(np.int64), prepend=0)
    turns = [np.resize(rng.permutation(np.flatnonzero(number == k)), quotas[k]) for k in range(len(classes))]
    return rng.permutation(np.concatenate(turns))
