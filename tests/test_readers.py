"""Every form of DATA but shards, and the messages about wrong ones."""

import csv
import io
import os

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

from msfnet.data.annotations.readers import read_dataset, read_manifest
from msfnet.data.video_files import VideoFiles
from msfnet.types import UserError

# Class folders


def test_class_folders(tmp_path):
    touch(tmp_path, "Run/a.mp4", "Run/deep/b.AVI", "Sit down/v_Sit_g03_c01.avi", "Run/notes.txt", "Run/.hidden.mp4")
    touch(tmp_path, "Run/clip/img_00001.jpg", "Run/clip/img_00002.jpg", "Run/cover.jpg", "__MACOSX/Run/a.mp4")
    touch(tmp_path, "Sit down/0wR5jVB-WPk_000417_000427/1.png")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("Run", "Sit down")
    assert {(i.path.name, i.label, i.split, i.group) for i in dataset.items} == {
        ("a.mp4", "Run", None, None),
        ("b.AVI", "Run", None, None),
        ("clip", "Run", None, None),
        ("v_Sit_g03_c01.avi", "Sit down", None, "g03"),
        ("0wR5jVB-WPk_000417_000427", "Sit down", None, "0wR5jVB-WPk"),
    }
    assert dataset.notes == ()


def test_class_folders_under_split_folders(tmp_path):
    touch(tmp_path, "train/Run/a.mp4", "validation/Run/b.mp4", "Test/Sit/c/1.jpg")
    assert labels_of(read_dataset(tmp_path)) == {
        (tmp_path / "train/Run/a.mp4", "Run", "train"),
        (tmp_path / "validation/Run/b.mp4", "Run", "val"),
        (tmp_path / "Test/Sit/c", "Sit", "test"),
    }


labeled = st.lists(
    st.tuples(file_names, file_names, kinds),
    min_size=1,
    max_size=6,
    unique_by=lambda video: (same_file(video[0]), same_file(video[1])),
).filter(lambda videos: len({same_file(label) for label, _, _ in videos}) == len({label for label, _, _ in videos}))


@settings(max_examples=30, deadline=None)
@given(labeled, st.sampled_from(["", "train", "Validation", "test"]))
def test_class_folders_keep_any_name_and_label(tmp_path_factory, videos, split):
    root = tmp_path_factory.mktemp("classes")
    part = {"": None, "Validation": "val"}.get(split, split)
    paths = {(make_video(root / split / label, name, kind), label, part) for label, name, kind in videos}
    assert labels_of(read_dataset(root)) == paths


def test_videos_beside_class_folders_are_left_out_with_a_note(tmp_path):
    touch(tmp_path, "Run/a.mp4", "b.mp4", "c.mp4")
    assert (
        f"2 videos in {tmp_path} are in no class folder and left out (first: b.mp4)"
        in read_dataset(tmp_path).describe()
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "found none; is this the right folder"),
        (["a.mp4"], "found none; 1 videos in .* are in no class folder and left out .first: a.mp4."),
        (["Run/a.mp4", "Empty/notes.txt"], "class folder .*Empty has no video"),
        (
            ["Run/a.mp4", "clip/1.jpg"],
            "class folder .*clip holds only images; put the frames of each video in a folder",
        ),
        (["train/Run/a.mp4", "val/Run/b.mp4", "Sit/c.mp4"], "found train beside Sit in .*; move one of them"),
    ],
)
def test_wrong_folders(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)


def test_data_that_does_not_exist_or_is_one_video(tmp_path):
    with pytest.raises(UserError, match="found nothing at"):
        read_dataset(tmp_path / "nowhere")
    touch(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"found the video .*a.mp4; is it one for msfnet predict"):
        read_dataset(tmp_path / "a.mp4")


# Manifests


def test_manifest_with_one_split_and_with_several(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "manifest.csv").write_bytes(
        b'\xef\xbb\xbfpath,label,split,group\r\na.mp4,"Run, fast",train,7\r\n'
        b"b.mp4,Sit,Validation,\r\ngone.mp4,Sit,test,1\r\n"
    )
    dataset = read_dataset(tmp_path)
    assert [(i.label, i.split, i.group) for i in dataset.items] == [("Run, fast", "train", "7"), ("Sit", "val", None)]
    assert dataset.missing == ("gone.mp4",)
    assert "1 listed videos are missing (first: gone.mp4)" in dataset.describe()
    (tmp_path / "m.csv").write_text("path,label,split1,split2\na.mp4,Run,train,test\nb.mp4,Run,test,\n")
    assert [i.split for i in read_dataset(tmp_path / "m.csv", split=2).items] == ["test", None]


