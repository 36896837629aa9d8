"""One command at a time holds a lock; others wait as long as they are told to."""

from __future__ import annotations

import threading

import pytest

from rwml_gym.agents.claims.records import Record, add_record, read_records
from rwml_gym.errors import StorageError
from rwml_gym.storage.lock import WriteLock, is_locked


def test_a_lock_is_held_until_it_is_released(tmp_path):
    path = tmp_path / "folder" / ".lock"
    assert not is_locked(path)
    with WriteLock(path, tmp_path, "go elsewhere"):
        assert is_locked(path)
        with pytest.raises(StorageError, match=r"another one does. Wait until it ends, or go elsewhere\."):
            WriteLock(path, tmp_path, "go elsewhere")
    assert not is_locked(path)
    assert not path.exists()


def test_what_a_killed_command_left_is_no_lock(tmp_path):
    (tmp_path / ".lock").write_bytes(b"")
    assert not is_locked(tmp_path / ".lock")
    with WriteLock(tmp_path / ".lock", tmp_path, "go elsewhere"):
        pass


def test_a_patient_command_waits(tmp_path):
    first = WriteLock(tmp_path / ".lock", tmp_path, "go elsewhere")
    threading.Timer(0.2, first.release).start()
    with WriteLock(tmp_path / ".lock", tmp_path, "go elsewhere", patience=30):
        assert is_locked(tmp_path / ".lock")


def test_no_record_is_lost_where_many_commands_append(tmp_path):
    def append(seed: int) -> None:
        add_record(tmp_path, "t", Record("a", "tiny", seed, "failed", "x", "", 1.0, "", "", {}, [], {}))

    threads = [threading.Thread(target=append, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.seed for record in read_records(tmp_path, "t")) == list(range(24))
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_a_file_of_another_kind_is_no_lock_and_stays(tmp_path):
    path = tmp_path / "poetry.lock"
    path.write_text("mine")
    with pytest.raises(StorageError, match="a file of another kind"):
        WriteLock(path, tmp_path, "go elsewhere")
    assert is_locked(path)
    assert path.read_text() == "mine"
