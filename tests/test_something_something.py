"""Annotation files of Something-Something and Jester: any labels, in all published formats, and wrong ones."""

import json

import pytest
from annotation_files import (
    byte_order_marks,
    csv_lines,
    file_names,
    kinds,
    labels_of,
    line_ends,
    make_video,
    write_lines,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.annotations.names import simplify
from msfnet.data.annotations.official import read_annotations
from msfnet.data.annotations.readers import read_dataset
from msfnet.types import UserError

by_id = st.lists(
    st.tuples(st.integers(1, 300000), st.integers(0, 4), st.sampled_from(["train", "val"]), kinds, st.booleans()),
    min_size=1,
    max_size=6,
    unique_by=lambda video: video[0],
)
five_labels = st.lists(file_names.filter(lambda t: not set("[]") & set(t)), min_size=5, max_size=5, unique_by=simplify)


def make_by_id(root, videos, labels):
    return {
        (make_video(root / "20bn" if deep else root, str(number), kind), labels[which], split)
        for number, which, split, kind, deep in videos
    }


@settings(max_examples=30, deadline=None)
@given(
    videos=by_id,
    labels=five_labels,
    end=line_ends,
    mark=byte_order_marks,
    prefix=st.sampled_from(["something-something-v2-", ""]),
)
def test_something_something_json_keeps_any_label(tmp_path_factory, videos, labels, end, mark, prefix):
    root = tmp_path_factory.mktemp("something")
    labels = [f"Showing {label} to something" for label in labels]
    expected = make_by_id(root / "videos", videos, labels)
    for part, word in (("train", "train"), ("val", "validation")):
        listed = [
            {"id": str(number), "label": "showing a cup to a cat", "template": labels[which][:-9] + "[something]"}
            for number, which, split, _, _ in videos
            if split == part
        ]
        text = json.dumps(listed, indent=4, ensure_ascii=bool(mark))
        write_lines(root / "annotations" / f"{prefix}{word}.json", text.split("\n"), end, mark)
    numbers = {label: str(n) for n, label in enumerate(sorted(labels))}
    write_lines(root / "annotations" / f"{prefix}labels.json", [json.dumps(numbers)], end, mark)
    write_lines(root / "annotations" / f"{prefix}test.json", ['[{"id": "1"}, {"id": "7"}]'], end, mark)
    dataset = read_dataset(root / "videos", root / "annotations")
    assert (labels_of(dataset), dataset.missing) == (expected, ())
    assert dataset.notes == (f"2 videos of {prefix}test.json have no label and are left out",)


def test_answers_label_the_test_videos(tmp_path):
    write_lines(tmp_path / "train.json", ['[{"id": 1, "template": "Holding [something]"}]'])
    write_lines(tmp_path / "test.json", ['[{"id": "2"}, {"id": "3"}]'])
    write_lines(tmp_path / "test-answers.csv", ["2;Holding something"])
    read = read_annotations(tmp_path, 1)
    assert [(e.name, e.label, e.split) for e in read.annotations] == [
        ("2", "Holding something", "test"),
        ("1", "Holding something", "train"),
    ]
    assert read.notes == ("1 videos of test.json have no label and are left out",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[{"id": "1", "template": "A"},\n{"id" "2"}]',
            "train.json, line 2: expected JSON, found Expecting ':' delimiter",
        ),
        ('[{"id": "1"}]', "train.json, entry 1: expected a template, found None"),
        (
            '[{"id": "1", "template": "A"}, {"template": "A"}]',
            "train.json, entry 2: expected a video with id and templ",
        ),
        ('["1"]', "train.json, entry 1: expected a video with id and template, found '1'"),
        ('[{"id": "1", "template": "[B]"}]', "train.json, entry 1: expected a label of labels.json, found 'B'"),
        (
            '[{"id": 1, "template": "A"}, {"id": "1", "template": "C"}]',
            "entry 2: expected 1 as in .*entry 1 .'A' in train",
        ),
    ],
)
def test_wrong_something_something_json(tmp_path, text, message):
    write_lines(tmp_path / "labels.json", ['{"A": "0", "C": "1"}'])
    write_lines(tmp_path / "train.json", [text])
    with pytest.raises(UserError, match=message):
        read_annotations(tmp_path, 1)


