"""The results of the tables: one JSON file a table, one record a run, failed runs included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rwml_gym.files import read_json, write_json
from rwml_gym.transitions import InvalidDatasetError

__all__ = ["COMMITTED", "Record", "add_record", "finished", "read_records"]

COMMITTED = Path(__file__).with_name("results")
"""The results that belong to the package."""


@dataclass(frozen=True)
class Record:
    """One arm with one seed.

    Attributes:
        arm: Name of the arm.
        size: The size that it ran at.
        seed: Its seed.
        key: Hash of the configurations of its stages, seed included: a changed table needs new runs.
        status: `finished` or `failed`.
        error: Why it failed.
        ended: When it ended, in UTC (ISO 8601).
        seconds: Wall-clock time of its stages; of those that an earlier arm ran, that time.
        command: The command that runs the table.
        commit: Commit of the source, with `+` if it was changed; empty if unknown.
        versions: Versions of what it ran with.
        stages: For each stage, what ran and its configuration.
        metrics: Numbers by name, see `jobs.claims.metrics`.
    """

    arm: str
    size: str
    seed: int
    key: str
    status: Literal["finished", "failed"]
    error: str
    ended: str
    seconds: float
    command: str
    commit: str
    versions: dict[str, Any]
    stages: list[dict[str, Any]]
    metrics: dict[str, float]


def read_records(folder: Path, table: str) -> list[Record]:
    """Read the records of a table; there may be none yet.

    Raises:
        InvalidDatasetError: The file is damaged.
    """
    path = folder / f"{table}.json"
    if not path.is_file():
        return []
    try:
        return TypeAdapter(list[Record]).validate_python(read_json(path))
    except (ValueError, ValidationError) as error:
        raise InvalidDatasetError(
            f"Expected results of the table {table!r} in {str(path)!r}, actual: {' '.join(str(error).split())[:200]}. "
            "Restore the file, or give another --results."
        ) from error


def add_record(folder: Path, table: str, record: Record) -> None:
    """Append a record to the results of a table; none is ever removed."""
    records = [*read_records(folder, table), record]
    write_json(folder / f"{table}.json", [asdict(each) for each in records])


def finished(records: Sequence[Record], size: str, keys: dict[tuple[str, int], str] | None = None) -> list[Record]:
    """Return the last finished record of each arm and seed at a size.

    Args:
        records: Records of a table.
        size: The size.
        keys: For each arm and seed the key of today's configuration, to leave out records of another; all if absent.
    """
    found = {}
    for record in records:
        wanted = keys is None or keys.get((record.arm, record.seed)) == record.key
        if record.size == size and record.status == "finished" and wanted:
            found[record.arm, record.seed] = record
    return list(found.values())
