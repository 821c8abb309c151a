"""The official lists, in the forms they are published in and with whatever stands in them."""

import csv
import io
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listed import alike, file_names, kinds, line_ends, make_video, marks, told, touch, write_list

from msfnet.data.annotations.names import plain
from msfnet.data.annotations.official_lists import read_lists
from msfnet.data.annotations.readers import read_dataset
from msfnet.types import UserError

splits = st.sampled_from(["train", "test"])
in_folders = st.lists(
    st.tuples(st.tuples(file_names, file_names), splits, kinds),
    min_size=1,
    max_size=6,
    unique_by=lambda video: (alike(video[0][0]), alike(video[0][1])),
).filter(lambda videos: len({alike(v[0][0]) for v in videos}) == len({v[0][0] for v in videos}))


def make_in_folders(root, videos):
    return {(make_video(root / label, name, kind), label, split) for (label, name), split, kind in videos}


def csv_lines(rows, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\0").writerows(rows)
    return text.getvalue().split("\0")[:-1]


# UCF101 and HMDB51


@settings(max_examples=30, deadline=None)
@given(videos=in_folders, end=line_ends, mark=marks, with_classes=st.booleans())
def test_ucf101_lists_keep_any_name_and_label(tmp_path_factory, videos, end, mark, with_classes):
    root = tmp_path_factory.mktemp("ucf")
    expected = make_in_folders(root / "videos", videos)
    numbers = {label: n for n, label in enumerate(sorted({label for (label, _), _, _ in videos}), 1)}
    for part in ("train", "test"):
        listed = [names for names, split, _ in videos if split == part]
        ending = {"train": lambda label: f" {numbers[label]}", "test": lambda label: ""}[part]
        lines = [f"{label}/{name}.avi{ending(label)}" for label, name in listed]
        write_list(root / "lists" / f"{part}list02.txt", lines, end, mark)
    if with_classes:
        write_list(root / "lists" / "classInd.txt", [f"{n} {label}" for label, n in numbers.items()], end, mark)
    listing = read_dataset(root / "videos", root / "lists", 2)
    assert (told(listing), listing.missing, listing.notes) == (expected, (), ())


@settings(max_examples=30, deadline=None)
@given(videos=in_folders, end=line_ends, mark=marks)
def test_hmdb51_lists_keep_any_name_and_label(tmp_path_factory, videos, end, mark):
    root = tmp_path_factory.mktemp("hmdb")
    expected = make_in_folders(root / "videos", videos)
    numbers = {label: n for n, label in enumerate({label for (label, _), _, _ in videos})}
    for part, word in (("train", "train"), ("test", "val")):
        lines = [f"{label}/{name} {numbers[label]}" for (label, name), split, _ in videos if split == part]
        write_list(root / "lists" / f"hmdb51_vid_{word}_split_1.txt", lines, end, mark)
    write_list(root / "lists" / "label_map.txt", sorted(numbers), end, mark)
    listing = read_dataset(root / "videos", root / "lists")
    assert (told(listing), listing.missing, listing.notes) == (expected, (), ())


@settings(max_examples=30, deadline=None)
@given(videos=in_folders, end=line_ends, mark=marks)
def test_original_hmdb51_lists_keep_any_name_and_label(tmp_path_factory, videos, end, mark):
    root = tmp_path_factory.mktemp("hmdb")
    expected = make_in_folders(root / "videos", videos)
    for label in {label for (label, _), _, _ in videos}:
        listed = [(name, split) for (other, name), split, _ in videos if other == label]
        lines = [f"{name}.avi {1 if split == 'train' else 2} " for name, split in listed]
        write_list(root / "lists" / f"{label}_test_split3.txt", [*lines, "not used.avi 0 "], end, mark)
    listing = read_dataset(root / "videos", root / "lists", 3)
    assert (told(listing), listing.missing, listing.notes) == (expected, (), ())


@pytest.mark.parametrize("split", [1, 2, 3])
def test_official_ucf101_lists(real_data, split):
    entries = read_lists(real_data / "annotations" / "ucf101_official", split).entries
    train, test = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}[split]
    assert Counter(e.split for e in entries) == {"train": train, "test": test}
    assert len({e.label for e in entries}) == 101


def test_public_hmdb51_lists(real_data):
    lists = read_lists(real_data / "annotations" / "hmdb51", 1)
    assert Counter(e.split for e in lists.entries) == {"train": 3570, "test": 1530}
    assert set(Counter(e.label for e in lists.entries).values()) == {100}
    assert len({e.label for e in lists.entries}) == 51
    assert lists.notes == ()


