"""The texts of a game: functions of the facts, made from the text grammar that `grammar` has parsed.

The order of lists, which variables may be the same entity, and the text of an empty list are those of textworld's
``ContextSensitiveGrammar``. There are two differences. textworld evaluates the expressions of a game file as Python;
here only names, attributes, strings, ``+`` and ``or`` are allowed, and everything else is rejected. And each
placeholder must have the same type in the whole grammar, so that its name identifies it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from rwml_gym.envs.alfworld.engine.grammar import GOAL
from rwml_gym.errors import InvalidGameError

__all__ = ["Binding", "Texts", "World", "Writer"]

Row = tuple[int, ...]
Binding = Mapping[str, int]
"""The entity of each placeholder."""


class World(Protocol):
    """The data for texts. Entities are numbers, in the order of their ids."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the entities."""

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the entities, sorted."""

    @property
    def facts(self) -> Mapping[str, Collection[Row]]:
        """For each predicate, the rows of entities for which it holds."""

    @property
    def goal_sentence(self) -> str:
        """The sentence for `GOAL`."""


Writer = Callable[[World, Binding], str]
Query = list[tuple[str, tuple[str, ...]]]


class Texts:
    """A grammar that can write texts.

    Args:
        data: The data from `rwml_gym.envs.alfworld.engine.grammar.parse`.

    Attributes:
        queries: Every (predicate, placeholders) that a text uses; ``not_p`` finds what was made untrue.
        predicates: The predicates of the queries.
        placeholders: The type of each placeholder.
        commands: For each action, the writer of its command.
        feedback: For each action, the writer of the answer.
        intro: Writer of the first observation.

    Raises:
        InvalidGameError: If an expression or a placeholder is not supported.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.queries: Query = []
        self.placeholders: dict[str, str] = {}
        self._rules: dict[str, list[tuple[Query | None, Writer]]] = {}
        for name, alternatives in data["rules"].items():
            self._rules[name] = [(self._query(query), self._sequence(symbols)) for query, symbols in alternatives]
        self.commands = {name: self._sequence(action["command"]) for name, action in data["actions"].items()}
        self.feedback = {name: self._sequence(action["feedback"]) for name, action in data["actions"].items()}
        self.intro = self._rule("intro")
        self.predicates = frozenset(predicate for predicate, _ in self.queries)
        self._asked = {name: _asked(action["command"]) for name, action in data["actions"].items()}

    def is_static(self, action: str, fluents: Collection[str]) -> bool:
        """Return whether an action's command is the same in every state of a game.

        Args:
            action: Name of the action.
            fluents: The predicates that actions change.
        """
        asked = self._asked[action]
        return asked is not None and not asked.intersection(fluents)

    def _sequence(self, symbols: Sequence[Any]) -> Writer:
        writers = [self._symbol(symbol) for symbol in symbols]
        if len(writers) == 1:
            return writers[0]
        return lambda world, binding: "".join([write(world, binding) for write in writers])

    def _symbol(self, symbol: Sequence[Any]) -> Writer:
        kind = symbol[0]
        if kind == "text":
            words: str = symbol[1]
            if GOAL in words:
                return lambda world, binding: words.replace(GOAL, world.goal_sentence)
            return lambda world, binding: words
        if kind == "rule":
            return self._rule(symbol[1])
        if kind == "value":
            return _value(symbol[1])
        if kind == "each":
            items = self._items(symbol)
            return lambda world, binding: "".join(items(world, binding))
        return self._list(symbol[1])

    def _rule(self, name: str) -> Writer:
        def write(world: World, binding: Binding) -> str:
            for query, writer in self._rules.get(name, ()):
                if query is None or next(_solutions(world, query, binding), None) is not None:
                    return writer(world, binding)
            raise InvalidGameError(f"Expected a matching rule #{name}#, actual: none. Replace the corrupt game file.")

        return write

    def _items(self, symbol: Sequence[Any]) -> Callable[[World, Binding], list[str]]:
        """Return a function that writes one text for each solution of a query."""
        write, query = self._symbol(symbol[1]), self._query(symbol[2])
        if query is None:
            return lambda world, binding: [write(world, binding)]
        return lambda world, binding: [write(world, inner) for inner in _solutions(world, query, binding)]

    def _list(self, symbol: Sequence[Any]) -> Writer:
        items = self._items(symbol)
        empty, comma, last = (self._rule(f"list_{name}") for name in ("empty", "separator", "last_separator"))

        def write(world: World, binding: Binding) -> str:
            texts = items(world, binding)
            if not texts:
                return empty(world, binding)
            if len(texts) == 1:
                return texts[0]
            separator = comma(world, binding) if len(texts) > 2 else ""
            return separator.join(texts[:-1]) + last(world, binding) + texts[-1]

        return write

    def _query(self, data: Sequence[Any] | None) -> Query | None:
        if data is None:
            return None
        for _, placeholders in data:
            for name, kind in placeholders:
                if self.placeholders.setdefault(name, kind) != kind:
                    raise InvalidGameError(
                        f"Expected one type for placeholder {name!r} of the text grammar, actual: {kind} and "
                        f'{self.placeholders[name]}. Play this game with engine="textworld".'
                    )
        query = [(predicate, tuple(name for name, _ in placeholders)) for predicate, placeholders in data]
        self.queries += query
        return query


