"""Annotation files are recognized, and their videos are found under the names and folders that people use."""

import pytest
from annotation_files import (
    labels_of,
    touch,
    write_lines,
)

from msfnet.data.annotations.official import read_annotations
from msfnet.data.annotations.readers import read_dataset
from msfnet.types import UserError

COLUMNS = "label,youtube_id,time_start,time_end,split"


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
    write_lines(tmp_path / "train.csv", [COLUMNS, "Run,a,0,10,train"])
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


# Finding videos


def test_videos_are_found_whatever_their_suffix_and_folder(tmp_path):
    write_lines(tmp_path / "classInd.txt", ["1 Run", "2 Sit"], "\r\n")
    write_lines(tmp_path / "trainlist01.txt", ["Run/v_Run_g08_c01.avi 1", "Sit/v_Sit_g09_c01.avi 2"], "\r\n")
    write_lines(tmp_path / "testlist01.txt", ["Run/v_Run_g01_c01.avi", ""], "\r\n")
    touch(tmp_path, "videos/Run/v_Run_g08_c01.mp4", "videos/v_Run_g01_c01/img_00001.jpg")
    dataset = read_dataset(tmp_path / "videos", tmp_path)
    assert [(i.label, i.split, i.group) for i in dataset.items] == [("Run", "train", "g08"), ("Run", "test", "g01")]
    assert dataset.missing == ("Sit/v_Sit_g09_c01",)
    assert dataset.classes == ("Run",)


def test_best_placed_of_several_files_is_read(tmp_path):
    write_lines(tmp_path / "Sit down_test_split1.txt", ["a.avi 1", "b.avi 2", "c.avi 2"])
    touch(tmp_path, "v/Sit down/a.mp4", "v/a.mp4", "v/sit_down/a.mp4")
    touch(tmp_path, "v/b.mp4", "v/sit_down/b.mp4")
    touch(tmp_path, "v/x/train/c.mp4", "v/x/validation/c.mp4", "v/y/test/c.mp4")
    assert [
        item.path.relative_to(tmp_path / "v").as_posix() for item in read_dataset(tmp_path / "v", tmp_path).items
    ] == [
        "Sit down/a.mp4",
        "sit_down/b.mp4",
        "y/test/c.mp4",
    ]


def test_composed_and_decomposed_accents_are_equal(tmp_path):
    write_lines(tmp_path / "Cafe\u0301_test_split1.txt", ["caf\u00e9.avi 1"])
    touch(tmp_path, "v/Caf\u00e9/cafe\u0301.mp4")
    assert len(read_dataset(tmp_path / "v", tmp_path).items) == 1


def test_missing_clips_are_counted(tmp_path):
    write_lines(tmp_path / "val.csv", [COLUMNS, "air drumming,x-_9,7,17,val", "air drumming,gone,7.0,17.0,val"])
    touch(tmp_path, "v/anything/x-_9_000007_000017.mkv")
    dataset = read_dataset(tmp_path / "v", tmp_path)
    assert [(i.label, i.split) for i in dataset.items] == [("air drumming", "val")]
    assert dataset.missing == ("gone_000007_000017",)
    assert "1 listed videos are missing (first: gone_000007_000017)" in dataset.describe()


def test_video_in_the_folder_of_another_label_is_another_one(tmp_path):
    write_lines(
        tmp_path / "val.csv",
        [COLUMNS, "Run,a,0,10,val", "Sit down,a,20,30,val", "Run,b,0,10,val", "Sit down,c,0,9,val"],
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
        tmp_path / "val.csv", [COLUMNS, "Run,a,0,10,val", "Sit,a,20,30,val", "Sit,b,0,10,val", "Sit,b,20,30,val"]
    )
    touch(tmp_path, "v/a.mp4", "v/b.mp4")
    dataset = read_dataset(tmp_path / "v", tmp_path)
    assert [item.path.name for item in dataset.items] == ["b.mp4"]
    assert "1 videos have several labels or splits and are left out (first: " in dataset.describe()
