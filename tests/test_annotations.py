"""Every form of DATA, and what is said when it is none."""

import csv
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.annotations import (
    read_data,
    read_hmdb51,
    read_hmdb51_original,
    read_kinetics,
    read_manifest,
    read_ucf101,
    ucf_group,
)
from msfnet.types import UserError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_class_folders(tmp_path):
    touch(tmp_path, "Run/a.mp4", "Run/deep/b.AVI", "Sit down/v_Sit_g03_c01.avi", "Run/notes.txt", "Run/.hidden.mp4")
    listing = read_data(tmp_path)
    assert listing.classes == ("Run", "Sit down")
    assert {(i.path.name, i.label, i.split, i.group) for i in listing.items} == {
        ("a.mp4", "Run", None, None),
        ("b.AVI", "Run", None, None),
        ("v_Sit_g03_c01.avi", "Sit down", None, "g03"),
    }


def test_class_folders_under_split_folders(tmp_path):
    touch(tmp_path, "train/Run/a.mp4", "validation/Run/b.mp4", "Test/Sit/c.mp4")
    assert {(i.path.name, i.split) for i in read_data(tmp_path).items} == {
        ("a.mp4", "train"),
        ("b.mp4", "val"),
        ("c.mp4", "test"),
    }


def test_manifest_with_one_split_and_with_several(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "manifest.csv").write_bytes(
        b'\xef\xbb\xbfpath,label,split,group\r\na.mp4,"Run, fast",train,7\r\n'
        b"b.mp4,Sit,Validation,\r\ngone.mp4,Sit,test,1\r\n"
    )
    listing = read_data(tmp_path)
    assert [(i.label, i.split, i.group) for i in listing.items] == [("Run, fast", "train", "7"), ("Sit", "val", None)]
    assert listing.missing == ("gone.mp4",)
    assert "1 listed videos are not there (first: gone.mp4)" in listing.describe()
    (tmp_path / "m.csv").write_text("path,label,split1,split2\na.mp4,Run,train,test\nb.mp4,Run,test,\n")
    assert [i.split for i in read_data(tmp_path / "m.csv", split=2).items] == ["test", None]


names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="/\\\x00"), min_size=1, max_size=20
).filter(lambda name: name.strip(". ") and name.strip() == name)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=5, unique_by=lambda row: row[0].lower()))
def test_manifest_keeps_any_name_and_label(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("manifest")
    expected = {}
    with (root / "m.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for name, label in rows:
            try:
                (root / f"{name}.mp4").write_bytes(b"x")
            except OSError:
                continue  # a name that this file system does not take
            writer.writerow((f"{name}.mp4", label))
            expected[root / f"{name}.mp4"] = label
    assert {i.path: i.label for i in read_manifest(root / "m.csv").items} == expected


def test_ucf101_lists_with_crlf_and_other_endings(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 Run\r\n2 Sit\r\n")
    (lists / "trainlist01.txt").write_bytes(b"Run/v_Run_g08_c01.avi 1\r\nSit/v_Sit_g09_c01.avi 2\r\n")
    (lists / "testlist01.txt").write_bytes(b"Run/v_Run_g01_c01.avi\r\n\r\n")
    touch(tmp_path, "videos/Run/v_Run_g08_c01.mp4", "videos/v_Run_g01_c01.avi")
    listing = read_data(tmp_path / "videos", lists)
    assert [(i.label, i.split, i.group) for i in listing.items] == [("Run", "train", "g08"), ("Run", "test", "g01")]
    assert listing.missing == ("Sit/v_Sit_g09_c01",)
    assert listing.classes == ("Run",)


def test_official_ucf101_lists(real_data):
    for split, (train, test) in {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}.items():
        entries = read_ucf101(real_data / "annotations" / "ucf101_official", split)
        assert Counter(e.split for e in entries) == {"train": train, "test": test}
        assert len({e.label for e in entries}) == 101


@pytest.mark.parametrize("split", [1, 2, 3])
def test_lists_and_manifest_of_the_real_clips_agree(real_data, split):
    clips = real_data / "ucf101-18"
    by_list = read_data(clips, real_data / "annotations" / "ucf101_official", split)
    by_manifest = read_data(clips, split=split)
    assert {(i.path, i.label, i.split) for i in by_list.items} == {
        (i.path, i.label, i.split) for i in by_manifest.items
    }


def test_hmdb51_public_lists(real_data):
    entries = read_hmdb51(real_data / "annotations" / "hmdb51", 1)
    assert len({e.label for e in entries}) == 51
    assert Counter(e.split for e in entries) == {"train": 3570, "test": 1530}


def test_hmdb51_original_lists(tmp_path):
    (tmp_path / "brush_hair_test_split1.txt").write_text("a b.avi 1 \nc#1.avi 2 \nunused.avi 0 \n")
    assert [(e.stem.replace("\\", "/"), e.label, e.split) for e in read_hmdb51_original(tmp_path, 1)] == [
        ("brush_hair/a b", "brush_hair", "train"),
        ("brush_hair/c#1", "brush_hair", "test"),
    ]


def test_kinetics_csv(real_data):
    entries = read_kinetics(real_data / "annotations" / "kinetics400", 1)
    assert len(entries) == 2000
    assert entries[0].stem == "abseiling/0wR5jVB-WPk_000417_000427"
    assert {e.split for e in entries} == {"val"}


def test_kinetics_videos_are_found_by_id_and_time(tmp_path):
    (tmp_path / "val.csv").write_text(
        "label,youtube_id,time_start,time_end,split,is_cc\nair drumming,x-_9,7,17,val,0\n"
    )
    touch(tmp_path, "v/anything/x-_9_000007_000017.mkv")
    assert [(i.label, i.split) for i in read_data(tmp_path / "v", tmp_path).items] == [("air drumming", "val")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "found nothing at"),
        (lambda root: root, "found none"),
        (
            lambda root: (touch(root, "Run/a.mp4"), (root / "Empty").mkdir(), root)[-1],
            "class folder .*Empty has no video",
        ),
    ],
)
def test_wrong_folders(tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        read_data(make(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na.mp4,Run\n", "columns path and label, found file, class"),
        ("path,label,split\na.mp4,Run,dev\n", "line 2: expected split train, val or test, found 'dev'"),
        ("path,label\na.mp4,\n", "line 2: expected a path and a label"),
        ("path,label,split1\na.mp4,Run,train\n", "a split among split1, found --split 2"),
        ("path,label\nb.mp4,Run\n", "all 1 listed videos are missing"),
    ],
)
def test_wrong_manifests(tmp_path, text, message):
    touch(tmp_path, "a.mp4")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_data(tmp_path / "m.csv", split=2)


def test_wrong_lists(tmp_path, real_data):
    with pytest.raises(UserError, match="found none of them"):
        read_data(tmp_path, tmp_path)
    with pytest.raises(UserError, match="is --split right"):
        read_data(tmp_path, real_data / "annotations" / "ucf101_official", 4)


@pytest.mark.parametrize(
    ("name", "group"), [("v_Archery_g01_c02.avi", "g01"), ("x/v_A_B_g25_c1.mp4", "g25"), ("video_g1.mp4", None)]
)
def test_ucf_group(tmp_path, name, group):
    assert ucf_group(tmp_path / name) == group
