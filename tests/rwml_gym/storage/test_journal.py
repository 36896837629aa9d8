"""A journal gives back what was written, up to the first damage, and only to the command that wrote it."""

from __future__ import annotations

import errno
import os

import pytest

from rwml_gym.errors import ConfigMismatchError, StorageError
from rwml_gym.storage.journal import Journal

HEADER = {"env": "toy", "seed": 0}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run" / "games.jsonl"
    journal = Journal(path, HEADER)
    assert journal.values == []
    for number in range(4):
        journal.append({"game": number, "text": "a\nb\u2028"})
    return path


def games(path) -> list[int]:
    return [value["game"] for value in Journal(path, HEADER).values]


def test_what_was_appended_is_there_again_and_more_can_follow(path):
    journal = Journal(path, HEADER)
    assert journal.values[3] == {"game": 3, "text": "a\nb\u2028"}
    journal.append({"game": 4})
    assert games(path) == [0, 1, 2, 3, 4]


def test_a_journal_of_other_options_is_refused(path):
    with pytest.raises(ConfigMismatchError, match=r'"seed": 0.*Repeat the command that began it'):
        Journal(path, {**HEADER, "seed": 1})


def test_a_line_written_in_part_is_dropped_and_written_again(path):
    path.write_bytes(path.read_bytes()[:-5])
    Journal(path, HEADER).append({"game": 9})
    assert games(path) == [0, 1, 2, 9]


def test_what_follows_a_damaged_line_is_dropped(path):
    path.write_bytes(path.read_bytes().replace(b'"game":1', b'"game":7'))
    assert games(path) == [0]
    Journal(path, HEADER).append({"game": 9})
    assert games(path) == [0, 9]


def test_a_damaged_first_line_leaves_nothing(path):
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    Journal(path, HEADER).append({"game": 9})
    assert games(path) == [9]


def test_what_a_full_disk_did_not_confirm_is_not_written_twice(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "games.jsonl", HEADER)
    for number in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _full_disk)
            with pytest.raises(StorageError, match="No space left"):
                journal.append({"game": number})
        journal.append({"game": number})
    assert journal.values == Journal(journal.path, HEADER).values == [{"game": 0}, {"game": 1}]


def _full_disk(file):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_removed_journal_starts_over(path):
    journal = Journal(path, HEADER)
    journal.remove()
    journal.remove()
    assert games(path) == []


@pytest.mark.parametrize("content", [b"my diary\n", b"\x00\x01", b"0123 not a journal"])
def test_a_file_of_another_kind_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "diary"
    path.write_bytes(content)
    with pytest.raises(ConfigMismatchError, match="a file of another kind"):
        Journal(path, "header")
    assert path.read_bytes() == content
