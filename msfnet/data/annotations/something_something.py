"""The official annotation files of Something-Something and Jester, whose videos are named by numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msfnet.data.annotations.annotation import (
    Annotation,
    AnnotationFolder,
    LabelMap,
    matching_files,
    ordered_label_map,
    tables_with_columns,
    unique_labels,
)
from msfnet.data.annotations.names import split_of_file_name
from msfnet.data.annotations.tables import read_columns, read_json, read_records, read_table
from msfnet.types import UserError

_JSON_FILE = r"(something-something-v2-)?(train|validation|val|test)\.json"
_JSON_LABELS = r"(something-something-v2-)?labels\.json"
_ID_LINE = re.compile(r"\d+\s*(;.*)?", re.ASCII)


def _with_split(paths: list[Path]) -> list[tuple[Path, str]]:
    """Return the files whose names tell a split, with that split."""
    return [(path, split) for path in paths if (split := split_of_file_name(path.stem))]


# JSON, of Something-Something V2


def has_json(folder: Path) -> bool:
    """Return whether a JSON file holds an array. Kinetics comes with files of the same names that hold an object."""
    for path in matching_files(folder, _JSON_FILE):
        with path.open("rb") as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                return True
    return False


def read_json_files(folder: AnnotationFolder) -> None:
    """Read train.json, validation.json and test.json: the label is `template` without brackets.

    Test videos have no template; test-answers.csv (`id;label`), if there, labels them.
    """
    folder.expect_one_split()
    labels = _json_labels(folder)
    answers = {
        values[0].strip(): (where, values[1].strip())
        for path in folder.files(r"test-answers\.csv")
        for where, values in _id_records(path, (2,))
    }
    for path, split in _with_split(folder.files(_JSON_FILE)):
        unlabeled = 0
        for where, video in _json_videos(path):
            name, template = str(video["id"]).strip(), video.get("template")
            if template is None and split == "test":
                if name not in answers:
                    unlabeled += 1
                    continue
                where, template = answers[name]
            if not isinstance(template, str) or not template.strip():
                raise UserError(f"{where}: expected a template, found {template!r}")
            label = template.replace("[", "").replace("]", "").strip()
            folder.add(Annotation(name, labels.lookup(label, where), split, where))
        folder.note_unlabeled(path, unlabeled)


def _json_labels(folder: AnnotationFolder) -> LabelMap:
    """Read labels.json: {label: number, ...}."""
    path = folder.label_map_file(_JSON_LABELS)
    if path is None:
        return LabelMap()
    numbers = read_json(path)
    try:
        labels = sorted(numbers, key=lambda label: int(numbers[label]))
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected an object of labels and their numbers, found something else") from None
    return ordered_label_map(folder, labels, path)


def _json_videos(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place of each video in the file, for messages, and its values."""
    videos = read_json(path)
    if not isinstance(videos, list):
        raise UserError(f"{path}: expected an array of videos with id and template, found {type(videos).__name__}")
    for n, video in enumerate(videos, 1):
        if not isinstance(video, dict) or not str(video.get("id", "")).strip():
            raise UserError(f"{path}, entry {n}: expected a video with id and template, found {video!r}")
        yield f"{path}, entry {n}", video


# CSV, of Jester and Something-Something V1


def has_csv(folder: Path) -> bool:
    """Return whether the folder has CSV files by id."""
    return bool(_csv_files(folder))


def _csv_files(folder: Path) -> list[Path]:
    """Return the files with a header that has video_id or id, or without one and `id;label` from the first line on."""
    tables = tables_with_columns(folder, "video_id") + tables_with_columns(folder, "id")
    others = [path for path in matching_files(folder, r".*\.csv") if _has_no_header(path)]
    return [path for path, _ in _with_split(sorted({*tables, *others}))]


def _has_no_header(path: Path) -> bool:
    return _ID_LINE.fullmatch(";".join(read_columns(path))) is not None


def _id_records(path: Path, lengths: tuple[int, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield the place of each line, for messages, and its values, whose number is in `lengths`."""
    for where, values in read_records(path, ";"):
        if len(values) not in lengths or not values[0].strip():
            raise UserError(f"{where}: expected id;label, found {';'.join(values)!r}")
        yield where, values


def read_csv_files(folder: AnnotationFolder) -> None:
    """Read CSV files by id, with the labels of *labels.csv, if there."""
    folder.expect_one_split()
    label_file = folder.label_map_file(r".*labels\.csv")
    lines = _id_records(label_file, (1,)) if label_file else ()
    labels = ordered_label_map(folder, unique_labels((where, values[0].strip()) for where, values in lines), label_file)
    for path, split in _with_split(_csv_files(folder.path)):
        unlabeled = 0
        for where, name, label in _ids_and_labels(path):
            if not label and split != "test":
                raise UserError(f"{where}: expected a label, found none")
            if label:
                folder.add(Annotation(name, labels.lookup(label, where), split, where))
            unlabeled += not label
        folder.note_unlabeled(path, unlabeled)


def _ids_and_labels(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the place of each line, for messages, its id and its label, which is empty if there is none."""
    if _has_no_header(path):
        for where, values in _id_records(path, (1, 2)):
            yield where, values[0].strip(), values[1].strip() if len(values) == 2 else ""
        return
    key = "video_id" if "video_id" in read_columns(path) else "id"
    for row in read_table(path):
        if not row.values[key].strip():
            raise UserError(f"{row.where}: expected a {key}, found none")
        yield row.where, row.values[key].strip(), row.values.get("label", "").strip()