@pytest.mark.parametrize("split", [1, 2, 3])
def test_lists_and_manifest_of_the_real_clips_agree(real_data, split):
    clips = real_data / "ucf101-18"
    by_list = read_dataset(clips, real_data / "annotations" / "ucf101_official", split)
    assert told(by_list) == told(read_dataset(clips, split=split))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("trainlist01.txt", ["Run/a.avi"], "trainlist01.txt, line 1: expected CLASS/VIDEO and the number"),
        ("trainlist01.txt", ["Run/a.avi 1", "", "a.avi 1"], "trainlist01.txt, line 3: expected CLASS/VIDEO"),
        ("trainlist01.txt", ["Run/a.avi 2"], "line 1: expected number 1 for Run, found 2"),
        ("trainlist01.txt", ["Runn/a.avi 1"], "expected a label of classInd.txt, found 'Runn'; did you mean 'Run'"),
        ("testlist01.txt", ["Run/v.avi"], "testlist01.txt, line 1: expected Run/v as in .*trainlist01.txt, line 1"),
        ("classInd.txt", ["Run"], "classInd.txt, line 1: expected a number and a label"),
        ("classInd.txt", ["1 Run", "2 Run"], "classInd.txt, line 2: expected a number and a label"),
        ("trainlist02.txt", [], "expected the list .*testlist02.txt, found no such file; is --split right"),
    ],
)
def test_wrong_ucf101_lists(tmp_path, name, lines, message):
    write_list(tmp_path / "classInd.txt", ["1 Run", "2 Sit"])
    write_list(tmp_path / "trainlist01.txt", ["Run/v.avi 1"])
    write_list(tmp_path / "testlist01.txt", ["Sit/w.avi"])
    write_list(tmp_path / name, lines)
    with pytest.raises(UserError, match=message):
        read_lists(tmp_path, 2 if "02" in name else 1)


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
def test_wrong_hmdb51_lists(tmp_path, line, message):
    write_list(tmp_path / "Run_test_split1.txt", ["b.avi 1", line])
    with pytest.raises(UserError, match=message):
        read_lists(tmp_path, 1)
    with pytest.raises(UserError, match="is --split right"):
        read_lists(tmp_path, 2)


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
    labels=st.lists(file_names.filter(lambda t: len(t) != 11), min_size=5, max_size=5, unique_by=plain),  # no ids
    end=line_ends,
    mark=marks,
    one_file=st.booleans(),
)
def test_kinetics_lists_keep_any_name_and_label(tmp_path_factory, clips, labels, end, mark, one_file):
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
        write_list(root / f"{name}.csv", csv_lines([header[: len(listed[0])], *listed]), end, mark)
    write_list(root / "label_map_k600.txt", sorted(labels), end, mark)
    listing = read_dataset(root / "data", root)
    assert (told(listing), listing.missing, listing.notes) == (expected, (), ())
    assert {item.group for item in listing.items} == {clip[0] for clip in clips}


HEADER = "label,youtube_id,time_start,time_end,split"


def test_official_kinetics_rows_and_label_map(real_data):
    lists = read_lists(real_data / "annotations" / "kinetics400", 1)
    assert len(lists.entries) == 2000
    assert lists.entries[0].name == "0wR5jVB-WPk_000417_000427"
    assert {e.split for e in lists.entries} == {"val"}
    assert lists.notes == ()  # its label map is in the order of the alphabet


def test_clips_that_are_missing_are_counted(tmp_path):
    write_list(tmp_path / "val.csv", [HEADER, "air drumming,x-_9,7,17,val", "air drumming,gone,7.0,17.0,val"])
    touch(tmp_path, "v/anything/x-_9_000007_000017.mkv")
    listing = read_dataset(tmp_path / "v", tmp_path)
    assert [(i.label, i.split) for i in listing.items] == [("air drumming", "val")]
    assert listing.missing == ("gone_000007_000017",)
    assert "1 listed videos are not there (first: gone_000007_000017)" in listing.describe()


def test_label_map_fixes_the_spelling(tmp_path):
    write_list(tmp_path / "label_map_k400.txt", ["tying knot (not on a tie)", "air drumming"])
    write_list(tmp_path / "val.csv", [HEADER, "tying_knot_(not_on_a_tie),a,0,10,val", "Air Drumming,b,0,10,val"])
    lists = read_lists(tmp_path, 1)
    assert [e.label for e in lists.entries] == ["tying knot (not on a tie)", "air drumming"]
    assert lists.notes == ("label_map_k400.txt is not in the order of the alphabet, which numbers the classes here",)
    write_list(tmp_path / "val.csv", [HEADER, "air drum,a,0,10,val"])
    with pytest.raises(
        UserError, match=r"val.csv, line 2: expected a label of label_map_k400.txt, found 'air drum'; did"
    ):
        read_lists(tmp_path, 1)
    write_list(tmp_path / "label_map_k600.txt", ["archery"])
    with pytest.raises(UserError, match=r"expected one file of labels in .*label_map_k400.txt and label_map_k600.txt"):
        read_lists(tmp_path, 1)


