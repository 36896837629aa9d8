"""The tools of a τ²-bench domain as data: their JSON schemas, and the conversion of a call's arguments to them.

tau2 does not check arguments: it calls the tool and passes Python's error to the agent. Some of its tools store what
they get, so that ``3.0``, ``"3"`` or ``true`` in place of ``3`` loses the check of the database without a word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rwml_gym.envs.read_only import read_only
from rwml_gym.envs.tau2.literals import MAX_INTEGER, shortened

__all__ = ["ToolSpec", "UnfitArgumentsError", "specs_of"]

_KINDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_WHOLE_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,19})(?:\.0*)?\s*")
_BOOLEANS = {
    **dict.fromkeys(("0", "false", "no", "off", "f", "n"), False),
    **dict.fromkeys(("1", "true", "yes", "on", "t", "y"), True),
}
MAX_NUMBER = sys.float_info.max
_UNFIT = object()
"""What a converter returns for a value that its type does not hold."""


def _integer(value: Any) -> Any:
    """Convert what pydantic reads as an integer, which includes 2.0, "2" and true."""
    number: Any = _UNFIT
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    elif isinstance(value, str) and (match := _WHOLE_NUMBER.fullmatch(value)):
        number = int(match[1])
    return number if number is not _UNFIT and abs(number) <= MAX_INTEGER else _UNFIT


def _number(value: Any) -> Any:
    """Convert to a float: tau2 writes numbers into texts, where 2 and 2.0 differ."""
    fits = isinstance(value, int | float) and abs(value) <= MAX_NUMBER  # no NaN, and no integer too large for a float
    return float(value) if fits else _UNFIT


def _boolean(value: Any) -> Any:
    """Convert what pydantic reads as a truth value, which includes 0, 1 and "yes"."""
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return _BOOLEANS.get(value.lower(), _UNFIT) if isinstance(value, str) else _UNFIT


def _only(*types: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, types) else _UNFIT


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "string": _only(str),
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "array": _only(list),
    "object": _only(dict),
    "null": _only(type(None)),
}


class UnfitArgumentsError(ValueError):
    """The arguments of a call do not fit the tool; the message is for the agent."""


@dataclass(frozen=True)
class ToolSpec:
    """The description of a tool.

    Attributes:
        name: Name of the tool.
        description: Description for a model.
        parameters: Read-only JSON schema of the arguments, with properties in the order of positional arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of positional arguments."""
        return tuple(self.parameters.get("properties", ()))

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the required parameters."""
        return tuple(self.parameters.get("required", ()))

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool as read-only data for chat templates and OpenAI's interface; a deep copy can be changed."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return read_only({"type": "function", "function": function})

    def __deepcopy__(self, memo: dict[int, Any]) -> ToolSpec:
        """Return the description itself, which nobody can change."""
        return self

    def convert(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the arguments of a call to the types of the schema, nested ones too.

        The conversion is lenient where tau2's data models are: 2.0, "2" and true are the integers 2, 2 and 1, an
        integer is also a number, and an optional argument may be null. It is stricter than tau2 where its tools ignore
        their own schema: it rejects a value outside an enumeration, a fraction for an integer, or a non-text for a
        text, even if the tool would store it.

        Args:
            arguments: Values by parameter name; they stay as they are.

        Raises:
            UnfitArgumentsError: If they do not fit; the message is for the agent.

        >>> parameters = {"properties": {"user_id": {"type": "string"}, "bags": {"type": "integer"}}}
        >>> ToolSpec("get_user", "Get a user.", parameters).convert({"bags": "2.0"})
        {'bags': 2}
        """
        properties, definitions = self.parameters.get("properties", {}), self.parameters.get("$defs", {})
        try:
            self._check_names(arguments, properties)
            return {
                name: value
                if value is None and name not in self.required
                else _converted(value, properties[name], definitions, repr(name))
                for name, value in arguments.items()
            }
        except UnfitArgumentsError as error:
            raise UnfitArgumentsError(f"Error: {self.name}: {error}.") from None

    def _check_names(self, arguments: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
        missing = [name for name in self.required if name not in arguments]
        unknown = [name for name in arguments if name not in properties]
        if not missing and not unknown:
            return
        problems = [f"missing {_listed(missing)}"] if missing else []
        problems += [f"unexpected {_listed(unknown)}"] if unknown else []
        raise UnfitArgumentsError(f"{', '.join(problems)}; parameters: {', '.join(self.order) or 'none'}")


_specs_by_class: dict[type, dict[str, ToolSpec]] = {}


def specs_of(toolkit: Any) -> dict[str, ToolSpec]:
    """Describe the tools of a toolkit, in tau2's order; cached by class, because the first call takes milliseconds.

    Args:
        toolkit: A `tau2.environment.toolkit.ToolKitBase`, or any object with `get_tools`.
    """
    specs = _specs_by_class.get(type(toolkit))
    if specs is None:
        functions = [tool.openai_schema["function"] for tool in toolkit.get_tools().values()]
        specs = {f["name"]: ToolSpec(f["name"], f["description"], read_only(f["parameters"])) for f in functions}
        _specs_by_class[type(toolkit)] = specs
    return dict(specs)


def _converted(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> Any:
    """Convert a value. The recursion ends, because the schema's definitions are not recursive."""
    schema = _resolved(schema, definitions)
    if "anyOf" in schema:
        return _converted_to_any(value, _choices(schema["anyOf"], definitions), definitions, where)
    if "enum" in schema:
        if any(type(value) is type(choice) and value == choice for choice in schema["enum"]):
            return value
        raise _should_be(where, value, f"one of {', '.join(map(repr, schema['enum']))}")
    if "type" in schema:
        value, given = _CONVERTERS[schema["type"]](value), value
        if value is _UNFIT:
            raise _should_be(where, given, _kind(schema))
    if isinstance(value, list) and "items" in schema:
        return [_converted(item, schema["items"], definitions, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and "properties" in schema:
        return _converted_object(value, schema, definitions, where)
    return value


def _converted_to_any(value: Any, choices: list[Mapping[str, Any]], definitions: Mapping[str, Any], where: str) -> Any:
    """Convert a value to the first alternative that takes it as it is, otherwise to the first that takes it."""
    found, problems = [], []
    for choice in choices:
        try:
            found.append(_converted(value, choice, definitions, where))
        except UnfitArgumentsError as problem:
            problems.append(problem)
    if found:
        return next((converted for converted in found if type(converted) is type(value)), found[0])
    raise problems[0] if len(choices) == 1 else _should_be(where, value, " or ".join(map(_kind, choices)))


def _converted_object(
    value: dict[str, Any], schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str
) -> dict[str, Any]:
    properties = schema["properties"]
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        raise UnfitArgumentsError(f"{where} lacks {_listed(missing)}")
    if schema.get("additionalProperties") is False and (unknown := [name for name in value if name not in properties]):
        raise UnfitArgumentsError(f"{where} has unexpected {_listed(unknown)}")
    return {
        name: _converted(item, properties[name], definitions, f"{where}[{name!r}]") if name in properties else item
        for name, item in value.items()
    }


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    return definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _choices(schemas: list[Mapping[str, Any]], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Resolve alternatives. "A model or any object" means the model: tau2 converts the object to it, or fails."""
    choices = [_resolved(schema, definitions) for schema in schemas]
    if any("properties" in choice for choice in choices):
        choices = [choice for choice in choices if choice.get("type") != "object" or "properties" in choice]
    return choices


def _kind(schema: Mapping[str, Any]) -> str:
    return _KINDS.get(schema.get("type", ""), "another value")


def _should_be(where: str, value: Any, expected: str) -> UnfitArgumentsError:
    simple = value is None or isinstance(value, bool)
    if isinstance(value, dict | list):
        actual = _KINDS["object" if isinstance(value, dict) else "array"]
    else:
        actual = {None: "null", True: "true", False: "false"}[value] if simple else shortened(repr(value))
    return UnfitArgumentsError(f"{where} should be {expected}, not {actual}")


def _listed(names: list[str]) -> str:
    """List a few names, because an agent may send thousands."""
    return ", ".join(shortened(repr(name)) for name in names[:12]) + (", …" if len(names) > 12 else "")
