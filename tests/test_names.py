"""What names tell, of the videos and annotation files of real datasets and of others."""

from pathlib import Path

import pytest

from msfnet.data.annotations.names import (
    compose_accents,
    group_of,
    hmdb51_group,
    kinetics_group,
    parse_split,
    simplify,
    source_of,
    split_of_file_name,
    ucf101_group,
    video_name,
)
from msfnet.data.annotations.official import read_annotations
from msfnet.types import UserError


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("v_Archery_g01_c02.avi", "g01"),
        ("x/v_A_B_g25_c1.mp4", "g25"),
        ("v_Archery_g01_c02", "g01"),  # a frame folder
        ("video_g1.mp4", None),
        ("v_Archery_g01_c02_flipped.avi", None),
    ],
)
def test_ucf101_group(name, group):
    assert ucf101_group(Path(name)) == group


@pytest.mark.parametrize(
    ("name", "label", "group"),
    [
        ("American_History_X_drink_h_nm_np1_fr_goo_46.avi", "drink", "American_History_X"),
        (
            "Aussie_Brunette_Brushing_Hair_II_brush_hair_u_nm_np2_le_goo_0",
            "brush_hair",
            "Aussie_Brunette_Brushing_Hair_II",
        ),
        ("#20_Rhythm_clap_u_nm_np1_le_goo_3.avi", "clap", "#20_Rhythm"),
        ("A_run_B_run_f_cm_np1_ba_bad_0.avi", "run", "A_run_B"),
        ("American_History_X_drink_h_nm_np1_fr_goo_46.avi", "eat", None),
        ("my_drink.avi", "drink", None),
    ],
)
def test_hmdb51_group(name, label, group):
    assert hmdb51_group(Path(name), label) == group


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("0wR5jVB-WPk_000417_000427.mp4", "0wR5jVB-WPk"),
        ("__R5jVB__Pk_000417_000427", "__R5jVB__Pk"),
        ("0wR5jVB-WPk.mp4", None),
        ("short_000417_000427.mp4", None),
        ("0wR5jVB-WP\u00e9_000417_000427.mp4", None),
    ],
)
def test_kinetics_group(name, group):
    assert kinetics_group(Path(name)) == group


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("Archery/v_Archery_g01_c02.avi", "Archery/v_Archery_g01"),
        ("g01/v_Archery_g01_c02.avi", "g01/v_Archery_g01"),
        ("fall_floor/Glory_fall_floor_f_cm_np1_fr_med_0.avi", "fall_floor/Glory"),
        ("abseiling/0wR5jVB-WPk_000417_000427.mp4", "abseiling/0wR5jVB-WPk"),
        ("jump/IMG_0412.mp4", "jump/IMG_0412.mp4"),
    ],
)
def test_source_of(path, source):
    assert source_of(path) == source


def test_group_of():
    assert group_of(Path("v_Archery_g01_c02.avi"), "Archery") == "g01"
    assert group_of(Path("Glory_fall_floor_f_cm_np1_fr_med_0.avi"), "fall_floor") == "Glory"
    assert group_of(Path("0wR5jVB-WPk_000417_000427.mp4"), "abseiling") == "0wR5jVB-WPk"
    assert group_of(Path("holiday.mp4"), "abseiling") is None


def test_every_clip_of_hmdb51_has_a_source(real_data):
    annotations = read_annotations(real_data / "annotations" / "hmdb51", 1).annotations
    groups = {(a.label, hmdb51_group(Path(a.name), a.label)): set() for a in annotations}
    for a in annotations:
        groups[a.label, hmdb51_group(Path(a.name), a.label)].add(a.split)
    assert None not in {group for _, group in groups}
    assert len({group for _, group in groups}) == 1352
    assert all(len(splits) == 1 for splits in groups.values())  # the official split separates no group of a class


def test_names_are_compared_without_case_and_punctuation():
    assert simplify("Tying_knot (not on a tie)") == simplify("tying knot not on a tie") == "tyingknotnotonatie"
    assert simplify("!?") == "!?"
    assert simplify("Cafe\u0301") == simplify("caf\u00e9")
    assert compose_accents("e\u0301") == "\u00e9"
    assert video_name(Path("a/b.c.MP4")) == "b.c"
    assert video_name(Path("a/b.c")) == "b.c"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("kinetics-400_validate", "val"),
        ("jester-v1-train", "train"),
        ("Validation", "val"),
        ("val-first-2000", "val"),
        ("kinetics700_2020_test", "test"),
        ("trainer", None),
        ("jester-v1-labels", None),
    ],
)
def test_split_of_file_name(name, split):
    assert split_of_file_name(name) == split


def test_parse_split():
    assert [parse_split(text, "") for text in ("train", " Validate ", "testing", "")] == ["train", "val", "test", None]
    with pytest.raises(UserError, match=r"here: expected split train, val or test, found 'dev'"):
        parse_split("dev", "here")
