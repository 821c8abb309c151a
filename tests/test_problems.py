"""Problems of a dataset: tables written by hand, no file is opened."""

from dataclasses import replace
from pathlib import Path

import pytest

from msfnet.doctor.file_info import VideoInfo
from msfnet.doctor.problems import KINDS, Problem, class_counts, find_problems, imbalance, usable_items
from msfnet.types import VideoItem


def item(name, label="a", split=None, group=None):
    return VideoItem(Path(name), label, split, group)


def usable(name, **changes):
    info = VideoInfo(
        name, 1000, digest=name, frames=50, brightest_luma=200.0, motion_luma=30.0, width_px=64, height_px=48
    )
    return replace(info, **changes)


def problems_of(items, changes=None, near_duplicates=(), missing=()):
    """(kind, subject, other) of all problems, of files without a problem apart from the changes."""
    info = {i.path: usable(str(i.path), **(changes or {}).get(str(i.path), {})) for i in items}
    pairs = [(Path(a), Path(b)) for a, b in near_duplicates]
    return [(p.kind, p.subject, p.other) for p in find_problems(items, info, pairs, 8, missing)]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"error": "no"}, ["unreadable"]),
        ({"warning": "half"}, ["damaged"]),
        ({"frames": 8}, []),
        ({"frames": 7}, ["short"]),
        ({"brightest_luma": 23.9}, ["black"]),
        ({"brightest_luma": 24.0}, []),
        ({"brightest_luma": 3.0, "motion_luma": 0.0}, ["black"]),
        ({"motion_luma": 1.4}, ["static"]),
        ({"motion_luma": 1.6}, []),
        ({"motion_luma": 0.0, "frames": 3}, ["short"]),
        ({"warning": "half", "frames": 2}, ["damaged", "short"]),
        ({"header_frames": 7}, []),
    ],
)
def test_problems_of_one_file(changes, kinds):
    assert [kind for kind, *_ in problems_of([item("x")], {"x": changes})] == kinds


@pytest.mark.parametrize(
    ("codec", "frames", "fps", "reason"),
    [
        ("h264", 24, 25 / 3, None),
        ("h264", 24, 0.0, None),
        ("h264", 20, 25 / 3, "7 frames at 8.333 fps, fewer than the 8 frames of a clip"),
        ("h264", 2, 1.0, "1 frame at 1 fps, fewer than the 8 frames of a clip"),
        ("h264", 7, 50.0, None),
        ("images", 20, 25 / 3, None),  # without a frame rate
    ],
)
def test_short_at_the_frame_rate_of_reading(codec, frames, fps, reason):
    info = {Path("x"): usable("x", codec=codec, frames=frames, duration_seconds=frames / 25)}
    assert [p.reason for p in find_problems([item("x")], info, (), 8, fps=fps)] == ([reason] if reason else [])


def test_one_copy_is_kept():
    items = [item(name) for name in "abcd"]
    same = {"c": {"digest": "b"}}
    assert problems_of(items, same) == [("duplicate", "c", "b")]
    assert problems_of(items, same, [("a", "b")]) == [("duplicate", "b", "a"), ("duplicate", "c", "a")]
    larger = {"c": {"digest": "b", "width_px": 640}}
    assert problems_of(items, larger) == [("duplicate", "b", "c")]
    damaged = {"c": {"width_px": 640, "warning": "half"}}
    assert problems_of(items, damaged, [("b", "c")]) == [("damaged", "c", None), ("duplicate", "c", "b")]


def test_unreadable_files_are_no_copies():
    empty = {"error": "the file is empty", "digest": "e"}
    assert [kind for kind, *_ in problems_of([item("a"), item("b")], {"a": empty, "b": empty})] == [
        "unreadable",
        "unreadable",
    ]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "test"), [("leakage", "a", "b")]),
        (("test", "train"), [("leakage", "b", "a")]),
        (("val", "train"), [("leakage", "b", "a")]),
        (("test", "val"), [("leakage", "b", "a")]),
        (("test", None), [("leakage", "b", "a")]),
        (("train", None), [("duplicate", "b", "a")]),
        (("test", "test"), [("duplicate", "b", "a")]),
    ],
)
def test_leakage(splits, expected):
    """Of copies in two splits, the one in the test split is kept."""
    items = [item("a", split=splits[0]), item("b", split=splits[1]), item("c", split="train")]
    assert problems_of(items, near_duplicates=[("a", "b")]) == expected


def test_path_listed_twice():
    items = [item("a", split="train"), item("a", split="test"), item("b", split="train"), item("b", split="train")]
    info = {Path(name): usable(name) for name in "ab"}
    problems = find_problems(items, info, (), 8)
    assert [(p.kind, p.item, p.reason) for p in problems] == [
        ("duplicate", 3, "listed twice: it is also b"),
        ("leakage", 0, "listed twice: it is also a of the test split; this one is in train"),
    ]
    assert usable_items(items, problems) == items[1:3]


def test_conflicting_labels():
    items = [item("a", "run"), item("b", "walk"), item("c", "run"), item("d", "walk")]
    info = {i.path: usable(str(i.path), digest="same" if str(i.path) < "d" else "d") for i in items}
    problems = find_problems(items, info, (), 8)
    assert [(p.kind, p.subject, p.other) for p in problems] == [
        ("conflicting_label", "a", "b"),
        ("conflicting_label", "b", "a"),
        ("conflicting_label", "c", "b"),
    ]
    assert problems[1].reason == "the same bytes as a, which is labeled run"
    assert usable_items(items, problems) == [items[3]]


def test_groups_and_classes():
    items = [
        item("a1", "a", "train", "g1"),
        item("a2", "a", "test", "g1"),
        item("a3", "a", "train", "g2"),
        item("b1", "b", "test", "g3"),
        item("b2", "b", "test", "g3"),
        item("c1", "c", None, "g4"),
    ]
    assert problems_of(items, missing=["gone"]) == [
        ("missing", "gone", None),
        ("group_leakage", "a, g1", None),
        ("empty_class", "b", None),
    ]
    assert problems_of([replace(i, split="test") for i in items]) == []
    assert problems_of([replace(i, split=None) for i in items]) == []


def test_class_counts_and_imbalance():
    items = [item("1", "a", "train"), item("2", "a", "train"), item("3", "a", "test"), item("4", "b", "train")]
    assert class_counts(items) == {"a": {"test": 1, "train": 2}, "b": {"train": 1}}
    assert imbalance(items) == 2
    assert imbalance([]) == 0
    assert class_counts([item("x", "")]) == {}


def test_short_and_damaged_videos_are_kept():
    items = [item(kind) for kind in KINDS]
    problems = [
        Problem(kind, kind, "", i)
        for i, kind in enumerate(KINDS)
        if kind not in ("missing", "group_leakage", "empty_class")
    ]
    assert [i.path.name for i in usable_items(items, problems)] == [
        "damaged",
        "short",
        "missing",
        "group_leakage",
        "empty_class",
    ]
