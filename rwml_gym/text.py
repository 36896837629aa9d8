"""Texts and numbers from recorded data, as tables, pictures and JSON can take them: data never acts as markup."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

__all__ = ["column", "for_plot", "percent", "shown", "without_nan"]


def shown(text: str, width: int = 24) -> str:
    r"""A text in one line of at most `width` characters, what is not printable escaped: no terminal can be steered.

    >>> shown("go\x1b[2J to\nfridge")
    'go\\x1b[2J to\\nfridge'
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= width else f"{safe[: width - 1]}…"


def column(text: str, width: int) -> str:
    """`shown`, filled up with blanks to `width` columns, of which East Asian characters take two."""
    safe = shown(text, width)
    while (wide := len(safe) + sum(unicodedata.east_asian_width(c) in "WF" for c in safe)) > width:
        safe = f"{safe.removesuffix('…')[:-1]}…"
    return safe + " " * (width - wide)


def for_plot(text: str, width: int = 24) -> str:
    """`shown`, with the dollar signs that start mathematics in matplotlib escaped."""
    return shown(text, width).replace("$", r"\$")


def percent(share: float | None) -> str:
    """A share in percent, a dash where there is none."""
    return "-" if share is None or math.isnan(share) else f"{share:.0%}"


def without_nan(value: Any) -> Any:
    """The same with null for NaN, which JSON does not have, and lists for tuples."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
