"""Annotation files of UCF101 and HMDB51: those that are published, any names and labels, and wrong ones."""

from collections import Counter

import pytest
from annotation_files import (
    byte_order_marks,
    file_names,
    kinds,
    labels_of,
    line_ends,
    make_video,
    same_file,
    write_lines,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.annotations.official import read_annotations
from msfnet.data.annotations.readers import read_dataset
from msfnet.types import UserError

splits = st.sampled_from(["train", "test"])
in_folders = st.lists(
    st.tuples(st.tuples(file_names, file_names), splits, kinds),
    min_size=1,
    max_size=6,
    unique_by=lambda video: (same_file(video[0][0]), same_file(video[0][1])),
).filter(lambda videos: len({same_file(v[0][0]) for v in videos}) == len({v[0][0] for v in videos}))


def make_in_folders(root, videos):
    return {(make_video(root / label, name, kind), label, split) for (label, name), split, kind in videos}


@settings(max_examples=30, deadline=None)
@given(videos=in_folders, end=line_ends, mark=byte_order_marks, with_classes=st.booleans())
def test_ucf101_keeps_any_name_and_label(tmp_path_factory, videos, end, mark, with_classes):
    root = tmp_path_factory.mktemp("ucf")
    expected = make_in_folders(root / "videos", videos)
    numbers = {label: n for n, label in enumerate(sorted({label for (label, _), _, _ in videos}), 1)}
    for part in ("train", "test"):
        listed = [names for names, split, _ in videos if split == part]
        ending = {"train": lambda label: f" {numbers[label]}", "test": lambda label: ""}[part]
        lines = [f"{label}/{name}.avi{ending(label)}" for label, name in listed]
        write_lines(root / "annotations" / f"{part}list02.txt", lines, end, mark)
    if with_classes:
        write_lines(root / "annotations" / "classInd.txt", [f"{n} {label}" for label, n in numbers.items()], end, mark)
    dataset = read_dataset(root / "videos", root / "annotations", 2)
    assert (labels_of(dataset), dataset.missing, dataset.notes) == (expected, (), ())


@settings(max_examples=30, deadline=None)
@given(videos=in_folders, end=line_ends, mark=byte_order_marks)
def test_hmdb51_keeps_any_name_and_label(tmp_path_factory, videos, end, mark):
    root = tmp_path_factory.mktemp("hmdb")
    expected = make_in_folders(root / "videos", videos)
    numbers = {label: n for n, label in enumerate({label for (label, _), _, _ in videos})}
    for part, word in (("train", "train"), ("test", "val")):
        lines = [f"{label}/{name} {numbers[label]}" for (label, name), split, _ in videos if split == part]
        write_lines(root / "annotations" / f"hmdb51_vid_{word}_split_1.txt", lines, end, mark)
    write_lines(root / "annotations" / "label_map.txt", sorted(numbers), end, mark)
    dataset = read_dataset(root / "videos", root / "annotations")
    assert (labels_of(dataset), dataset.missing, dataset.notes) == (expected, (), ())


@settings(max_examples=30, deadline=None)
@given(videos=in_folders, end=line_ends, mark=byte_order_marks)
def test_original_hmdb51_keeps_any_name_and_label(tmp_path_factory, videos, end, mark):
    root = tmp_path_factory.mktemp("hmdb")
    expected = make_in_folders(root / "videos", videos)
    for label in {label for (label, _), _, _ in videos}:
        listed = [(name, split) for (other, name), split, _ in videos if other == label]
        lines = [f"{name}.avi {1 if split == 'train' else 2} " for name, split in listed]
        write_lines(root / "annotations" / f"{label}_test_split3.txt", [*lines, "not used.avi 0 "], end, mark)
    dataset = read_dataset(root / "videos", root / "annotations", 3)
    assert (labels_of(dataset), dataset.missing, dataset.notes) == (expected, (), ())


@pytest.mark.parametrize("split", [1, 2, 3])
def test_official_ucf101_files(real_data, split):
    annotations = read_annotations(real_data / "annotations" / "ucf101_official", split).annotations
    train, test = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}[split]
    assert Counter(e.split for e in annotations) == {"train": train, "test": test}
    assert len({e.label for e in annotations}) == 101


def test_public_hmdb51_files(real_data):
    read = read_annotations(real_data / "annotations" / "hmdb51", 1)
    assert Counter(e.split for e in read.annotations) == {"train": 3570, "test": 1530}
    assert set(Counter(e.label for e in read.annotations).values()) == {100}
    assert len({e.label for e in read.annotations}) == 51
    assert read.notes == ()


@pytest.mark.parametrize("split", [1, 2, 3])
def test_annotations_and_manifest_of_real_clips_agree(real_data, split):
    clips = real_data / "ucf101-18"
    by_annotations = read_dataset(clips, real_data / "annotations" / "ucf101_official", split)
    assert labels_of(by_annotations) == labels_of(read_dataset(clips, split=split))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("trainlist01.txt", ["Run/a.avi"], "trainlist01.txt, line 1: expected CLASS/VIDEO and the number"),
        ("trainlist01.txt", ["Run/a.avi 1", "", "a.avi 1"], "trainlist01.txt, line 3: expected CLASS/VIDEO"),
        ("trainlist01.txt", ["Run/a.avi 2"], "line 1: expected number 1 for Run, found 2"),
        ("trainlist01.txt", ["Runn/a.avi 1"], "expected a label of classInd.txt, found 'Runn'; did you mean 'Run'"),
        ("testlist01.txt", ["Run/v.avi"], "testlist01.txt, line 1: expected Run/v as in .*trainlist01.txt, line 1"),
        ("classInd.txt", ["Run"], "classInd.txt, line 1: expected a number and a new label"),
        ("classInd.txt", ["1 Run", "2 Run"], "classInd.txt, line 2: expected a number and a new label"),
        ("trainlist02.txt", [], "expected the annotation file .*testlist02.txt, found no such file; is --split right"),
    ],
)
def test_wrong_ucf101_files(tmp_path, name, lines, message):
    write_lines(tmp_path / "classInd.txt", ["1 Run", "2 Sit"])
    write_lines(tmp_path / "trainlist01.txt", ["Run/v.avi 1"])
    write_lines(tmp_path / "testlist01.txt", ["Sit/w.avi"])
    write_lines(tmp_path / name, lines)
    with pytest.raises(UserError, match=message):
        read_annotations(tmp_path, 2 if "02" in name else 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.avi 3", "Run_test_split1.txt, line 2: expected a video and 0, 1 or 2, found 'a.avi 3'"),
        ("a.avi", "line 2: expected a video and 0, 1 or 2"),
        (
            "b.avi 2",
            "line 2: expected Run/b as in .*line 1 .'Run' in train., found 'Run' in test; remove one of the lines",
        ),
    ],
)
def test_wrong_hmdb51_files(tmp_path, line, message):
    write_lines(tmp_path / "Run_test_split1.txt", ["b.avi 1", line])
    with pytest.raises(UserError, match=message):
        read_annotations(tmp_path, 1)
    with pytest.raises(UserError, match="is --split right"):
        read_annotations(tmp_path, 2)
