"""A disk cache for the results of slow, pure functions: `DiskCache` stores them under `cache_dir`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["DiskCache", "cache_dir", "content_hash"]

MARK = b"rwml-gym cache 2\n"
TIDY_EVERY = 256

Result = TypeVar("Result")


def cache_dir() -> Path:
    """Return the folder of this package's caches: `$RWML_GYM_CACHE`, or `~/.cache/rwml_gym`."""
    return Path(os.environ.get("RWML_GYM_CACHE") or Path.home() / ".cache" / "rwml_gym")


def _cache_dir() -> Path | None:
    try:
        return cache_dir()
    except RuntimeError:  # no $HOME, and a user without an entry in the password database: nothing is kept
        return None


def _checksum(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).digest()


def content_hash(*parts: str) -> str:
    """Hash texts to 64 hexadecimal digits; the boundaries between the texts are part of the hash."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


class DiskCache:
    """JSON values in one folder, one compressed file each, shared by any number of processes.

    A file is named by the hash of its key and carries a hash of its key and content. Corrupt, truncated, renamed or
    foreign files are cache misses and are rewritten. Each file is written to a temporary name and then renamed, so
    readers need no lock and writers do not conflict. A folder that cannot be written to is no error: each process then
    computes the values.

    Args:
        name: Folder under `cache_dir`.
        files: Approximate number of files to keep; the least recently used are deleted first.
    """

    def __init__(self, name: str, files: int) -> None:
        self.name = name
        self.files = files
        self._writes = 0

    def get(
        self, key: tuple[str, ...], make: Callable[[], Any], use: Callable[[Any], Result] = lambda value: value
    ) -> Result:
        """Return the value of a key from disk, or make and store it; either way it has been through JSON.

        Args:
            key: Everything the value depends on.
            make: Makes the value, which must be JSON-able.
            use: Turns the value into the result. A stored value that it cannot take is made anew.
        """
        hashed = content_hash(*key)
        folder = _cache_dir()
        path = None if folder is None else folder / self.name / f"{hashed[:40]}.json.z"
        value = None if path is None else self._read(path, hashed)
        if value is not None:
            # Whatever `use` raises for a stored value, it may raise for its content alone.
            with contextlib.suppress(Exception):
                return use(value)
        text = json.dumps(make(), separators=(",", ":"))
        if path is not None:
            self._write(path, hashed, text.encode())
        return use(json.loads(text))

    def _read(self, path: Path, key: str) -> Any:
        """Read the value of a key in a file; None if the file is missing or invalid."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        mark, checksum, body = content[: len(MARK)], content[len(MARK) : len(MARK) + 32], content[len(MARK) + 32 :]
        if mark != MARK or _checksum(key, body) != checksum:
            return None
        with contextlib.suppress(OSError):  # the access time only sets the order of deletion
            os.utime(path)
        return json.loads(zlib.decompress(body))

    def _write(self, path: Path, key: str, content: bytes) -> None:
        body = zlib.compress(content)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(MARK + _checksum(key, body) + body)
                os.replace(aside, path)
            except BaseException:
                os.unlink(aside)
                raise
        except OSError:  # a full or read-only disk: the caller has the value anyway
            return
        self._writes += 1
        if self._writes % TIDY_EVERY == 1:
            self._tidy(path.parent)

    def _tidy(self, folder: Path) -> None:
        """Delete the least recently used files, and temporary files that a killed writer left over an hour ago."""
        used = []
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):  # another process may be deleting, too
                used.append((entry.stat().st_mtime, entry.path))
        used.sort(reverse=True)
        surplus = [path for _, path in used[self.files :]]
        newest = used[0][0] if used else 0.0
        left_behind = [path for time, path in used if path.endswith(".tmp") and time < newest - 3600]
        for path in {*surplus, *left_behind}:
            with contextlib.suppress(OSError):
                os.unlink(path)
