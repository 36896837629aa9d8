"""Right and wrong predictions of the schemas of tool results: the labelled pairs for the view `schema`.

Like `tool`, but what must be right is the form of a result and not its values. States are results in the view, such as
`tool: {"type": "object", "properties": {…}}`; texts that are not JSON are reworded and exchanged as in `tool`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from rwml_gym.diagnostics.perturbations.text import (
    Perturbation,
    Perturbations,
    Pool,
    json_result,
    shuffled_words,
)
from rwml_gym.diagnostics.perturbations.tool import TOOL_RESULTS
from rwml_gym.reward.views import is_schema, schema_view
from rwml_gym.transitions import Transition

__all__ = ["SCHEMAS"]

_VALUES: dict[str, tuple[Any, ...]] = {
    "string": ("", "#W2378156", "pending", "yusuf_rossi_9620"),
    "integer": (0, 1, 17),
    "number": (0.5, 46.95, 3.0),
    "boolean": (True, False),
    "null": (None,),
}
"""Some values of each type, for data of a schema."""


def _on_schema(change: Callable[[dict[str, Any], Pool, np.random.Generator], str | None]) -> Perturbation:
    """Make a rule for states that are a schema; the change returns `None` where it does not apply."""

    def perturb(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
        role, data = json_result(transition.next_state)
        state = transition.next_state.removeprefix(role)
        changed = change(data, pool, rng) if is_schema(state) else None
        return transition.next_state if changed is None else role + changed

    return perturb


def _sample(schema: dict[str, Any], rng: np.random.Generator) -> Any:
    """Make data for a schema, with one to three items of each type in a list, and two entries for names that vary."""
    if "anyOf" in schema:
        return _sample(schema["anyOf"][rng.integers(len(schema["anyOf"]))], rng)
    if schema.get("type") == "array":
        # Without an item of each type that a list may hold, its schema would be another.
        items = schema.get("items")
        options = [] if items is None else items.get("anyOf", [items])
        return [_sample(option, rng) for option in options for _ in range(1 + rng.integers(3))]
    if schema.get("type") == "object":
        fields = {name: _sample(of, rng) for name, of in schema.get("properties", {}).items()}
        entries = schema.get("additionalProperties")
        made = [] if entries is None else [(f"id_{rng.integers(1000, 10**7)}", _sample(entries, rng)) for _ in range(2)]
        names = list(fields)
        return {**{names[i]: fields[names[i]] for i in rng.permutation(len(names))}, **dict(made)}
    values = _VALUES.get(str(schema.get("type")), ("",))
    return values[rng.integers(len(values))]


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the properties of every object in a schema."""
    if isinstance(schema, dict):
        fields = schema.get("properties")
        if isinstance(fields, dict) and all(isinstance(of, dict) for of in fields.values()):
            yield fields
            for of in fields.values():
                yield from _objects(of)
        for name in ("items", "additionalProperties"):
            yield from _objects(schema.get(name))
        options = schema.get("anyOf")
        for option in options if isinstance(options, list) else ():
            yield from _objects(option)


def _filled(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str | None:
    made = json.dumps(_sample(data, rng))
    # Of a field with two types, one value may show only one: then its schema is another.
    return made if schema_view(made) == json.dumps(data, ensure_ascii=False) else None


def _reordered(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str | None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = list(value)
        return {names[i]: shuffled(value[names[i]]) for i in rng.permutation(len(names))}

    return json.dumps(shuffled(data), ensure_ascii=False, indent=2)


def _as_python(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str:
    return repr(data)


def _key_left_out(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str | None:
    objects = [of for of in _objects(data) if len(of) > 1]
    if not objects:
        return None
    chosen = objects[rng.integers(len(objects))]
    del chosen[list(chosen)[rng.integers(len(chosen))]]
    return json.dumps(data, ensure_ascii=False)


def _key_too_many(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str | None:
    objects = list(_objects(data))
    names = [name for name in _names(pool) if objects and not any(name in of for of in objects)]
    if not names:
        return None
    objects[rng.integers(len(objects))][names[rng.integers(len(names))]] = {"type": "string"}
    return json.dumps(data, ensure_ascii=False)


def _key_renamed(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str | None:
    objects = [of for of in _objects(data) if of]
    names = [name for name in _names(pool) if objects and not any(name in of for of in objects)]
    if not names:
        return None
    chosen = objects[rng.integers(len(objects))]
    chosen[names[rng.integers(len(names))]] = chosen.pop(list(chosen)[rng.integers(len(chosen))])
    return json.dumps(data, ensure_ascii=False)


def _wrong_type(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str | None:
    places = [(of, name) for of in _objects(data) for name in of if of[name].get("type") in _VALUES]
    if not places:
        return None
    of, name = places[rng.integers(len(places))]
    wrong = {"integer", "number"} if of[name]["type"] in ("integer", "number") else {of[name]["type"]}
    others = sorted(_VALUES.keys() - wrong)
    of[name] = {"type": others[rng.integers(len(others))]}
    return json.dumps(data, ensure_ascii=False)


def _wrapped(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str:
    """One level off: a list of what is meant, or an item in place of its list."""
    if data.get("type") == "array" and isinstance(data.get("items"), dict):
        return json.dumps(data["items"], ensure_ascii=False)
    return json.dumps({"type": "array", "items": data}, ensure_ascii=False)


def _flattened(data: dict[str, Any], pool: Pool, rng: np.random.Generator) -> str | None:
    """One of the objects or lists inside as a mere string."""
    places = [(of, name) for of in _objects(data) for name in of if of[name].get("type") in ("object", "array")]
    if not places:
        return None
    of, name = places[rng.integers(len(places))]
    of[name] = {"type": "string"}
    return json.dumps(data, ensure_ascii=False)


def _other_schema(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    others = [text for text in _schemas(pool) if text != transition.next_state]
    return others[rng.integers(len(others))] if others else transition.next_state


@lru_cache(maxsize=4)
def _schemas(pool: Pool) -> tuple[str, ...]:
    """Return the distinct schemas that any tool answered with."""
    return tuple(dict.fromkeys(text for states in pool.outcomes.values() for text in states if json_result(text)[1]))


@lru_cache(maxsize=4)
def _names(pool: Pool) -> tuple[str, ...]:
    """Return the names of fields in them; one of our own if there are none."""
    names = {name for text in _schemas(pool) for of in _objects(json_result(text)[1]) for name in of}
    return tuple(sorted(names)) or ("note",)


SCHEMAS = Perturbations(
    same={
        "values for types": _on_schema(_filled),
        "keys reordered": _on_schema(_reordered),
        "as Python writes it": _on_schema(_as_python),
        "reworded": TOOL_RESULTS.same["reworded"],
    },
    different={
        "key left out": _on_schema(_key_left_out),
        "key too many": _on_schema(_key_too_many),
        "key renamed": _on_schema(_key_renamed),
        "wrong type": _on_schema(_wrong_type),
        "string for what is inside": _on_schema(_flattened),
        "list for one, or one for a list": _on_schema(_wrapped),
        "cut off": TOOL_RESULTS.different["cut off"],
        "other schema": _other_schema,
        "error instead": TOOL_RESULTS.different["error instead"],
        "other error": TOOL_RESULTS.different["other error"],
        "shuffled words": shuffled_words,
    },
)
"""For results of tools in the view `schema`."""
