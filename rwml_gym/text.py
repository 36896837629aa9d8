"""Texts as data: whether they are blank, and how to show them in tables, figures and JSON without markup."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

__all__ = [
    "cleaned",
    "column",
    "finite",
    "for_plot",
    "is_blank",
    "percent",
    "printable",
    "replace_surrogates",
    "shown",
]

# Unicode letters and symbols that are drawn blank: Hangul fillers, the empty Braille pattern.
_DRAWN_AS_NOTHING = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_blank(text: str) -> bool:
    r"""Return whether a text has no visible character.

    White space, zero-width characters, control characters, lone surrogates and combining marks are not visible. Some
    encoders drop them and still return a vector, which is nearer to a text than the zero vector of an empty text.

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
    r"""Join surrogate pairs; replace lone surrogates, which are not text and break tokenizers and files, with U+FFFD.

    >>> replace_surrogates("a\ud800b")
    'a\ufffdb'
    """
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def printable(text: str) -> str:
    r"""Escape what may control a terminal or reorder its text: all unprintable characters but line breaks and tabs.

    >>> printable("go\x1b[2J to\nfridge\r")
    'go\\x1b[2J to\nfridge\\r'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def cleaned(text: str) -> str:
    r"""Replace lone surrogates and control characters, which start a terminal's escape sequences; keep \n and \t.

    >>> cleaned("a\r\nb\x1b[2J")
    'a\nb\ufffd[2J'
    """
    return _CONTROL.sub("\ufffd", replace_surrogates(text).replace("\r\n", "\n"))


def shown(text: str, width: int = 24) -> str:
    r"""Escape unprintable characters, which may control a terminal, and shorten the text to `width` characters.

    >>> shown("go\x1b[2J to\nfridge")
    'go\\x1b[2J to\\nfridge'
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= width else f"{safe[: width - 1]}…"


def column(text: str, width: int) -> str:
    """Pad a text, as `shown` gives it, to `width` columns; wide East Asian characters take two columns."""
    safe = shown(text, width)
    while (wide := len(safe) + sum(unicodedata.east_asian_width(c) in "WF" for c in safe)) > width:
        safe = f"{safe.removesuffix('…')[:-1]}…"
    return safe + " " * (width - wide)


def for_plot(text: str, width: int = 24) -> str:
    """Shorten a text with `shown` and escape dollar signs, which start formulas in matplotlib."""
    return shown(text, width).replace("$", r"\$")


def percent(share: float | None) -> str:
    """Format a share in percent; a missing share becomes a dash."""
    return "-" if share is None or math.isnan(share) else f"{share:.0%}"


def finite(value: Any) -> Any:
    """Return the value with None for NaN and infinity, which JSON lacks, and with lists for tuples."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
