"""Text, CSV and JSON files: UTF-8 with or without a byte order mark, any line ends, three delimiters.

This module is independent of what columns mean. What cannot be read is a UserError that names the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfnet.types import UserError

DELIMITERS = ",;\t"

_LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines also splits at characters that a label may have


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        where: File and line, for messages.
        values: Values by column.
    """

    where: str
    values: dict[str, str]


def read_text(path: Path) -> str:
    """Read the whole text of a file; a UserError if it is not UTF-8."""
    return _decode(path.read_bytes(), path)


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Read the lines that are not blank, as (file and line, text without the spaces around it)."""
    lines = _LINE_END.split(read_text(path))
    return [(f"{path}, line {n}", line.strip(" \t")) for n, line in enumerate(lines, 1) if line.strip()]


def read_json(path: Path) -> Any:
    """Read a JSON file; a UserError if it is not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: expected JSON, found {error.msg}") from None


def read_records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Read the lines that are not blank, as (file and line, values). Quotes are as in CSV and must be closed."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{where}: expected values as in CSV, found {error}; is a quote not closed?") from None
        if any(value.strip() for value in record):
            yield where, record


def read_columns(path: Path) -> tuple[str, ...]:
    """Read the first line as lowercase column names."""
    return _header(path)[1]


def read_table(path: Path) -> Iterator[Row]:
    """Read the rows below the header; a UserError for a row with more or fewer values than there are columns."""
    delimiter, columns = _header(path)
    if repeated := [name for name in columns if columns.count(name) > 1]:
        raise UserError(f"{path}: expected each column once, found {repeated[0]!r} twice")
    records = read_records(path, delimiter)
    next(records, None)
    for where, record in records:
        if len(record) != len(columns):
            raise UserError(
                f"{where}: expected {len(columns)} values ({', '.join(columns)}), found {len(record)}; "
                f"a value that holds {delimiter!r} needs quotes around it"
            )
        yield Row(where, dict(zip(columns, record, strict=True)))


class DuplicateRows:
    """Finds several rows about one video: a row may repeat an earlier one, but not contradict it."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, str | None, str]] = {}  # video -> label, split, where

    def is_duplicate(self, video: str, label: str, split: str | None, where: str) -> bool:
        """Return whether an earlier row has the same label and split.

        Args:
            video: What identifies the video.
            label: Its class.
            split: Its split, if given.
            where: File and line of the row.

        Raises:
            UserError: An earlier row has another label or split; the message names both rows.
        """
        if video not in self._rows:
            self._rows[video] = label, split, where
            return False
        earlier_label, earlier_split, earlier_where = self._rows[video]
        if (earlier_label, earlier_split) != (label, split):
            raise UserError(
                f"{where}: expected {video} as in {earlier_where} ({_describe(earlier_label, earlier_split)}), found "
                f"{_describe(label, split)}; remove one of the lines"
            )
        return True


def _describe(label: str, split: str | None) -> str:
    return f"{label!r} in {split}" if split else repr(label)


def _header(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the delimiter that splits the first line of a file into the most columns, and these columns."""
    with path.open("rb") as file:
        line = _LINE_END.split(_decode(file.readline(), path))[0]
    cut = {delimiter: next(csv.reader([line], delimiter=delimiter), []) for delimiter in DELIMITERS}
    delimiter = max(cut, key=lambda d: len(cut[d]))
    return delimiter, tuple(name.strip().lower() for name in cut[delimiter])


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        likely = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "windows-1252"
        raise UserError(
            f"{path}, line {line}: expected UTF-8 text, found byte 0x{error.object[error.start]:02x}; save the file as "
            f"UTF-8, for example with: iconv -f {likely} -t utf-8 '{path}' > '{path.stem}-utf8{path.suffix}'"
        ) from None
