"""A player of τ²-bench without a model, to collect transitions if the language model rarely writes a valid call.

This deviates from RWML, where the model itself plays (arXiv 2602.05842).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["RandomCallerAgent"]

# What users say about themselves, by the name of the parameter that needs it.
_SAID = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?i:name is|you are|i am|i'm) (?P<first_name>[A-Z][\w'-]+) (?P<last_name>[A-Z][\w'-]+)",
        r"(?i:name is|you are|i am|i'm) (?P<full_name>[A-Z][\w'-]+ [A-Z][\w'-]+)",
        r"(?<![\w.+-])(?P<email>[\w.+-]++@[\w-]++\.[\w.]*\w)",
        r"(?P<phone_number>\b\d{3}-\d{3}-\d{4}\b)",
        r"(?P<zip>\b\d{5}\b)",
    )
)
_TOKEN = re.compile(r"[#\w][\w-]*")
_QUOTED = re.compile(r"'([^']+)'")
_SPEECH = ("Could you tell me more?", "I can do that. Shall I go ahead?", "One moment, please.", "It is done.")
_MIN_ACTIONS = 4  # before the first goodbye
_ATTEMPTS = 4  # to find a call that was not made before


class RandomCallerAgent:
    """Calls random tools with values from the conversation, sometimes speaks, and says goodbye in the end.

    A value fits a parameter if a tool's result contains it under that name (`order_id`; a member of `orders`), if the
    user said it (name, zip code, mail address, phone number), or if it looks like the example in the parameter's
    description (`'#W0000000'`). Tools with known arguments are preferred. On the training tasks 56 % of the calls
    succeed on retail, 76 % on airline and 87 % on telecom.

    Args:
        seed: The choices depend on the seed and the order of the calls.
        speak: Share of messages to the user among the actions.
        guess: Share of calls of any tool, including those with unknown arguments.
        leave: Probability of a goodbye at every action from the fifth on.
    """

    def __init__(self, seed: int = 0, speak: float = 0.15, guess: float = 0.2, leave: float = 0.08) -> None:
        self._rng = random.Random(seed)
        self.speak, self.guess, self.leave = speak, guess, leave
        self._seen: list[_Seen] = []

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Return one call or message per slot, from `info["tools"]` and `info["messages"]`."""
        self._seen += [_Seen() for _ in range(len(infos) - len(self._seen))]
        actions = []
        for seen, info in zip(self._seen, infos, strict=False):
            for message in info.get("messages") or []:
                seen.read(str(message["content"]))
            actions.append(self._choose(seen, info.get("tools") or []))
        return actions

    def reset(self, mask: Sequence[bool]) -> None:
        """Forget the conversations of the slots that start again."""
        for slot, start in enumerate(mask[: len(self._seen)]):
            if start:
                self._seen[slot] = _Seen()

    def _choose(self, seen: _Seen, tools: Sequence[Mapping[str, Any]]) -> str:
        seen.actions += 1
        if seen.actions > _MIN_ACTIONS and self._rng.random() < self.leave:
            return "Thank you, goodbye."
        functions = [tool["function"] for tool in tools if tool["function"]["name"] != "done"]
        if not functions or self._rng.random() < self.speak:
            return self._rng.choice(_SPEECH)
        call = ""
        for _ in range(_ATTEMPTS):
            call = self._call(seen, functions)
            if call not in seen.calls:
                break
        seen.calls.add(call)
        return call

    def _call(self, seen: _Seen, functions: Sequence[Mapping[str, Any]]) -> str:
        calls = [(function["name"], self._arguments(function["parameters"], seen)) for function in functions]
        complete = [(name, arguments) for name, (arguments, known) in calls if known]
        if not complete or self._rng.random() < self.guess:
            complete = [(name, arguments) for name, (arguments, _) in calls]
        name, arguments = self._rng.choice(complete)
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"

    def _arguments(self, schema: Mapping[str, Any], seen: _Seen) -> tuple[dict[str, Any], bool]:
        """Return arguments for a tool, and whether none of them is a guess."""
        required = schema.get("required", [])
        arguments, all_known = {}, True
        for name, parameter in schema.get("properties", {}).items():
            value, known = self._value(name, parameter, schema.get("$defs", {}), seen)
            if name in required or (known and self._rng.random() < 0.5):
                arguments[name] = value
                all_known &= known
        return arguments, all_known

    def _value(
        self, name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], seen: _Seen
    ) -> tuple[Any, bool]:
        """Return a value, and whether it is known rather than guessed."""
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            return self._value(name, {**schema["anyOf"][0], **_described(schema)}, definitions, seen)
        if "enum" in schema:
            return self._rng.choice(schema["enum"]), True
        kind = schema.get("type")
        if kind == "object":
            return self._arguments({**schema, "$defs": definitions}, seen)
        if kind == "array":
            member = {**schema.get("items", {}), **_described(schema)}
            values = [self._value(_singular(name), member, definitions, seen) for _ in range(self._rng.randint(1, 2))]
            return [value for value, _ in values], all(known for _, known in values)
        if kind == "boolean":
            return self._rng.random() < 0.5, True
        if kind in ("integer", "number"):
            return self._rng.randint(1, 3), True
        return self._text(name, _QUOTED.findall(schema.get("description", "")), seen)

    def _text(self, name: str, examples: Sequence[str], seen: _Seen) -> tuple[str, bool]:
        values = seen.values(name, examples)
        if values:
            return self._rng.choice(values), True
        # "either 'no longer needed' or 'ordered by mistake'" lists valid values; "such as '#W0000000'" does not.
        known = bool(examples) and not any(re.search(r"\d{2}", example) for example in examples)
        return self._rng.choice(examples or ["unknown"]), known


