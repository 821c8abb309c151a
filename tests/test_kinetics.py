"""Annotation files of Kinetics: those that are published, any names and labels, and wrong ones."""

import pytest
from annotation_files import (
    byte_order_marks,
    csv_lines,
    file_names,
    kinds,
    labels_of,
    line_ends,
    make_video,
    touch,
    write_lines,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.annotations.names import simplify
from msfnet.data.annotations.official import read_annotations
from msfnet.data.annotations.readers import read_dataset
from msfnet.types import UserError

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


COLUMNS = "label,youtube_id,time_start,time_end,split"


def test_official_kinetics_rows_and_label_map(real_data):
    read = read_annotations(real_data / "annotations" / "kinetics400", 1)
    assert len(read.annotations) == 2000
    assert read.annotations[0].name == "0wR5jVB-WPk_000417_000427"
    assert {e.split for e in read.annotations} == {"val"}
    assert read.notes == ()  # its label map is sorted


def test_label_map_decides_how_labels_are_written(tmp_path):
    write_lines(tmp_path / "label_map_k400.txt", ["tying knot (not on a tie)", "air drumming"])
    write_lines(tmp_path / "val.csv", [COLUMNS, "tying_knot_(not_on_a_tie),a,0,10,val", "Air Drumming,b,0,10,val"])
    read = read_annotations(tmp_path, 1)
    assert [e.label for e in read.annotations] == ["tying knot (not on a tie)", "air drumming"]
    assert read.notes == ("label_map_k400.txt is not sorted: class indices follow the sorted labels instead",)
    write_lines(tmp_path / "val.csv", [COLUMNS, "air drum,a,0,10,val"])
    with pytest.raises(
        UserError, match=r"val.csv, line 2: expected a label of label_map_k400.txt, found 'air drum'; did"
    ):
        read_annotations(tmp_path, 1)
    write_lines(tmp_path / "label_map_k600.txt", ["archery"])
    with pytest.raises(UserError, match=r"expected one label map in .*label_map_k400.txt and label_map_k600.txt"):
        read_annotations(tmp_path, 1)


@pytest.mark.parametrize(
    "lines",
    [["youtube_id,time_start,time_end,split", "a,0,10,test", "b,0,10,test"], [COLUMNS, ",a,0,10,test", ",b,0,10,test"]],
)
def test_unlabeled_test_files_are_left_out_with_a_note(tmp_path, lines):
    write_lines(tmp_path / "kinetics-400_test.csv", lines)
    write_lines(tmp_path / "kinetics-400_train.csv", [COLUMNS, "Run,c,0,10,train"])
    touch(tmp_path, "v/a.mp4", "v/c.mp4")
    dataset = read_dataset(tmp_path / "v", tmp_path)
    assert [item.path.name for item in dataset.items] == ["c.mp4"]
    assert dataset.describe().endswith("; 2 videos of kinetics-400_test.csv have no label and are left out")


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
    write_lines(tmp_path / "l.csv", [COLUMNS, row])
    with pytest.raises(UserError, match=message):
        read_annotations(tmp_path, 1)
