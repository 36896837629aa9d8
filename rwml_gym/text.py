"""Text that is data: what it shows, and how tables, pictures and JSON take it without reading it as markup."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

__all__ = ["column", "for_plot", "is_blank", "percent", "replace_surrogates", "shown", "without_nan"]

# Letters and symbols of Unicode that are drawn as nothing: Hangul fillers, the empty Braille pattern.
_DRAWN_AS_NOTHING = frozenset("\u115f\u1160\u3164\uffa0\u2800")


def is_blank(text: str) -> bool:
    r"""Whether a text shows nothing: no character, white space, or what has no shape of its own.

    Zero-width characters, control characters, lone surrogates and combining marks alone have none. Some encoders drop
    them and have a vector for what is left, which is then nearer to a text than nothing is.

    >>> is_blank(" \n\u200b"), is_blank(".")
    (True, False)
    """
    return not any(
        char.isprintable()
        and not char.isspace()
        and char not in _DRAWN_AS_NOTHING
        and not unicodedata.category(char).startswith("M")
        for char in text
    )


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which are not text and break tokenizers and files, with U+FFFD.

    >>> replace_surrogates("a\ud800b")
    'a\ufffdb'
    """
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


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
