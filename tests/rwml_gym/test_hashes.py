from __future__ import annotations

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
