"""Rewordings and falsifications of tool results: the labelled pairs for the threshold of the ROUGE gap.

Like `text`, for results in JSON (`tool: {"order_id": …}`) or in a line of text (`tool: Error: …`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from rwml_gym.diagnostics.perturbations.text import (
    Perturbations,
    Pool,
    failed,
    json_result,
    named_values,
    other_outcome,
    shuffled_words,
)
from rwml_gym.transitions import Transition

__all__ = ["TOOL_RESULTS"]

_REWORDINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bnot found\b", "does not exist"),
        (r"\bcannot be\b", "can not be"),
        (r"\bshould be different from\b", "must differ from"),
        (r"\bshould be\b", "has to be"),
        (r"\bmust be\b", "has to be"),
        (r"\bis already\b", "has already been"),
        (r"\bsuccessful\b", "was successful"),
        (r"\bSuccessfully added\b", "Added"),
        (r"\bdoes not match\b", "is not the same"),
        (r"\bsent to\b", "was sent to"),
    )
)
_ID = re.compile(r"[^\s]*\d[^\s]*")


def _reworded(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    text = transition.next_state
    if json_result(text)[1] is None:
        for pattern, replacement in _REWORDINGS:
            text = pattern.sub(replacement, text)
    return text


def _as_json(data: Any, like: str, indent: int | None = None) -> str:
    """Write data as JSON; letters beyond ASCII are escaped if the text that it came from has none of them."""
    return json.dumps(data, ensure_ascii=like.isascii(), indent=indent)


def _written(write: Callable[[Any, str], str]) -> Callable[..., str]:
    """Make a rule that writes the same data in another way."""

    def perturb(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
        role, data = json_result(transition.next_state)
        return transition.next_state if data is None else role + write(data, transition.next_state)

    return perturb


def _rewritten(change: Callable[[Any, np.random.Generator], Any]) -> Callable[..., str]:
    """Make a rule that changes the data without changing what they say; what it leaves as it is stays as written."""

    def perturb(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
        text = transition.next_state
        role, data = json_result(text)
        changed = None if data is None else change(data, rng)
        if json.dumps(changed) == json.dumps(data):
            return text
        return role + _as_json(changed, text)

    return perturb


def _rebuilt(
    data: Any, fields: Callable[[dict[str, Any]], Iterable[tuple[str, Any]]], leaf: Callable[[Any], Any]
) -> Any:
    """Rebuild JSON data from the fields chosen of each object, and from the other values, each changed by `leaf`."""
    if isinstance(data, dict):
        return {name: _rebuilt(value, fields, leaf) for name, value in fields(data)}
    if isinstance(data, list):
        return [_rebuilt(value, fields, leaf) for value in data]
    return leaf(data)


def _unchanged(value: Any) -> Any:
    return value


def _reordered(data: Any, rng: np.random.Generator) -> Any:
    def shuffled(fields: dict[str, Any]) -> list[tuple[str, Any]]:
        ordered = list(fields.items())
        return [ordered[i] for i in rng.permutation(len(ordered))]

    return _rebuilt(data, shuffled, _unchanged)


def _without_empty(data: Any, rng: np.random.Generator) -> Any:
    return _rebuilt(data, _full, _unchanged)


def _rounded(data: Any, rng: np.random.Generator) -> Any:
    def plain(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        value = round(value, 2)
        return int(value) if value.is_integer() else value

    return _rebuilt(data, dict.items, plain)


def _changed(fits: Callable[[Any], bool], change: Callable[..., Any]) -> Callable[..., str]:
    """Make a rule that changes one fitting value and every equal one, because ids occur in several places."""

    def perturb(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
        role, data = json_result(transition.next_state)
        values = [(name, value) for name, value in named_values(data) if fits(value)]
        if not values:
            return transition.next_state
        name, old = values[rng.integers(len(values))]
        new = change(old, name, pool, rng)
        if new == old or new != new:  # there is no other value; written anew, the text would differ in its layout
            return transition.next_state

        def renamed(fields: dict[str, Any]) -> list[tuple[str, Any]]:
            return [(new if key == old and isinstance(new, str) else key, value) for key, value in fields.items()]

        def replaced(value: Any) -> Any:
            return new if type(value) is type(old) and value == old else value

        return role + _as_json(_rebuilt(data, renamed, replaced), transition.next_state)

    return perturb


def _other_number(old: Any, name: str, pool: Pool, rng: np.random.Generator) -> Any:
    step = (1 if isinstance(old, int) else 1.37) * int(rng.integers(1, 30))
    return type(old)(round(old + (step if rng.random() < 0.5 else -step), 2))


def _other_value(old: str, name: str, pool: Pool, rng: np.random.Generator) -> str:
    others = [value for value in pool.values.get(name, []) if value != old and type(value) is type(old)]
    if others:
        return str(others[rng.integers(len(others))])
    return re.sub(r"\d", lambda match: str((int(match[0]) + 1) % 10), old, count=1)


def _field_left_out(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    role, data = json_result(transition.next_state)
    if not isinstance(data, dict):
        return transition.next_state
    names = [name for name, _ in _full(data)]
    if len(names) < 2:
        return transition.next_state
    left_out = names[rng.integers(len(names))]
    kept = {name: value for name, value in data.items() if name != left_out}
    return role + _as_json(kept, transition.next_state)


def _cut_off(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    text = transition.next_state
    return text[: len(text) // 2] if json_result(text)[1] is not None else text


def _error(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    return transition.next_state if pool.rejection is None or failed(transition) else pool.rejection


def _other_error(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    others = [text for text in pool.failures if text != transition.next_state]
    return others[rng.integers(len(others))] if failed(transition) and others else transition.next_state


def _full(data: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in data.items() if value is not None and value != []]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _is_id(value)


TOOL_RESULTS = Perturbations(
    same={
        "keys reordered": _rewritten(_reordered),
        "as Python writes it": _written(lambda data, like: repr(data)),
        "indented": _written(lambda data, like: _as_json(data, like, indent=2)),
        "empty fields left out": _rewritten(_without_empty),
        "numbers rounded": _rewritten(_rounded),
        "reworded": _reworded,
    },
    different={
        "other number": _changed(_is_number, _other_number),
        "other id": _changed(_is_id, _other_value),
        "other value": _changed(_is_word, _other_value),
        "opposite flag": _changed(lambda value: isinstance(value, bool), lambda old, *_: not old),
        "field left out": _field_left_out,
        "cut off": _cut_off,
        "other record": other_outcome,
        "error instead": _error,
        "other error": _other_error,
        "shuffled words": shuffled_words,
    },
)
"""For tool results, in JSON or in natural language."""
