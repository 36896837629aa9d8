"""Checks of arguments and of installed libraries, with errors in one form."""

from __future__ import annotations

import importlib.util
import math
import operator
from collections.abc import Collection, Hashable, Mapping
from typing import Any, SupportsFloat

import numpy as np

from rwml_gym.errors import DependencyNotInstalled, InvalidConfigError
from rwml_gym.installed import install_command

__all__ = ["missing", "one_of", "plain", "real_number", "require", "whole_number"]


def one_of(name: str, value: object, known: Collection[object]) -> None:
    """Raise `InvalidConfigError` unless the value of an argument is among the known ones."""
    if not isinstance(value, Hashable) or value not in known:
        raise InvalidConfigError(f"Expected {name} to be one of {', '.join(map(str, known))}, actual: {value!r}.")


def whole_number(name: str, value: Any, least: int, unit: str = "") -> int:
    """Return an argument as an int, also where it is one of NumPy's; raise `InvalidConfigError` if it is none.

    Args:
        name: Name of the argument.
        value: The argument; booleans are no numbers.
        least: Its smallest value.
        unit: What is counted, for the message.
    """
    try:
        number = least - 1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        of = f" {unit}" if unit else ""
        raise InvalidConfigError(f"Expected `{name}` to be a whole number of at least {least}{of}, actual: {value!r}.")
    return number


def real_number(value: Any) -> float:
    """Return a number, also NumPy's, as a float; NaN for anything else, which no range has, such as a text or True."""
    is_number = isinstance(value, SupportsFloat) and not isinstance(value, bool | np.bool_ | str)
    return math.nan if not is_number or np.ndim(value) else float(value)


def plain(value: Any) -> Any:
    """Return NumPy's numbers and arrays, tuples and other mappings as JSON's types; anything else unchanged."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def require(module: str, name: str, extra: str) -> None:
    """Raise `DependencyNotInstalled` unless a library can be found; import nothing.

    Args:
        module: Import name of the library.
        name: Its name, and what it is for.
        extra: The extra of this package that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise missing(name, extra)


def missing(name: str, extra: str) -> DependencyNotInstalled:
    """Make the error for a missing library; see `require`."""
    return DependencyNotInstalled(f"Expected {name}, actual: not installed. Run `{install_command(extra)}`.")