def _asked(symbols: Sequence[Any]) -> frozenset[str] | None:
    """Return the predicates that a command depends on; None if it uses rules, which may depend on anything."""
    asked: set[str] = set()
    for symbol in symbols:
        inner = symbol[1] if symbol[0] == "list" else symbol
        if inner[0] == "each":
            asked.update(predicate.removeprefix("not_") for predicate, _ in inner[2] or ())
            inner = inner[1]
        if inner[0] == "rule":
            return None
    return frozenset(asked)


def _solutions(world: World, query: Query, binding: Binding, depth: int = 0) -> Iterator[Binding]:
    """Yield the solutions of a query that extend ``binding``; no two placeholders may have the same entity."""
    if depth == len(query):
        yield binding
        return
    predicate, names = query[depth]
    rows = world.facts.get(predicate, ())
    known = [(position, binding[name]) for position, name in enumerate(names) if name in binding]
    if len(known) == len(names):
        if tuple([entity for _, entity in known]) in rows:
            yield from _solutions(world, query, binding, depth + 1)
        return
    for position, entity in known:
        rows = [row for row in rows if row[position] == entity]
    for row in sorted(rows):
        extended = _extend(binding, names, row)
        if extended is not None:
            yield from _solutions(world, query, extended, depth + 1)


def _extend(binding: Binding, names: tuple[str, ...], row: Row) -> Binding | None:
    extended = dict(binding)
    for name, entity in zip(names, row, strict=True):
        if name not in extended:
            if entity in extended.values():
                return None
            extended[name] = entity
        elif extended[name] != entity:
            return None
    return extended


def _value(expression: str) -> Writer:
    """Compile an expression such as ``o.indefinite + ' ' + o.name`` to a function."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise InvalidGameError(f"Expected an expression in the text grammar, actual: {expression!r}.") from error
    return _node(tree.body)


def _node(node: ast.expr) -> Writer:
    match node:
        case ast.Constant(value=str(words)):
            return lambda world, binding: words
        case ast.Name(id=variable) | ast.Attribute(value=ast.Name(id=variable), attr="name"):
            return lambda world, binding: world.names[binding[variable]]
        case ast.Attribute(value=ast.Name(id=variable), attr="id"):
            return lambda world, binding: world.ids[binding[variable]]
        case ast.Attribute(value=ast.Name(), attr="indefinite"):
            return lambda world, binding: "a"
        case ast.Attribute(value=ast.Name(), attr="definite"):
            return lambda world, binding: "the"
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            first, second = _node(left), _node(right)
            return lambda world, binding: first(world, binding) + second(world, binding)
        case ast.BoolOp(op=ast.Or(), values=values):
            options = [_node(value) for value in values]
            return lambda world, binding: (
                next((text for text in (option(world, binding) for option in options[:-1]) if text), "")
                or options[-1](world, binding)
            )
    raise InvalidGameError(
        f"Expected a simple expression in the text grammar, actual: {ast.unparse(node)!r}, which may run any Python. "
        'If you trust the file, play it with engine="textworld".'
    )