@pytest.mark.parametrize(
    "lines",
    [["youtube_id,time_start,time_end,split", "a,0,10,test", "b,0,10,test"], [HEADER, ",a,0,10,test", ",b,0,10,test"]],
)
def test_test_lists_without_labels_are_left_out_and_said(tmp_path, lines):
    write_list(tmp_path / "kinetics-400_test.csv", lines)
    write_list(tmp_path / "kinetics-400_train.csv", [HEADER, "Run,c,0,10,train"])
    touch(tmp_path, "v/a.mp4", "v/c.mp4")
    listing = read_dataset(tmp_path / "v", tmp_path)
    assert [item.path.name for item in listing.items] == ["c.mp4"]
    assert listing.describe().endswith("; 2 videos of kinetics-400_test.csv have no label and are left out")


def test_a_video_in_the_folder_of_another_label_is_another(tmp_path):
    write_list(
        tmp_path / "val.csv", [HEADER, "Run,a,0,10,val", "Sit down,a,20,30,val", "Run,b,0,10,val", "Sit down,c,0,9,val"]
    )
    touch(tmp_path, "v/Sit_down/a.mp4", "v/Run/b.mp4", "v/Run/c.mp4")
    listing = read_dataset(tmp_path / "v", tmp_path)
    assert told(listing) == {
        (tmp_path / "v/Sit_down/a.mp4", "Sit down", "val"),
        (tmp_path / "v/Run/b.mp4", "Run", "val"),
    }
    assert listing.missing == ("a_000000_000010", "c_000000_000009")


def test_a_whole_video_under_two_labels_is_left_out_and_said(tmp_path):
    write_list(tmp_path / "val.csv", [HEADER, "Run,a,0,10,val", "Sit,a,20,30,val", "Sit,b,0,10,val", "Sit,b,20,30,val"])
    touch(tmp_path, "v/a.mp4", "v/b.mp4")
    listing = read_dataset(tmp_path / "v", tmp_path)
    assert [item.path.name for item in listing.items] == ["b.mp4"]
    assert "1 videos are listed under several labels or splits and left out: " in listing.describe()


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
def test_wrong_kinetics_lists(tmp_path, row, message):
    write_list(tmp_path / "l.csv", [HEADER, row])
    with pytest.raises(UserError, match=message):
        read_lists(tmp_path, 1)


# Something-Something and Jester


by_id = st.lists(
    st.tuples(st.integers(1, 300000), st.integers(0, 4), st.sampled_from(["train", "val"]), kinds, st.booleans()),
    min_size=1,
    max_size=6,
    unique_by=lambda video: video[0],
)
five_labels = st.lists(file_names.filter(lambda t: not set("[]") & set(t)), min_size=5, max_size=5, unique_by=plain)


def make_by_id(root, videos, labels):
    return {
        (make_video(root / "20bn" if deep else root, str(number), kind), labels[which], split)
        for number, which, split, kind, deep in videos
    }


@settings(max_examples=30, deadline=None)
@given(
    videos=by_id, labels=five_labels, end=line_ends, mark=marks, prefix=st.sampled_from(["something-something-v2-", ""])
)
def test_something_json_keeps_any_label(tmp_path_factory, videos, labels, end, mark, prefix):
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
        write_list(root / "lists" / f"{prefix}{word}.json", text.split("\n"), end, mark)
    numbers = {label: str(n) for n, label in enumerate(sorted(labels))}
    write_list(root / "lists" / f"{prefix}labels.json", [json.dumps(numbers)], end, mark)
    write_list(root / "lists" / f"{prefix}test.json", ['[{"id": "1"}, {"id": "7"}]'], end, mark)
    listing = read_dataset(root / "videos", root / "lists")
    assert (told(listing), listing.missing) == (expected, ())
    assert listing.notes == (f"2 videos of {prefix}test.json have no label and are left out",)


def test_something_answers_label_the_test_videos(tmp_path):
    write_list(tmp_path / "train.json", ['[{"id": 1, "template": "Holding [something]"}]'])
    write_list(tmp_path / "test.json", ['[{"id": "2"}, {"id": "3"}]'])
    write_list(tmp_path / "test-answers.csv", ["2;Holding something"])
    lists = read_lists(tmp_path, 1)
    assert [(e.name, e.label, e.split) for e in lists.entries] == [
        ("2", "Holding something", "test"),
        ("1", "Holding something", "train"),
    ]
    assert lists.notes == ("1 videos of test.json have no label and are left out",)


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
def test_wrong_something_json(tmp_path, text, message):
    write_list(tmp_path / "labels.json", ['{"A": "0", "C": "1"}'])
    write_list(tmp_path / "train.json", [text])
    with pytest.raises(UserError, match=message):
        read_lists(tmp_path, 1)


