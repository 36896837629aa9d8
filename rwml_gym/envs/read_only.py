"""Read-only lists and dictionaries: what is handed out to many costs nothing, and nobody can change it for others."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

__all__ = ["read_only"]


def _refuse(self: Any, *arguments: Any, **named: Any) -> NoReturn:
    raise TypeError("Expected no change of data that others share, actual: one. Change a copy.deepcopy of it.")


class _ReadOnlyDict(dict[str, Any]):
    """A dictionary for `isinstance` and `json`; copies and pickles of it are plain ones."""

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    copy = __copy__

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class _ReadOnlyList(list[Any]):
    """A list for `isinstance` and `json`; copies and pickles of it are plain ones."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    copy = __copy__

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def read_only(data: Any) -> Any:
    """Return plain data with all its dictionaries and lists read-only.

    >>> read_only({"a": [1]})["a"].append(2)
    Traceback (most recent call last):
    TypeError: Expected no change of data that others share, actual: one. Change a copy.deepcopy of it.
    """
    if isinstance(data, dict):
        return _ReadOnlyDict({key: read_only(value) for key, value in data.items()})
    if isinstance(data, list | tuple):
        return _ReadOnlyList(read_only(value) for value in data)
    return data
