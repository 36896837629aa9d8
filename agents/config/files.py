"""Configurations as YAML files: any frozen dataclass of this package, nested ones included, out and in again."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import write_text

__all__ = ["changed", "flatten", "load_config", "read_yaml", "save_config"]

Config = TypeVar("Config")
_MAX_BYTES = 64 * 1024  # the largest preset takes 2,000
_FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")


class _Dumper(yaml.SafeDumper):
    """The safe dumper; outside double quotes, it would lose rare line breaks (NEL)."""

    def text(self, value: str) -> yaml.Node:
        """Represent a text, in double quotes and with escapes if it has a character that is not printable."""
        return self.represent_scalar("tag:yaml.org,2002:str", value, None if value.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.text)


# YAML 1.1 takes 1:30 for 90 and 010 for 8, as nobody means it.
_SURPRISING = re.compile(r".*:.*|[-+]?0[0-9_]+")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases, tags, repeated keys and odd numbers, which a configuration does not need."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few lines of them make gigabytes
            raise yaml.constructor.ConstructorError(None, None, "found an alias", self.peek_event().start_mark)
        event = self.peek_event()
        if tag := getattr(event, "tag", None):
            raise yaml.constructor.ConstructorError(None, None, f"found the tag {tag}", event.start_mark)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and _SURPRISING.fullmatch(node.value):
            problem = f"found {node.value}, which is a decimal number to nobody; write it so, or quote a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "found a key twice", node.start_mark)
        return mapping


for _side in (_Dumper, _Loader):
    # YAML 1.1 takes 1e-4, as anyone would write it, for a text.
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """Read plain YAML, or JSON, which YAML takes for something else now and then.

    Raises:
        ValueError: It is neither; the reason in one line.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        return yaml.load(text, Loader=_Loader)  # which is a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("found a key twice")
    return found


def save_config(config: Any, path: str | Path) -> None:
    """Write a configuration as YAML; the file is complete or not there at all.

    Args:
        config: A dataclass.
        path: The file.
    """
    # Through JSON, so that tuples become the lists that YAML has.
    content = json.loads(_adapter_of(cast(Hashable, type(config))).dump_json(config))
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    write_text(Path(path), text)


def flatten(config: Any) -> dict[str, float | str]:
    """Flatten a configuration to numbers and texts, with nested keys joined by dots.

    Args:
        config: A dataclass.
    """
    flat: dict[str, float | str] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            flat |= {f"{field.name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[field.name] = value if isinstance(value, int | float) else str(value)
    return flat


def load_config(cls: type[Config], path: str | Path) -> Config:
    """Read a configuration; fields that the file leaves out have their defaults.

    Args:
        cls: The dataclass.
        path: A YAML file of plain values: tags, aliases, keys that are given twice and numbers such as 1:30 or 010 are
            refused.

    Returns:
        The configuration, of the types that `cls` says: no text passes for a number.

    Raises:
        InvalidConfigError: The file cannot be read or does not fit; the message names it, each key that is wrong,
            what was expected there and what is there.
    """
    path = Path(path)
    return _validated(cls, _read(path), f"The configuration {str(path)!r}")


def changed(config: Config, changes: Mapping[str, Any], what: str) -> Config:
    """Return a configuration with other values, checked like those of a file.

    Args:
        config: A dataclass.
        changes: New values by dotted key, such as `sft.steps`.
        what: What the changes are, for the error.

    Raises:
        InvalidConfigError: A key or a value does not fit; the message names it, and the nearest key.
    """
    content = json.loads(_adapter_of(cast(Hashable, type(config))).dump_json(config))
    for key, value in changes.items():
        *outer, last = key.split(".")
        inner = content
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise InvalidConfigError(f"{what} does not fit: {key}: {name} holds no other keys.")
        inner[last] = value
    return _validated(type(config), content, what)


@cache  # building one takes longer than using it
def _adapter_of(cls: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, cls))


def _validated(cls: type[Config], content: Any, what: str) -> Config:
    try:
        # As JSON, where a list may stand for a tuple and a mapping for a dataclass, but nothing else for another.
        return _adapter_of(cast(Hashable, cls)).validate_json(
            json.dumps(content, default=str), strict=True, extra="forbid"
        )
    except ValidationError as error:
        problems = "; ".join(_problem(cls, details) for details in error.errors())
        raise InvalidConfigError(f"{what} does not fit: {problems}.") from error


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidConfigError(f"Cannot read the configuration {str(path)!r}: {error.strerror}.") from error
    if len(text) > _MAX_BYTES:
        raise InvalidConfigError(
            f"Expected a configuration of at most {_MAX_BYTES:,} bytes, actual: more, in {str(path)!r}. Is it another "
            "file?"
        )
    try:
        content = read_yaml(text.decode())
    except ValueError as error:
        raise InvalidConfigError(f"Expected plain YAML in the configuration {str(path)!r}: {error}.") from error
    return {} if content is None else content


def _problem(cls: type, details: ErrorDetails) -> str:
    """One wrong key: where, what is expected, what is there."""
    keys = [str(key) for key in details["loc"]]
    where, actual = ".".join(keys) or "the file", repr(details["input"])
    actual = actual if len(actual) <= 80 else f"{actual[:77]}…"
    if details["type"] == "unexpected_keyword_argument":
        names = _names(cls, keys[:-1])
        nearest = difflib.get_close_matches(keys[-1], names, 1)
        return f"{where}: unknown key; {f'did you mean {nearest[0]!r}?' if nearest else f'expected among {names}'}"
    if details["type"] == "value_error":  # what the dataclass itself says
        return f"{where}: {details['ctx']['error']}"
    if details["type"] in ("missing", "missing_argument"):
        return f"{where}: expected a value, actual: none"
    if details["type"] == "dataclass_type":
        return f"{where}: expected keys with values, actual: {actual}"
    return f"{where}: expected {details['msg'].removeprefix('Input should be ')}, actual: {actual}"


def _names(cls: type, keys: list[str]) -> list[str]:
    """List the fields of the dataclass that is found in `cls` at these keys."""
    for key in keys:
        hint = get_type_hints(cls)[key]
        cls = next(kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and is_dataclass(kind))
    return [field.name for field in fields(cls)]
