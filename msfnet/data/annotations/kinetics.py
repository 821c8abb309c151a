"""The official annotation files of Kinetics: a CSV row for each clip of a YouTube video."""

from __future__ import annotations

import re
from pathlib import Path

from msfnet.data.annotations.annotation import Annotation, AnnotationFolder, read_label_map, tables_with_columns
from msfnet.data.annotations.names import parse_split, split_of_file_name
from msfnet.data.annotations.tables import Row, read_columns, read_table
from msfnet.types import UserError

COLUMNS = ("youtube_id", "time_start", "time_end")


def has_kinetics(folder: Path) -> bool:
    """Return whether the folder has annotation files of Kinetics."""
    return bool(tables_with_columns(folder, *COLUMNS))


def read_kinetics(folder: AnnotationFolder) -> None:
    """Read CSV files with youtube_id, time_start, time_end, label (some test files have none) and optionally split.

    Videos are named ID_000010_000020, ID_10_20 or ID. Clips of one YouTube video are a group.
    """
    folder.expect_one_split()
    labels = read_label_map(folder)
    for path in tables_with_columns(folder.path, *COLUMNS):
        columns, unlabeled = read_columns(path), 0
        for row in read_table(path):
            label, split = row.values.get("label", "").strip(), _split_of(row, path)
            start, end = (_seconds(row.values[key], f"{row.where}: {key}") for key in COLUMNS[1:])
            youtube_id = row.values["youtube_id"].strip()
            if not youtube_id or (not label and "label" in columns and split != "test"):
                raise UserError(f"{row.where}: expected a youtube_id and a label, found {youtube_id!r} and {label!r}")
            if not label:
                unlabeled += 1
                continue
            name = f"{youtube_id}_{start:06d}_{end:06d}"
            other_names = (f"{youtube_id}_{start}_{end}", youtube_id)
            label = labels.lookup(label, row.where)
            folder.add(Annotation(name, label, split, row.where, group=youtube_id, other_names=other_names))
        folder.note_unlabeled(path, unlabeled)


def _split_of(row: Row, path: Path) -> str:
    split = parse_split(row.values.get("split", ""), row.where) or split_of_file_name(path.stem)
    if split is None:
        raise UserError(
            f"{row.where}: expected a split in the line, or train, val or test in the file's name, found neither"
        )
    return split


def _seconds(text: str, what: str) -> int:
    if not re.fullmatch(r"\s*\d+(\.\d*)?\s*", text, re.ASCII):
        raise UserError(f"{what}: expected seconds, found {text!r}")
    return int(float(text))
