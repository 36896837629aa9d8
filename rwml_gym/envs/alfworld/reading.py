"""Parsing of ALFWorld's texts in both grammars: commands, their effects, and visible objects."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Command", "Contents", "Happening", "kind_of", "read_command", "read_contents", "read_happening"]

_COMMAND = re.compile(
    r"(go to|open|close|examine|use|take|put|move|heat|cool|clean|slice) (\w+ \d+)"
    r"(?: (?:from|in/on|to|with) (\w+ \d+))?",
    re.ASCII,
)
_HAPPENING = re.compile(
    r"You (pick up|put|move|heat|cool|clean) the (\w+ \d+) (?:from|in/on|to|using) the (\w+ \d+)\.", re.ASCII
)
_CONTENTS = re.compile(r"(?:On the (\w+ \d+)|The (\w+ \d+) is open\. In it), you see (nothing|an? [^.]*)\.", re.ASCII)
_THINGS = re.compile(r"\ban? (\w+ \d+)", re.ASCII)
_SAME_VERB = {"go to": "go", "move": "put", "pick up": "take"}


class Command(NamedTuple):
    """A command without its grammar: ``put mug 1 in/on desk 1`` and ``move mug 1 to desk 1`` are the same.

    Attributes:
        verb: ``go``, ``open``, ``take``, ``put`` …; the whole command if it has no object, such as ``look``.
        thing: The object or receptacle of the verb.
        place: The receptacle from which or in which, or the tool.
    """

    verb: str
    thing: str = ""
    place: str = ""


class Happening(NamedTuple):
    """An effect on an object: it was taken, put, heated, cooled or cleaned (``verb``), where or with what."""

    verb: str
    thing: str
    place: str


class Contents(NamedTuple):
    """The visible contents of an open receptacle."""

    place: str
    things: list[str]


@lru_cache(maxsize=16_384)
def read_command(command: str) -> Command:
    """Parse an admissible command.

    Example:
        >>> read_command("move mug 1 to desk 2")
        Command(verb='put', thing='mug 1', place='desk 2')
        >>> read_command("look")
        Command(verb='look', thing='', place='')
    """
    match = _COMMAND.fullmatch(command)
    if match is None:
        return Command(command)
    verb, thing, place = match.groups("")
    return Command(_SAME_VERB.get(verb, verb), thing, place)


def read_happening(observation: str) -> Happening | None:
    """Parse the effect of the last command on an object; None if there is none.

    Example:
        >>> read_happening("You pick up the mug 1 from the desk 2.")
        Happening(verb='take', thing='mug 1', place='desk 2')
        >>> read_happening("You arrive at desk 2. On the desk 2, you see a mug 1.")
    """
    match = _HAPPENING.match(observation)
    if match is None:
        return None
    verb, thing, place = match.groups()
    return Happening(_SAME_VERB.get(verb, verb), thing, place)


def read_contents(observation: str) -> Contents | None:
    """Parse the contents of the receptacle in an observation; None if there is none, or it is closed.

    Example:
        >>> read_contents("You arrive at desk 2. On the desk 2, you see a mug 1, and a pen 3.")
        Contents(place='desk 2', things=['mug 1', 'pen 3'])
        >>> read_contents("You open the safe 1. The safe 1 is open. In it, you see nothing.")
        Contents(place='safe 1', things=[])
    """
    match = _CONTENTS.search(observation)
    return match and Contents(match[1] or match[2], _THINGS.findall(match[3]))


def kind_of(name: str) -> str:
    """Return the type in a name: a ``mug 1`` is a ``mug``."""
    return name.partition(" ")[0]
