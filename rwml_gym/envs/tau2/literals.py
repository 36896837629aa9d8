"""A reader for JSON and Python literals inside a text: linear time, bounded depth, and no evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from rwml_gym.text import replace_surrogates

__all__ = ["MAX_DEPTH", "MAX_INTEGER", "LiteralReader", "UnreadableError", "read_json", "shortened"]

MAX_DEPTH = 32
"""Maximal nesting of lists and objects; tau2's tools need 3."""
MAX_INTEGER = 2**63 - 1
"""Larger integers are rejected: JSON libraries differ on them, and Python does not print those of 4,300 digits."""
MAX_DIGITS = 400
"""Maximal length of a number: 1e308 in full, and some decimals."""

# All patterns are possessive (`*+`), so that every text takes linear time.
_STRING = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"|' r"'([^'\\]*+(?:\\.[^'\\]*+)*+)'", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|U0010[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""} | {c: c for c in "\"'/\\"}
_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*+|(?=\.[0-9]))(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?(?![\w.])")
_WORD = re.compile(r"[^\W\d]\w*+")
_KEYWORD = re.compile(r"([^\W\d]\w*+)\s*+=(?!=)")
_SPACE = re.compile(r"\s*+")
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


class UnreadableError(Exception):
    """A text is not a literal; `position` is how far it was read."""

    def __init__(self, reason: str, text: str, position: int) -> None:
        excerpt = text[position : position + 20]
        super().__init__(f"{reason} at {excerpt!r}" if excerpt else f"{reason} at its end")
        self.position = position


class LiteralReader:
    """Reader of values and call arguments, which continues where the last one ended.

    Args:
        text: The text.
        position: Where the first value begins.
        bare_words: Whether to also read what is not JSON: names as texts, tuples as lists, adjacent texts as one.

    Attributes:
        position: Where the next value begins.
    """

    def __init__(self, text: str, position: int, bare_words: bool) -> None:
        self.text, self.position, self.bare_words = text, position, bare_words

    def value(self, depth: int = 0) -> Any:
        """Read one value, or raise `UnreadableError`."""
        start = self._skip()
        character = self.text[start : start + 1]
        if character in ("{", "[") or (character == "(" and self.bare_words):
            if depth >= MAX_DEPTH:
                # The rest counts as read, because another attempt further inside is useless.
                raise UnreadableError(f"more than {MAX_DEPTH} levels", self.text, len(self.text))
            self.position += 1
            read = {"{": self._object, "[": self._list, "(": self._tuple}[character]
            return read(depth + 1)
        if character in ("'", '"'):
            return self._string()
        if match := _NUMBER.match(self.text, start):
            return self._number(match)
        word = _WORD.match(self.text, start)
        if word and (word[0] in _CONSTANTS or self.bare_words):
            self.position = word.end()
            return _CONSTANTS.get(word[0], word[0])
        raise self._error("expected a value, text in quotes,")

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Read the positional and the named arguments of a call, until after its closing parenthesis.

        Raises:
            UnreadableError: If it is not a call, or a name is given twice.
        """
        positional: list[Any] = []
        named: dict[str, Any] = {}

        def read() -> None:
            keyword = _KEYWORD.match(self.text, self._skip())
            if not keyword:
                if named:
                    raise self._error("expected name=value")
                positional.append(self.value())
            elif keyword[1] in named:
                raise self._error(f"{shortened(keyword[1])!r} is given twice")
            else:
                self.position = keyword.end()
                named[keyword[1]] = self.value()

        self._sequence(")", read)
        return positional, named

    def _object(self, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}

        def read() -> None:
            if self.text[self._skip() : self.position + 1] not in ("'", '"'):
                raise self._error("expected a name in quotes")
            key = self._string()
            if not self._take(":"):
                raise self._error("expected ':'")
            result[key] = self.value(depth)

        self._sequence("}", read)
        return result

    def _list(self, depth: int) -> list[Any]:
        result: list[Any] = []
        self._sequence("]", lambda: result.append(self.value(depth)))
        return result

    def _tuple(self, depth: int) -> Any:
        result: list[Any] = []
        comma_last = self._sequence(")", lambda: result.append(self.value(depth)))
        return result if comma_last or len(result) > 1 else result[0]

    def _sequence(self, closing: str, read: Callable[[], None]) -> bool:
        """Read items between commas; return whether the last one has a comma after it, or there are no items."""
        while not self._take(closing):
            read()
            if not self._take(","):
                if not self._take(closing):
                    raise self._error(f"expected ',' or {closing!r}")
                return False
        return True

    def _string(self) -> str:
        parts: list[str] = []
        while not parts or (self.bare_words and self.text.startswith(("'", '"'), self._skip())):
            match = _STRING.match(self.text, self.position)
            if not match:
                raise UnreadableError("text without closing quote", self.text, len(self.text))
            self.position = match.end()
            raw = match[1] if match[2] is None else match[2]
            parts.append(replace_surrogates(_ESCAPE.sub(_unescaped, raw)) if "\\" in raw else raw)
        return "".join(parts)

    def _number(self, match: re.Match[str]) -> int | float:
        digits = match[0]
        whole = digits.lstrip("+-").isdigit()
        # Check the length first: long numbers are slow to read, and Python rejects integers of 4,300 digits.
        if len(digits) <= (20 if whole else MAX_DIGITS):
            number = int(digits) if whole else float(digits)
            if abs(number) <= MAX_INTEGER or (not whole and math.isfinite(number)):
                self.position = match.end()
                return number
        raise self._error("number out of range")

    def _skip(self) -> int:
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]  # it always matches
        return self.position

    def _take(self, character: str) -> bool:
        taken = self.text.startswith(character, self._skip())
        self.position += taken
        return taken

    def _error(self, reason: str) -> UnreadableError:
        return UnreadableError(reason, self.text, self.position)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPES.get(code, match[0])


def read_json(text: str) -> Any:
    """Read a whole text as JSON with the limits of this module, without NaN, infinity and lone surrogates.

    Raises:
        UnreadableError: If it is anything else.
    """
    reader = LiteralReader(text.strip(), 0, bare_words=False)
    value = reader.value()
    if reader.position != len(reader.text):
        raise UnreadableError("text after the value", reader.text, reader.position)
    return value


def shortened(text: str) -> str:
    """Shorten an agent's text to fit a message."""
    return text if len(text) <= 60 else f"{text[:60]}…"
