"""Views of a state: how much of it is predicted and compared.

The schema view is the paper's target for results of tools (arXiv 2602.05842): values cannot be known before a tool is
called, the form of its answer can. JSON is replaced by its schema as OpenAPI writes it, and other text stays as it is::

    {"customer_id": "C1001", "lines": [{"active": true}]}
    {"type": "object", "properties": {"customer_id": {"type": "string"}, "lines": {"type": "array", "items": …}}}

To add a view, add an entry to `VIEWS`: rewards, calibration, audit, configurations and the command line read it there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from rwml_gym.checks import one_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import TOOL_ROLE
from rwml_gym.reward.nuisance import without_nuisance
from rwml_gym.transitions import Transition

__all__ = [
    "MANY_NAMES",
    "MAX_DEPTH",
    "VIEWS",
    "ViewName",
    "check_view",
    "in_view",
    "is_schema",
    "schema_view",
    "view_in_words",
]

MAX_DEPTH = 64
"""Levels of objects and lists that are read; JSON with more stays the text that it is. Results of τ²-bench have 6."""

MANY_NAMES = 16
"""From so many names on, an object whose values are all alike is a table of values, not a record."""

_ID_DIGITS = 3
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_TYPES = {*_SCALARS.values(), "object", "array"}


def schema_view(text: str) -> str:
    """Return the schema of a JSON text as canonical JSON; text that is not JSON stays as it is.

    - *Values* become their types: `string`, `integer`, `number`, `boolean`, `null`.
    - *Objects* keep their names, sorted. The order and the layout of the text do not count.
    - *Lists* have one schema for all items. Objects among them are merged by their names, other types that differ
      become `anyOf`, sorted; `number` covers `integer`. Neither the number of items nor their order remains, except
      that an empty list has no `items`.
    - *Names that are values* become `additionalProperties`, with one schema for all. A name is a value if it has three
      digits or more (`gift_card_7504069`), or digits and no letter (`2024-05-16`). If an object has `MANY_NAMES` other
      names or more and all their values have the same schema (products by name), these names are values, too.
    - *A schema stays a schema*: JSON that has the form of what this function returns is only put in its canonical form.
      So `schema_view(schema_view(text)) == schema_view(text)`, and a predicted schema can be compared with a predicted
      value. A value of that form, such as `{"type": "string"}`, is taken as a schema.
    - *No JSON*: text that is not JSON by its standard (NaN, single quotes, cut off), or deeper than `MAX_DEPTH`. Of a
      name that occurs twice the last value counts, as in most parsers.

    The time is linear in the length of the text.

    >>> schema_view('{"id": "#W1", "prices": [9.5, 12], "paid": null}')  # doctest: +NORMALIZE_WHITESPACE
    '{"type": "object", "properties": {"id": {"type": "string"}, "paid": {"type": "null"},
      "prices": {"type": "array", "items": {"type": "number"}}}}'
    >>> schema_view("Error: Order not found")
    'Error: Order not found'
    """
    try:
        data = _parsed(text)
        shape = _read(data, 1) or _shape_of(data, 1)
    except (ValueError, RecursionError):  # no JSON, or deeper than the parser goes and so than `MAX_DEPTH`
        return text
    return json.dumps(_written(shape), ensure_ascii=False)


def is_schema(text: str) -> bool:
    """Return whether a text has the form of what `schema_view` makes of JSON."""
    try:
        return _read(_parsed(text), 1) is not None
    except (ValueError, RecursionError):
        return False


VIEWS: dict[str, Callable[[str], str]] = {
    "raw": lambda text: text,
    "schema": schema_view,
    "without-nuisance": without_nuisance,
}
"""Every view by name: a function of the state's text. `raw` is the text itself, and `without-nuisance` lets arbitrary
parts pass, see `nuisance`."""

# A type checker cannot read names from a dictionary; the command line and the run-time checks can.
if TYPE_CHECKING:
    ViewName = str
else:
    ViewName = Literal[tuple(VIEWS)]


def view_in_words(view: ViewName) -> str:
    """Return what a distance is of, to be said behind its name, with a blank before it; nothing for the text itself.

    >>> view_in_words("schema"), view_in_words("without-nuisance"), view_in_words("raw")
    (' of the schema', ' without nuisance', '')
    """
    return {"raw": "", "without-nuisance": " without nuisance"}.get(view, f" of the {view}")


def in_view(transitions: Iterable[Transition], view: ViewName) -> list[Transition]:
    """Return transitions whose next states, where they are results of tools, are in a view; histories stay as they are.

    Args:
        transitions: Recorded transitions.
        view: A name in `VIEWS`.
    """
    start = f"{TOOL_ROLE}: "

    def viewed(text: str) -> str:
        role = start if text.startswith(start) else ""
        return role + VIEWS[view](text.removeprefix(start))

    return [replace(t, next_state=viewed(t.next_state)) if t.role == TOOL_ROLE else t for t in transitions]


def check_view(transitions: Collection[Transition], view: ViewName) -> None:
    """Raise `InvalidConfigError` if a view is unknown, or would change nothing: if there are no results of tools."""
    one_of("`view`", view, VIEWS)
    if view != "raw" and not any(transition.role == TOOL_ROLE for transition in transitions):
        raise InvalidConfigError(
            f"Expected results of tools (role {TOOL_ROLE!r}) for the view {view!r}, actual: none in "
            f"{len(transitions)} transitions. Use the view 'raw' for worlds without tools, such as ALFWorld."
        )


@dataclass
class _Shape:
    """What the values at one place have in common: their types, and what is inside objects and lists."""

    types: set[str] = field(default_factory=set)
    fields: dict[str, _Shape] = field(default_factory=dict)
    entries: _Shape | None = None  # the values of an object whose names are values
    items: _Shape | None = None

    def add(self, other: _Shape) -> None:
        """Take in another value's shape, which must not be used afterwards."""
        self.types |= other.types
        for name, shape in other.fields.items():
            self.fields[name] = _union(self.fields.get(name), shape)
        self.entries = _union(self.entries, other.entries) if other.entries else self.entries
        self.items = _union(self.items, other.items) if other.items else self.items


