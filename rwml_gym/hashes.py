"""Content hashes of files that are written to be read again, so that damage on disk is not taken for data.

Libraries take a flipped bit for data, or crash on it, so the hashes are checked before anything else reads the files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rwml_gym.files import open_regular, read_regular, write_json

__all__ = ["HASHES", "damage", "is_sealed", "seal"]

HASHES = "hashes.json"
"""The file in a folder that lists the hashes of others."""


def seal(folder: Path, *names: str) -> None:
    """Note the content of these files in the folder's `hashes.json`, beside what is noted there."""
    known, _ = _noted(folder)
    write_json(folder / HASHES, {**known, **{name: _hash(folder / name) for name in names}})


def is_sealed(folder: Path) -> bool:
    """Return whether files of a folder are noted; those that other tools wrote are not."""
    return (folder / HASHES).exists()


def damage(folder: Path, *names: str) -> str:
    """Say which of these files is not as it was sealed, and why; an empty text if all are.

    Args:
        folder: A folder with sealed files.
        *names: The files; all that are noted if none is given.
    """
    known, problem = _noted(folder)
    if problem:
        return problem
    for name in names or known:
        if name not in known:
            return f"{name} is not listed in {HASHES}"
        try:
            if _hash(folder / name) != known[name]:
                return f"the content of {name} is not what was written"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return "" if known else f"{HASHES} lists no file"


def _hash(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _noted(folder: Path) -> tuple[dict[str, str], str]:
    """Return the noted hashes, and what is wrong with the file that holds them."""
    try:
        known = json.loads(read_regular(folder / HASHES))
    except FileNotFoundError:
        return {}, f"{HASHES} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{HASHES} cannot be read: {error}"
    if not isinstance(known, dict):
        return {}, f"{HASHES} holds no mapping"
    if outside := [name for name in known if Path(name).is_absolute() or ".." in Path(name).parts]:
        return {}, f"{HASHES} names files outside of the folder, such as {outside[0]!r}"
    return known, ""
