"""Thoughts: text between `<think>` tags, which is neither an action nor a prediction, whatever it says."""

from __future__ import annotations

import re

__all__ = ["OPEN_THOUGHT", "blanked", "stop_outside", "without_thoughts"]

OPEN_THOUGHT = "<think>"
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
# A character outside of thoughts, or a whole thought. An open thought is neither.
_OUTSIDE = r"(?:<think>(?:(?!</think>).)*+</think>|(?!<think>).)"
_REST_OF_THOUGHT = r"(?:(?!</think>).)*+</think>"


def without_thoughts(text: str, opened: bool = False) -> str:
    """Return a text without its thoughts; one that is never closed reaches to the end.

    Args:
        text: What a model wrote.
        opened: Whether the prompt ends with `<think>`, as those of some reasoning models do.
    """
    return _THOUGHTS.sub("", OPEN_THOUGHT * opened + text)


def blanked(text: str, opened: bool = False) -> str:
    """Return a text of the same length with blanks in the place of its thoughts."""
    whole = OPEN_THOUGHT * opened + text
    return _THOUGHTS.sub(lambda found: " " * len(found[0]), whole)[len(whole) - len(text) :]


def stop_outside(end: str, opened: bool = False, behind: str = "") -> re.Pattern[str]:
    """Return a pattern that matches up to the first `end` that stands in no thought.

    Args:
        end: A text.
        opened: See `without_thoughts`.
        behind: Pattern of what comes first, outside of thoughts, too; lines begin at its `^`.
    """
    begin = _REST_OF_THOUGHT if opened else ""
    first = f"{_OUTSIDE}*?{behind}" if behind else ""
    return re.compile(rf"(?ms)\A{begin}{first}{_OUTSIDE}*?{re.escape(end)}")
