"""Who trains and who tests: pure functions over items, drawn from a seed, videos of one group never parted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from msfnet.types import VideoItem

TEST_FRACTION = 0.2  # of a data set that comes without a split


def hold_out(items: Sequence[VideoItem], fraction: float, seed: int) -> set[VideoItem]:
    """About `fraction` of the items of every class, whole groups at a time, leaving each class something behind.

    Groups are taken in random order as long as they bring the classes' shares nearer to the fraction (least
    squares). An item without a group is a group of its own.
    """
    if not fraction:
        return set()
    groups: dict[str, list[VideoItem]] = defaultdict(list)
    for item in sorted(items, key=lambda item: str(item.path)):
        groups[f"group {item.group}" if item.group else f"video {item.path}"].append(item)
    size = Counter(item.label for item in items)
    wanted = {label: max(1.0, fraction * n) for label, n in size.items()}
    held: Counter[str] = Counter()
    chosen: set[VideoItem] = set()
    names = list(groups)
    for position in np.random.default_rng(seed).permutation(len(names)):
        group = groups[names[position]]
        added = Counter(item.label for item in group)
        gain = sum((wanted[k] - held[k]) ** 2 - (wanted[k] - held[k] - n) ** 2 for k, n in added.items())
        if gain >= 0 and all(held[k] + n < size[k] for k, n in added.items()):
            held += added
            chosen.update(group)
    return chosen


def assign_splits(items: Sequence[VideoItem], val_fraction: float, seed: int) -> list[VideoItem]:
    """Give every item a split: drawn where there is none, and a part of train as val where there is no val.

    Items with a split keep it, but for those that move from train to val; those without one in a data set that has
    splits train.
    """
    if all(item.split is None for item in items):
        test = hold_out(items, TEST_FRACTION, seed)
        items = [replace(item, split="test" if item in test else "train") for item in items]
    else:
        items = [item if item.split else replace(item, split="train") for item in items]
    if not any(item.split == "val" for item in items):
        val = hold_out([item for item in items if item.split == "train"], val_fraction, seed + 1)
        items = [replace(item, split="val") if item in val else item for item in items]
    return list(items)
