"""Lines, tables and JSON in any encoding of UTF-8, with any line ends and delimiters."""

import csv
import io

import pytest
from annotation_files import byte_order_marks, line_ends, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.annotations.tables import (
    DELIMITERS,
    DuplicateRows,
    read_columns,
    read_json,
    read_lines,
    read_table,
    read_text,
)
from msfnet.types import UserError

characters = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.sampled_from("a;,\t\"' \x85\u2028")
values = st.text(characters, max_size=10)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(values.filter(str.strip), values), max_size=5),
    st.sampled_from(DELIMITERS),
    line_ends,
    byte_order_marks,
)
def test_tables_keep_any_value(tmp_path_factory, rows, delimiter, end, mark):
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows([(" Path", "LABEL "), *rows])
    path.write_bytes(mark + text.getvalue().encode())
    assert [tuple(row.values.items()) for row in read_table(path)] == [(("path", a), ("label", b)) for a, b in rows]
    assert [row.where for row in read_table(path)] == [f"{path}, line {n}" for n in range(2, len(rows) + 2)]


@settings(max_examples=30, deadline=None)
@given(st.lists(values), st.sampled_from(["\n", "\r\n", "\r"]), byte_order_marks)
def test_lines_keep_any_text(tmp_path_factory, lines, end, mark):
    path = tmp_path_factory.mktemp("lines") / "l.txt"
    write_lines(path, lines, end, mark)
    expected = [(f"{path}, line {n}", line.strip(" \t")) for n, line in enumerate(lines, 1) if line.strip()]
    assert read_lines(path) == expected


def test_blank_lines_are_counted_and_skipped(tmp_path):
    write_lines(tmp_path / "t.csv", ["path,label", "", ",", "a.mp4,Run", " , "])
    assert [(row.where[-6:], row.values["path"]) for row in read_table(tmp_path / "t.csv")] == [("line 4", "a.mp4")]
    assert read_columns(tmp_path / "t.csv") == ("path", "label")
    write_lines(tmp_path / "empty.csv", [])
    assert list(read_table(tmp_path / "empty.csv")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n1\n", r"t.csv, line 3: expected 2 values \(a, b\), found 1; a value that holds ',' needs quotes"),
        ("a,b\n1,2,3\n", "line 2: expected 2 values .*, found 3"),
        ('a,b\n1,"2\n3,4\n', "line 2: expected values as in CSV, found unexpected end of data; is a quote not closed"),
        ('a,b\n"1"2,3\n', "line 2: expected values as in CSV"),
        ("a,A\n1,2\n", "t.csv: expected each column once, found 'a' twice"),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_table(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("text", "encoding", "line", "byte"),
    [("a\nb\nçé", "windows-1252", 3, "e7"), ("é", "utf-16", 1, "ff"), ("\ufeffa\né", "latin-1", None, None)],
)
def test_other_encodings(tmp_path, text, encoding, line, byte):
    if line is None:  # a byte order mark of UTF-8 before text in another encoding
        (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text[1:].encode(encoding))
        line, byte, encoding = 2, "e9", "windows-1252"
    else:
        (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    message = rf"t.csv, line {line}: expected UTF-8 text, found byte 0x{byte}; save .*: iconv -f {encoding} -t utf-8"
    with pytest.raises(UserError, match=message):
        read_text(tmp_path / "t.csv")


def test_json(tmp_path):
    (tmp_path / "t.json").write_bytes(b'\xef\xbb\xbf{"a":\r\n "\xc3\xa9"}')
    assert read_json(tmp_path / "t.json") == {"a": "é"}
    (tmp_path / "t.json").write_text('{"a":\n1,}')
    with pytest.raises(UserError, match=r"t.json, line 2: expected JSON, found"):
        read_json(tmp_path / "t.json")


def test_duplicate_rows_may_not_contradict():
    rows = DuplicateRows()
    assert not rows.is_duplicate("a.mp4", "Run", "train", "line 1")
    assert not rows.is_duplicate("b.mp4", "Run", None, "line 2")
    assert rows.is_duplicate("a.mp4", "Run", "train", "line 3")
    with pytest.raises(
        UserError, match=r"line 4: expected a.mp4 as in line 1 \('Run' in train\), found 'Sit' in train"
    ):
        rows.is_duplicate("a.mp4", "Sit", "train", "line 4")
    with pytest.raises(
        UserError, match=r"line 5: expected b.mp4 as in line 2 \('Run'\), found 'Run' in test; remove one"
    ):
        rows.is_duplicate("b.mp4", "Run", "test", "line 5")
