"""What a column of a table holds: a metric of each seed, or a difference on the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from rwml_gym.agents.claims.records import Record
from rwml_gym.agents.claims.tables import Column, Table, Withdrawn

__all__ = ["column_values", "records_by_arm", "withdrawn_from"]


def records_by_arm(table: Table, records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records of each arm of a table, in the order of arms and seeds, without metrics that were withdrawn.

    An arm may have no records.
    """
    ordered = [_without_withdrawn(table, record) for record in sorted(records, key=lambda record: record.seed)]
    return {arm.name: [record for record in ordered if record.arm == arm.name] for arm in table.arms}


def withdrawn_from(table: Table, record: Record) -> list[Withdrawn]:
    """Return what was withdrawn from a record."""
    return [each for each in table.withdrawn if each.arm == record.arm and record.ended < each.until]


def _without_withdrawn(table: Table, record: Record) -> Record:
    patterns = [pattern for each in withdrawn_from(table, record) for pattern in each.metrics]
    kept = {n: v for n, v in record.metrics.items() if not any(fnmatchcase(n, pattern) for pattern in patterns)}
    return replace(record, metrics=kept)


def column_values(
    column: Column, records: Sequence[Record], by_arm: Mapping[str, Sequence[Record]]
) -> dict[int, float]:
    """Return a column's value by seed, of each seed that has it.

    Args:
        column: The column.
        records: The records of an arm.
        by_arm: Those of all arms, see `records_by_arm`.
    """
    found = {}
    for record in records:
        other: float | None = 0.0
        if column.minus is not None:
            other = record.metrics.get(column.minus)
        elif column.against is not None:
            same_seed = [each for each in by_arm[column.against] if each.seed == record.seed]
            other = same_seed[0].metrics.get(column.metric) if same_seed and record.arm != column.against else None
        value = record.metrics.get(column.metric)
        if value is not None and other is not None:
            found[record.seed] = value - other
    return found
