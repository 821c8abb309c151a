"""Drawn splits keep groups together and leave every class videos to train on; a leaking split is refused."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.splits import (
    assign_splits,
    check_group_leakage,
    find_group_leakage,
    group_by_path,
    hold_out,
)
from msfnet.types import UserError, VideoItem


def make_items(*rows):
    return [VideoItem(Path(f"{i}.mp4"), label, split, group) for i, (label, split, group) in enumerate(rows)]


labels, groups = st.sampled_from("abc"), st.sampled_from([None, "1", "2", "3", "4", "5", "6", "7", "8"])
item_lists = st.lists(st.tuples(labels, st.none(), groups), min_size=1, max_size=60).map(lambda r: make_items(*r))


@given(item_lists, st.floats(0, 0.9), st.integers(0, 1000))
def test_held_out_groups_are_whole_and_no_class_is_emptied(items, fraction, seed):
    held_out = hold_out(items, fraction, seed)
    for group in {item.group for item in items if item.group}:
        assert len({item in held_out for item in items if item.group == group}) == 1
    for label in {item.label for item in items}:
        assert any(item.label == label and item not in held_out for item in items)
    assert held_out == hold_out(items[::-1], fraction, seed)  # the order of a directory listing does not matter


def test_fraction_is_met_in_every_class():
    items = make_items(*[(label, None, str(g)) for label in "abc" for g in range(25) for _ in range(4)])
    held_out = hold_out(items, 0.2, 0)
    assert Counter(item.label for item in held_out) == {"a": 20, "b": 20, "c": 20}
    assert held_out != hold_out(items, 0.2, 1)


def test_nothing_is_held_out_of_one_group_or_at_fraction_0():
    assert hold_out(make_items(*[("a", None, "1")] * 5), 0.3, 0) == set()
    assert hold_out(make_items(*[("a", None, None)] * 5), 0, 0) == set()


def test_given_splits_are_kept_and_val_is_drawn_from_train():
    items = make_items(*[("a", "train", None)] * 10, *[("a", "test", None)] * 5, ("a", None, None))
    splits = Counter(item.split for item in assign_splits(items, 0.2, 0))
    assert splits == {"train": 9, "val": 2, "test": 5}
    with_val = make_items(("a", "train", None), ("a", "val", None))
    assert assign_splits(with_val, 0.5, 0) == with_val


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_official_test_split_is_kept_and_val_shares_no_group(real_data, seed):
    items = assign_splits(read_dataset(real_data / "ucf101-18").items, 0.1, seed)
    counts = Counter(item.split for item in items)
    assert counts["test"] == 498
    assert counts["train"] + counts["val"] == 1293
    assert 0.05 * 1293 < counts["val"] < 0.15 * 1293
    parts = {split: {item.group for item in items if item.split == split} for split in counts}
    assert not parts["train"] & parts["val"]
    assert not (parts["train"] | parts["val"]) & parts["test"]


# Groups


def test_group_in_two_splits_is_refused():
    items = make_items(("a", "train", "g1"), ("a", "test", "g1"), ("a", "test", "g2"), ("b", "train", "g2"))
    assert {key: dict(n) for key, n in find_group_leakage(items).items()} == {("a", "g1"): {"train": 1, "test": 1}}
    with pytest.raises(
        UserError, match=r"found 1 groups in several \(first: g1 of a, in test and train\).*data.group_split=false"
    ):
        check_group_leakage(items)


def test_groups_of_one_split_or_several_classes_do_not_leak():
    items = make_items(
        *[("a", "train", "g1"), ("a", "train", "g1"), ("a", None, "g1")],  # without a split, a video is in none
        *[("b", "test", "g1"), ("a", "test", None), ("a", "train", None)],
    )
    assert find_group_leakage(items) == {}
    check_group_leakage(items)


def test_without_group_split_videos_are_drawn_one_by_one():
    items = make_items(*[("a", None, f"g{g}") for g in range(4) for _ in range(25)])
    leaking = find_group_leakage(assign_splits(items, 0.2, seed=0, group_split=False))
    assert len(leaking) == 4
    assert find_group_leakage(assign_splits(items, 0.2, seed=0)) == {}


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [("camera_[0-9]+", ["camera_1", "camera_2", None]), ("camera_([0-9]+)", ["1", "2", None]), ("run", ["run"] * 3)],
)
def test_groups_by_path(pattern, groups):
    items = [
        VideoItem(Path("run") / name, "run", group="old") for name in ("camera_1/a.mp4", "camera_2/a.mp4", "b.mp4")
    ]
    assert [item.group for item in group_by_path(items, pattern)] == groups


@pytest.mark.parametrize(
    ("pattern", "message"), [("camera(", "expected a regular expression"), ("walk", "matches paths such as run.mp4")]
)
def test_wrong_group_patterns(pattern, message):
    with pytest.raises(UserError, match=message):
        group_by_path([VideoItem(Path("run.mp4"), "run")], pattern)
