"""What an engine tells after each command."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTHING_HAPPENS", "State"]

NOTHING_HAPPENS = "Nothing happens."
"""The answer to every command that is not admissible."""


class State(NamedTuple):
    """An observation and the admissible commands.

    Attributes:
        text: The answer to the last command, or the introduction.
        admissible: All admissible commands, sorted; the caller may keep and change the list.
        won: Whether the goal holds.
    """

    text: str
    admissible: list[str]
    won: bool
