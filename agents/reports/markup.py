"""Markdown of cards: titles, results and configurations are untrusted, so what Markdown and HTML read is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rwml_gym.installed import repository
from rwml_gym.text import printable

__all__ = ["code", "our_name", "plain", "table"]

_MARKUP = re.compile(r"[^\w \-.,/=+%]|(?<![^\W_])_|_(?![^\W_])")  # `max_steps` needs no escape


def plain(text: str) -> str:
    """Return a text as one line, in which the characters of Markdown and HTML are entities."""
    words = " ".join(text.split()) or "-"
    line = "".join(character if character.isprintable() else "\ufffd" for character in words)
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)


def code(text: str, language: str) -> str:
    """Return a text as a block of code, whatever backticks are in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def table(name: str, values: Mapping[str, str]) -> str:
    """Return a table of two columns, the first of which has this name."""
    rows = (f"| {plain(key)} | {plain(value)} |" for key, value in values.items())
    return "\n".join([f"| {name} | value |", "| --- | --- |", *rows])


def our_name() -> str:
    """Return this package's name, with a link to its repository where that is known."""
    return f"[rwml-gym]({repository()})" if repository() else "rwml-gym"
