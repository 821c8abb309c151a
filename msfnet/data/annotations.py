"""What videos there are and what they show: class folders, manifests and the official lists of the data sets.

The format is recognised, not asked for. Text in, VideoItems out: no video is opened here.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from msfnet.data.frame_folders import VIDEO_SUFFIXES, is_hidden, is_video, videos_below
from msfnet.types import UserError, VideoItem

__all__ = ["Listing", "is_video", "read_data", "read_manifest", "ucf_group"]

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
SPLIT_NAMES = SPLIT_FOLDERS | {"training": "train", "validate": "val", "testing": "test"}
MANIFEST = "manifest.csv"

_UCF_GROUP = re.compile(r"^v_.+_g(\d+)_c\d+$")


@dataclass(frozen=True)
class Listing:
    """A data set as found: its videos, and the names of those that a list promises but that are not there."""

    items: tuple[VideoItem, ...]
    source: str  # "class folders", "manifest", ...
    missing: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that have a video, sorted: position is class number."""
        return tuple(sorted({item.label for item in self.items}))

    def in_split(self, *names: str) -> list[VideoItem]:
        return [item for item in self.items if item.split in names]

    def describe(self) -> str:
        """One line: what was found and what was not."""
        splits = Counter(item.split or "no split" for item in self.items)
        counted = ", ".join(f"{n} {name}" for name, n in splits.items())
        line = f"{len(self.items)} videos of {len(self.classes)} classes from {self.source} ({counted})"
        if self.missing:
            line += f"; {len(self.missing)} listed videos are not there (first: {self.missing[0]})"
        return line


def read_data(data: Path, lists: Path | None = None, split: int = 1) -> Listing:
    """Find the videos of a data set: see `docs/commands.md` for the forms that `data` and `lists` can have.

    Raises UserError when a path does not exist, a class has no video, or a list cannot be read.
    """
    if not data.exists():
        raise UserError(f"expected a folder of videos or a manifest, found nothing at {data}")
    if lists is not None:
        listing = _read_lists(data, lists, split)
    elif data.is_file():
        listing = read_manifest(data, split)
    elif (data / MANIFEST).is_file():
        listing = read_manifest(data / MANIFEST, split)
    else:
        listing = _read_folders(data)
    if not listing.items:
        hint = f"; all {len(listing.missing)} listed videos are missing" if listing.missing else ""
        raise UserError(f"expected videos under {data}, found none{hint}; is this the right folder?")
    return listing


def ucf_group(path: Path) -> str | None:
    """The group in a UCF101 name (v_Archery_g01_c02 -> g01): clips of one group show one person or scene."""
    match = _UCF_GROUP.match(path.stem)
    return f"g{match[1]}" if match else None


# Class folders


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not is_hidden(p.name))


def _read_folders(root: Path) -> Listing:
    folders = _folders(root)
    split_folders = [f for f in folders if f.name.lower() in SPLIT_FOLDERS]
    if split_folders and len(split_folders) == len(folders):
        parts: list[tuple[str | None, Path]] = [(SPLIT_FOLDERS[f.name.lower()], f) for f in split_folders]
    else:
        parts = [(None, root)]
    items = [item for split, folder in parts for item in _read_classes(folder, split)]
    return Listing(tuple(items), "class folders")


def _read_classes(root: Path, split: str | None) -> Iterator[VideoItem]:
    for folder in _folders(root):
        videos = videos_below(folder)
        if not videos:
            raise UserError(
                f"class folder {folder} has no video (expected files ending in {', '.join(sorted(VIDEO_SUFFIXES))}); "
                "add some or remove the folder"
            )
        for path in videos:
            yield VideoItem(path, folder.name, split, ucf_group(path))


# Manifests


def read_manifest(path: Path, split: int = 1) -> Listing:
    """A CSV with columns path and label, and if there split (or split1, split2, ...) and group."""
    with _open_text(path) as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        for needed in ("path", "label"):
            if needed not in columns:
                raise UserError(f"{path}: expected a CSV with columns path and label, found {', '.join(columns)}")
        numbered = [column for column in columns if re.fullmatch(r"split\d+", column)]
        split_column = f"split{split}" if numbered else "split"
        if numbered and split_column not in columns:
            raise UserError(f"{path}: expected a split among {', '.join(numbered)}, found --split {split}")
        items, missing = [], []
        for row in reader:
            line = f"{path}, line {reader.line_num}"
            if not row["path"] or not row["label"]:
                raise UserError(f"{line}: expected a path and a label, found {row['path']!r} and {row['label']!r}")
            video = path.parent / row["path"]
            if not video.is_file():
                missing.append(row["path"])
                continue
            items.append(
                VideoItem(
                    video, row["label"], _split_name(row.get(split_column), line), row.get("group") or ucf_group(video)
                )
            )
    return Listing(tuple(items), "manifest", tuple(missing))


