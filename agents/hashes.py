"""Content hashes of files that are written to be read again, so that damage on disk is not taken for data."""

from __future__ import annotations

from pathlib import Path

from rwml_gym.files import content_hash, read_json, write_json

__all__ = ["HASHES", "damage", "seal"]

HASHES = "hashes.json"


def seal(folder: Path, *names: str) -> None:
    """Note the content of these files in the folder's `hashes.json`, beside what is noted there."""
    known, _ = _noted(folder)
    write_json(folder / HASHES, {**known, **{name: content_hash(folder / name) for name in names}})


def damage(folder: Path, *names: str) -> str:
    """Say which of these files is not as it was sealed, and why; an empty text if all are."""
    known, problem = _noted(folder)
    if problem:
        return problem
    for name in names:
        if name not in known:
            return f"{name} is not listed in {HASHES}"
        try:
            if content_hash(folder / name) != known[name]:
                return f"the content of {name} is not what was written"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def _noted(folder: Path) -> tuple[dict[str, str], str]:
    """Return the noted hashes, and what is wrong with the file that holds them."""
    try:
        known = read_json(folder / HASHES)
    except FileNotFoundError:
        return {}, f"{HASHES} is missing"
    except (OSError, ValueError) as error:
        return {}, f"{HASHES} cannot be read: {error}"
    if not isinstance(known, dict):
        return {}, f"{HASHES} holds no mapping"
    return known, ""
