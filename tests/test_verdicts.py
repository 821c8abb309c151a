"""What facts mean for a data set: tables written by hand, no file is opened."""

from dataclasses import replace
from pathlib import Path

import pytest

from msfnet.doctor.file_info import VideoFacts
from msfnet.doctor.problems import KINDS, Problem, class_counts, find_problems, imbalance, worth_training_on
from msfnet.types import VideoItem


def item(name, label="a", split=None, group=None):
    return VideoItem(Path(name), label, split, group)


def good(name, **changes):
    facts = VideoFacts(
        name, 1000, digest=name, frames=50, brightest_luma=200.0, motion_luma=30.0, width_px=64, height_px=48
    )
    return replace(facts, **changes)


def problems_of(items, changes=None, alike=(), missing=()):
    """(kind, subject, other) of all problems, of files that are good but for the changes."""
    facts = {i.path: good(str(i.path), **(changes or {}).get(str(i.path), {})) for i in items}
    pairs = [(Path(a), Path(b)) for a, b in alike]
    return [(p.kind, p.subject, p.other) for p in find_problems(items, facts, pairs, 8, missing)]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"error": "no"}, ["bad"]),
        ({"warning": "half"}, ["damaged"]),
        ({"num_frames": 8}, []),
        ({"num_frames": 7}, ["short"]),
        ({"brightest_luma": 23.9}, ["black"]),
        ({"brightest_luma": 24.0}, []),
        ({"brightest_luma": 3.0, "motion_luma": 0.0}, ["black"]),
        ({"motion_luma": 1.4}, ["still"]),
        ({"motion_luma": 1.6}, []),
        ({"motion_luma": 0.0, "num_frames": 3}, ["short"]),
        ({"warning": "half", "num_frames": 2}, ["damaged", "short"]),
        ({"claimed_frames": 7}, []),
    ],
)
def test_one_file(changes, kinds):
    assert [kind for kind, *_ in problems_of([item("x")], {"x": changes})] == kinds


@pytest.mark.parametrize(
    ("codec", "frames", "fps", "reason"),
    [
        ("h264", 24, 25 / 3, None),
        ("h264", 24, 0.0, None),
        ("h264", 20, 25 / 3, "7 frames at 8.33333 a second, fewer than the 8 of a clip"),
        ("h264", 2, 1.0, "1 frame at 1 a second, fewer than the 8 of a clip"),
        ("h264", 7, 50.0, None),
        ("images", 20, 25 / 3, None),  # have no rate
    ],
)
def test_a_video_is_short_at_the_rate_that_it_is_read_at(codec, frames, fps, reason):
    facts = {Path("x"): good("x", codec=codec, frames=frames, duration_seconds=frames / 25)}
    assert [p.reason for p in find_problems([item("x")], facts, (), 8, fps=fps)] == ([reason] if reason else [])


def test_of_copies_one_stays():
    items = [item(name) for name in "abcd"]
    same = {"c": {"digest": "b"}}
    assert problems_of(items, same) == [("duplicate", "c", "b")]
    assert problems_of(items, same, [("a", "b")]) == [("duplicate", "b", "a"), ("duplicate", "c", "a")]
    better = {"c": {"digest": "b", "width_px": 640}}
    assert problems_of(items, better) == [("duplicate", "b", "c")]
    damaged = {"c": {"width_px": 640, "warning": "half"}}
    assert problems_of(items, damaged, [("b", "c")]) == [("damaged", "c", None), ("duplicate", "c", "b")]


def test_bad_files_are_no_copies_of_each_other():
    empty = {"error": "the file is empty", "digest": "e"}
    assert [kind for kind, *_ in problems_of([item("a"), item("b")], {"a": empty, "b": empty})] == ["bad", "bad"]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "test"), [("leak", "a", "b")]),
        (("test", "train"), [("leak", "b", "a")]),
        (("val", "train"), [("leak", "b", "a")]),
        (("test", "val"), [("leak", "b", "a")]),
        (("test", None), [("leak", "b", "a")]),
        (("train", None), [("duplicate", "b", "a")]),
        (("test", "test"), [("duplicate", "b", "a")]),
    ],
)
def test_copies_in_two_splits_leak_and_test_keeps_its_own(splits, expected):
    items = [item("a", split=splits[0]), item("b", split=splits[1]), item("c", split="train")]
    assert problems_of(items, alike=[("a", "b")]) == expected


def test_a_path_listed_twice():
    items = [item("a", split="train"), item("a", split="test"), item("b", split="train"), item("b", split="train")]
    facts = {Path(name): good(name) for name in "ab"}
    problems = find_problems(items, facts, (), 8)
    assert [(p.kind, p.item, p.reason) for p in problems] == [
        ("duplicate", 3, "listed twice: it is also b"),
        ("leak", 0, "listed twice: it is also a of the test split, itself in train"),
    ]
    assert worth_training_on(items, problems) == items[1:3]


def test_one_content_under_two_labels_is_worth_nothing():
    items = [item("a", "run"), item("b", "walk"), item("c", "run"), item("d", "walk")]
    facts = {i.path: good(str(i.path), digest="same" if str(i.path) < "d" else "d") for i in items}
    problems = find_problems(items, facts, (), 8)
    assert [(p.kind, p.subject, p.other) for p in problems] == [
        ("contradiction", "a", "b"),
        ("contradiction", "b", "a"),
        ("contradiction", "c", "b"),
    ]
    assert problems[1].reason == "the same bytes as a, which is labeled run"
    assert worth_training_on(items, problems) == [items[3]]


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
        ("group", "a, g1", None),
        ("class", "b", None),
    ]
    assert problems_of([replace(i, split="test") for i in items]) == []
    assert problems_of([replace(i, split=None) for i in items]) == []


def test_balance():
    items = [item("1", "a", "train"), item("2", "a", "train"), item("3", "a", "test"), item("4", "b", "train")]
    assert class_counts(items) == {"a": {"test": 1, "train": 2}, "b": {"train": 1}}
    assert imbalance(items) == 2
    assert imbalance([]) == 0
    assert class_counts([item("x", "")]) == {}


def test_short_and_damaged_videos_stay():
    items = [item(kind) for kind in KINDS]
    problems = [Problem(kind, kind, "", i) for i, kind in enumerate(KINDS) if kind not in ("missing", "group", "class")]
    assert [i.path.name for i in worth_training_on(items, problems)] == [
        "damaged",
        "short",
        "missing",
        "group",
        "class",
    ]
