"""The one place that prints: whatever a file, an environment or a model wrote cannot control the terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from rwml_gym.text import printable

__all__ = ["say"]


def say(text: object = "", file: TextIO | None = None) -> None:
    """Print a text with every control character but line breaks and tabs escaped.

    Args:
        text: What to print.
        file: Where to; the standard output if absent.
    """
    print(printable(str(text)), file=sys.stdout if file is None else file)
