"""The official lists of the data sets, in the forms they are published in: those of UCF101, HMDB51 and Kinetics here.

The format is recognized by the names and first lines of the files in a folder. Text in, entries out: where the videos
lie, and whether they are there at all, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from msfnet.data.annotations.entries import Entry, Lists, Reading, Spelling, label_map, named, spelling, tables_with
from msfnet.data.annotations.id_lists import has_json_lists, id_lists, read_ids, read_something_json
from msfnet.data.annotations.names import split_in, split_named, video_name
from msfnet.data.annotations.tables import read_columns, read_lines, read_table
from msfnet.types import UserError


def read_lists(folder: Path, split: int) -> Lists:
    """Recognize and read a folder of official lists.

    Raises UserError when there are none, or when a line cannot be read or contradicts another.
    """
    if not folder.is_dir():
        raise UserError(f"expected --annotations to be a folder of official lists, found {folder}")
    for source, (is_there, read) in LIST_FORMATS.items():
        if is_there(folder):
            reading = Reading(folder, split)
            read(reading)
            return Lists(tuple(reading.entries), source, tuple(reading.notes))
    raise UserError(
        f"expected the lists of UCF101 (trainlist01.txt), HMDB51 (*_train_split_1.txt or *_test_split1.txt), "
        f"Kinetics (*.csv with {', '.join(CLIP_COLUMNS)}), Something-Something (train.json, *-train.csv) or Jester "
        f"(*-train.csv, Train.csv) in {folder}, found none of them"
    )


# UCF101 and HMDB51


_FOLDER_LINE = re.compile(r"(?:.*/)?(?P<label>[^/]+)/(?P<name>[^/]+?)(?:[ \t]+(?P<number>[0-9]+))?")


def _read_folder_list(reading: Reading, path: Path, split: str, spell: Spelling, numbers: dict[str, int]) -> None:
    """Lines `Class/name.avi 1` with a number for each class; the number may be left out in UCF101's test lists."""
    if not path.is_file():
        raise UserError(f"expected the list {path}, found no such file; is --split right?")
    for where, line in read_lines(path):
        match = _FOLDER_LINE.fullmatch(line)
        if not match or (split == "train" and not match["number"]):
            raise UserError(f"{where}: expected CLASS/VIDEO and the number of the class, found {line!r}")
        label = spell(match["label"], where)
        if match["number"] and numbers.setdefault(label, int(match["number"])) != int(match["number"]):
            raise UserError(f"{where}: expected number {numbers[label]} for {label}, found {match['number']}")
        reading.add(Entry(video_name(Path(match["name"])), label, split, where, match["label"]))


def _read_ucf101(reading: Reading) -> None:
    """trainlist0N.txt and testlist0N.txt, checked against classInd.txt (`1 ApplyEyeMakeup`) where that is there."""
    numbers = _class_numbers(reading.folder / "classInd.txt")
    spell = spelling(list(numbers), reading.folder / "classInd.txt" if numbers else None)
    for part in ("train", "test"):
        path = reading.folder / f"{part}list{reading.split:02d}.txt"
        _read_folder_list(reading, path, part, spell, numbers)


def _class_numbers(path: Path) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for where, line in read_lines(path) if path.is_file() else []:
        match = re.fullmatch(r"([0-9]+)[ \t]+(.+)", line)
        if not match or match[2] in numbers:
            raise UserError(f"{where}: expected a number and a label that is not there yet, found {line!r}")
        numbers[match[2]] = int(match[1])
    return numbers


def _read_hmdb51(reading: Reading) -> None:
    """*_train_split_N.txt and *_val_split_N.txt: HMDB51 has no validation set, its "val" list is the official test.

    The numbers of public lists are not the places in label_map.txt: they are only compared with each other.
    """
    spell, numbers = label_map(reading), dict[str, int]()
    for split, words in (("train", "train"), ("test", "val|test")):
        paths = reading.named(rf".*({words})_split_{reading.split}\.txt")
        for path in paths or [reading.folder / f"hmdb51_vid_{words.partition('|')[0]}_split_{reading.split}.txt"]:
            _read_folder_list(reading, path, split, spell, numbers)


def _read_hmdb51_original(reading: Reading) -> None:
    """`name.avi 1` in CLASS_test_splitN.txt: 1 is train, 2 is test, 0 is in neither."""
    ending, spell = f"_test_split{reading.split}.txt", label_map(reading)
    paths = reading.named(f".+{re.escape(ending)}")
    if not paths:
        raise UserError(f"expected lists named CLASS{ending} in {reading.folder}, found none; is --split right?")
    for path in paths:
        folder = path.name[: -len(ending)]
        for where, line in read_lines(path):
            match = re.fullmatch(r"(.+?)[ \t]+([012])", line)
            if not match:
                raise UserError(f"{where}: expected a video and 0, 1 or 2, found {line!r}")
            if match[2] != "0":
                split = "train" if match[2] == "1" else "test"
                reading.add(Entry(video_name(Path(match[1])), spell(folder, where), split, where, folder))


# Kinetics

CLIP_COLUMNS = ("youtube_id", "time_start", "time_end")


def _read_kinetics(reading: Reading) -> None:
    """CSV with youtube_id, time_start, time_end and, but for some test lists, label; if there, split.

    Files are named ID_000010_000020, ID_10_20 or ID. Clips of one YouTube video are a group.
    """
    reading.expect_one_split()
    spell = label_map(reading)
    for path in tables_with(reading.folder, *CLIP_COLUMNS):
        columns, unlabeled = read_columns(path), 0
        for row in read_table(path):
            label, split = row.values.get("label", "").strip(), _split_of(row.values, row.where, path)
            start, end = (_seconds(row.values[key], f"{row.where}: {key}") for key in CLIP_COLUMNS[1:])
            clip = row.values["youtube_id"].strip()
            if not clip or (not label and "label" in columns and split != "test"):
                raise UserError(f"{row.where}: expected a youtube_id and a label, found {clip!r} and {label!r}")
            if not label:
                unlabeled += 1
                continue
            others = (f"{clip}_{start}_{end}", clip)
            name = f"{clip}_{start:06d}_{end:06d}"
            reading.add(Entry(name, spell(label, row.where), split, row.where, group=clip, other_names=others))
        reading.note_unlabeled(path, unlabeled)


def _split_of(values: dict[str, str], where: str, path: Path) -> str:
    split = split_named(values.get("split", ""), where) or split_in(path.stem)
    if split is None:
        raise UserError(
            f"{where}: expected a split in the line, or train, val or test in the file's name, found neither"
        )
    return split


def _seconds(text: str, what: str) -> int:
    if not re.fullmatch(r"\s*\d+(\.\d*)?\s*", text, re.ASCII):
        raise UserError(f"{what}: expected seconds, found {text!r}")
    return int(float(text))


LIST_FORMATS: dict[str, tuple[Callable[[Path], bool], Callable[[Reading], None]]] = {
    "UCF101 lists": (lambda folder: bool(named(folder, r"trainlist\d+\.txt")), _read_ucf101),
    "HMDB51 lists": (lambda folder: bool(named(folder, r".*_split_\d+\.txt")), _read_hmdb51),
    "HMDB51 per-class lists": (lambda folder: bool(named(folder, r".+_test_split\d+\.txt")), _read_hmdb51_original),
    "Kinetics lists": (lambda folder: bool(tables_with(folder, *CLIP_COLUMNS)), _read_kinetics),
    "Something-Something lists": (has_json_lists, read_something_json),
    "Jester or Something-Something lists": (lambda folder: bool(id_lists(folder)), read_ids),
}