@settings(max_examples=30, deadline=None)
@given(
    videos=labeled,
    delimiter=st.sampled_from(",;\t"),
    end=line_ends,
    mark=byte_order_marks,
    form=st.sampled_from(["relative", "absolute", "backslash"]),
)
def test_manifest_keeps_any_name_and_label(tmp_path_factory, videos, delimiter, end, mark, form):
    root = tmp_path_factory.mktemp("manifest")
    text, expected = io.StringIO(), set()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(("label", "path", "split"))
    for label, name, kind in videos:
        path = make_video(root / "data" / label, name, kind)
        expected.add((path, label, "val"))
        relative = path.relative_to(root)
        written = {"relative": relative, "absolute": path, "backslash": str(relative).replace(os.sep, "\\")}[form]
        writer.writerow((f" {label} ", written, "validation"))
    (root / "m.csv").write_bytes(mark + text.getvalue().encode())
    dataset = read_manifest(root / "m.csv")
    assert (labels_of(dataset), dataset.missing) == (expected, ())


def test_groups_of_a_manifest_precede_those_of_names(tmp_path):
    touch(tmp_path, "v_A_g01_c01.avi", "v_A_g01_c02.avi")
    write_lines(tmp_path / "m.csv", ["path,label,group", "v_A_g01_c01.avi,A,mine", "v_A_g01_c02.avi,A,"])
    assert [item.group for item in read_manifest(tmp_path / "m.csv").items] == ["mine", "g01"]


def test_duplicate_rows_count_once_and_must_agree(tmp_path):
    touch(tmp_path, "sub/a.mp4")
    lines = ["path,label,split", "sub/a.mp4,Run,train", r"sub\a.mp4,Run,train", "gone.mp4,Run,", "./gone.mp4,Run,"]
    write_lines(tmp_path / "m.csv", lines)
    dataset = read_manifest(tmp_path / "m.csv")
    assert (len(dataset.items), dataset.missing) == (1, ("gone.mp4",))
    for line in ("sub/../sub/a.mp4,Sit,train", "sub/a.mp4,Run,test"):
        write_lines(tmp_path / "m.csv", [*lines, line])
        with pytest.raises(
            UserError, match=r"m.csv, line 6: expected .*a.mp4 as in .*m.csv, line 2 \('Run' in train\)"
        ):
            read_manifest(tmp_path / "m.csv")
    write_lines(tmp_path / "m.csv", [*lines, "gone.mp4,Sit,"])
    with pytest.raises(
        UserError, match=r"m.csv, line 6: expected .*gone.mp4 as in .*m.csv, line 4 \('Run'\), found 'Sit'"
    ):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na.mp4,Run\n", "columns path and label, found file, class"),
        ("", "columns path and label, found "),
        ("path,label,split\na.mp4,Run,dev\n", "line 2: expected split train, val or test, found 'dev'"),
        ("path,label\na.mp4, \n", "line 2: expected a path and a label"),
        ("path,label\n,Run\n", "line 2: expected a path and a label"),
        ("path,label\na.mp4,Run, fast\n", "line 2: expected 2 values .path, label., found 3"),
        ('path,label\na.mp4,"Run\nfast"\n', "line 2: expected a label of one line, found 'Run.nfast'; is a quote not"),
        ("path,label,split1\na.mp4,Run,train\n", "a split among split1, found --split 2"),
        ("path,label\nb.mp4,Run\n", "all 1 listed videos are missing"),
    ],
)
def test_wrong_manifests(tmp_path, text, message):
    touch(tmp_path, "a.mp4")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path / "m.csv", split=2 if "split1" in text else 1)


def test_manifest_in_another_encoding(tmp_path):
    (tmp_path / "m.csv").write_bytes("path,label\na.mp4,Plongée\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"m.csv, line 2: expected UTF-8 text, found byte 0xe9; save the file as UTF-8"):
        read_dataset(tmp_path / "m.csv")


def test_description_is_one_line():
    dataset = VideoFiles((), "manifest", ("gone.mp4",), ("first note", "second note"))
    assert dataset.describe() == (
        "0 videos of 0 classes from manifest (); 1 listed videos are missing (first: gone.mp4); first note; second note"
    )


def test_a_numbered_split_where_there_is_none_is_refused(tmp_path):
    touch(tmp_path, "Run/a.mp4", "Jump/b.mp4")
    (tmp_path / "m.csv").write_text("path,label,split\nRun/a.mp4,Run,train\n")
    with pytest.raises(UserError, match=r"expected --split 1, for the class folders of .* found --split 2"):
        read_dataset(tmp_path, split=2)
    with pytest.raises(UserError, match=r"expected --split 1, for the columns of .*m\.csv have no numbered splits"):
        read_dataset(tmp_path / "m.csv", split=2)
