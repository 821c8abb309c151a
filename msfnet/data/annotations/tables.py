"""Text files as people keep them: UTF-8 with or without a byte order mark, any line ends, three kinds of delimiter.

Knows lines and columns, not what they mean. What cannot be read is a UserError that names the file and the line.
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

_LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines would also cut at marks that a label may hold


@dataclass(frozen=True)
class Row:
    """A line of a table: its values by column, and the file and line where it stands, for messages."""

    where: str
    values: dict[str, str]


def read_text(path: Path) -> str:
    """The whole text of a file. Raises UserError when it is not UTF-8."""
    return _decode(path.read_bytes(), path)


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines that are not blank, without the spaces around them, each after the file and line where it stands."""
    lines = _LINE_END.split(read_text(path))
    return [(f"{path}, line {n}", line.strip(" \t")) for n, line in enumerate(lines, 1) if line.strip()]


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: expected JSON, found {error.msg}") from None


def read_records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The values of each line that has any, after where it stands. Quotes are as in CSV, and must be closed."""
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
    """The values of the first line, in small letters: the names of the columns, if it is a table with a header."""
    return _header(path)[1]


def read_table(path: Path) -> Iterator[Row]:
    """The lines below the header. Raises UserError for a line with more or fewer values than there are columns."""
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


class SaidBefore:
    """What the lines of a list have said of each video: a line may be padded, but not contradicted."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[tuple[str, str | None], str]] = {}

    def __call__(self, video: str, label: str, split: str | None, where: str) -> bool:
        """Whether an earlier line said the same. Raises UserError, naming both lines, when one said otherwise."""
        if video not in self._said:
            self._said[video] = (label, split), where
            return False
        said, earlier = self._said[video]
        if said != (label, split):
            raise UserError(
                f"{where}: expected {video} as in {earlier} ({_spell(*said)}), found {_spell(label, split)}; "
                "remove one of the lines"
            )
        return True


def _spell(label: str, split: str | None) -> str:
    return f"{label!r} in {split}" if split else repr(label)


def _header(path: Path) -> tuple[str, tuple[str, ...]]:
    """The delimiter that makes the most of a file's first line, and the columns it makes."""
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