class _Seen:
    """The values that one conversation has mentioned."""

    def __init__(self) -> None:
        self.actions = 0
        self.calls: set[str] = set()
        # Dictionaries without values serve as ordered sets.
        self._by_name: dict[str, dict[str, None]] = {}
        self._by_shape: dict[str, dict[str, None]] = {}

    def read(self, text: str) -> None:
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if isinstance(data, dict | list):
            for name, value in _leaves("", data):
                self._add(name, value)
            return
        for pattern in _SAID:
            for match in pattern.finditer(text):
                for name, value in match.groupdict().items():
                    self._by_name.setdefault(name, {})[value] = None
        for token in _TOKEN.findall(text):
            self._add("", token.rstrip("-"))

    def values(self, name: str, examples: Sequence[str]) -> list[str]:
        """Return the values for a parameter: those with its name, else those that look like its examples."""
        named = [self._by_name.get(n, {}) for n in (name, name.removesuffix("_id"), name.removeprefix("new_"))]
        if name == "id":
            named = [values for key, values in self._by_name.items() if key.endswith("_id")]
        found = dict.fromkeys(value for values in named for value in values)
        if not found:
            shapes = [self._by_shape.get(_shape(example), {}) for example in examples]
            found = dict.fromkeys(value for values in shapes for value in values)
        return list(found)

    def _add(self, name: str, value: str) -> None:
        if name:
            self._by_name.setdefault(name, {})[value] = None
        # Words without digits all look alike, except that three capitals may be an airport.
        if re.search(r"\d", value) or re.fullmatch(r"[A-Z]{3}", value):
            self._by_shape.setdefault(_shape(value), {})[value] = None


def _leaves(name: str, data: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts in a tool's result with their names; members of lists have the name in the singular."""
    if isinstance(data, dict):
        for key, value in data.items():
            if re.search(r"\d", key):  # an id as key: {"payment_methods": {"credit_card_1": …}}
                yield _singular(name), key
            yield from _leaves(name if re.search(r"\d", key) else key, value)
    elif isinstance(data, list):
        for value in data:
            yield from _leaves(_singular(name), value)
    elif isinstance(data, str):
        yield name, data


def _shape(text: str) -> str:
    """Return the shape of a value: `#A9999999` for `#W0000000`, `a_a_9` for `sara_doe_496`."""
    shape = re.sub(r"[a-z]", "a", re.sub(r"[A-Z]", "A", re.sub(r"\d", "9", text)))
    return re.sub(r"([a9])\1+", r"\1", shape) if "a" in shape else shape


def _singular(name: str) -> str:
    return name.removesuffix("s")


def _described(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": schema["description"]} if "description" in schema else {}
