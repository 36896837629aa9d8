"""Reads a ``.twl2`` text grammar into plain data, with textworld's own parsers; `text` uses it.

The data, made of lists, strings and None alone, so that it can be kept as JSON::

    grammar = {"rules": {name: [[query, symbols], …]}, "actions": {name: {"command": symbols, "feedback": symbols}}}
    symbols = [symbol, …]
    symbol  = ["text", words] | ["rule", name] | ["value", expression] | ["each", symbol, query] | ["list", symbol]
    query   = None | [[predicate, [[placeholder, type], …]], …]

textworld's parsers are global objects: a lock makes reading safe from several threads.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

__all__ = ["GOAL", "parse", "without_goal"]

GOAL = "UNKNOWN GOAL"
"""Stands for the goal sentence in a grammar that many games share."""

_lock = threading.Lock()


def without_goal(grammar: str) -> tuple[str, str]:
    """Takes the goal sentence out of a game's grammar: the rest is the same for every game of a release.

    Returns:
        The grammar with `GOAL` in its place, and the sentence; or the grammar as it is and `GOAL`, unless the sentence
        is of plain words, which the parser leaves as they are.
    """
    parts = re.split(r'("rhs": "Your task is to: )([\w ,\'-]+)(\.")', grammar, flags=re.ASCII)
    if len(parts) != 5 or GOAL in grammar:
        return grammar, GOAL
    before, opening, goal, closing, after = parts
    return before + opening + GOAL + closing + after, goal


def parse(grammar: str) -> dict[str, Any]:
    """Parses a grammar; about a second, half of it the import of textworld.

    Args:
        grammar: the text of a ``.twl2`` file.

    Raises:
        Exception: whatever textworld raises where the text is malformed.
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
