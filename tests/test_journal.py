"""What was found is there after any interruption, and never for a file that has changed."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet.doctor.scan import Journal, file_key
from msfnet.types import UserError

ENTRIES = {"a, b|1|2": {"x": 1.5}, 'c"\n': False, "ünï": [None, "€"]}


def written(path, entries=ENTRIES):
    journal = Journal(path)
    for key, value in entries.items():
        journal.add(key, value)
    journal.close()


def test_entries_come_back_and_the_last_one_counts(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    written(path)
    written(path, {"a, b|1|2": 2})
    journal = Journal(path)
    assert {key: journal.get(key) for key in ENTRIES} == ENTRIES | {"a, b|1|2": 2}
    assert journal.get("other") is None
    journal.close()


@given(st.integers(0, 120))
def test_a_journal_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    written(path, {"later": 1})
    journal = Journal(path)
    kept = [key for i, key in enumerate(ENTRIES) if len(b"".join(whole.splitlines(True)[: i + 1])) - 1 <= cut]
    assert set(journal.values) == {*kept, "later"}
    journal.close()


def test_a_changed_file_has_another_key(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    keys = {file_key(path)}
    path.write_text("three")
    keys.add(file_key(path))
    os.utime(path, ns=(1, 1))
    keys.add(file_key(path))
    assert len(keys) == 3


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MSFNET_CACHE names another"):
        Journal(tmp_path / "file" / "journal.jsonl")