def _split_name(text: str | None, where: str) -> str | None:
    if not text:
        return None
    if text.strip().lower() not in SPLIT_NAMES:
        raise UserError(f"{where}: expected split train, val or test, found {text!r}")
    return SPLIT_NAMES[text.strip().lower()]


def _open_text(path: Path) -> TextIO:
    """A text file whatever its line ends, with or without a byte order mark."""
    return path.open(encoding="utf-8-sig", newline="")


# Official lists


@dataclass(frozen=True)
class Entry:
    """A line of an official list: the video's path without its ending, its label and split."""

    stem: str
    label: str
    split: str


def _read_lists(root: Path, lists: Path, split: int) -> Listing:
    if not lists.is_dir():
        raise UserError(f"expected --lists to be a folder of official lists, found {lists}")
    for source, (pattern, reader) in LIST_FORMATS.items():
        if any(lists.glob(pattern)):
            return _locate(root, reader(lists, split), source)
    raise UserError(
        f"expected the lists of UCF101 (trainlist01.txt), HMDB51 (*_split_1.txt or *_test_split1.txt) or Kinetics "
        f"(*.csv with youtube_id) in {lists}, found none of them"
    )


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"expected the list {path}, found no such file; is --split right?")
    return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]


def read_ucf101(lists: Path, split: int) -> list[Entry]:
    """`Class/v_Class_g01_c01.avi 1` in trainlist0N.txt, the same without a number in testlist0N.txt."""
    entries = []
    for part in ("train", "test"):
        for line in _lines(lists / f"{part}list{split:02d}.txt"):
            name = re.sub(r"\s+\d+$", "", line)
            entries.append(Entry(str(Path(name).with_suffix("")), Path(name).parent.name, part))
    return entries


def read_hmdb51(lists: Path, split: int) -> list[Entry]:
    """`class/name 10` in hmdb51_vid_train_split_N.txt and ..._val_split_N.txt: N is the class number, from zero.

    HMDB51 has no validation set: its "val" list is the official test list.
    """
    entries = []
    for part in ("train", "val"):
        for path in sorted(lists.glob(f"*{part}_split_{split}.txt")) or [
            lists / f"hmdb51_vid_{part}_split_{split}.txt"
        ]:
            for line in _lines(path):
                name = re.sub(r"\s+\d+$", "", line)
                entries.append(Entry(name, Path(name).parent.name, "train" if part == "train" else "test"))
    return entries


def read_hmdb51_original(lists: Path, split: int) -> list[Entry]:
    """`name.avi 1` in class_test_splitN.txt: 1 is train, 2 is test, 0 is in neither."""
    paths = sorted(lists.glob(f"*_test_split{split}.txt"))
    if not paths:
        raise UserError(f"expected lists named CLASS_test_split{split}.txt in {lists}, found none; is --split right?")
    entries = []
    for path in paths:
        label = path.name.removesuffix(f"_test_split{split}.txt")
        for line in _lines(path):
            name, _, number = line.rpartition(" ")
            if number in ("1", "2"):
                stem = str(Path(label) / Path(name.strip()).stem)
                entries.append(Entry(stem, label, "train" if number == "1" else "test"))
    return entries


def read_kinetics(lists: Path, split: int) -> list[Entry]:
    """CSV with label, youtube_id, time_start, time_end and split; the files are ID_000010_000020.*."""
    entries = []
    for path in sorted(lists.glob("*.csv")):
        with _open_text(path) as file:
            reader = csv.DictReader(file)
            if "youtube_id" not in (reader.fieldnames or []):
                continue
            for row in reader:
                times = [int(float(row[key])) for key in ("time_start", "time_end")]
                stem = f"{row['youtube_id']}_{times[0]:06d}_{times[1]:06d}"
                part = _split_name(row.get("split"), f"{path}, line {reader.line_num}") or "train"
                entries.append(Entry(f"{row['label']}/{stem}", row["label"], part))
    return entries


LIST_FORMATS: dict[str, tuple[str, Callable[[Path, int], list[Entry]]]] = {
    "UCF101 lists": ("trainlist*.txt", read_ucf101),
    "HMDB51 lists": ("*_split_*.txt", read_hmdb51),
    "HMDB51 per-class lists": ("*_test_split*.txt", read_hmdb51_original),
    "Kinetics lists": ("*.csv", read_kinetics),
}


def _locate(root: Path, entries: list[Entry], source: str) -> Listing:
    """Match list entries with the files below `root`: by folder and name, whatever the ending, else by name alone."""
    by_name: dict[str, list[Path]] = {}
    for path in videos_below(root):
        by_name.setdefault(path.stem, []).append(path)
    items, missing = [], []
    for entry in entries:
        stem = Path(entry.stem)
        paths = by_name.get(stem.name, [])
        same_folder = [p for p in paths if p.parent.name == stem.parent.name]
        found = same_folder or paths
        if not found:
            missing.append(entry.stem)
            continue
        items.append(VideoItem(found[0], entry.label, entry.split, ucf_group(found[0])))
    return Listing(tuple(items), source, tuple(missing))
