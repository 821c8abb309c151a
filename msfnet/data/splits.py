"""Who trains and who tests: pure functions over items, drawn from a seed, videos of one group never parted."""

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

TEST_FRACTION = 0.2  # of a data set that comes without a split


def hold_out(items: Sequence[VideoItem], fraction: float, seed: int, group_split: bool = True) -> set[VideoItem]:
    """About `fraction` of the items of every class, whole groups at a time, leaving each class something behind.

    Groups are taken in random order as long as they bring the classes' shares nearer to the fraction (least
    squares). An item without a group is a group of its own, and without `group_split` every item is.
    """
    if not fraction:
        return set()
    members: dict[str, list[VideoItem]] = defaultdict(list)
    for item in sorted(items, key=lambda item: str(item.path)):
        together = item.group if group_split else None
        members[f"group {together}" if together else f"video {item.path}"].append(item)
    size = Counter(item.label for item in items)
    wanted = {label: max(1.0, fraction * n) for label, n in size.items()}
    held: Counter[str] = Counter()
    chosen: set[VideoItem] = set()
    names = list(members)
    for position in np.random.default_rng(seed).permutation(len(names)):
        group = members[names[position]]
        added = Counter(item.label for item in group)
        gain = sum((wanted[k] - held[k]) ** 2 - (wanted[k] - held[k] - n) ** 2 for k, n in added.items())
        if gain >= 0 and all(held[k] + n < size[k] for k, n in added.items()):
            held += added
            chosen.update(group)
    return chosen


def assign_splits(
    items: Sequence[VideoItem], val_fraction: float, seed: int, group_split: bool = True
) -> list[VideoItem]:
    """Give every item a split: drawn where there is none, and a part of train as val where there is no val.

    Items with a split keep it, but for those that move from train to val; those without one in a data set that has
    splits train. Without `group_split` videos of one group may be drawn into different splits.
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


def parted_groups(items: Sequence[VideoItem]) -> dict[tuple[str, str], Counter[str]]:
    """(label, group) whose videos lie in several splits -> how many in each.

    Groups of different classes are different groups: names say no more, as UCF101's g01 to g25.
    """
    splits: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        if item.group and item.split:
            splits[item.label, item.group][item.split] += 1
    return {key: counted for key, counted in splits.items() if len(counted) > 1}


def refuse_leaks(items: Sequence[VideoItem]) -> None:
    """Raises UserError when videos of one group lie on both sides of the split."""
    if parted := parted_groups(items):
        (label, group), splits = next(iter(parted.items()))
        raise UserError(
            f"the split parts {len(parted)} groups (first: {group} of {label}, in {' and '.join(sorted(splits))}): "
            "clips of one scene on both sides make scores look better; remove the split to have one drawn "
            "by group, or --set data.group_split=false to take it all the same"
        )


def resolve_splits(items: Sequence[VideoItem], data: Data, seed: int, *, official: bool) -> list[VideoItem]:
    """Give every item a split as the table `[data]` of a recipe asks, from a given split or a drawn one.

    Args:
        items: Videos with their labels, groups and, if given, splits.
        data: The recipe's table: `val_fraction` and `group_split` apply.
        seed: Seed of what is drawn.
        official: Whether the split is a published one, which is kept even if it separates videos of one group.

    Raises:
        UserError: A given split separates videos of one group, `group_split` is on and the split is not official.
    """
    if data.group_split and not official:
        refuse_leaks(items)
    return assign_splits(items, data.val_fraction, seed, data.group_split)


def group_by_path(items: Iterable[VideoItem], pattern: str) -> list[VideoItem]:
    """Replace the groups of videos by what a regular expression finds in their paths.

    Args:
        items: Videos with any groups.
        pattern: Searched in each path, written with "/". Its first parenthesis, or without one the whole match, names
            the group. A video that it does not match is a group of its own.

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
