"""Parsing of an agent's action in τ²-bench: one tool call, or a message to the user. Text is never evaluated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rwml_gym.envs.tau2.literals import LiteralReader, UnreadableError, read_json, shortened
from rwml_gym.envs.tau2.tools import ToolSpec, UnfitArgumentsError
from rwml_gym.text import replace_surrogates

__all__ = ["InvalidAction", "Speech", "ToolRequest", "find_calls", "parse_action", "without_thoughts"]

_EMPTY = "Error: The action is empty. Write one tool call, or a message to the user."
_SEVERAL = "Error: Several tool calls in one action. Make one call, wait for its result, then make the next."
_NOT_LAST = "Error: Text after the tool call. A call has to be the whole action, or the last thing in it."
_NO_CALL = 'Error: No tool call inside <tool_call>. Expected {"name": ..., "arguments": {...}}.'
_OTHER_NOTATION = (
    'Error: Cannot read the call. Write it as {"name": ..., "arguments": {...}} or name(argument="value").'
)

# Where models, clients and frameworks put the name, the arguments, and the call itself, which JSON may begin with.
_NAMES = ("name", "tool", "tool_name", "function", "function_name", "action", "recipient_name")
_ARGUMENTS = (
    *("arguments", "parameters", "args", "kwargs", "params", "input"),
    *("tool_input", "tool_args", "action_input", "function_args", "function_arguments"),
)
_WRAPPERS = (
    *("function", "function_call", "tool_call", "tool_use", "call", "action"),
    *("tool_calls", "function_calls", "tool_uses", "calls", "actions", "content", "message", "choices"),
)

# All patterns are possessive (`*+`), so that every text takes linear time.
_THOUGHT_END, _THOUGHT_BEGIN = re.compile(r"</think(?:ing)?+>"), re.compile(r"<think(?:ing)?+>")
_OPEN_TAG, _CLOSE_TAG = (re.compile(rf"<{slash}(?:tool_call|function_call|tool_use)>") for slash in ("", "/"))
_NAMED = re.compile(r"(?<!\w)(?:(?:functions|tools|default_api)\.)?+(\w++)([ \t]*+)\(")
_KEYS = "|".join((*_NAMES, *_ARGUMENTS, *_WRAPPERS, "type", "id", "index", "role"))
_OBJECT = re.compile(rf"(?:\[\s*+)?+\{{\s*+[\"'](?:{_KEYS})[\"']\s*+:")
# A possible call: on a new line anything that looks roughly like one, elsewhere only clear JSON.
_LABEL = r"(?:(?:action|tool|call|tool[ _]call|function[ _]call)[ \t]*+:[ \t]*+)?+"
_START = re.compile(
    rf"^[ \t]*+(?i:{_LABEL})(?:```\w*+[ \t]*+)?+(?:\[(?=[\w.]++\())?+(?=[{{\[]|[\w.]++[ \t]*+\()|(?={_OBJECT.pattern})",
    re.MULTILINE,
)
# Calls in notations that are not read here; nobody says this to a customer.
_FOREIGN = re.compile(
    r"<function=|<function_calls>|<tool_calls>|<invoke[ >]|<\|python_tag\|>|\[TOOL_CALLS\]|<\|tool_call|<\uff5ctool"
    r"|^[ \t]*+Action Input[ \t]*+:",
    re.MULTILINE,
)
# A message that is a call of a tool as code, as ``name: {…}`` or as XML.
_ALOUD = re.compile(
    r"(?:```\w*+\s++)?+(?:(?:[`*]++|await |return |print\(|\w++ ?= ?(?:await )?)(?i:action:[* ]*+)?+"
    r"(?:\w++\.)*+(\w++)\(|(\w++) ?:?\s*+\{|<(\w++)>)"
)
_SEPARATOR = re.compile(r"[ \t]*+\]?+[ \t]*+(?:```)?+[ \t]*+[;,]?+[ \t]*+")
_FENCE = re.compile(rf"(?i:{_LABEL})(?:```\w*+)?+\s*+\[?+\Z")
_END = re.compile(r"[\s`;,\]]*+\Z")
_ATTEMPT = 64  # cost of starting to read, in characters
_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*+(?:_[a-z0-9]++)++\Z")


@dataclass(frozen=True)
class ToolRequest:
    """A call of an existing tool; its arguments are JSON values of the types in its schema."""

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

    A call is a JSON object, ``{"name": …, "arguments": {…}}``, or ``name(1, key='x')`` with JSON or Python literals and
    bare words as values. The JSON may also be that of common clients: "parameters", "args" or "input" for "arguments",
    "tool" or "action" for "name", ``{"get_user": {…}}``, and whatever holds one of these, such as a message with
    "tool_calls". A call may span lines, and may be in a list of one, in a code fence or between ``<tool_call>`` tags.
    Other cases are handled as follows:

    - *Thoughts* up to the last ``</think>``, or after an unclosed ``<think>``, are dropped first.
    - *Other notations*, such as ``<function=…>``, ``Action Input:`` or ``x = get_user(…)``, are rejected.
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
    message = without_thoughts(replace_surrogates(text))
    if not message:
        return InvalidAction(_EMPTY)
    if not _OPEN_TAG.search(message):
        found = _parse(message, tools)
        return found or (InvalidAction(_OTHER_NOTATION) if _is_foreign(message, tools) else Speech(message))
    first, *others = (_CLOSE_TAG.split(part, maxsplit=1)[0].strip() for part in _OPEN_TAG.split(message)[1:])
    return InvalidAction(_SEVERAL) if others else _parse(first, tools) or InvalidAction(_NO_CALL)


def _is_foreign(message: str, tools: Mapping[str, ToolSpec]) -> bool:
    """Return whether a message is a call in a notation that is not read here."""
    aloud = _ALOUD.match(message)
    names_tool = aloud is not None and not tools.keys().isdisjoint(name for name in aloud.groups() if name)
    return _FOREIGN.search(message) is not None or (names_tool and message[-1] in ")}]>`")


def without_thoughts(text: str) -> str:
    """Drop what a model thinks: up to the last ``</think>``, which a template may have opened, or from ``<think>`` on.

    >>> without_thoughts("Hm, a greeting.</think>Hello! <think>Was that right")
    'Hello!'
    """
    return _THOUGHT_BEGIN.split(_THOUGHT_END.split(text)[-1], maxsplit=1)[0].strip()


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
    try:
        return ToolRequest(spec.name, spec.convert(arguments))
    except UnfitArgumentsError as error:
        return InvalidAction(str(error))


def _read(text: str, start: int, tools: Mapping[str, ToolSpec]) -> tuple[list[_Call], int]:
    """Read the text at a position: return the calls in it (none if it is other JSON), and where it ends."""
    if named := _NAMED.match(text, start):
        reader = LiteralReader(text, named.end(), bare_words=named[1] in tools)
        positional, keywords = reader.arguments()
        return [_Call(named[1], keywords, reader.position, False, positional)], reader.position
    reader = LiteralReader(text, start, bare_words=False)
    value = reader.value()
    return _json_calls(value, reader.position, tools), reader.position


def _json_calls(value: Any, end: int, tools: Mapping[str, ToolSpec]) -> list[_Call]:
    """Find the calls in a JSON value: it is one, a list of them, or a message that holds them somewhere."""
    if isinstance(value, dict):
        if call := _json_call(value, end, tools):
            return [call]
        value = list(value.values())
    return [call for item in value for call in _json_calls(item, end, tools)] if isinstance(value, list) else []


def _json_call(value: dict[str, Any], end: int, tools: Mapping[str, ToolSpec]) -> _Call | None:
    """Convert a JSON object to a call, if it has a name and arguments, names a tool, or is ``{tool: arguments}``."""
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    if name not in tools:  # a tool that is named in another place
        name = next((word for word in value.values() if isinstance(word, str) and word in tools), name)
    key = next((key for key in _ARGUMENTS if key in value), None)
    if name is None:
        name = key = next((key for key in value if key in tools), None)
    if name is None or (key is None and name not in tools):
        return None
    arguments = value[key] if key else None
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments) if arguments.strip() else None
        except UnreadableError:
            pass  # it stays a string, which the check of the arguments rejects
    return _Call(name.removeprefix("functions."), arguments, end, True)
