"""Draw train, validation and test splits from a seed, with groups kept together, and refuse data leakage.

Functions over items; no file is opened here.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from msfnet.recipe import Data
from msfnet.types import UserError, VideoItem

log = logging.getLogger(__name__)

TEST_FRACTION = 0.2  # share of the test set in a dataset without a split


def hold_out(items: Sequence[VideoItem], fraction: float, seed: int, group_split: bool = True) -> set[VideoItem]:
    """Draw a held-out set, stratified by class and with whole groups.

    Groups are visited in random order, and one is held out if that brings the number of held-out videos of its classes
    closer to the fraction (in least squares) and leaves every class a video.

    Args:
        items: The videos.
        fraction: Fraction of the videos of each class to hold out; at least one video, unless it is 0.
        seed: Seed of the order.
        group_split: Whether videos of one group stay together. A video without a group is always its own group.

    Returns:
        The held-out items. They do not depend on the order of `items`.
    """
    if not fraction:
        return set()
    members: dict[str, list[VideoItem]] = defaultdict(list)
    for item in sorted(items, key=lambda item: str(item.path)):
        group = item.group if group_split else None
        members[f"group {group}" if group else f"video {item.path}"].append(item)
    class_size = Counter(item.label for item in items)
    wanted = {label: max(1.0, fraction * n) for label, n in class_size.items()}
    n_held: Counter[str] = Counter()
    held_out: set[VideoItem] = set()
    names = list(members)
    for position in np.random.default_rng(seed).permutation(len(names)):
        group_items = members[names[position]]
        added = Counter(item.label for item in group_items)
        gain = sum((wanted[k] - n_held[k]) ** 2 - (wanted[k] - n_held[k] - n) ** 2 for k, n in added.items())
        if gain >= 0 and all(n_held[k] + n < class_size[k] for k, n in added.items()):
            n_held += added
            held_out.update(group_items)
    return held_out


def assign_splits(
    items: Sequence[VideoItem], val_fraction: float, seed: int, group_split: bool = True
) -> list[VideoItem]:
    """Give every item a split.

    Args:
        items: The videos. If none has a split, a test set is drawn; if some have, those without one become `train`.
        val_fraction: Fraction of the training videos to hold out as `val`, if there is no `val`.
        seed: Seed of what is drawn.
        group_split: Whether videos of one group are drawn into the same split.

    Returns:
        The items in the same order, with their splits.
    """
    if all(item.split is None for item in items):
        test = hold_out(items, TEST_FRACTION, seed, group_split)
        items = [replace(item, split="test" if item in test else "train") for item in items]
    else:
        items = [item if item.split else replace(item, split="train") for item in items]
    if not any(item.split == "val" for item in items):
        val = hold_out([item for item in items if item.split == "train"], val_fraction, seed + 1, group_split)
        items = [replace(item, split="val") if item in val else item for item in items]
    return list(items)


def find_group_leakage(items: Sequence[VideoItem]) -> dict[tuple[str, str], Counter[str]]:
    """Find groups with videos in several splits.

    Args:
        items: The videos. Groups of different classes are different groups: UCF101 has g01 to g25 in every class.

    Returns:
        (label, group) -> number of videos in each split, for the groups that are in several.
    """
    splits: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        if item.group and item.split:
            splits[item.label, item.group][item.split] += 1
    return {key: counts for key, counts in splits.items() if len(counts) > 1}


def check_group_leakage(items: Sequence[VideoItem]) -> None:
    """Raise UserError if a group has videos in several splits."""
    if leaking := find_group_leakage(items):
        (label, group), splits = next(iter(leaking.items()))
        raise UserError(
            f"expected each group in one split, found {len(leaking)} groups in several (first: {group} of {label}, in "
            f"{' and '.join(sorted(splits))}); this data leakage raises scores: remove the split to have one drawn by "
            "group, or accept it with --set data.group_split=false"
        )


def resolve_splits(items: Sequence[VideoItem], data: Data, seed: int, *, official: bool) -> list[VideoItem]:
    """Give every item a split as the table `[data]` of a recipe asks, from a given split or a drawn one.

    Args:
        items: Videos with their labels, groups and, if given, splits.
        data: The recipe's table: `val_fraction` and `group_split` apply.
        seed: Seed of what is drawn.
        official: Whether the split is a published one, which is kept even if it separates videos of one group.

    Returns:
        The items in the same order, with their splits.

    Raises:
        UserError: A given split separates videos of one group, `group_split` is on and the split is not official.
    """
    if data.group_split and not official:
        check_group_leakage(items)
    return assign_splits(items, data.val_fraction, seed, data.group_split)


def group_by_path(items: Iterable[VideoItem], pattern: str) -> list[VideoItem]:
    """Replace the groups of videos by what a regular expression finds in their paths.

    Args:
        items: Videos with any groups.
        pattern: Searched in each path, written with "/". Its first parenthesis, or without one the whole match, names
            the group. A video that it does not match is a group of its own.

    Returns:
        The items in the same order, with their groups.

    Raises:
        UserError: The pattern is not a regular expression, or matches no path.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"expected a regular expression for groups, found {pattern!r}: {error}") from error
    items = list(items)
    matches = [compiled.search(item.path.as_posix()) for item in items]
    if not any(matches):
        raise UserError(f"expected a regular expression that matches paths such as {items[0].path}, found {pattern!r}")
    if n := matches.count(None):
        log.warning("%d videos do not match %r: each is a group of its own", n, pattern)
    number = 1 if compiled.groups else 0
    return [replace(item, group=match[number] if match else None) for item, match in zip(items, matches, strict=True)]
