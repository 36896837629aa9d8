"""Journals: results appended to a file one by one as they come, so that an interrupted command loses none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from rwml_gym.errors import ConfigMismatchError, StorageError

__all__ = ["Journal"]

_FIRST = re.compile(rb"[0-9a-f]{0,64}\Z|[0-9a-f]{64} ")  # of which a write may have left only a part


class Journal:
    """A text file with one JSON value a line, each behind the hash of it; the first one says what is recorded.

    A line that was written only in part, or was damaged, is dropped with all that follow it, so what is read is what
    was written.

    Args:
        path: The file; it is made with the first value.
        header: What is recorded, such as a command's options.

    Raises:
        ConfigMismatchError: If the file has another header, or is no journal.
    """

    def __init__(self, path: Path, header: Any) -> None:
        self.path = path
        self._header = json.loads(json.dumps(header))
        self._sound = 0  # bytes of sound lines; a file whose first line was damaged is there, and empty
        lines = self._read()
        if lines and lines[0] != self._header:
            raise ConfigMismatchError(
                f"Expected a journal of {json.dumps(self._header)} in {str(path)!r}, actual: {json.dumps(lines[0])}. "
                "Repeat the command that began it, or remove the file."
            )
        self.values: list[Any] = lines[1:]

    def append(self, value: Any) -> None:
        """Add a value and hand it to the operating system before anything else happens.

        Raises:
            StorageError: If it cannot be written, such as on a full disk.
        """
        new = b"".join(map(_line, [value] if self._sound else [self._header, value]))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(new)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._cut()
            raise StorageError(
                f"Expected room for results in {str(self.path)!r}, actual: {error.strerror or error}. What came "
                "before is kept: make room, and repeat the command, which goes on from there."
            ) from error
        self._sound += len(new)
        self.values.append(json.loads(json.dumps(value)))

    def remove(self) -> None:
        """Remove the file, once its values are kept elsewhere."""
        self.path.unlink(missing_ok=True)
        self._sound = 0

    def _cut(self) -> None:
        """Cut the file behind the sound lines, where a write has failed; if that fails too, reading drops the rest."""
        with contextlib.suppress(OSError):
            os.truncate(self.path, self._sound)

    def _read(self) -> list[Any]:
        """Return the sound values and cut the file behind them."""
        values: list[Any] = []
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return values
        if not _FIRST.match(content):
            raise ConfigMismatchError(
                f"Expected a journal in {str(self.path)!r}, actual: a file of another kind. Rename it, or write "
                "elsewhere."
            )
        for line in content.splitlines(keepends=True):
            mark, _, text = line.partition(b" ")
            if not line.endswith(b"\n") or mark != _mark(text):
                break
            values.append(json.loads(text))
            self._sound += len(line)
        if self._sound < len(content):
            os.truncate(self.path, self._sound)
        return values


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return _mark(text) + b" " + text


def _mark(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
