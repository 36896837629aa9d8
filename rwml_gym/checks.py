"""Checks of arguments and of installed libraries, with errors in one form."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection

from rwml_gym.errors import DependencyNotInstalled, InvalidConfigError

__all__ = ["missing", "one_of", "require"]


def one_of(name: str, value: object, known: Collection[object]) -> None:
    """Raise `InvalidConfigError` unless the value of an argument is among the known ones."""
    if value not in known:
        raise InvalidConfigError(f"Expected {name} to be one of {', '.join(map(str, known))}, actual: {value!r}.")


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
    return DependencyNotInstalled(f'Expected {name}, actual: not installed. Run `pip install "rwml-gym[{extra}]"`.')
