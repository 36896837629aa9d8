"""The one place that prints: whatever a file, an environment or a model wrote cannot control the terminal."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import TextIO

from rwml_gym.text import printable

__all__ = ["escape_unknown", "say"]


def escape_unknown() -> None:
    """Let the standard output write the code of a character that its encoding lacks, where it would raise."""
    stream = sys.stdout
    if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def say(text: object = "", file: TextIO | None = None) -> None:
    """Print a text with every control character but line breaks and tabs escaped.

    Args:
        text: What to print.
        file: Where to; the standard output if absent.
    """
    print(printable(str(text)), file=sys.stdout if file is None else file)
