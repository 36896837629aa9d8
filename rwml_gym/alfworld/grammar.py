"""textworld's context-sensitive grammar, with every template parsed once instead of at every use.

The stock grammar parses templates and conditions with TatSu and deep-copies contexts at each derivation, which is nine
tenths of a step. The symbols it parses to are read here without ever being changed, so they can be shared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from textworld.envs.pddl import logic as pddl_logic
from textworld.envs.pddl import textgen
from textworld.envs.pddl.logic.model import ActionGrammarNode, ActionTypeNode
from textworld.logic import Rule

__all__ = ["Grammar", "Logic"]

Context = dict[str, Any]
Bound = tuple[textgen.Symbol, Context]


@lru_cache(maxsize=4096)
def parse_template(text: str) -> tuple[textgen.Symbol, ...]:
    """Parses a text template into symbols; they are shared, so nobody may change them."""
    return tuple(textgen._parse_and_convert(text, rule_name="symbols"))


@lru_cache(maxsize=4096)
def parse_query(expression: str) -> Rule:
    """Parses a condition such as ``openable(r:receptacle) & opened(r:receptacle)``."""
    return Rule.parse_conjunctive_query(expression)


@lru_cache(maxsize=4096)
def _compile(expression: str) -> Any:
    return compile(expression.strip(), "<grammar>", "eval")


class Grammar(textgen.ContextSensitiveGrammar):
    """A drop-in `ContextSensitiveGrammar`: the same text, without parsing or deep copies at each derivation."""

    @classmethod
    def from_rules(cls, rules: dict[str, list[dict[str, Any]]]) -> Grammar:
        """Makes a grammar from the JSON of a game: ``{symbol: [{"rhs": template, "condition": query}, …]}``."""
        grammar = cls()
        for name, alternatives in rules.items():
            for rule in alternatives:
                grammar.add_rule(
                    textgen.ProductionRule(name, list(parse_template(rule["rhs"])), condition=rule.get("condition", ""))
                )
        return grammar

    def derive(self, start: str, context: Context | None = None) -> str:
        """Expands a template to text.

        Args:
            start: the template, such as ``#GotoLocation.feedback#``.
            context: ``state``, ``variables``, ``mapping`` and ``entity_infos``, as in textworld.
        """
        stack: list[Bound] = [(symbol, context or {}) for symbol in reversed(parse_template(start))]
        text = []
        while stack:
            symbol, context = stack.pop()
            if isinstance(symbol, textgen.TerminalSymbol):
                text.append(str(symbol))
            else:
                stack.extend(reversed(self._expand(symbol, context)))
        return "".join(text)

    def _expand(self, symbol: textgen.Symbol, context: Context) -> list[Bound]:
        if isinstance(symbol, textgen.NonterminalSymbol):
            return [(part, context) for part in self._applicable_rule(symbol, context).rhs]
        if isinstance(symbol, textgen.EvalSymbol):
            value = eval(_compile(symbol.expression), {}, context["variables"])
            return [(textgen.TerminalSymbol(value), context)]
        if isinstance(symbol, textgen.ConditionalSymbol):
            return [(symbol.expression, inner) for inner in _matches(symbol.given, context)]
        if isinstance(symbol, textgen.ListSymbol):
            return _enumerate(self._expand(symbol.symbol, context), context)
        raise NotImplementedError(f"Unknown symbol: {type(symbol)}")

    def _applicable_rule(self, symbol: textgen.NonterminalSymbol, context: Context) -> textgen.ProductionRule:
        rules = self._rules.get(str(symbol))
        if not rules:
            raise textgen.CSGUnknownSymbolError(symbol)
        for rule in rules:
            if not rule.condition or next(_assignments(rule.condition, context), None) is not None:
                return rule
        raise IndexError(f"no rule of #{symbol}# applies")


def is_static(template: str, fluents: frozenset[str]) -> bool:
    """Says whether a command template reads the same in every state of a game.

    Args:
        template: the template of an action.
        fluents: the predicates that some action changes.
    """

    def unchanging(symbol: textgen.Symbol) -> bool:
        if isinstance(symbol, textgen.ListSymbol):
            return unchanging(symbol.symbol)
        if isinstance(symbol, textgen.ConditionalSymbol):
            query = parse_query(symbol.given).preconditions if symbol.given else ()
            asked = {predicate.name.removeprefix("not_") for predicate in query}
            return not asked & fluents and unchanging(symbol.expression)
        return isinstance(symbol, textgen.TerminalSymbol | textgen.EvalSymbol)

    return all(unchanging(symbol) for symbol in parse_template(template))


class Logic(pddl_logic.GameLogic):
    """The actions and the grammar of a game; stock parses the grammar's JSON a second time to get there."""

    def __init__(self, domain: str, grammar: str) -> None:
        """Parses the text of a ``.twl2`` grammar."""
        self.domain = domain
        self.types = pddl_logic.textworld.logic.TypeHierarchy()
        self.actions = {}
        converter = pddl_logic._ModelConverter()
        rules: dict[str, list[dict[str, Any]]] = {}
        for part in pddl_logic._PARSER.parse(grammar, rule_name="pddlStart").parts:
            if isinstance(part, ActionTypeNode):
                action = converter.walk(part)
                self.actions[action.name.lower()] = action
                lines = action.grammar.split("\n")
                rules.update(json.loads("\n".join(line for line in lines if not line.lstrip().startswith("#"))))
            elif isinstance(part, ActionGrammarNode):
                rules.update(json.loads(converter._unescape_block(part.code)))
        self.grammar = Grammar.from_rules(rules)


def _assignments(query: str, context: Context) -> Iterator[dict[Any, Any]]:
    return iter(context["state"].all_assignments(parse_query(query), context["mapping"]))


def _matches(query: str, context: Context) -> list[Context]:
    """One context for each way in which the query holds in the state, in the order of the facts' names."""
    if not query:
        return [context]
    entities = context["entity_infos"]
    contexts = []
    for mapping in _assignments(query, context):
        named = {placeholder.name: entities[variable.name] for placeholder, variable in mapping.items()}
        contexts.append(
            {
                **context,
                "variables": {**context["variables"], **named},
                "mapping": {**context["mapping"], **mapping},
            }
        )
    return contexts


def _enumerate(items: list[Bound], context: Context) -> list[Bound]:
    """Puts the grammar's separators between the items: ``a, b, and c``."""
    if not items:
        return [(textgen.NonterminalSymbol("list_empty"), context)]
    bound = [items[0]]
    for item in items[1:-1]:
        bound += [(textgen.NonterminalSymbol("list_separator"), context), item]
    if len(items) > 1:
        bound += [(textgen.NonterminalSymbol("list_last_separator"), context), items[-1]]
    return bound
