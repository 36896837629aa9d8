"""Parsing of an agent's action in τ²-bench: one tool call, or a message to the user. Text is never evaluated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rwml_gym.envs.tau2.literals import LiteralReader, UnreadableError, shortened
from rwml_gym.envs.tau2.tools import ToolSpec
from rwml_gym.text import replace_surrogates

__all__ = ["InvalidAction", "Speech", "ToolRequest", "find_calls", "parse_action"]

_OPEN_TAG, _CLOSE_TAG = "<tool_call>", "</tool_call>"
_EMPTY = "Error: The action is empty. Write one tool call, or a message to the user."
_SEVERAL = "Error: Several tool calls in one action. Make one call, wait for its result, then make the next."
_NOT_LAST = "Error: Text after the tool call. A call has to be the whole action, or the last thing in it."
_NO_CALL = 'Error: No tool call inside <tool_call>. Expected {"name": ..., "arguments": {...}}.'

# All patterns are possessive (`*+`), so that every text takes linear time.
_NAMED = re.compile(r"(?<!\w)(\w++)([ \t]*+)\(")
_OBJECT = re.compile(r"(?:\[\s*+)?+\{\s*+[\"'](?:name|function|arguments|parameters|type|id)[\"']\s*+:")
# A possible call: on a new line anything that looks roughly like one, elsewhere only clear JSON.
_START = re.compile(rf"^[ \t]*+(?:```\w*+[ \t]*+)?+(?=[{{\[]|\w++[ \t]*+\()|(?={_OBJECT.pattern})", re.MULTILINE)
_SEPARATOR = re.compile(r"[ \t]*+(?:```)?+[ \t]*+[;,]?+[ \t]*+")
_FENCE = re.compile(r"(?:```\w*+)?+\s*+\Z")
_END = re.compile(r"[\s`;,]*+\Z")
_ATTEMPT = 64  # cost of starting to read, in characters
_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*+(?:_[a-z0-9]++)++\Z")


@dataclass(frozen=True)
class ToolRequest:
    """A call of an existing tool; its arguments fit the schema and are JSON values, as the agent wrote them."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Speech:
    """A message to the user, without thoughts and surrounding white space."""

    text: str


@dataclass(frozen=True)
class InvalidAction:
    """An action that is neither a call nor a message to the user, with the error message for the agent."""

    message: str


def parse_action(text: str, tools: Mapping[str, ToolSpec]) -> ToolRequest | Speech | InvalidAction:
    r"""Read an action.

    A call is a JSON object, ``{"name": …, "arguments": {…}}`` (also "parameters", and OpenAI's nesting under
    "function"), or ``name(1, key='x')`` with JSON or Python literals and bare words as values. It may span lines, and
    may be in a list of one, in a code fence or between ``<tool_call>`` tags. Other cases are handled as follows:

    - *Thoughts* up to the last ``</think>``, or after an unclosed ``<think>``, are dropped first.
    - *Prose before a call*: the call is used and the prose is dropped, because a tau2 message is only one of the two.
      The call must be the last thing in the action, and ``name()`` must be on its own line, unless tags mark it.
    - *Prose after a call*: JSON is rejected, because the user should not see it; ``name()`` counts as prose.
    - *Several calls*, even equal ones, are rejected. With tags, only the text between tags counts.
    - *Unknown tools*: a JSON call is rejected in tau2's words; ``name()`` is prose, unless it is the whole action, the
      name is in snake_case, and all arguments are literals.
    - *An unreadable call* is rejected if it ends the action, or is cut off; otherwise it is prose.
    - *Other keys* of a JSON call ("requestor", "id") have no effect. If a key occurs twice, the last one is used.
    - *Lone surrogates* become "\ufffd", so that the text can be encoded.

    The time is linear in the length of the text. No text raises an exception.

    Args:
        text: The agent's text.
        tools: The tools of the agent, by name.

    >>> spec = ToolSpec("get_user", "Get a user.", {"properties": {"user_id": {"type": "string"}}})
    >>> parse_action("Let me see.\nget_user('mia_li_3668')", {"get_user": spec})
    ToolRequest(name='get_user', arguments={'user_id': 'mia_li_3668'})
    >>> parse_action("Thanks (bye)", {"get_user": spec})
    Speech(text='Thanks (bye)')
    """
    message = replace_surrogates(text)
    message = message[message.rfind("</think>") + len("</think>") :] if "</think>" in message else message
    message = message.partition("<think>")[0].strip()
    if not message:
        return InvalidAction(_EMPTY)
    if _OPEN_TAG not in message:
        return _parse(message, tools) or Speech(message)
    first, *others = (part.partition(_CLOSE_TAG)[0].strip() for part in message.split(_OPEN_TAG)[1:])
    return InvalidAction(_SEVERAL) if others else _parse(first, tools) or InvalidAction(_NO_CALL)


def find_calls(text: str, tools: Mapping[str, ToolSpec]) -> list[ToolRequest]:
    """Find the calls ``name(…)`` in a text, whose tool exists and whose arguments fit, in the order of the text.

    Args:
        text: Any text, such as "Please run toggle_data() and tell me".
        tools: The available tools, by name.
    """
    text = replace_surrogates(text)
    requests: list[ToolRequest] = []
    position, patience = 0, _patience(text)
    while patience > 0 and (match := _NAMED.search(text, position)):
        position = match.end()
        if match[1] in tools and not match[2]:
            try:
                call = _read(text, match.start(), tools)[0]
            except UnreadableError as error:
                patience -= error.position - position + _ATTEMPT
                continue
            position = call[0].end
            request = _checked(call[0], tools)
            requests += [request] if isinstance(request, ToolRequest) else []
    return requests


