"""Files: written atomically, complete or absent whenever the process ends; read only where that has an end."""

from __future__ import annotations

import errno
import json
import os
import stat
import uuid
from io import BufferedReader
from pathlib import Path
from typing import Any

__all__ = ["open_regular", "read_json", "read_regular", "write_json", "write_text"]

MOST_BYTES = 2**26
"""The largest file that `read_regular` reads: 64 MB."""


def write_text(path: Path, text: str) -> None:
    """Write a text atomically: the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}.partial")  # another process may write the same file
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically: the file is complete or absent."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_regular(path: Path) -> str:
    """Read a text file that somebody else may have made: no pipe, which would be waited for, and no endless device.

    Raises:
        OSError: If it is no regular file, has more than `MOST_BYTES`, or cannot be read.
        ValueError: If it is not UTF-8.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise OSError(f"{size:,} bytes, more than {MOST_BYTES:,}")
        return file.read().decode("utf-8")


def open_regular(path: Path) -> BufferedReader:
    """Open a file that somebody else may have made, to be read.

    Raises:
        OSError: If it is no regular file, or cannot be opened.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file
