"""Queries: which entities meet a condition in the present state, found by looking facts up and without grounding.

A *row* is a tuple of entities in which each variable of a condition has a fixed place; the constants of a domain come
first. A query starts with one row and takes *steps*: each looks a literal up by the entities that are known already,
and extends the rows by the others. Queries that begin with the same steps share them, so they form a tree (`Node`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from operator import itemgetter
from typing import Any, NamedTuple

from rwml_gym.envs.alfworld.engine.pddl import Condition, Domain, Literal, UnsupportedPDDL
from rwml_gym.envs.alfworld.engine.text import Row

__all__ = ["Getter", "Index", "Key", "Node", "Rows", "Step", "getter", "index", "plan", "update"]

Rows = list[Row]
Key = tuple[str, tuple[int, ...]]
"""A predicate, and the positions by which its facts are looked up."""
Index = Mapping[Any, Collection[Row]]
"""The other entities of the facts of a predicate, by the entities at the positions of a `Key`.

One entity stands for itself, several are a tuple.
"""


Getter = Callable[[Row], Any]


class Step(NamedTuple):
    """The lookup of one literal.

    Attributes:
        key: What it is looked up by.
        places: The places of these entities in a row.
        adds: How many entities it adds to a row; if none, it only leaves rows out.
        negated: Whether the rows stay that are not found.
    """

    key: Key
    places: tuple[int, ...]
    adds: int
    negated: bool


class Node:
    """A step, and the steps that follow it in some queries.

    Args:
        step: The step; None at the root.
        is_fluent: Whether actions change what it looks up.

    Attributes:
        step: As given.
        key: What the step is looked up by.
        advance: Takes the step: from the rows before it, and the facts by the key, to the rows after it.
        is_fluent: As given.
        results: The queries that are answered here, as numbers.
    """

    def __init__(self, step: Step | None = None, is_fluent: bool = False) -> None:
        self.step = step
        self.key: Key = step.key if step else ("", ())
        self.is_fluent = is_fluent
        self.results: list[int] = []
        self.advance: Callable[[Rows, Index], Rows] = self._rest
        if step is not None and not step.adds:
            self.advance = self._without if step.negated else self._within
        self._children: dict[Step, Node] = {}
        self._entities = getter(step.places) if step else _nothing

    @cached_property
    def has_block(self) -> bool:
        """Whether commands follow from rows here and facts that never change."""
        return bool(self.results or self.constant)

    @cached_property
    def constant(self) -> list[Node]:
        """What follows and looks up nothing that actions change, nor does what follows it."""
        return [child for child in self._children.values() if not child._is_changing]

    @cached_property
    def changing(self) -> list[Node]:
        """What follows besides."""
        return [child for child in self._children.values() if child._is_changing]

    @cached_property
    def next(self) -> list[tuple[Node, Key, Callable[[Rows, Index], Rows]]]:
        """The nodes of `changing`, with what they are looked up by and how to take their steps."""
        return [(child, child.key, child.advance) for child in self.changing]

    def walk(self) -> Iterator[Node]:
        """Yield this node and all that follow."""
        yield self
        for child in self._children.values():
            yield from child.walk()

    @cached_property
    def fluents(self) -> frozenset[str]:
        """The predicates that actions change and that are looked up here or in what follows."""
        own = {self.key[0]} if self.is_fluent else set()
        return frozenset(own.union(*(child.fluents for child in self._children.values())))

    @cached_property
    def _is_changing(self) -> bool:
        return bool(self.fluents)

    def add(self, steps: Sequence[Step], result: int, fluents: Collection[str]) -> None:
        """Add a query to the tree whose root this is."""
        if not steps:
            self.results.append(result)
            return
        child = self._children.setdefault(steps[0], Node(steps[0], steps[0].key[0] in fluents))
        child.add(steps[1:], result, fluents)

    # Each takes the rows before the step and the facts by the step's key.

    def _rest(self, rows: Rows, index: Index) -> Rows:
        entities = self._entities
        return [(*row, *rest) for row in rows for rest in index.get(entities(row), ())]

    def _within(self, rows: Rows, index: Index) -> Rows:
        entities = self._entities
        return [row for row in rows if entities(row) in index]

    def _without(self, rows: Rows, index: Index) -> Rows:
        entities = self._entities
        return [row for row in rows if entities(row) not in index]


def index(facts: Iterable[Row], positions: tuple[int, ...]) -> dict[Any, set[Row]]:
    """Index the facts of a predicate by the entities at some positions."""
    found: dict[Any, set[Row]] = {}
    known = getter(positions)
    for row in facts:
        rest = tuple([entity for position, entity in enumerate(row) if position not in positions])
        entities = known(row)
        if entities in found:
            found[entities].add(rest)
        else:
            found[entities] = {rest}
    return found


def update(index: dict[Any, set[Row]], row: Row, positions: tuple[int, ...], removed: bool) -> None:
    """Add a fact to an index by some positions, or remove it."""
    known = getter(positions)(row)
    rest = tuple([entity for position, entity in enumerate(row) if position not in positions])
    if not removed:
        index.setdefault(known, set()).add(rest)
    elif index[known] == {rest}:
        del index[known]
    else:
        index[known].discard(rest)


def plan(
    condition: Condition, domain: Domain, constants: Sequence[str], first: str | None = None
) -> tuple[list[Step], dict[str, int]]:
    """Return the steps that answer a condition, and the place of each variable in a row.

    Args:
        condition: The condition.
        domain: Its domain.
        constants: The entities that a row starts with.
        first: The variable to begin with.

    Raises:
        UnsupportedPDDL: If a literal has an unbound variable twice.
    """
    waiting = [*condition.literals, *_kinds(condition, domain, first)]
    places = {constant: place for place, constant in enumerate(constants)}
    steps = []

    def cost(literal: Literal) -> tuple[bool | str, ...]:
        new = [term for term in literal.terms if term not in places]
        joined = any(term in places and term.startswith("?") for term in literal.terms)
        fluent = literal.predicate in domain.fluents
        # First what only leaves rows out, then what follows from them, and first of this what actions change, above
        # all of the agent: often nothing is found there (an empty hand). Last the negations. By name, queries begin
        # alike.
        named = len(new) < len(literal.terms)
        of_first = first in literal.terms
        return (
            *(literal.negated, bool(new), literal.terms != (first,), not joined, fluent != joined),
            *(not of_first, not named, literal.predicate),
        )

    while waiting:
        literal = min(waiting, key=cost)
        waiting.remove(literal)
        known = [position for position, term in enumerate(literal.terms) if term in places]
        new = [term for term in literal.terms if term not in places]
        if (literal.negated and new) or len(set(new)) < len(new):
            raise UnsupportedPDDL("a variable twice in one literal")
        at = tuple(places[literal.terms[position]] for position in known)
        steps.append(Step((literal.predicate, tuple(known)), at, len(new), literal.negated))
        places |= {term: len(places) + number for number, term in enumerate(new)}
    return steps, {term: place for term, place in places.items() if term.startswith("?")}


def _kinds(condition: Condition, domain: Domain, first: str | None) -> list[Literal]:
    """Return the types of variables as literals, where facts do not imply them."""
    literals = []
    for variable, kind in condition.variables.items():
        implied = {
            domain.kinds[literal.predicate][position]
            for literal in condition.literals
            for position, term in enumerate(literal.terms)
            if term == variable and not literal.negated and literal.predicate != "="
        }
        fits = any(kind in (own, *domain.types.get(own, ())) for own in implied)
        if variable == first or not fits:
            literals.append(Literal(f"type {kind}", (variable,)))
    return literals


@cache
def getter(positions: tuple[int, ...]) -> Getter:
    """Return a function that takes the entities at positions: one as it is, several as a tuple."""
    return itemgetter(*positions) if positions else _nothing


def _nothing(row: Row) -> Row:
    return ()
