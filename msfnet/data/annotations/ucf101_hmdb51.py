"""The official annotation files of UCF101 and HMDB51, whose videos are in a folder of each class."""

from __future__ import annotations

import re
from pathlib import Path

from msfnet.data.annotations.annotation import Annotation, AnnotationFolder, LabelMap, matching_files, read_label_map
from msfnet.data.annotations.names import video_name
from msfnet.data.annotations.tables import read_lines
from msfnet.types import UserError

_CLASS_LINE = re.compile(r"(?:.*/)?(?P<label>[^/]+)/(?P<name>[^/]+?)(?:[ \t]+(?P<number>[0-9]+))?")


def _read_class_lines(
    folder: AnnotationFolder, path: Path, split: str, labels: LabelMap, numbers: dict[str, int]
) -> None:
    """Return the lines `Class/name.avi 1` with the number of the class, which the test files of UCF101 leave out."""
    if not path.is_file():
        raise UserError(f"expected the annotation file {path}, found no such file; is --split right?")
    for where, line in read_lines(path):
        match = _CLASS_LINE.fullmatch(line)
        if not match or (split == "train" and not match["number"]):
            raise UserError(f"{where}: expected CLASS/VIDEO and the number of the class, found {line!r}")
        label = labels.lookup(match["label"], where)
        if match["number"] and numbers.setdefault(label, int(match["number"])) != int(match["number"]):
            raise UserError(f"{where}: expected number {numbers[label]} for {label}, found {match['number']}")
        folder.add(Annotation(video_name(Path(match["name"])), label, split, where, match["label"]))


def has_ucf101(folder: Path) -> bool:
    """Return whether the folder has annotation files of UCF101."""
    return bool(matching_files(folder, r"trainlist\d+\.txt"))


def read_ucf101(folder: AnnotationFolder) -> None:
    """Read trainlist0N.txt and testlist0N.txt; classInd.txt (`1 ApplyEyeMakeup`), if there, is their label map."""
    label_file = folder.path / "classInd.txt"
    numbers = _class_numbers(label_file)
    labels = LabelMap(list(numbers), label_file if numbers else None)
    for split in ("train", "test"):
        path = folder.path / f"{split}list{folder.split:02d}.txt"
        _read_class_lines(folder, path, split, labels, numbers)


def _class_numbers(path: Path) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for where, line in read_lines(path) if path.is_file() else []:
        match = re.fullmatch(r"([0-9]+)[ \t]+(.+)", line)
        if not match or match[2] in numbers:
            raise UserError(f"{where}: expected a number and a new label, found {line!r}")
        numbers[match[2]] = int(match[1])
    return numbers


def has_hmdb51(folder: Path) -> bool:
    """Return whether the folder has one annotation file per split, as libraries publish those of HMDB51."""
    return bool(matching_files(folder, r".*_split_\d+\.txt"))


def read_hmdb51(folder: AnnotationFolder) -> None:
    """Read *_train_split_N.txt and *_val_split_N.txt. HMDB51 has no validation set: "val" is the official test set.

    The numbers of the classes differ from their positions in label_map.txt, and are only compared with each other.
    """
    labels, numbers = read_label_map(folder), dict[str, int]()
    for split, words in (("train", "train"), ("test", "val|test")):
        paths = folder.files(rf".*({words})_split_{folder.split}\.txt")
        for path in paths or [folder.path / f"hmdb51_vid_{words.partition('|')[0]}_split_{folder.split}.txt"]:
            _read_class_lines(folder, path, split, labels, numbers)


def has_original_hmdb51(folder: Path) -> bool:
    """Return whether the folder has one annotation file per class and split, as the authors publish those of HMDB51."""
    return bool(matching_files(folder, r".+_test_split\d+\.txt"))


def read_original_hmdb51(folder: AnnotationFolder) -> None:
    """Read lines `name.avi 1` of CLASS_test_splitN.txt: 1 is train, 2 is test, 0 is neither."""
    ending, labels = f"_test_split{folder.split}.txt", read_label_map(folder)
    paths = folder.files(f".+{re.escape(ending)}")
    if not paths:
        raise UserError(f"expected files named CLASS{ending} in {folder.path}, found none; is --split right?")
    for path in paths:
        class_name = path.name[: -len(ending)]
        for where, line in read_lines(path):
            match = re.fullmatch(r"(.+?)[ \t]+([012])", line)
            if not match:
                raise UserError(f"{where}: expected a video and 0, 1 or 2, found {line!r}")
            if match[2] != "0":
                split, label = "train" if match[2] == "1" else "test", labels.lookup(class_name, where)
                folder.add(Annotation(video_name(Path(match[1])), label, split, where, class_name))
