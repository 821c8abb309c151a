"""Official annotation files in their published formats, with any names and labels in them."""

import csv
import io
import json
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
    touch,
    write_lines,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.annotations.names import simplify
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


def csv_lines(rows, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\0").writerows(rows)
    return text.getvalue().split("\0")[:-1]


# UCF101 and HMDB51


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


# Kinetics


youtube_ids = st.text("abcXYZ059_-", min_size=11, max_size=11)
clips = st.lists(
    st.tuples(
        youtube_ids,
        st.integers(0, 4),  # which label
        st.sampled_from(["train", "val", "test"]),
        kinds,
        st.sampled_from(["{0}_{1:06d}_{2:06d}", "{0}_{1}_{2}", "{0}"]),
        st.sampled_from(["", "videos", "{}", "val/{_}"]),
        st.integers(0, 50000),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda clip: clip[0].lower(),
)


@settings(max_examples=30, deadline=None)
@given(
    clips=clips,
    labels=st.lists(file_names.filter(lambda t: len(t) != 11), min_size=5, max_size=5, unique_by=simplify),  # no ids
    end=line_ends,
    mark=byte_order_marks,
    one_file=st.booleans(),
)
def test_kinetics_keeps_any_name_and_label(tmp_path_factory, clips, labels, end, mark, one_file):
    root, rows, expected = tmp_path_factory.mktemp("kinetics"), {}, set()
    for youtube_id, which, split, kind, name, place, start in clips:
        label = labels[which]
        folder = root / "data" / place.replace("{_}", label.replace(" ", "_")).replace("{}", label)
        path = make_video(folder, name.format(youtube_id, start, start + 10), kind)
        expected.add((path, label, split))
        row = (label, youtube_id, start, start + 10, {"val": "validate"}.get(split, split), 0)
        rows.setdefault("all" if one_file else f"kinetics-600_{row[4]}", []).append(row if one_file else row[:4])
    header = ("label", "youtube_id", "time_start", "time_end", "split", "is_cc")
    for name, listed in rows.items():
        write_lines(root / f"{name}.csv", csv_lines([header[: len(listed[0])], *listed]), end, mark)
    write_lines(root / "label_map_k600.txt", sorted(labels), end, mark)
    dataset = read_dataset(root / "data", root)
    assert (labels_of(dataset), dataset.missing, dataset.notes) == (expected, (), ())
    assert {item.group for item in dataset.items} == {clip[0] for clip in clips}


HEADER = "label,youtube_id,time_start,time_end,split"


def test_official_kinetics_rows_and_label_map(real_data):
    read = read_annotations(real_data / "annotations" / "kinetics400", 1)
    assert len(read.annotations) == 2000
    assert read.annotations[0].name == "0wR5jVB-WPk_000417_000427"
    assert {e.split for e in read.annotations} == {"val"}
    assert read.notes == ()  # its label map is sorted


def test_missing_clips_are_counted(tmp_path):
    write_lines(tmp_path / "val.csv", [HEADER, "air drumming,x-_9,7,17,val", "air drumming,gone,7.0,17.0,val"])
    touch(tmp_path, "v/anything/x-_9_000007_000017.mkv")
    dataset = read_dataset(tmp_path / "v", tmp_path)
    assert [(i.label, i.split) for i in dataset.items] == [("air drumming", "val")]
    assert dataset.missing == ("gone_000007_000017",)
    assert "1 listed videos are missing (first: gone_000007_000017)" in dataset.describe()


def test_label_map_decides_how_labels_are_written(tmp_path):
    write_lines(tmp_path / "label_map_k400.txt", ["tying knot (not on a tie)", "air drumming"])
    write_lines(tmp_path / "val.csv", [HEADER, "tying_knot_(not_on_a_tie),a,0,10,val", "Air Drumming,b,0,10,val"])
    read = read_annotations(tmp_path, 1)
    assert [e.label for e in read.annotations] == ["tying knot (not on a tie)", "air drumming"]
    assert read.notes == ("label_map_k400.txt is not sorted: class numbers follow the sorted labels instead",)
    write_lines(tmp_path / "val.csv", [HEADER, "air drum,a,0,10,val"])
    with pytest.raises(
        UserError, match=r"val.csv, line 2: expected a label of label_map_k400.txt, found 'air drum'; did"
    ):
        read_annotations(tmp_path, 1)
    write_lines(tmp_path / "label_map_k600.txt", ["archery"])
    with pytest.raises(UserError, match=r"expected one label map in .*label_map_k400.txt and label_map_k600.txt"):
        read_annotations(tmp_path, 1)


@pytest.mark.parametrize(
    "lines",
    [["youtube_id,time_start,time_end,split", "a,0,10,test", "b,0,10,test"], [HEADER, ",a,0,10,test", ",b,0,10,test"]],
)
def test_unlabeled_test_files_are_left_out_with_a_note(tmp_path, lines):
    write_lines(tmp_path / "kinetics-400_test.csv", lines)
    write_lines(tmp_path / "kinetics-400_train.csv", [HEADER, "Run,c,0,10,train"])
    touch(tmp_path, "v/a.mp4", "v/c.mp4")
    dataset = read_dataset(tmp_path / "v", tmp_path)
    assert [item.path.name for item in dataset.items] == ["c.mp4"]
    assert dataset.describe().endswith("; 2 videos of kinetics-400_test.csv have no label and are left out")


def test_video_in_the_folder_of_another_label_is_another_one(tmp_path):
    write_lines(
        tmp_path / "val.csv", [HEADER, "Run,a,0,10,val", "Sit down,a,20,30,val", "Run,b,0,10,val", "Sit down,c,0,9,val"]
    )
    touch(tmp_path, "v/Sit_down/a.mp4", "v/Run/b.mp4", "v/Run/c.mp4")
    dataset = read_dataset(tmp_path / "v", tmp_path)
    assert labels_of(dataset) == {
        (tmp_path / "v/Sit_down/a.mp4", "Sit down", "val"),
        (tmp_path / "v/Run/b.mp4", "Run", "val"),
    }
    assert dataset.missing == ("a_000000_000010", "c_000000_000009")


def test_whole_video_with_two_labels_is_left_out(tmp_path):
    write_lines(
        tmp_path / "val.csv", [HEADER, "Run,a,0,10,val", "Sit,a,20,30,val", "Sit,b,0,10,val", "Sit,b,20,30,val"]
    )
    touch(tmp_path, "v/a.mp4", "v/b.mp4")
    dataset = read_dataset(tmp_path / "v", tmp_path)
    assert [item.path.name for item in dataset.items] == ["b.mp4"]
    assert "1 videos have several labels or splits and are left out (first: " in dataset.describe()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Run,a,x,10,val", "l.csv, line 2: time_start: expected seconds, found 'x'"),
        ("Run,a,0,,val", "line 2: time_end: expected seconds, found ''"),
        ("Run,,0,10,val", "line 2: expected a youtube_id and a label, found '' and 'Run'"),
        (",a,0,10,val", "line 2: expected a youtube_id and a label, found 'a' and ''"),
        ("Run,a,0,10,dev", "line 2: expected split train, val or test, found 'dev'"),
        ("Run,a,0,10,", "line 2: expected a split in the line, or train, val or test in the file's name"),
        ("Run,a,0,10", "line 2: expected 5 values .label, youtube_id, time_start, time_end, split., found 4"),
        ("Run, fast,a,0,10,val", "line 2: expected 5 values .*, found 6; a value that holds ',' needs quotes"),
        ('"Run,a,0,10,val', "line 2: expected values as in CSV, .*; is a quote not closed"),
        (
            "Run,a,0,10,val\nSit,a,0,10,val",
            "line 3: expected a_000000_000010 as in .*line 2 .'Run' in val., found 'Sit'",
        ),
    ],
)
def test_wrong_kinetics_files(tmp_path, row, message):
    write_lines(tmp_path / "l.csv", [HEADER, row])
    with pytest.raises(UserError, match=message):
        read_annotations(tmp_path, 1)


