"""What an official list comes to: a label and a split for the name of each video, spelled as the data set spells it.

Knows folders of lists and files of labels, not the formats of the lists.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.data.annotations.names import plain
from msfnet.data.annotations.tables import SaidBefore, read_columns, read_lines
from msfnet.data.video.frame_folders import is_hidden
from msfnet.types import UserError


@dataclass(frozen=True)
class Entry:
    """A video that a list names. Names are without ending; `folder` is the one the official layout has it in."""

    name: str
    label: str
    split: str
    where: str  # file and line
    folder: str = ""
    group: str | None = None
    other_names: tuple[str, ...] = ()  # that the file is also found under, the likeliest first

    @property
    def title(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass(frozen=True)
class Lists:
    """What a folder of lists says: every labeled video once, and what there is to say of the rest."""

    entries: tuple[Entry, ...]
    source: str  # "UCF101 lists", ...
    notes: tuple[str, ...] = ()


class Reading:
    """A folder of lists while it is read: entries and notes gather here."""

    def __init__(self, folder: Path, split: int) -> None:
        self.folder, self.split = folder, split
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self._said = SaidBefore()

    def named(self, pattern: str) -> list[Path]:
        return named(self.folder, pattern)

    def only(self, pattern: str) -> Path | None:
        """The one file whose name matches, or None. Raises UserError when there are several."""
        paths = self.named(pattern)
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths[:2])
            raise UserError(f"expected one file of labels in {self.folder}, found {names}; keep that of this data set")
        return paths[0] if paths else None

    def add(self, entry: Entry) -> None:
        if not self._said(entry.title, entry.label, entry.split, entry.where):
            self.entries.append(entry)

    def note_unlabeled(self, path: Path, n: int) -> None:
        if n:
            self.notes.append(f"{n} videos of {path.name} have no label and are left out")

    def expect_one_split(self) -> None:
        """For data sets with one official split."""
        if self.split != 1:
            raise UserError(f"expected --split 1, the only one of the lists in {self.folder}, found {self.split}")


def named(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose names match, sorted."""
    files = (p for p in sorted(folder.iterdir()) if not is_hidden(p.name) and p.is_file())
    return [p for p in files if re.fullmatch(pattern, p.name, re.IGNORECASE)]


def tables_with(folder: Path, *columns: str) -> list[Path]:
    """The CSV files of a folder with these columns in their first lines."""
    return [path for path in named(folder, r".*\.csv") if set(columns) <= set(read_columns(path))]


Spelling = Callable[[str, str], str]  # label, where it stands -> the label as the data set spells it


def spelling(labels: Sequence[str], source: Path | None) -> Spelling:
    """Any label as it is when the data set has no file of labels (`source`), else as that spells it, or UserError."""
    known = set(labels)
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(plain(label), []).append(label)

    def spell(label: str, where: str) -> str:
        if source is None or label in known:
            return label
        same = alike.get(plain(label), [])
        if len(same) == 1:
            return same[0]
        close = difflib.get_close_matches(label, labels, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{where}: expected a label of {source.name}, found {label!r}{hint}")

    return spell


def label_map(reading: Reading) -> Spelling:
    """From label_map.txt, label_map_k400.txt, ...: a label a line."""
    path = reading.only(r".*label_?map.*\.txt")
    return ordered_spelling(reading, each_once(read_lines(path)) if path else [], path)


def each_once(lines: Iterable[tuple[str, str]]) -> list[str]:
    """The labels of a file of labels, in order. Raises UserError when one comes twice."""
    labels: dict[str, str] = {}
    for where, label in lines:
        if label in labels:
            raise UserError(f"{where}: expected each label once, found {label!r} as in {labels[label]}")
        labels[label] = where
    return list(labels)


def ordered_spelling(reading: Reading, labels: list[str], path: Path | None) -> Spelling:
    """`spelling`, with a note where the file's order is not that of the classes here."""
    if path and labels != sorted(labels):
        reading.notes.append(f"{path.name} is not in the order of the alphabet, which numbers the classes here")
    return spelling(labels, path)
