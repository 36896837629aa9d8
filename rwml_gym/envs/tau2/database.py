"""A database that many environments read and each may write: a row is copied when one first reaches for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["SharedTable", "changes", "share"]


class SharedTable(dict[str, Any]):
    """A table over shared rows; a row that is reached by its key is copied first, and only the copy can be written to.

    What iterates over all rows (``values``, ``items``) sees the shared ones: tau2's tools only read them there, which
    the tests prove by calling every tool of every domain.

    Attributes:
        base: the shared rows.
        reached: keys of rows that were copied, added or removed.
    """

    def __init__(self, base: Mapping[str, Any]) -> None:
        super().__init__(base)
        self.base = base
        self.reached: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        row = super().__getitem__(key)
        if key not in self.reached:
            row = row.model_copy(deep=True)
            self[key] = row
        return row

    def get(self, key: str, default: Any = None) -> Any:
        """The row of a key, or the default."""
        return self[key] if key in self else default

    def __setitem__(self, key: str, row: Any) -> None:
        super().__setitem__(key, row)
        self.reached.add(key)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.reached.add(key)

    def pop(self, key: str, *default: Any) -> Any:
        """Removes the row of a key and returns it."""
        if key not in self and default:
            return default[0]
        row = self[key]
        del self[key]
        return row


def share(database: Any) -> Any:
    """A database over the rows of another one, which stays as it is.

    Args:
        database: a pydantic model whose tables are dictionaries of pydantic rows.
    """
    tables = {
        name: SharedTable(table) if isinstance(table, dict) else table for name, table in database.__dict__.items()
    }
    return type(database).model_construct(**tables)


def changes(database: Any) -> dict[str, dict[str, str | None]] | None:
    """What differs between a shared database and its base: for each table, rows as tau2 hashes them; None if removed.

    Two databases over the same base have equal changes exactly if tau2 gives them the same hash.

    Args:
        database: as `share` returns it.

    Returns:
        ``{table: {key: row as JSON}}``; None if the database is not shared, or no longer so.
    """
    found: dict[str, dict[str, str | None]] = {}
    for name, table in database.__dict__.items():
        if not isinstance(table, SharedTable):
            return None
        rows = found[name] = {}
        for key in table.reached:
            row = _hashed(dict.__getitem__(table, key)) if key in table else None
            if row != (_hashed(table.base[key]) if key in table.base else None):
                rows[key] = row
    return found


def _hashed(row: Any) -> str:
    """A row as `tau2.utils.get_dict_hash` sees it."""
    return json.dumps(row.model_dump(), sort_keys=True, default=str)
