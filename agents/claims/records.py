"""The results of the tables: one JSON file a table, one record a run, failed runs included."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rwml_gym.agents.config.files import flatten
from rwml_gym.files import read_json, write_json
from rwml_gym.storage.lock import WriteLock
from rwml_gym.transitions import InvalidDatasetError

__all__ = ["COMMITTED", "Record", "StageRecord", "add_record", "measured", "read_records", "settings_of"]

COMMITTED = Path(__file__).with_name("results")
"""The results that belong to the package."""


# They name folders of a machine; which adapter a stage starts from stands beside the settings.
_PATHS = ("adapter", "out")
# A name or a folder.
_NAMES = ("imagine",)


def settings_of(config: Any) -> dict[str, float | str]:
    """Return all values of a stage's configuration by dotted key, but for folders."""
    return {
        key: value
        for key, value in flatten(config).items()
        if key not in _PATHS and not (key in _NAMES and "/" in str(value))
    }


@dataclass(frozen=True)
class StageRecord:
    """A stage that ran.

    Attributes:
        run: What ran, see `tables.Stage`.
        settings: All values of its configuration, see `settings_of`.
        adapter: The adapter that it started from, see `tables.Stage`.
        imagine: The adapter of the world model that it imagined with, see `tables.Stage`.
    """

    run: str
    settings: dict[str, Any]
    adapter: str | None = None
    imagine: str | None = None

    def has(self, config: Any, free: Collection[str] = ()) -> bool:
        """Return whether it ran with these settings.

        An option that is younger than the record must have its default. A default that has changed since is another
        setting.

        Args:
            config: A configuration.
            free: Keys that may differ.
        """
        today, default = settings_of(config), settings_of(type(config)())
        gone = set(self.settings) - set(today) - set(free)
        stored: Mapping[str, Any] = {**default, **self.settings}
        return not gone and all(stored[key] == value for key, value in today.items() if key not in free)


@dataclass(frozen=True)
class Record:
    """One arm with one seed.

    Attributes:
        arm: Name of the arm.
        size: The size that it ran at.
        seed: Its seed.
        status: `finished`, `failed`, or `stopped`: killed on a machine that is gone. A stopped run has the metrics of
            what it had measured until then.
        error: Why it failed.
        ended: When it ended, in UTC (ISO 8601).
        seconds: Wall-clock time of its stages; of those that an earlier arm ran, that time. A stage that forked another
            run has no time of its SFT.
        command: The command that ran it.
        commit: Commit of the source, marked if files differed from it; empty outside of a clone.
        versions: Versions of what it ran with.
        stages: Its stages.
        metrics: Numbers by name, see `jobs.claims.metrics`.
    """

    arm: str
    size: str
    seed: int
    status: Literal["finished", "stopped", "failed"]
    error: str
    ended: str
    seconds: float
    command: str
    commit: str
    versions: dict[str, Any]
    stages: list[StageRecord]
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
    """Append a record to the results of a table, to which other commands may append; none is ever removed."""
    path = folder / f"{table}.json"
    with WriteLock(folder / f".{table}.lock", path, "choose another --results", patience=60):
        records = [*read_records(folder, table), record]
        write_json(path, [asdict(each) for each in records])


def measured(records: Sequence[Record], size: str) -> list[Record]:
    """Return the last finished record of each arm and seed at a size; where none is, the last stopped one.

    A mean over seeds is of one setting, so records of other settings than those of the arm's last are left out.

    Args:
        records: Records of a table, the oldest first.
        size: The size.
    """
    chosen = [
        record
        for status in ("stopped", "finished")
        for record in records
        if record.size == size and record.status == status
    ]
    newest = {record.arm: record for record in records if record in chosen}
    alike = [record for record in chosen if _settings_agree(record, newest[record.arm])]
    return list({(record.arm, record.seed): record for record in alike}.values())


def _settings_agree(one: Record, other: Record) -> bool:
    """Return whether two records differ in their seeds only; an option that only one of them knows does not count."""
    if [(s.run, s.adapter, s.imagine) for s in one.stages] != [(s.run, s.adapter, s.imagine) for s in other.stages]:
        return False
    pairs = zip(one.stages, other.stages, strict=True)
    return all(a.settings[key] == b.settings[key] for a, b in pairs for key in {*a.settings} & {*b.settings} - {"seed"})
