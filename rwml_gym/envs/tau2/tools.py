"""The tools of a τ²-bench domain as data: their JSON schemas, and a check of a call's arguments against them.

tau2 does not check arguments: it calls the tool and passes Python's error to the agent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rwml_gym.envs.tau2.literals import shortened

__all__ = ["ToolSpec", "specs_of"]

_KINDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]+(?:\.0*)?\s*")
_BOOLEANS = frozenset({"0", "1", "false", "true", "no", "yes", "off", "on", "f", "t", "n", "y"})


def _is_integer(value: Any) -> bool:
    """Return whether pydantic reads the value as an integer, which includes 2.0, "2" and true."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) or (isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value) is not None)


def _is_boolean(value: Any) -> bool:
    """Return whether pydantic reads the value as a truth value, which includes 0, 1 and "yes"."""
    return (isinstance(value, int | float) and value in (0, 1)) or (
        isinstance(value, str) and value.lower() in _BOOLEANS
    )


_FITS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_integer,
    "number": lambda value: isinstance(value, int | float),
    "boolean": _is_boolean,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


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

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as plain data for chat templates and OpenAI's interface; pass it on unchanged."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def validate(self, arguments: Mapping[str, Any]) -> str | None:
        """Check the arguments of a call against the schema; return the error message for the agent, or None.

        The arguments are not converted. The check is lenient where tau2's data models are: a whole number may be 2.0,
        "2" or true, and an optional argument may be null. It is stricter than tau2 where its tools ignore their own
        schema: it rejects a value outside an enumeration, a fraction for an integer, or a non-text for a text, even if
        the tool would store it.

        Args:
            arguments: Values by parameter name.

        >>> parameters = {"properties": {"user_id": {"type": "string"}}, "required": ["user_id"]}
        >>> ToolSpec("get_user", "Get a user.", parameters).validate({"user_id": 7})
        "Error: get_user: 'user_id' should be a string, not 7."
        """
        properties = self.parameters.get("properties", {})
        problem = self._wrong_names(arguments, properties)
        for name, value in () if problem else arguments.items():
            if value is not None or name in self.required:
                problem = _problem(value, properties[name], self.parameters.get("$defs", {}), repr(name))
            if problem:
                break
        return f"Error: {self.name}: {problem}." if problem else None

    def _wrong_names(self, arguments: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
        missing = [name for name in self.required if name not in arguments]
        unknown = [name for name in arguments if name not in properties]
        if not missing and not unknown:
            return None
        problems = [f"missing {_listed(missing)}"] if missing else []
        problems += [f"unexpected {_listed(unknown)}"] if unknown else []
        return f"{', '.join(problems)}; parameters: {', '.join(self.order) or 'none'}"


_specs_by_class: dict[type, dict[str, ToolSpec]] = {}


def specs_of(toolkit: Any) -> dict[str, ToolSpec]:
    """Describe the tools of a toolkit, in tau2's order; cached by class, because the first call takes milliseconds.

    Args:
        toolkit: A `tau2.environment.toolkit.ToolKitBase`, or any object with `get_tools`.
    """
    specs = _specs_by_class.get(type(toolkit))
    if specs is None:
        functions = [tool.openai_schema["function"] for tool in toolkit.get_tools().values()]
        specs = {f["name"]: ToolSpec(f["name"], f["description"], f["parameters"]) for f in functions}
        _specs_by_class[type(toolkit)] = specs
    return dict(specs)


def _problem(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> str | None:
    """Describe the problem with a value. The recursion ends, because the schema's definitions are not recursive."""
    schema = _resolved(schema, definitions)
    if "anyOf" in schema:
        choices = _choices(schema["anyOf"], definitions)
        problems = [_problem(value, choice, definitions, where) for choice in choices]
        if None in problems:
            return None
        return problems[0] if len(choices) == 1 else _should_be(where, value, " or ".join(map(_kind, choices)))
    if "enum" in schema:
        fits = any(type(value) is type(choice) and value == choice for choice in schema["enum"])
        return None if fits else _should_be(where, value, f"one of {', '.join(map(repr, schema['enum']))}")
    if "type" in schema and not _FITS[schema["type"]](value):
        return _should_be(where, value, _kind(schema))
    if isinstance(value, list) and "items" in schema:
        found = (_problem(item, schema["items"], definitions, f"{where}[{i}]") for i, item in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(value, dict) and "properties" in schema:
        return _problem_of_object(value, schema, definitions, where)
    return None


def _problem_of_object(
    value: dict[str, Any], schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str
) -> str | None:
    properties = schema["properties"]
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{where} lacks {_listed(missing)}"
    if schema.get("additionalProperties") is False and (unknown := [name for name in value if name not in properties]):
        return f"{where} has unexpected {_listed(unknown)}"
    for name in properties.keys() & value.keys():
        if problem := _problem(value[name], properties[name], definitions, f"{where}[{name!r}]"):
            return problem
    return None


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


def _should_be(where: str, value: Any, expected: str) -> str:
    simple = value is None or isinstance(value, bool)
    if isinstance(value, dict | list):
        actual = _KINDS["object" if isinstance(value, dict) else "array"]
    else:
        actual = {None: "null", True: "true", False: "false"}[value] if simple else shortened(repr(value))
    return f"{where} should be {expected}, not {actual}"


def _listed(names: list[str]) -> str:
    """List a few names, because an agent may send thousands."""
    return ", ".join(shortened(repr(name)) for name in names[:12]) + (", …" if len(names) > 12 else "")
