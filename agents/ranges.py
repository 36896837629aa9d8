"""Checks of the numbers in configurations: from a file, the command line or Python, the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from rwml_gym.errors import InvalidConfigError

__all__ = ["above", "at_least", "share", "within"]


def at_least(config: object, least: float, *names: str) -> None:
    """Check that fields of a configuration are finite and not below a number; an absent one (`None`) is right."""
    _check(config, names, f"of at least {least}", lambda value: least <= value < math.inf)


def above(config: object, bound: float, *names: str) -> None:
    """Check that fields of a configuration are finite and above a number; an absent one is right."""
    _check(config, names, f"above {bound}", lambda value: bound < value < math.inf)


def share(config: object, *names: str) -> None:
    """Check that fields of a configuration lie between 0 and 1; an absent one is right."""
    _check(config, names, "between 0 and 1", lambda value: 0 <= value <= 1)


def within(config: object, bound: float, most: float, *names: str) -> None:
    """Check that fields of a configuration are above a number and at most another; an absent one is right."""
    _check(config, names, f"above {bound} and at most {most}", lambda value: bound < value <= most)


def _check(config: object, names: tuple[str, ...], wanted: str, fits: Callable[[float], bool]) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not fits(value):
            finite = "" if math.isfinite(value) else "a finite "
            raise InvalidConfigError(f"Expected {finite}{name} {wanted}, actual: {value}.")
