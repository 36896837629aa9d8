from __future__ import annotations

import json
import os

import pytest

from rwml_gym.hashes import damage, is_sealed, seal


def test_files_are_sealed_one_after_another_and_each_damage_is_named(tmp_path):
    for name in ("a.bin", "b.bin", "c.bin"):
        (tmp_path / name).write_bytes(name.encode())
    assert not is_sealed(tmp_path)
    seal(tmp_path, "a.bin")
    seal(tmp_path, "b.bin")
    assert is_sealed(tmp_path)
    assert damage(tmp_path) == damage(tmp_path, "a.bin", "b.bin") == ""
    assert "c.bin is not listed" in damage(tmp_path, "a.bin", "c.bin")
    (tmp_path / "a.bin").write_bytes(b"a.bim")
    assert "the content of a.bin" in damage(tmp_path)
    assert damage(tmp_path, "b.bin") == ""
    (tmp_path / "b.bin").unlink()
    assert "b.bin cannot be read" in damage(tmp_path, "b.bin")


@pytest.mark.parametrize("name", ["/dev/zero", "../other.bin", "a/../../other.bin"])
def test_a_file_outside_of_the_folder_is_not_read(tmp_path, name):
    (tmp_path / "hashes.json").write_text(json.dumps({name: "00"}))
    assert "names files outside of the folder" in damage(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("name", ["a.bin", "hashes.json"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    (tmp_path / "a.bin").write_bytes(b"a")
    seal(tmp_path, "a.bin")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert "cannot be read" in damage(tmp_path)
