"""A player of τ²-bench without a model: calls random tools with what it has heard and read so far.

For collecting transitions where the language model can hardly write a call. That deviates from RWML, in which the model
itself plays (arXiv 2602.05842).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["RandomCallerAgent"]

# What users say of themselves, by the name of the parameter that asks for it.
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
_ATTEMPTS = 4  # at a call that was not made before


class RandomCallerAgent:
    """Calls random tools with values from the conversation, sometimes speaks, and says goodbye in the end.

    A value fits a parameter if it stood under its name in a tool's result (`order_id`; a member of `orders`), was said
    of the user (name, zip code, mail address, phone number), or looks like the example in the parameter's description
    (`'#W0000000'`). The tools for which everything is known are preferred. Of its calls on the training tasks 56 %
    succeed on retail, 76 % on airline and 87 % on telecom.

    Args:
        seed: Its choices follow from the seed and the order of the calls.
        speak: Share of words to the user among its actions.
        guess: Share of calls of any tool, whether or not its arguments are known.
        leave: Probability of a goodbye at every action from the fifth on.
    """

    def __init__(self, seed: int = 0, speak: float = 0.15, guess: float = 0.2, leave: float = 0.08) -> None:
        self._rng = random.Random(seed)
        self.speak, self.guess, self.leave = speak, guess, leave
        self._seen: list[_Seen] = []

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Chooses one call, or some words, a slot; from `info["tools"]` and `info["messages"]`."""
        self._seen += [_Seen() for _ in range(len(infos) - len(self._seen))]
        actions = []
        for seen, info in zip(self._seen, infos, strict=False):
            for message in info.get("messages") or []:
                seen.read(str(message["content"]))
            actions.append(self._choose(seen, info.get("tools") or []))
        return actions

    def reset(self, mask: Sequence[bool]) -> None:
        """Forgets the conversations of the slots that start again."""
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
        """Arguments for the parameters of a tool, and whether those that it requires are known."""
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
        """A value, and whether it is more than a guess."""
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
        # "either 'no longer needed' or 'ordered by mistake'" are what may be said; "such as '#W0000000'" is not.
        known = bool(examples) and not any(re.search(r"\d{2}", example) for example in examples)
        return self._rng.choice(examples or ["unknown"]), known


class _Seen:
    """What one conversation has brought up so far."""

    def __init__(self) -> None:
        self.actions = 0
        self.calls: set[str] = set()
        # Dictionaries without values, as sets that keep their order.
        self._by_name: dict[str, dict[str, None]] = {}
        self._by_shape: dict[str, dict[str, None]] = {}

    def read(self, text: str) -> None:
        """Remembers the values in a message."""
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
        """Values for a parameter: those of its name, else those that look like an example of it."""
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
        # A word without digits looks like any other; three capitals may be an airport.
        if re.search(r"\d", value) or re.fullmatch(r"[A-Z]{3}", value):
            self._by_shape.setdefault(_shape(value), {})[value] = None


def _leaves(name: str, data: Any) -> Iterator[tuple[str, str]]:
    """The texts and numbers in a tool's result under their names; members of lists under the singular."""
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
    """What a value looks like: `#W0000000` as `#A9999999`, `sara_doe_496` as `a_a_9`."""
    shape = re.sub(r"[a-z]", "a", re.sub(r"[A-Z]", "A", re.sub(r"\d", "9", text)))
    return re.sub(r"([a9])\1+", r"\1", shape) if "a" in shape else shape


def _singular(name: str) -> str:
    return name.removesuffix("s")


def _described(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": schema["description"]} if "description" in schema else {}