@pytest.mark.parametrize("text", ['["A"]', '{"A": "first"}', '{"A": null}', "3"])
def test_wrong_something_something_labels(tmp_path, text):
    write_lines(tmp_path / "train.json", ["[]"])
    write_lines(tmp_path / "labels.json", [text])
    with pytest.raises(UserError, match=r"labels.json: expected an object of labels and their numbers"):
        read_annotations(tmp_path, 1)


@settings(max_examples=30, deadline=None)
@given(
    videos=by_id,
    labels=five_labels,
    end=line_ends,
    mark=byte_order_marks,
    name=st.sampled_from(["jester-v1", "something-something-v1"]),
)
def test_csv_by_id_keeps_any_label(tmp_path_factory, videos, labels, end, mark, name):
    root = tmp_path_factory.mktemp("jester")
    expected = make_by_id(root / "videos", videos, labels)
    for part, word in (("train", "train"), ("val", "validation")):
        rows = [(number, labels[which]) for number, which, split, _, _ in videos if split == part]
        write_lines(root / "annotations" / f"{name}-{word}.csv", csv_lines(rows, ";"), end, mark)
    write_lines(
        root / "annotations" / f"{name}-labels.csv", csv_lines([[label] for label in sorted(labels)], ";"), end, mark
    )
    write_lines(root / "annotations" / f"{name}-test.csv", ["100001", "100002"], end, mark)
    dataset = read_dataset(root / "videos", root / "annotations")
    assert (labels_of(dataset), dataset.missing) == (expected, ())
    assert dataset.notes == (f"2 videos of {name}-test.csv have no label and are left out",)


@settings(max_examples=30, deadline=None)
@given(videos=by_id, labels=five_labels, end=line_ends, mark=byte_order_marks)
def test_csv_by_id_with_a_header_keeps_any_label(tmp_path_factory, videos, labels, end, mark):
    root = tmp_path_factory.mktemp("jester")
    expected = make_by_id(root / "videos", videos, labels)
    for part, word in (("train", "Train"), ("val", "Validation")):
        rows = [
            (n, labels[which], 37, which, "(37, 100, 176, 3)", "jpg") for n, which, split, *_ in videos if split == part
        ]
        header = ("video_id", "label", "frames", "label_id", "shape", "format")
        write_lines(root / "annotations" / f"{word}.csv", csv_lines([header, *rows]), end, mark)
    write_lines(root / "annotations" / "Test.csv", ["id,frames", "9,37"], end, mark)
    dataset = read_dataset(root / "videos", root / "annotations")
    assert (labels_of(dataset), dataset.missing) == (expected, ())
    assert dataset.notes == ("1 videos of Test.csv have no label and are left out",)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("jester-v1-train.csv", ["1;Stop", "2"], "jester-v1-train.csv, line 2: expected a label, found none"),
        ("jester-v1-train.csv", ["1;Stop;3"], "jester-v1-train.csv, line 1: expected id;label, found '1;Stop;3'"),
        ("jester-v1-train.csv", ["1;Stop", ";Stop"], "line 2: expected id;label, found ';Stop'"),
        (
            "jester-v1-train.csv",
            ["1;Stopp"],
            "expected a label of jester-v1-labels.csv, found 'Stopp'; did you mean 'Stop'",
        ),
        (
            "jester-v1-labels.csv",
            ["Stop", "Stop"],
            "jester-v1-labels.csv, line 2: expected each label once, found 'Stop'",
        ),
        ("Train.csv", ["video_id,label", ",Stop"], "Train.csv, line 2: expected a video_id, found none"),
        ("Train.csv", ["video_id,label", "3,"], "Train.csv, line 2: expected a label, found none"),
        ("Train.csv", ["video_id,label,label", "3,a,b"], "Train.csv: expected each column once, found 'label' twice"),
    ],
)
def test_wrong_csv_by_id(tmp_path, name, lines, message):
    write_lines(tmp_path / "jester-v1-validation.csv", ["5;Stop"])
    write_lines(tmp_path / "jester-v1-labels.csv", ["Stop"])
    write_lines(tmp_path / name, lines)
    with pytest.raises(UserError, match=message):
        read_annotations(tmp_path, 1)
