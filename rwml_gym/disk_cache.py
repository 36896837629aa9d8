"""Results of slow, pure functions kept on disk by content: `cache_dir` says where, `DiskCache` keeps them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["DiskCache", "cache_dir", "content_hash"]

MARK = b"rwml-gym cache\n"
TIDY_EVERY = 256


def cache_dir() -> Path:
    """Where this package keeps what can be made again: `$RWML_GYM_CACHE`, or `~/.cache/rwml_gym`."""
    return Path(os.environ.get("RWML_GYM_CACHE") or Path.home() / ".cache" / "rwml_gym")


def content_hash(*parts: str) -> str:
    """A hash of some texts, 64 hexadecimal digits; other texts, or the same ones divided otherwise, have another."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


class DiskCache:
    """JSON values in one folder, one compressed file each, shared by any number of processes.

    A file is named by the hash of what its value was made from and carries a hash of its content: one that is corrupt,
    cut short or of another making is as good as absent, and is written anew. Files appear whole (written aside, then
    renamed), so that readers never wait and writers never meet. A folder that cannot be written to is no error: values
    are then made again by each process.
    """

    def __init__(self, name: str, files: int) -> None:
        """Names the cache; nothing is touched yet.

        Args:
            name: folder under `cache_dir`.
            files: how many files to keep, about; the ones that were not used for longest go first.
        """
        self.name = name
        self.files = files
        self._writes = 0

    def get(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """The value of a key, from disk or else made now and kept; either way it has been through JSON.

        Args:
            key: everything the value depends on.
            make: makes the value, which JSON must be able to hold.
        """
        path = cache_dir() / self.name / f"{content_hash(*key)[:40]}.json.z"
        value = self._read(path)
        if value is None:
            text = json.dumps(make(), separators=(",", ":"))
            self._write(path, text.encode())
            value = json.loads(text)
        return value

    def _read(self, path: Path) -> Any:
        """The value in a file; None if there is no sound one."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        mark, checksum, body = content[: len(MARK)], content[len(MARK) : len(MARK) + 32], content[len(MARK) + 32 :]
        if mark != MARK or hashlib.sha256(body).digest() != checksum:
            return None
        with contextlib.suppress(OSError):  # only the order of tidying depends on it
            os.utime(path)
        return json.loads(zlib.decompress(body))

    def _write(self, path: Path, content: bytes) -> None:
        body = zlib.compress(content)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(MARK + hashlib.sha256(body).digest() + body)
                os.replace(aside, path)
            except BaseException:
                os.unlink(aside)
                raise
        except OSError:  # a full or read-only disk: the value is at hand all the same
            return
        self._writes += 1
        if self._writes % TIDY_EVERY == 1:
            self._tidy(path.parent)

    def _tidy(self, folder: Path) -> None:
        """Deletes the files that were not used for longest, and what a killed writer left more than an hour ago."""
        used = []
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):  # another process tidies, too
                used.append((entry.stat().st_mtime, entry.path))
        used.sort(reverse=True)
        surplus = [path for _, path in used[self.files :]]
        newest = used[0][0] if used else 0.0
        left_behind = [path for time, path in used if path.endswith(".tmp") and time < newest - 3600]
        for path in {*surplus, *left_behind}:
            with contextlib.suppress(OSError):
                os.unlink(path)