@pytest.mark.parametrize("text", ['["A"]', '{"A": "first"}', '{"A": null}', "3"])
def test_wrong_something_labels(tmp_path, text):
    write_list(tmp_path / "train.json", ["[]"])
    write_list(tmp_path / "labels.json", [text])
    with pytest.raises(UserError, match=r"labels.json: expected an object of labels and their numbers"):
        read_lists(tmp_path, 1)


@settings(max_examples=30, deadline=None)
@given(
    videos=by_id,
    labels=five_labels,
    end=line_ends,
    mark=marks,
    name=st.sampled_from(["jester-v1", "something-something-v1"]),
)
def test_lists_by_id_keep_any_label(tmp_path_factory, videos, labels, end, mark, name):
    root = tmp_path_factory.mktemp("jester")
    expected = make_by_id(root / "videos", videos, labels)
    for part, word in (("train", "train"), ("val", "validation")):
        rows = [(number, labels[which]) for number, which, split, _, _ in videos if split == part]
        write_list(root / "lists" / f"{name}-{word}.csv", csv_lines(rows, ";"), end, mark)
    write_list(root / "lists" / f"{name}-labels.csv", csv_lines([[label] for label in sorted(labels)], ";"), end, mark)
    write_list(root / "lists" / f"{name}-test.csv", ["100001", "100002"], end, mark)
    listing = read_dataset(root / "videos", root / "lists")
    assert (told(listing), listing.missing) == (expected, ())
    assert listing.notes == (f"2 videos of {name}-test.csv have no label and are left out",)


@settings(max_examples=30, deadline=None)
@given(videos=by_id, labels=five_labels, end=line_ends, mark=marks)
def test_tables_by_id_keep_any_label(tmp_path_factory, videos, labels, end, mark):
    root = tmp_path_factory.mktemp("jester")
    expected = make_by_id(root / "videos", videos, labels)
    for part, word in (("train", "Train"), ("val", "Validation")):
        rows = [
            (n, labels[which], 37, which, "(37, 100, 176, 3)", "jpg") for n, which, split, *_ in videos if split == part
        ]
        header = ("video_id", "label", "frames", "label_id", "shape", "format")
        write_list(root / "lists" / f"{word}.csv", csv_lines([header, *rows]), end, mark)
    write_list(root / "lists" / "Test.csv", ["id,frames", "9,37"], end, mark)
    listing = read_dataset(root / "videos", root / "lists")
    assert (told(listing), listing.missing) == (expected, ())
    assert listing.notes == ("1 videos of Test.csv have no label and are left out",)


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
def test_wrong_lists_by_id(tmp_path, name, lines, message):
    write_list(tmp_path / "jester-v1-validation.csv", ["5;Stop"])
    write_list(tmp_path / "jester-v1-labels.csv", ["Stop"])
    write_list(tmp_path / name, lines)
    with pytest.raises(UserError, match=message):
        read_lists(tmp_path, 1)


# Any


def test_folders_without_lists(tmp_path):
    touch(tmp_path, "notes.csv", "labels.csv", "._trainlist01.txt")
    with pytest.raises(UserError, match=r"expected the lists of UCF101 .*found none of them"):
        read_lists(tmp_path, 1)
    with pytest.raises(UserError, match="expected --annotations to be a folder"):
        read_lists(tmp_path / "notes.csv", 1)


def test_kinetics_json_beside_the_csv_is_not_taken_for_something_else(tmp_path):
    write_list(tmp_path / "train.json", ['{"a": {"annotations": {"label": "Run"}}}'])
    with pytest.raises(UserError, match="found none of them"):
        read_lists(tmp_path, 1)
    write_list(tmp_path / "train.csv", [HEADER, "Run,a,0,10,train"])
    assert read_lists(tmp_path, 1).source == "Kinetics lists"
    with pytest.raises(UserError, match=r"expected --split 1, the only one of the lists in .*, found 2"):
        read_lists(tmp_path, 2)


@pytest.mark.parametrize(("text", "likely"), [("Run/v_é.avi 1\n", "windows-1252"), ("Run/v_e.avi 1\n", "utf-16")])
def test_other_encodings_are_named_with_a_way_out(tmp_path, text, likely):
    (tmp_path / "trainlist01.txt").write_bytes((text if likely == "utf-16" else "Run/a.avi 1\n" + text).encode(likely))
    line = 1 if likely == "utf-16" else 2
    with pytest.raises(
        UserError, match=rf"trainlist01.txt, line {line}: expected UTF-8 text, found byte 0x.*iconv -f {likely}"
    ):
        read_lists(tmp_path, 1)
