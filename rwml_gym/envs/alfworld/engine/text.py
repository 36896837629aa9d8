"""The texts of a game: functions of the facts, made from the text grammar that `grammar` has parsed.

The order of lists, which variables may be the same entity, and the text of an empty list are those of textworld's
``ContextSensitiveGrammar``. There are two differences. textworld evaluates the expressions of a game file as Python;
here only names, attributes, strings, ``+`` and ``or`` are allowed, and everything else is rejected. And each
placeholder must have the same type in the whole grammar, so that its name identifies it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from rwml_gym.envs.alfworld.engine.grammar import GOAL
from rwml_gym.errors import InvalidGameError

__all__ = ["Binding", "Row", "Texts", "World", "Writer", "own_facts"]

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


def own_facts(facts: Mapping[str, set[Row]], fluents: Collection[str]) -> dict[str, set[Row]]:
    """Return the facts for a play of its own: copies of those that actions change, the others shared."""
    return {p: set(rows) if p.removeprefix("not_") in fluents else rows for p, rows in facts.items()}


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
        used: For each action, the placeholders that its command names; those of rules are not among them.

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
        self.used = {name: frozenset(_used(action["command"])) for name, action in data["actions"].items()}

    def check_types(
        self,
        signatures: Mapping[str, Collection[tuple[str, ...]]],
        types: Mapping[str, Collection[str]],
        parameters: Mapping[str, Iterable[tuple[str, str]]],
    ) -> None:
        """Check that a query finds its facts by their predicate alone, without types.

        textworld finds facts by predicate and types. If each predicate has the same types everywhere, and each
        placeholder of a query and each parameter of an action fits them, the result is the same.

        Args:
            signatures: The types with which each predicate occurs in a game.
            types: The supertypes of each type.
            parameters: The parameters of each action with their types.

        Raises:
            InvalidGameError: If textworld would find other facts.
        """
        for predicate, placeholders in self.queries:
            found = signatures.get(predicate.removeprefix("not_"), ())
            fits = all(
                kind == self.placeholders[placeholder] or self.placeholders[placeholder] in types.get(kind, ())
                for signature in found
                for placeholder, kind in zip(placeholders, signature, strict=False)
            )
            if len(found) > 1 or not fits:
                raise InvalidGameError(
                    f"Expected the text grammar's types of {placeholders} for {predicate!r}, actual: {sorted(found)}. "
                    'Play this game with engine="textworld".'
                )
        for action, named in parameters.items():
            for name, kind in named:
                wanted = self.placeholders.get(name, kind)
                if kind != wanted and kind in types:
                    raise InvalidGameError(
                        f"Expected parameter {name!r} of action {action!r} to be a {wanted}, as in the text grammar, "
                        f'actual: {kind}. Play this game with engine="textworld".'
                    )

    def check_commands(self, actions: Iterable[str], fluents: Collection[str]) -> None:
        """Check that the commands of actions are the same in every state of a game.

        Args:
            actions: Names of actions.
            fluents: The predicates that actions change.

        Raises:
            InvalidGameError: If a command may change.
        """
        for action in actions:
            asked = self._asked[action]
            if asked is None or asked.intersection(fluents):
                raise InvalidGameError(
                    f'Expected a constant command, actual: action {action!r}. Play this game with engine="textworld".'
                )

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
                if query is None or _solutions(world, query, binding):
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


def _used(symbols: Sequence[Any]) -> Iterator[str]:
    """Yield the placeholders in a command."""
    for symbol in symbols:
        if symbol[0] == "value":
            yield from (node.id for node in ast.walk(ast.parse(symbol[1].strip())) if isinstance(node, ast.Name))
        elif symbol[0] == "each":
            yield from _used([symbol[1]])
            yield from (name for _, placeholders in symbol[2] or () for name, _ in placeholders)
        elif symbol[0] == "list":
            yield from _used([symbol[1]])


def _solutions(world: World, query: Query, binding: Binding) -> list[Binding]:
    """Return the solutions of a query that extend ``binding``; no two placeholders may have the same entity."""
    found = [binding]
    for predicate, names in query:
        rows = world.facts.get(predicate, ())
        if not rows:
            return []
        known = [(position, name) for position, name in enumerate(names) if name in found[0]]
        if len(known) == len(names):
            found = [each for each in found if tuple([each[name] for name in names]) in rows]
        else:
            new = [(position, name) for position, name in enumerate(names) if name not in found[0]]
            found = [
                longer for each in found for row in _matching(rows, known, each) for longer in _longer(each, new, row)
            ]
        if not found:
            return []
    return found


def _matching(rows: Collection[Row], known: Sequence[tuple[int, str]], binding: Binding) -> list[Row]:
    for position, name in known:
        entity = binding[name]
        rows = [row for row in rows if row[position] == entity]
    return sorted(rows)


def _longer(binding: Binding, new: Sequence[tuple[int, str]], row: Row) -> tuple[Binding, ...]:
    """Return the binding with the entities of a row; nothing if this would give one entity to two placeholders."""
    longer = dict(binding)
    for position, name in new:
        entity = row[position]
        if name in longer:  # twice in one atom
            if longer[name] != entity:
                return ()
        elif entity in longer.values():
            return ()
        longer[name] = entity
    return (longer,)


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