@dataclass(frozen=True)
class _Call:
    """A call as written: the tool may not exist, and the arguments may be anything."""

    name: str
    named: Any
    end: int
    is_json: bool
    positional: list[Any] = field(default_factory=list)


def _parse(message: str, tools: Mapping[str, ToolSpec]) -> ToolRequest | InvalidAction | None:
    """Parse a text without thoughts and tags; return None for prose."""
    calls: list[_Call] = []
    # Failed attempts use up `patience`: every line may begin a call that only fails at the end of the text.
    position, begin, patience = 0, -1, _patience(message)
    while patience > 0:
        if begin < 0:
            if not (place := _START.search(message, position)):
                break
            begin = place.end()
        start, begin = begin, -1
        named = _NAMED.match(message, start)
        exists = named is not None and named[1] in tools
        if named and not _may_be_call(message, named, exists):
            position = named.end()
            continue
        try:
            found, position = _read(message, start, tools)
        except UnreadableError as error:
            if exists or _OBJECT.match(message, start):
                if error.position >= len(message) or message[-1] in ")}]`":
                    return InvalidAction(f"Error: Cannot read the call: {error}.")
            patience -= error.position - start + _ATTEMPT
            position = start + 1
            continue
        rest = _SEPARATOR.match(message, position).end()  # type: ignore[union-attr]  # it also matches the empty text
        if message.startswith(("{", "["), rest) or _NAMED.match(message, rest):
            begin = rest
        is_line = begin >= 0 or rest == len(message) or message[rest] in "\r\n"
        # JSON is always a call; an unknown name only if nothing follows.
        if not named or (exists and is_line) or (not exists and _END.match(message, position)):
            calls += found
    return _judged(calls, message, tools)


def _patience(text: str) -> int:
    """Return how many characters may be read in failed attempts, before the rest of the text counts as prose."""
    return 4000 + 4 * len(text)


def _judged(calls: list[_Call], message: str, tools: Mapping[str, ToolSpec]) -> ToolRequest | InvalidAction | None:
    """Decide what a text with these calls is: a request, an invalid action, or prose (None)."""
    is_last = bool(calls) and _END.match(message, calls[-1].end) is not None
    if not is_last and not any(call.is_json for call in calls):
        return None
    if len(calls) > 1:
        return InvalidAction(_SEVERAL)
    return _checked(calls[0], tools) if is_last else InvalidAction(_NOT_LAST)


def _may_be_call(message: str, named: re.Match[str], exists: bool) -> bool:
    """Return whether ``name(`` may be a call, and not prose such as "calculate (see above)" or "Thanks (bye)"."""
    in_snake_case = _SNAKE_CASE.match(named[1]) is not None
    if exists:
        return in_snake_case or not named[2]
    return in_snake_case and not named[2] and _FENCE.match(message, 0, named.start()) is not None


def _checked(call: _Call, tools: Mapping[str, ToolSpec]) -> ToolRequest | InvalidAction:
    """Name the positional arguments, and check all arguments against the schema."""
    spec = tools.get(call.name)
    if spec is None:
        return InvalidAction(f"Error: Tool '{shortened(call.name)}' not found.")
    named = {} if call.named is None else call.named
    if not isinstance(named, dict):
        return InvalidAction(f"Error: {spec.name}: the arguments should be an object whose keys are the parameters.")
    if len(call.positional) > len(spec.order):
        return InvalidAction(
            f"Error: {spec.name}: {len(call.positional)} arguments without a name, but the parameters are: "
            f"{', '.join(spec.order) or 'none'}."
        )
    arguments = dict(zip(spec.order, call.positional, strict=False))
    if twice := sorted(arguments.keys() & named.keys()):
        return InvalidAction(f"Error: {spec.name}: {twice[0]!r} is given twice.")
    arguments |= named
    problem = spec.validate(arguments)
    return InvalidAction(problem) if problem else ToolRequest(spec.name, arguments)


def _read(text: str, start: int, tools: Mapping[str, ToolSpec]) -> tuple[list[_Call], int]:
    """Read the text at a position: return the calls in it (none if it is other JSON), and where it ends."""
    if named := _NAMED.match(text, start):
        reader = LiteralReader(text, named.end(), bare_words=named[1] in tools)
        positional, keywords = reader.arguments()
        return [_Call(named[1], keywords, reader.position, False, positional)], reader.position
    reader = LiteralReader(text, start, bare_words=False)
    value = reader.value()
    items = value if isinstance(value, list) else [value]
    calls = [call for item in items if (call := _json_call(item, reader.position, tools))]
    return calls if len(calls) == len(items) else [], reader.position


def _json_call(value: Any, end: int, tools: Mapping[str, ToolSpec]) -> _Call | None:
    """Convert a JSON value to a call, if it is an object with a name and arguments, or with the name of a tool."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    key = next((key for key in ("arguments", "parameters") if key in value), None)
    if key is None and value["name"] not in tools:
        return None
    arguments = value[key] if key else None
    if isinstance(arguments, str):
        reader = LiteralReader(arguments.strip(), 0, bare_words=False)
        try:
            inner = reader.value() if reader.text else None
            arguments = inner if reader.position == len(reader.text) else arguments
        except UnreadableError:
            pass  # it stays a string, which the check of the arguments rejects
    return _Call(value["name"], arguments, end, True)
