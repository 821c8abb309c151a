"""Finds the problems of a dataset from the descriptions of its files: pure functions that open no file.

Every problem has one kind of `KINDS`, a subject (a video, group or class) and a reason in one line.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfnet.data.splits import find_group_leakage
from msfnet.doctor.file_info import VideoInfo
from msfnet.types import VideoItem

KINDS = {
    "unreadable": "cannot be decoded",
    "damaged": "decoded only in part",
    "short": "fewer frames than a clip",
    "black": "every frame is black",
    "static": "every frame shows the same picture",
    "duplicate": "the same content twice in one split",
    "leakage": "the same content in several splits",
    "conflicting_label": "the same content with different labels",
    "missing": "listed, but the file does not exist",
    "group_leakage": "a group with videos in several splits",
    "empty_class": "a class without training videos",
}
UNUSABLE = frozenset({"unreadable", "black", "static", "duplicate", "leakage", "conflicting_label"})

_PRECEDENCE = ("test", "val", "train", None)  # copies in several splits: the one in the first of these splits is kept


@dataclass(frozen=True)
class Problem:
    """One problem of a dataset.

    Attributes:
        kind: A key of `KINDS`.
        subject: Path of the video; `LABEL, GROUP` for a group; the label for a class.
        reason: What is wrong, in one line.
        item: Index of the video in the dataset; None for a group, a class or a missing file.
        other: Path of the video with the same content, for copies.
    """

    kind: str
    subject: str
    reason: str
    item: int | None = None
    other: str | None = None


def find_problems(
    items: Sequence[VideoItem],
    info: Mapping[Path, VideoInfo],
    near_duplicates: Iterable[tuple[Path, Path]],
    clip_frames: int,
    missing: Iterable[str] = (),
    *,
    fps: float = 0.0,
) -> list[Problem]:
    """Return the problems of a dataset in the order of `KINDS`.

    In a dataset with splits, a video without a split counts as a training video.

    Args:
        items: The videos of the dataset.
        info: The description of every file.
        near_duplicates: Pairs of files with the same content and different bytes.
        clip_frames: Frames of a clip of the network.
        missing: Listed names of files that do not exist.
        fps: Frame rate at which videos are read; 0 reads every frame of a file.
    """
    if any(item.split for item in items):
        items = [replace(item, split=item.split or "train") for item in items]
    found = [
        *(p for i, item in enumerate(items) for p in _file_problems(i, item, info[item.path], clip_frames, fps)),
        *_copies(items, info, near_duplicates),
        *(Problem("missing", name, "it is listed, but the file does not exist") for name in missing),
        *_leaking_groups(items),
        *_empty_classes(items),
    ]
    kinds = list(KINDS)
    return sorted(found, key=lambda problem: kinds.index(problem.kind))


def _file_problems(index: int, item: VideoItem, info: VideoInfo, clip_frames: int, fps: float) -> Iterator[Problem]:
    """Yield the problems of one file that do not depend on others."""

    def problem(kind: str, reason: str) -> Problem:
        return Problem(kind, str(item.path), reason, index)

    if info.error:
        yield problem("unreadable", info.error)
        return
    if info.warning:
        yield problem("damaged", info.warning)
    frames = info.frames_at(fps)
    if frames < clip_frames:
        counted = ("1 frame" if frames == 1 else f"{frames} frames") + (f" at {fps:.4g} fps" if fps else "")
        yield problem("short", f"{counted}, fewer than the {clip_frames} frames of a clip")
    if info.black:
        yield problem("black", f"the brightest part of all frames has a luma of {info.brightest_luma:.0f} of 255")
    if info.static and frames >= clip_frames:  # a few frames of a real scene can be equal
        yield problem("static", f"all {info.frames} frames show the same picture")


# Copies


def _copies(
    items: Sequence[VideoItem], info: Mapping[Path, VideoInfo], near_duplicates: Iterable[tuple[Path, Path]]
) -> Iterator[Problem]:
    for cluster in _clusters(items, info, near_duplicates):
        labels = {items[i].label for i in cluster}
        kept, *others = sorted(cluster, key=lambda i: _preference(items[i], info[items[i].path]))
        if len(labels) > 1:
            for i in cluster:
                other = next(j for j in cluster if items[j].label != items[i].label)
                yield _copy("conflicting_label", i, other, items, info, f", which is labeled {items[other].label}")
            continue
        for i in others:
            if items[i].split == items[kept].split:
                yield _copy("duplicate", i, kept, items, info)
            else:
                where = f" of the {items[kept].split} split; this one is in {items[i].split}"
                yield _copy("leakage", i, kept, items, info, where)


def _clusters(
    items: Sequence[VideoItem], info: Mapping[Path, VideoInfo], near_duplicates: Iterable[tuple[Path, Path]]
) -> list[list[int]]:
    """Return clusters of two or more items with the same content: the connected components of the pairs."""
    parent = {digest: digest for found in info.values() if not found.error for digest in [found.digest]}

    def root(digest: str) -> str:  # union-find
        while parent[digest] != digest:
            parent[digest] = digest = parent[parent[digest]]
        return digest

    for a, b in near_duplicates:
        parent[root(info[a].digest)] = root(info[b].digest)
    clusters: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        if not info[item.path].error:
            clusters[root(info[item.path].digest)].append(i)
    return [cluster for cluster in clusters.values() if len(cluster) > 1]


def _preference(item: VideoItem, info: VideoInfo) -> tuple[int, bool, int, int, bool]:
    """Sort key of copies, the one to keep first: by split, then whole, largest frames, largest file, known group."""
    pixels = info.width_px * info.height_px
    return _PRECEDENCE.index(item.split), bool(info.warning), -pixels, -info.size_bytes, item.group is None


def _copy(
    kind: str, i: int, other: int, items: Sequence[VideoItem], info: Mapping[Path, VideoInfo], more: str = ""
) -> Problem:
    one, two = items[i].path, items[other].path
    if one == two:
        how = "listed twice: it is also"
    elif info[one].digest == info[two].digest:
        how = "the same bytes as"
    else:
        how = "the same content as"
    return Problem(kind, str(one), f"{how} {two}{more}", i, str(two))


# Groups and classes


def _leaking_groups(items: Sequence[VideoItem]) -> Iterator[Problem]:
    for (label, group), counted in sorted(find_group_leakage(items).items()):
        where = ", ".join(f"{n} in {split}" for split, n in sorted(counted.items()))
        yield Problem("group_leakage", f"{label}, {group}", f"videos of one person or scene in several splits: {where}")


def _empty_classes(items: Sequence[VideoItem]) -> Iterator[Problem]:
    """Yield the classes without training videos, for a dataset that has a training split."""
    trained = {item.label for item in items if item.split == "train"}
    for label, counted in class_counts(items).items():
        if trained and label not in trained:
            where = ", ".join(f"{n} in {split}" for split, n in counted.items())
            yield Problem("empty_class", label, f"it has no training videos, only {where}")


def class_counts(items: Sequence[VideoItem]) -> dict[str, dict[str, int]]:
    """Return the number of videos of each class in each split ("" is no split), without unlabeled videos."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        if item.label:
            counts[item.label][item.split or ""] += 1
    return {label: dict(sorted(counted.items())) for label, counted in sorted(counts.items())}


def imbalance(items: Sequence[VideoItem]) -> float:
    """Return the size of the largest class divided by that of the smallest, counting training videos if there are any.

    0 for a dataset without videos.
    """
    to_train = [item for item in items if item.split in (None, "train")] or items
    counts = Counter(item.label for item in to_train).values()
    return max(counts, default=0) / min(counts, default=1)


def usable_items(items: Sequence[VideoItem], problems: Iterable[Problem]) -> list[VideoItem]:
    """Return the items without unusable ones: unreadable, black, static, copies, and those with conflicting labels.

    Of copies one is kept, in the test split rather than in the training split. Short and damaged videos are kept:
    training repeats the last frame of short ones and reads what is left of damaged ones.
    """
    dropped = {problem.item for problem in problems if problem.kind in UNUSABLE}
    return [item for i, item in enumerate(items) if i not in dropped]
