"""What is wrong with a data set, said from the facts of its files: pure functions, no file is opened here.

Every problem is of one kind of `KINDS`, names its video (group, class) and gives the reason in one line.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfnet.data.splits import parted_groups
from msfnet.doctor.file_info import VideoFacts
from msfnet.types import VideoItem

KINDS = {
    "bad": "cannot be decoded",
    "damaged": "decoded in part",
    "short": "fewer frames than a clip",
    "black": "nothing but black",
    "still": "one picture all the time",
    "duplicate": "the same content twice",
    "leak": "the same content in several splits",
    "contradiction": "the same content under two labels",
    "missing": "listed, but not there",
    "group": "a group in several splits",
    "class": "a class without videos to train on",
}
NOT_WORTH_TRAINING_ON = frozenset({"bad", "black", "still", "duplicate", "leak", "contradiction"})

_PRECEDENCE = ("test", "val", "train", None)  # of copies in several splits, the one that stays comes first


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `item` is the position of the video it is about (None: of a group or class or list).

    `other` is the video that this one is a copy of.
    """

    kind: str
    subject: str
    reason: str
    item: int | None = None
    other: str | None = None


def find_problems(
    items: Sequence[VideoItem],
    facts: Mapping[Path, VideoFacts],
    alike: Iterable[tuple[Path, Path]],
    clip_frames: int,
    missing: Iterable[str] = (),
    *,
    fps: float = 0.0,
) -> list[Problem]:
    """Everything that is wrong, in the order of `KINDS`. A clip of the network has `clip_frames`, `fps` a second.

    In a data set with splits, a video without one trains.
    """
    if any(item.split for item in items):
        items = [replace(item, split=item.split or "train") for item in items]
    found = [
        *(p for i, item in enumerate(items) for p in _file_problems(i, item, facts[item.path], clip_frames, fps)),
        *_copies(items, facts, alike),
        *(Problem("missing", name, "the list names it, but there is no such file") for name in missing),
        *_groups(items),
        *_classes(items),
    ]
    kinds = list(KINDS)
    return sorted(found, key=lambda problem: kinds.index(problem.kind))


def _file_problems(index: int, item: VideoItem, facts: VideoFacts, clip_frames: int, fps: float) -> Iterator[Problem]:
    """What is wrong with one file on its own."""

    def problem(kind: str, reason: str) -> Problem:
        return Problem(kind, str(item.path), reason, index)

    if facts.error:
        yield problem("bad", facts.error)
        return
    if facts.warning:
        yield problem("damaged", facts.warning)
    counted = facts.frames_at(fps)
    if counted < clip_frames:
        frames = ("1 frame" if counted == 1 else f"{counted} frames") + (f" at {fps:g} a second" if fps else "")
        yield problem("short", f"{frames}, fewer than the {clip_frames} of a clip")
    if facts.black:
        yield problem("black", f"no frame has anything brighter than {facts.brightest_luma:.0f} of 255")
    if facts.still and counted >= clip_frames:  # a moment of a real scene may be still
        yield problem("still", f"all {facts.frames} frames show the same picture")


# Copies


def _copies(
    items: Sequence[VideoItem], facts: Mapping[Path, VideoFacts], alike: Iterable[tuple[Path, Path]]
) -> Iterator[Problem]:
    for cluster in _clusters(items, facts, alike):
        labels = {items[i].label for i in cluster}
        kept, *rest = sorted(cluster, key=lambda i: _rank(items[i], facts[items[i].path]))  # the first of equals
        if len(labels) > 1:
            for i in cluster:
                other = next(j for j in cluster if items[j].label != items[i].label)
                yield _copy("contradiction", i, other, items, facts, f", which is labeled {items[other].label}")
            continue
        for i in rest:
            if items[i].split == items[kept].split:
                yield _copy("duplicate", i, kept, items, facts)
            else:
                where = f" of the {items[kept].split} split, itself in {items[i].split}"
                yield _copy("leak", i, kept, items, facts, where)


def _clusters(
    items: Sequence[VideoItem], facts: Mapping[Path, VideoFacts], alike: Iterable[tuple[Path, Path]]
) -> list[list[int]]:
    """Positions of items that show the same, two or more in each: same bytes, or found alike, or so in steps."""
    parent = {digest: digest for found in facts.values() if not found.error for digest in [found.digest]}

    def root(digest: str) -> str:
        while parent[digest] != digest:
            parent[digest] = digest = parent[parent[digest]]
        return digest

    for a, b in alike:
        parent[root(facts[a].digest)] = root(facts[b].digest)
    together: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        if not facts[item.path].error:
            together[root(facts[item.path].digest)].append(i)
    return [cluster for cluster in together.values() if len(cluster) > 1]


def _rank(item: VideoItem, facts: VideoFacts) -> tuple[int, bool, int, int, bool]:
    """The copy to keep comes first: of the test split, whole, of many pixels and bytes, of a group that is known."""
    pixels = facts.width_px * facts.height_px
    return _PRECEDENCE.index(item.split), bool(facts.warning), -pixels, -facts.size_bytes, item.group is None


def _copy(
    kind: str, i: int, other: int, items: Sequence[VideoItem], facts: Mapping[Path, VideoFacts], more: str = ""
) -> Problem:
    one, two = items[i].path, items[other].path
    if one == two:
        how = "listed twice: it is also"
    elif facts[one].digest == facts[two].digest:
        how = "the same bytes as"
    else:
        how = "shows the same as"
    return Problem(kind, str(one), f"{how} {two}{more}", i, str(two))


# Groups and classes


def _groups(items: Sequence[VideoItem]) -> Iterator[Problem]:
    for (label, group), counted in sorted(parted_groups(items).items()):
        where = ", ".join(f"{n} in {split}" for split, n in sorted(counted.items()))
        yield Problem(
            "group", f"{label}, {group}", f"its videos show one person or scene, but lie in several splits: {where}"
        )


def _classes(items: Sequence[VideoItem]) -> Iterator[Problem]:
    """Of a data set that has a train split, the classes that have nothing in it."""
    trained = {item.label for item in items if item.split == "train"}
    for label, counted in class_counts(items).items():
        if trained and label not in trained:
            where = ", ".join(f"{n} in {split}" for split, n in counted.items())
            yield Problem("class", label, f"none of its videos is to be trained on: {where}")


def class_counts(items: Sequence[VideoItem]) -> dict[str, dict[str, int]]:
    """Of each class, how many videos each split has ("" is no split). Videos without a label are left out."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        if item.label:
            counts[item.label][item.split or ""] += 1
    return {label: dict(sorted(counted.items())) for label, counted in sorted(counts.items())}


def imbalance(items: Sequence[VideoItem]) -> float:
    """How many times as many videos the largest class has as the smallest, among those to train on."""
    to_train = [item for item in items if item.split in (None, "train")] or items
    counts = Counter(item.label for item in to_train).values()
    return max(counts, default=0) / min(counts, default=1)


def worth_training_on(items: Sequence[VideoItem], problems: Iterable[Problem]) -> list[VideoItem]:
    """The items without those that are bad, black, still or a copy; of copies one stays, in test rather than in train.

    Short and damaged videos stay: training repeats the last frame of the former and reads what is left of the latter.
    """
    dropped = {problem.item for problem in problems if problem.kind in NOT_WORTH_TRAINING_ON}
    return [item for i, item in enumerate(items) if i not in dropped]
