"""Copy-on-access databases that many environments share: a row is copied on the first access by its key."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["SharedTable", "changes", "share"]


class SharedTable(dict[str, Any]):
    """A table over shared rows; a row that is accessed by its key is copied first, and only the copy may be changed.

    Iteration over all rows (``values``, ``items``) yields the shared rows: tau2's tools only read them there, as the
    tests prove by calling every tool of every domain.

    A deep copy shares the base; a pickle holds only the rows that were reached, and finds the base again.

    Args:
        base: The shared rows.
        source: Returns the database of the base, in another process too.
        name: Name of the table in that database.

    Attributes:
        base: The shared rows.
        reached: Keys of rows that were copied, added or removed.
    """

    def __init__(self, base: Mapping[str, Any], source: Callable[[], Any] | None = None, name: str = "") -> None:
        super().__init__(base)
        self.base, self.source, self.name = base, source, name
        self.reached: set[str] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedTable:
        copied = SharedTable({}, self.source, self.name)
        copied.base, copied.reached = self.base, set(self.reached)
        rows = {key: copy.deepcopy(row, memo) if key in self.reached else row for key, row in dict.items(self)}
        dict.update(copied, rows)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        assert self.source is not None, "only a table of a domain can be pickled"
        rows = {key: row for key, row in dict.items(self) if key in self.reached}
        return _restored, (self.source, self.name, rows, self.reached - rows.keys())

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


def share(source: Callable[[], Any]) -> Any:
    """Make a database over the rows of another one, which does not change.

    Args:
        source: Returns the other one, a pydantic model whose tables are dictionaries of pydantic rows. It is called
            again where a table is unpickled.
    """
    database = source()
    tables = {
        name: SharedTable(table, source, name) if isinstance(table, dict) else table
        for name, table in database.__dict__.items()
    }
    return type(database).model_construct(**tables)


def _restored(source: Callable[[], Any], name: str, rows: Mapping[str, Any], removed: set[str]) -> SharedTable:
    table = SharedTable(getattr(source(), name), source, name)
    for key, row in rows.items():
        table[key] = row
    for key in removed:
        table.reached.add(key)
        dict.pop(table, key, None)  # a row that was added and removed is not in the base
    return table


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
