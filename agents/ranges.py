"""Checks of configurations: numbers out of range, and options that nothing would use.

They are the same for a file, the command line and Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from rwml_gym.errors import InvalidConfigError

__all__ = ["above", "at_least", "share", "used_only_with", "within"]


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


def used_only_with(needed: str, config: Any, names: Iterable[str], advice: str = "") -> None:
    """Refuse options that are set but that nothing would use, so that nobody takes them for used.

    Args:
        needed: What they need, such as `--model`.
        config: The configuration, a dataclass.
        names: Names of the fields. One at its default is not set.
        advice: What else to do than to leave them out, as a sentence.

    Raises:
        InvalidConfigError: Some are set.
    """
    defaults = {field.name: field.default for field in fields(config)}
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(config, name) != defaults[name]]:
        raise InvalidConfigError(
            f"Expected {needed} with {', '.join(given)}, actual: none. Leave {'it' if len(given) == 1 else 'them'} out"
            f"{f', or {advice}' if advice else ''}."
        )


def _check(config: object, names: tuple[str, ...], wanted: str, fits: Callable[[float], bool]) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not fits(value):
            finite = "" if math.isfinite(value) else "a finite "
            raise InvalidConfigError(f"Expected {finite}{name} {wanted}, actual: {value}.")
