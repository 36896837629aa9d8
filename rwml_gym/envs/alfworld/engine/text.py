"""What a game says: the text grammar that `grammar` has read, made into functions of the facts.

The order of a list, which variables may be the same thing, what is said of an empty list: all as in textworld's
``ContextSensitiveGrammar``. Two things differ. textworld evaluates its expressions as Python, whatever a game file has
in them; here they are names, attributes, strings, ``+`` and ``or``, and anything else is refused. And each placeholder
has one type in the whole grammar, which is checked, so that it can be known by its name.
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
"""Which entity each placeholder stands for."""


class World(Protocol):
    """What a text is written from. Entities are numbers, in the order of their ids."""

    @property
    def names(self) -> Sequence[str]:
        """What entities are called."""

    @property
    def ids(self) -> Sequence[str]:
        """Their ids, sorted."""

    @property
    def facts(self) -> Mapping[str, Collection[Row]]:
        """By predicate, the entities of which it holds."""

    @property
    def goal_sentence(self) -> str:
        """What `GOAL` stands for."""


Writer = Callable[[World, Binding], str]
Query = list[tuple[str, tuple[str, ...]]]


class Texts:
    """A grammar, ready to write.

    Attributes:
        queries: every (predicate, placeholders) that a text asks for; ``not_p`` asks for what was made untrue.
        predicates: those of the queries.
        placeholders: the type of each placeholder.
        commands: by action, what a player says to take it.
        feedback: by action, what the world answers.
        intro: the first thing the world says.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        """Makes the functions.

        Args:
            data: as `rwml_gym.envs.alfworld.engine.grammar.parse` returns it.

        Raises:
            InvalidGameError: an expression or a placeholder is beyond what this module knows.
        """
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
        """Whether the command of an action reads the same in every state of a game.

        Args:
            action: its name.
            fluents: the predicates that some action changes.
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
            raise InvalidGameError(f"No rule #{name}# of the text grammar applies; the game file is corrupt.")

        return write

    def _items(self, symbol: Sequence[Any]) -> Callable[[World, Binding], list[str]]:
        """One text for each way in which a query holds."""
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
                        f"Placeholder {name!r} of the text grammar is a {kind} and a {self.placeholders[name]}; "
                        'play this game with engine="textworld".'
                    )
        query = [(predicate, tuple(name for name, _ in placeholders)) for predicate, placeholders in data]
        self.queries += query
        return query


def _asked(symbols: Sequence[Any]) -> frozenset[str] | None:
    """The predicates that a command depends on; None if it goes through rules, which may ask for anything."""
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
    """The ways in which all of a query holds, each extending ``binding``; no two placeholders stand for one entity."""
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
    """An expression such as ``o.indefinite + ' ' + o.name``, as a function."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise InvalidGameError(f"The text grammar has an expression that cannot be read: {expression!r}.") from error
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
        f"The text grammar has the expression {ast.unparse(node)!r}, which is not evaluated: it could be any Python. "
        'Only if you trust the file, play it with engine="textworld".'
    )
