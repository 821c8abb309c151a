"""The official lists of Something-Something and Jester, whose videos are files or folders of frames named by a number.

Text in, entries out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msfnet.data.annotations.entries import (
    Entry,
    Reading,
    Spelling,
    each_once,
    named,
    ordered_spelling,
    spelling,
    tables_with,
)
from msfnet.data.annotations.names import split_in
from msfnet.data.annotations.tables import read_columns, read_json, read_records, read_table
from msfnet.types import UserError

_JSON_LIST = r"(something-something-v2-)?(train|validation|val|test)\.json"
_JSON_LABELS = r"(something-something-v2-)?labels\.json"
_ID_LINE = re.compile(r"\d+\s*(;.*)?", re.ASCII)


def with_split(paths: list[Path]) -> list[tuple[Path, str]]:
    """The lists whose names tell a split, and that split."""
    return [(path, split) for path in paths if (split := split_in(path.stem))]


def has_json_lists(folder: Path) -> bool:
    """Whether there is a list of videos. (Kinetics comes with files of these names that hold an object.)"""
    for path in named(folder, _JSON_LIST):
        with path.open("rb") as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                return True
    return False


def read_something_json(reading: Reading) -> None:
    """train.json, validation.json and test.json of Something-Something V2: the label is `template` without brackets.

    Test videos have no template; test-answers.csv (`id;label`), if there, labels them.
    """
    reading.expect_one_split()
    spell = _json_labels(reading)
    answers = {
        values[0].strip(): (where, values[1].strip())
        for path in reading.named(r"test-answers\.csv")
        for where, values in _id_records(path, (2,))
    }
    for path, split in with_split(reading.named(_JSON_LIST)):
        unlabeled = 0
        for where, video in _json_videos(path):
            clip, template = str(video["id"]).strip(), video.get("template")
            if template is None and split == "test":
                if clip not in answers:
                    unlabeled += 1
                    continue
                where, template = answers[clip]
            if not isinstance(template, str) or not template.strip():
                raise UserError(f"{where}: expected a template, found {template!r}")
            label = template.replace("[", "").replace("]", "").strip()
            reading.add(Entry(clip, spell(label, where), split, where))
        reading.note_unlabeled(path, unlabeled)


def _json_labels(reading: Reading) -> Spelling:
    """From labels.json: {label: number, ...}."""
    path = reading.only(_JSON_LABELS)
    if path is None:
        return spelling((), None)
    numbers = read_json(path)
    try:
        labels = sorted(numbers, key=lambda label: int(numbers[label]))
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected an object of labels and their numbers, found something else") from None
    return ordered_spelling(reading, labels, path)


def _json_videos(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    videos = read_json(path)
    if not isinstance(videos, list):
        raise UserError(f"{path}: expected a list of videos with id and template, found {type(videos).__name__}")
    for n, video in enumerate(videos, 1):
        if not isinstance(video, dict) or not str(video.get("id", "")).strip():
            raise UserError(f"{path}, entry {n}: expected a video with id and template, found {video!r}")
        yield f"{path}, entry {n}", video


def id_lists(folder: Path) -> list[Path]:
    """Lists by id: with a header that has video_id or id, or without one and `id;label` from the first line."""
    tables = tables_with(folder, "video_id") + tables_with(folder, "id")
    others = [path for path in named(folder, r".*\.csv") if _has_no_header(path)]
    return [path for path, _ in with_split(sorted({*tables, *others}))]


def _has_no_header(path: Path) -> bool:
    return _ID_LINE.fullmatch(";".join(read_columns(path))) is not None


def _id_records(path: Path, lengths: tuple[int, ...]) -> Iterator[tuple[str, list[str]]]:
    for where, values in read_records(path, ";"):
        if len(values) not in lengths or not values[0].strip():
            raise UserError(f"{where}: expected id;label, found {';'.join(values)!r}")
        yield where, values


def read_ids(reading: Reading) -> None:
    """Jester and Something-Something V1: `id;label` without a header, or a CSV with video_id and label."""
    reading.expect_one_split()
    names = reading.only(r".*labels\.csv")
    lines = _id_records(names, (1,)) if names else ()
    spell = ordered_spelling(reading, each_once((where, values[0].strip()) for where, values in lines), names)
    for path, split in with_split(id_lists(reading.folder)):
        unlabeled = 0
        for where, clip, label in _ids_and_labels(path):
            if not label and split != "test":
                raise UserError(f"{where}: expected a label, found none")
            if label:
                reading.add(Entry(clip, spell(label, where), split, where))
            unlabeled += not label
        reading.note_unlabeled(path, unlabeled)


def _ids_and_labels(path: Path) -> Iterator[tuple[str, str, str]]:
    """Where, id and label ("" when there is none) of each line."""
    if _has_no_header(path):
        for where, values in _id_records(path, (1, 2)):
            yield where, values[0].strip(), values[1].strip() if len(values) == 2 else ""
        return
    key = "video_id" if "video_id" in read_columns(path) else "id"
    for row in read_table(path):
        if not row.values[key].strip():
            raise UserError(f"{row.where}: expected a {key}, found none")
        yield row.where, row.values[key].strip(), row.values.get("label", "").strip()
