"""What all readers of official annotation files share: one annotation, the folder being read, and the label map.

It handles the spelling of labels, not the formats of the files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.data.annotations.names import simplify
from msfnet.data.annotations.tables import DuplicateRows, read_columns, read_lines
from msfnet.data.video.frame_folders import is_hidden
from msfnet.types import UserError


@dataclass(frozen=True)
class Annotation:
    """One labeled video of an annotation file.

    Attributes:
        name: Name of the video, without suffix.
        label: Name of its class.
        split: `train`, `val` or `test`.
        where: File and line, for messages.
        folder: The folder that the official layout keeps the video in; empty if there is none.
        group: Videos of one group have one source; None if it is unknown.
        other_names: Other names that the file may have, the most likely first.
    """

    name: str
    label: str
    split: str
    where: str
    folder: str = ""
    group: str | None = None
    other_names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name with its folder."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass(frozen=True)
class Annotations:
    """The official annotations of a dataset.

    Attributes:
        source: The name of their format, for messages.
        annotations: Every labeled video once.
        notes: Remarks for the user, such as files without labels.
    """

    source: str
    annotations: tuple[Annotation, ...]
    notes: tuple[str, ...] = ()


class AnnotationFolder:
    """A folder of annotation files while it is read.

    Args:
        path: The folder.
        split: Number of the split to read, for datasets with several.

    Attributes:
        annotations: What was read so far, every video once.
        notes: Remarks for the user so far.
    """

    def __init__(self, path: Path, split: int) -> None:
        self.path, self.split = path, split
        self.annotations: list[Annotation] = []
        self.notes: list[str] = []
        self._rows = DuplicateRows()

    def files(self, pattern: str) -> list[Path]:
        """Return the files whose names match a regular expression, sorted."""
        return matching_files(self.path, pattern)

    def label_map_file(self, pattern: str) -> Path | None:
        """Return the one label map whose name matches, or None; a UserError if there are several."""
        paths = self.files(pattern)
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths[:2])
            raise UserError(f"expected one label map in {self.path}, found {names}; keep that of this dataset")
        return paths[0] if paths else None

    def add(self, annotation: Annotation) -> None:
        """Add an annotation unless it repeats an earlier one; a UserError if it contradicts one."""
        if not self._rows.is_duplicate(annotation.title, annotation.label, annotation.split, annotation.where):
            self.annotations.append(annotation)

    def note_unlabeled(self, path: Path, n: int) -> None:
        """Note that `n` videos of a file are left out."""
        if n:
            self.notes.append(f"{n} videos of {path.name} have no label and are left out")

    def expect_one_split(self) -> None:
        """Refuse a split other than 1, for datasets with one official split."""
        if self.split != 1:
            raise UserError(f"expected --split 1, the only split of {self.path}, found {self.split}")


def matching_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder whose names match a regular expression, ignoring case, sorted."""
    files = (p for p in sorted(folder.iterdir()) if not is_hidden(p.name) and p.is_file())
    return [p for p in files if re.fullmatch(pattern, p.name, re.IGNORECASE)]


def tables_with_columns(folder: Path, *columns: str) -> list[Path]:
    """Return the CSV files of a folder with these columns in their first lines."""
    return [path for path in matching_files(folder, r".*\.csv") if set(columns) <= set(read_columns(path))]


class LabelMap:
    """The labels of a dataset as its label map writes them.

    Args:
        labels: All labels.
        source: The file they come from. Without one, every label is accepted as it is.
    """

    def __init__(self, labels: Sequence[str] = (), source: Path | None = None) -> None:
        self.labels, self.source = list(labels), source
        self._known = set(labels)
        self._similar: dict[str, list[str]] = {}
        for label in labels:
            self._similar.setdefault(simplify(label), []).append(label)

    def lookup(self, label: str, where: str) -> str:
        """Return the label of the map that equals `label` in letters and digits.

        Args:
            label: A label of an annotation file.
            where: File and line, for the message.

        Raises:
            UserError: There is none.
        """
        if self.source is None or label in self._known:
            return label
        similar = self._similar.get(simplify(label), [])
        if len(similar) == 1:
            return similar[0]
        close = difflib.get_close_matches(label, self.labels, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{where}: expected a label of {self.source.name}, found {label!r}{hint}")


def read_label_map(folder: AnnotationFolder) -> LabelMap:
    """Read label_map.txt, label_map_k400.txt or a similar file, with one label per line."""
    path = folder.label_map_file(r".*label_?map.*\.txt")
    return ordered_label_map(folder, unique_labels(read_lines(path)) if path else [], path)


def unique_labels(lines: Iterable[tuple[str, str]]) -> list[str]:
    """Return the labels of (where, label) lines, in order; a UserError if one comes twice."""
    labels: dict[str, str] = {}
    for where, label in lines:
        if label in labels:
            raise UserError(f"{where}: expected each label once, found {label!r} as in {labels[label]}")
        labels[label] = where
    return list(labels)


def ordered_label_map(folder: AnnotationFolder, labels: list[str], path: Path | None) -> LabelMap:
    """Return the label map; note if class indices, which follow the sorted labels, differ from those of the file."""
    if path and labels != sorted(labels):
        folder.notes.append(f"{path.name} is not sorted: class indices follow the sorted labels instead")
    return LabelMap(labels, path)