# Something-Something and Jester


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


# Any format


def test_folder_without_annotation_files(tmp_path):
    touch(tmp_path, "notes.csv", "labels.csv", "._trainlist01.txt")
    with pytest.raises(UserError, match=r"expected the annotation files of UCF101 .*found none of them"):
        read_annotations(tmp_path, 1)
    with pytest.raises(UserError, match="expected --annotations to be a folder of annotation files"):
        read_annotations(tmp_path / "notes.csv", 1)


def test_kinetics_json_is_not_that_of_something_something(tmp_path):
    write_lines(tmp_path / "train.json", ['{"a": {"annotations": {"label": "Run"}}}'])
    with pytest.raises(UserError, match="found none of them"):
        read_annotations(tmp_path, 1)
    write_lines(tmp_path / "train.csv", [HEADER, "Run,a,0,10,train"])
    assert read_annotations(tmp_path, 1).source == "Kinetics annotations"
    with pytest.raises(UserError, match=r"expected --split 1, the only split of .*, found 2"):
        read_annotations(tmp_path, 2)


@pytest.mark.parametrize(("text", "likely"), [("Run/v_é.avi 1\n", "windows-1252"), ("Run/v_e.avi 1\n", "utf-16")])
def test_other_encodings_are_named_with_the_command_to_convert(tmp_path, text, likely):
    (tmp_path / "trainlist01.txt").write_bytes((text if likely == "utf-16" else "Run/a.avi 1\n" + text).encode(likely))
    line = 1 if likely == "utf-16" else 2
    with pytest.raises(
        UserError, match=rf"trainlist01.txt, line {line}: expected UTF-8 text, found byte 0x.*iconv -f {likely}"
    ):
        read_annotations(tmp_path, 1)
