"""Copy-on-access databases that many environments share: a row is copied on the first access by its key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["SharedTable", "changes", "share"]


class SharedTable(dict[str, Any]):
    """A table over shared rows; a row that is accessed by its key is copied first, and only the copy may be changed.

    Iteration over all rows (``values``, ``items``) yields the shared rows: tau2's tools only read them there, as the
    tests prove by calling every tool of every domain.

    Attributes:
        base: The shared rows.
        reached: Keys of rows that were copied, added or removed.
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
        """Return the row of a key, or the default."""
        return self[key] if key in self else default

    def __setitem__(self, key: str, row: Any) -> None:
        super().__setitem__(key, row)
        self.reached.add(key)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.reached.add(key)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove the row of a key and return it."""
        if key not in self and default:
            return default[0]
        row = self[key]
        del self[key]
        return row


def share(database: Any) -> Any:
    """Make a database over the rows of another one, which does not change.

    Args:
        database: A pydantic model whose tables are dictionaries of pydantic rows.
    """
    tables = {
        name: SharedTable(table) if isinstance(table, dict) else table for name, table in database.__dict__.items()
    }
    return type(database).model_construct(**tables)


def changes(database: Any) -> dict[str, dict[str, str | None]] | None:
    """Return the changed rows of a shared database: ``{table: {key: row as JSON}}``, with None for a removed row.

    The result is None if the database is not shared, or no longer shared. Two databases over the same base have equal
    changes exactly if tau2 gives them the same hash.

    Args:
        database: A database made by `share`.
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
    """Serialise a row as `tau2.utils.get_dict_hash` does."""
    return json.dumps(row.model_dump(), sort_keys=True, default=str)