def _union(a: _Shape | None, b: _Shape) -> _Shape:
    if a is None:
        return b
    a.add(b)
    return a


def _union_of(shapes: Iterable[_Shape]) -> _Shape | None:
    found: _Shape | None = None
    for shape in shapes:
        found = _union(found, shape)
    return found


def _parsed(text: str) -> Any:
    # Numbers are not converted: only their type counts, and Python refuses integers of 5,000 digits.
    return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_refuse)


def _integer(digits: str) -> int:
    return 0


def _number(digits: str) -> float:
    return 0.0


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _shape_of(value: Any, depth: int) -> _Shape:
    if isinstance(value, dict | list) and depth > MAX_DEPTH:
        raise ValueError("deeper than is read")
    if isinstance(value, list):
        return _Shape({"array"}, items=_union_of(_shape_of(item, depth + 1) for item in value))
    if not isinstance(value, dict):
        return _Shape({_SCALARS[type(value)]})
    shapes = {name: _shape_of(item, depth + 1) for name, item in value.items()}
    fields = {name: shape for name, shape in shapes.items() if not _is_id(name)}
    first = next(iter(fields.values()), None)
    if len(fields) >= MANY_NAMES and all(shape == first for shape in fields.values()):
        fields = {}
    return _Shape({"object"}, fields, _union_of(shape for name, shape in shapes.items() if name not in fields))


def _is_id(name: str) -> bool:
    digits = sum(map(str.isdigit, name))
    return digits >= _ID_DIGITS or (digits > 0 and not any(map(str.isalpha, name)))


def _read(data: Any, depth: int) -> _Shape | None:
    """Read data that has the form of a schema; `None` for any other."""
    if depth > MAX_DEPTH or not isinstance(data, dict):
        return None
    if data.keys() == {"anyOf"}:
        options = data["anyOf"]
        if not isinstance(options, list) or not options:
            return None
        return _all_read([_read(option, depth + 2) for option in options])
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        return None
    inside = data.keys() - {"type"}
    shape = _Shape({kind})
    if kind == "array" and inside == {"items"}:
        shape.items = _read(data["items"], depth + 1)
        return shape if shape.items else None
    if kind == "object" and inside <= {"properties", "additionalProperties"}:
        properties = data.get("properties", {})
        if not isinstance(properties, dict):
            return None
        for name, of in properties.items():
            found = _read(of, depth + 2)
            if found is None:
                return None
            shape.fields[name] = found
        if "additionalProperties" in inside:
            shape.entries = _read(data["additionalProperties"], depth + 1)
            return shape if shape.entries else None
        return shape
    return None if inside else shape


def _all_read(shapes: list[_Shape | None]) -> _Shape | None:
    read = [shape for shape in shapes if shape is not None]
    return _union_of(read) if len(read) == len(shapes) else None


def _written(shape: _Shape) -> dict[str, Any]:
    types = shape.types - {"integer"} if "number" in shape.types else shape.types
    options: list[dict[str, Any]] = []
    for kind in sorted(types):
        option: dict[str, Any] = {"type": kind}
        if kind == "array" and shape.items:
            option["items"] = _written(shape.items)
        if kind == "object":
            if shape.fields:
                option["properties"] = {name: _written(shape.fields[name]) for name in sorted(shape.fields)}
            if shape.entries:
                option["additionalProperties"] = _written(shape.entries)
        options.append(option)
    return options[0] if len(options) == 1 else {"anyOf": options}
