"""Parsing of a ``.twl2`` text grammar into plain data, with textworld's own parsers; `text` uses the data.

The data has only lists, strings and None, so that it can be stored as JSON::

    grammar = {"rules": {name: [[query, symbols], …]}, "actions": {name: {"command": symbols, "feedback": symbols}}}
    symbols = [symbol, …]
    symbol  = ["text", words] | ["rule", name] | ["value", expression] | ["each", symbol, query] | ["list", symbol]
    query   = None | [[predicate, [[placeholder, type], …]], …]

textworld's parsers are global objects, so a lock makes parsing thread-safe.
"""

from __future__ import annotations

import json
import re
import threading
from functools import cache
from importlib import metadata, resources
from typing import Any

from rwml_gym.storage.disk_cache import DiskCache, content_hash

__all__ = ["GOAL", "load", "parse", "without_goal"]

GOAL = "UNKNOWN GOAL"
"""Placeholder of the goal sentence in a grammar that many games share."""

FORMAT = "2"
"""Part of the key on disk: raise it when the data of `parse` changes its meaning."""

_lock = threading.Lock()
_disk = DiskCache("alfworld-grammars", files=1000)  # tidied apart from the translations


def without_goal(grammar: str) -> tuple[str, str]:
    """Remove the goal sentence from a game's grammar; the rest is the same for every game of a release.

    Returns:
        The grammar with `GOAL` in place of the sentence, and the sentence. If the sentence has more than plain words,
        which the parser might change, the unchanged grammar and `GOAL`.
    """
    parts = re.split(r'("rhs": "Your task is to: )([\w ,\'-]+)(\.")', grammar, flags=re.ASCII)
    if len(parts) != 5 or GOAL in grammar:
        return grammar, GOAL
    before, opening, goal, closing, after = parts
    return before + opening + GOAL + closing + after, goal


def load(grammar: str) -> dict[str, Any]:
    """Return a parsed grammar: alfworld's own are at hand, others are parsed once and kept on disk.

    Args:
        grammar: Text of a ``.twl2`` file.
    """
    known = _known().get(content_hash(grammar))
    if known is not None:
        return known
    return _disk.get((FORMAT, "textworld", metadata.version("textworld"), grammar), lambda: parse(grammar))


@cache
def _known() -> dict[str, Any]:
    """Return the grammars that ``benchmarks/generator/parse_grammars.py`` has parsed, by their hash."""
    return json.loads(resources.files("rwml_gym.envs.alfworld.engine").joinpath("grammars.json").read_text("utf-8"))


def parse(grammar: str) -> dict[str, Any]:
    """Parse a grammar; this takes about a second, half of it for the import of textworld.

    Args:
        grammar: Text of a ``.twl2`` file.

    Raises:
        Exception: Whatever textworld raises for a malformed text.
    """
    with _lock:
        return _parse(grammar)


def _parse(grammar: str) -> dict[str, Any]:
    from textworld.envs.pddl import logic
    from textworld.envs.pddl.logic.model import ActionGrammarNode, ActionTypeNode

    converter = logic._ModelConverter()
    sources: dict[str, list[dict[str, Any]]] = {}
    actions = {}
    for part in logic._PARSER.parse(grammar, rule_name="pddlStart").parts:
        if isinstance(part, ActionTypeNode):
            action = converter.walk(part)
            actions[action.name.lower()] = action
            lines = action.grammar.split("\n")
            sources.update(json.loads("\n".join(line for line in lines if not line.lstrip().startswith("#"))))
        elif isinstance(part, ActionGrammarNode):
            sources.update(json.loads(converter._unescape_block(part.code)))
    return {
        "rules": {
            name: [[_query(rule.get("condition")), _symbols(rule["rhs"])] for rule in alternatives]
            for name, alternatives in sources.items()
        },
        "actions": {
            name: {"command": _symbols(action.template), "feedback": _symbols(action.feedback_rule)}
            for name, action in actions.items()
        },
    }


def _symbols(template: str) -> list[Any]:
    from textworld.envs.pddl import textgen

    return [_symbol(symbol) for symbol in textgen._parse_and_convert(template, rule_name="symbols")]


def _symbol(symbol: Any) -> list[Any]:
    from textworld.envs.pddl import textgen

    if isinstance(symbol, textgen.TerminalSymbol):
        return ["text", str(symbol)]
    if isinstance(symbol, textgen.NonterminalSymbol):
        return ["rule", str(symbol)]
    if isinstance(symbol, textgen.EvalSymbol):
        return ["value", symbol.expression]
    if isinstance(symbol, textgen.ConditionalSymbol):
        return ["each", _symbol(symbol.expression), _query(symbol.given)]
    return ["list", _symbol(symbol.symbol)]


def _query(expression: str | None) -> list[Any] | None:
    from textworld.logic import Rule

    if not expression:
        return None
    return [
        [predicate.name, [[placeholder.name, placeholder.type] for placeholder in predicate.parameters]]
        for predicate in Rule.parse_conjunctive_query(expression).preconditions
    ]
