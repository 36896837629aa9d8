"""Seals of folders: what was written is read again unchanged, or not at all.

A seal is a file with the SHA-256 of every other file in a folder. It is checked before anything else is read, because
libraries take a flipped bit for data, or crash on it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rwml_gym.errors import RWMLGymError
from rwml_gym.files import read_json, write_json

__all__ = ["SEAL", "BrokenSealError", "check_seal", "file_hash", "seal"]

SEAL = "seal.json"
"""Name of the file with the hashes."""


class BrokenSealError(RWMLGymError, ValueError):
    """A file of a sealed folder is not as it was written; the message says which."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, version: int) -> None:
    """Seal a folder.

    Args:
        folder: Its files are complete.
        version: Version of their format.
    """
    files = {file.relative_to(folder).as_posix(): file_hash(file) for file in _files(folder)}
    write_json(folder / SEAL, {"version": version, "files": files})


def check_seal(folder: Path) -> int | None:
    """Check a folder against its seal; files that were added later do not matter.

    Returns:
        The version of the files' format; `None` if there is no seal.

    Raises:
        BrokenSealError: If a file is missing or is not as it was written.
    """
    if not (folder / SEAL).is_file():
        return None
    try:
        written = read_json(folder / SEAL)
        version, files = int(written["version"]), dict(written["files"])
        for name, expected in files.items():
            if file_hash(folder / name) != expected:
                raise BrokenSealError(f"{name} is not as it was written")
    except FileNotFoundError as error:
        raise BrokenSealError(f"{error.filename} is missing") from error
    except BrokenSealError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenSealError(f"{SEAL} cannot be read ({type(error).__name__}: {error})") from error
    return version


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SEAL)
