"""A scan resumes after any interruption, and results are never used for a file that has changed."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.doctor.scan import Journal, file_key, scan_files
from msfnet.types import UserError

ENTRIES = {"a, b|1|2": {"x": 1.5}, 'c"\n': False, "ünï": [None, "€"]}


def write_journal(path, entries=ENTRIES):
    journal = Journal(path)
    for key, value in entries.items():
        journal.add(key, value)
    journal.close()


def test_journal_returns_the_last_value(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    write_journal(path)
    write_journal(path, {"a, b|1|2": 2})
    journal = Journal(path)
    assert {key: journal.get(key) for key in ENTRIES} == ENTRIES | {"a, b|1|2": 2}
    assert journal.get("other") is None
    journal.close()


@given(st.integers(0, 120))
def test_truncated_journal(tmp_path_factory, cut):
    """A journal that is truncated anywhere keeps its whole lines and can be appended to."""
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    write_journal(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    write_journal(path, {"later": 1})
    journal = Journal(path)
    kept = [key for i, key in enumerate(ENTRIES) if len(b"".join(whole.splitlines(True)[: i + 1])) - 1 <= cut]
    assert set(journal.values) == {*kept, "later"}
    journal.close()


def test_changed_file_has_another_key(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    keys = {file_key(path)}
    path.write_text("three")
    keys.add(file_key(path))
    os.utime(path, ns=(1, 1))
    keys.add(file_key(path))
    assert len(keys) == 3


def test_journal_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MSFNET_CACHE to another folder"):
        Journal(tmp_path / "file" / "journal.jsonl")


def crash(path, heartbeat):
    """Take the place of decoding in a worker process."""
    os._exit(3)


def test_file_that_crashes_the_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr("msfnet.doctor.scan.inspect_video", crash)
    path = tmp_path / "a.mp4"
    path.write_bytes(b"12345")
    found = scan_files([path], tmp_path / "journal.jsonl", processes=1).info[path]
    assert (found.error, found.size_bytes) == ("the decoder crashed (exit code 3)", 5)
