"""Play of a game from its PDDL: what may be done is looked up in the facts, and no operator is written down beforehand.

The actions of a domain are queries (`queries`) for the entities that they can be applied to. After a command, the
queries are answered anew as far as they depend on what actions change; what depends on facts that never change is
looked up once for a game (*blocks*). So a new game costs little more than reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from rwml_gym.envs.alfworld.engine.game import entity_names
from rwml_gym.envs.alfworld.engine.pddl import (
    Condition,
    Domain,
    Effect,
    Literal,
    Schema,
    UnsupportedPDDL,
    read_domain,
    read_problem,
)
from rwml_gym.envs.alfworld.engine.queries import Index, Key, Node, Rows, getter, index, plan, update
from rwml_gym.envs.alfworld.engine.state import NOTHING_HAPPENS, State
from rwml_gym.envs.alfworld.engine.text import Row, Texts, own_facts
from rwml_gym.errors import InvalidGameError

__all__ = ["LiftedGame", "LiftedPlay"]

Operator = tuple[int, Row]
"""The number of a schema, and the entities of its variables."""
Block = dict[str, Operator]
"""Commands, and what they do."""


class _Action:
    """A schema, whose variables have places in a row.

    Args:
        schema: The schema.
        places: The place of each variable and constant in a row.

    Attributes:
        is_plain: Whether all its effects fire in every state.
    """

    def __init__(self, schema: Schema, places: Mapping[str, int]) -> None:
        self.name = schema.name
        self.places = places
        self.parameters = [(variable.removeprefix("?"), places[variable]) for variable, _ in schema.parameters]
        self.effects = [_Change(effect, places) for effect in schema.effects]
        self._unless = _unless_same(schema, places)
        made_true = {each.predicate for each in self.effects if not each.negated}
        undone = any(each.negated and each.predicate in made_true for each in self.effects)
        self.is_plain = not any(each.asked for each in self.effects) and (not undone or bool(self._unless))

    def binding(self, row: Row) -> dict[str, int]:
        """Return the entity of each parameter."""
        return {name: row[place] for name, place in self.parameters}

    def working(self, rows: Rows) -> Rows:
        """Leave out the rows that change no fact; fast-downward has no operators for them, such as to go nowhere."""
        for one, other in self._unless:
            rows = [row for row in rows if row[one] != row[other]]
        return rows


def _unless_same(schema: Schema, places: Mapping[str, int]) -> set[tuple[int, int]]:
    """Return pairs of places: if they have the same entity, the schema changes no fact.

    An effect is in vain if it is needed anyway, or undone by another one.

    Raises:
        UnsupportedPDDL: If it takes more than one pair to say so.
    """
    pairs = set()
    for effect in schema.effects:
        stronger = [need for need in schema.precondition.literals if need.negated == effect.literal.negated]
        if effect.literal.negated:
            alike = [other for other in schema.effects if other.condition == effect.condition]
            stronger += [other.literal for other in alike if not other.literal.negated]
        vain = [
            [(places[a], places[b]) for a, b in zip(effect.literal.terms, other.terms, strict=True) if a != b]
            for other in stronger
            if other.predicate == effect.literal.predicate
        ]
        if not vain:
            return set()  # this effect is never in vain
        if len(vain) > 1 or len(vain[0]) != 1:
            raise UnsupportedPDDL(f"effects of {schema.name} that may be in vain")
        pairs.add((min(vain[0][0]), max(vain[0][0])))
    if len(pairs) > 1:
        raise UnsupportedPDDL(f"effects of {schema.name} that may be in vain")
    return pairs


class _Lookup:
    """A literal whose terms have places in a row."""

    def __init__(self, literal: Literal, places: Mapping[str, int]) -> None:
        self.predicate = literal.predicate
        self.negated = literal.negated
        self.places = tuple(places[term] for term in literal.terms)

    def atom(self, row: Row) -> Row:
        """Return the entities of the fact."""
        return tuple([row[place] for place in self.places])


class _Change(_Lookup):
    """An effect whose terms have places in a row."""

    def __init__(self, effect: Effect, places: Mapping[str, int]) -> None:
        super().__init__(effect.literal, places)
        self.conditions = effect.condition
        self.asked = [_Lookup(literal, places) for literal in effect.condition]
        said = (self.predicate, f"not_{self.predicate}")
        self.added, self.removed = reversed(said) if self.negated else said


class _Rules(NamedTuple):
    """A domain as queries.

    Attributes:
        domain: The domain.
        constants: The entities that it names, with which each row starts.
        actions: The schemas.
        tree: The queries for what they can be applied to.
        nodes: All nodes of the tree.
        effect_types: The types with which each predicate occurs in effects.
    """

    domain: Domain
    constants: tuple[str, ...]
    actions: tuple[_Action, ...]
    tree: Node
    nodes: tuple[Node, ...]
    effect_types: Mapping[str, frozenset[tuple[str, ...]]]


@lru_cache(maxsize=8)
def _rules(text: str) -> _Rules:
    domain = read_domain(text)
    constants = tuple(sorted({term for schema in domain.schemas for term in _constants(schema)}))
    fixed = {constant: place for place, constant in enumerate(constants)}
    tree = Node()
    actions = []
    effect_types: dict[str, set[tuple[str, ...]]] = {}
    for number, schema in enumerate(domain.schemas):
        first = schema.parameters[0][0] if schema.parameters else None
        steps, places = plan(schema.precondition, domain, constants, first)
        actions.append(_Action(schema, fixed | places))
        tree.add(steps, number, domain.fluents)
        for effect in schema.effects:
            variables = schema.precondition.variables
            kinds = tuple(variables.get(term, "") for term in effect.literal.terms)
            effect_types.setdefault(effect.literal.predicate, set()).add(kinds)
    return _Rules(
        domain,
        constants,
        tuple(actions),
        tree,
        tuple(tree.walk()),
        {p: frozenset(found) for p, found in effect_types.items()},
    )


def _constants(schema: Schema) -> Iterable[str]:
    literals = [*schema.precondition.literals, *(effect.literal for effect in schema.effects)]
    return (term for literal in literals for term in literal.terms if not term.startswith("?"))


def _fits(domain: Domain) -> Callable[[str, str], bool]:
    return lambda kind, wanted: wanted in (kind, *domain.types.get(kind, ()))


class _Constant(dict[Key, Index]):
    """The facts of a game that never change, each indexed when it is first looked up."""

    def __init__(self, facts: Mapping[str, Iterable[Row]], kinds: Sequence[str], domain: Domain) -> None:
        super().__init__()
        self._facts = facts
        self._kinds = kinds
        self._domain = domain

    def __missing__(self, key: Key) -> Index:
        predicate, positions = key
        if predicate == "=":
            facts: Iterable[Row] = [(entity, entity) for entity in range(len(self._kinds))]
        elif predicate.startswith("type "):
            wanted = predicate.removeprefix("type ")
            fitting = {kind for kind, above in self._domain.types.items() if wanted in (kind, *above)}
            facts = [(entity,) for entity, kind in enumerate(self._kinds) if kind in fitting]
        else:
            facts = self._facts.get(predicate, ())
        found = self[key] = index(facts, positions)
        return found


class _Indexes(dict[Key, Index]):
    """The facts of a play, each indexed when it is first looked up.

    Args:
        true: The facts that hold now and may change.
        constant: The facts that never change.
    """

    def __init__(self, true: Mapping[str, set[Row]], constant: _Constant) -> None:
        super().__init__()
        self._true = true
        self._constant = constant
        self._changing: dict[str, list[tuple[tuple[int, ...], dict[Any, set[Row]]]]] = {p: [] for p in true}

    def __missing__(self, key: Key) -> Index:
        predicate, positions = key
        if predicate in self._true:
            found = self[key] = index(self._true[predicate], positions)
            self._changing[predicate].append((positions, found))
        else:
            self[key] = self._constant[key]
        return self[key]

    def update_facts(self, predicate: str, atom: Row, removed: bool) -> None:
        """Add a fact, or remove it."""
        for positions, found in self._changing[predicate]:
            update(found, atom, positions, removed)


class LiftedGame:
    """The constant part of a game, shared by all plays; only what has been looked up is added to it.

    Args:
        domain: The PDDL domain.
        problem: The PDDL problem.
        texts: The text grammar of the game.
        goal_sentence: The sentence for `grammar.GOAL` in the grammar.

    Raises:
        UnsupportedPDDL: If only fast-downward can translate the game.
    """

    def __init__(self, domain: str, problem: str, texts: Texts, goal_sentence: str) -> None:
        self.rules = rules = _rules(domain)
        read = read_problem(problem, rules.domain)
        self.texts = texts
        self.goal_sentence = goal_sentence
        self.ids = sorted(read.entities)
        number = {name: index for index, name in enumerate(self.ids)}
        try:
            facts = {
                predicate: {tuple([number[name] for name in row]) for row in rows}
                for predicate, rows in read.facts.items()
            }
        except KeyError as error:
            raise UnsupportedPDDL(f"facts about {error}") from error
        kinds = [read.entities[name] for name in self.ids]
        self._check(facts, kinds)
        names = entity_names({self.ids[entity] for rows in facts.values() for row in rows for entity in row})
        self.names = [names.get(entity, entity) for entity in self.ids]

        fluents = rules.domain.fluents
        self.facts = {predicate: facts.get(predicate, set()) for predicate in texts.predicates}
        self.initial = {predicate: facts.get(predicate, set()) for predicate in fluents}
        self.constant = _Constant(facts, kinds, rules.domain)
        self.row = tuple(number.get(constant, -1) for constant in rules.constants)
        self.goal = [_Goal(condition, rules.domain, number) for condition in read.goal]
        self.goal_predicates = frozenset(each.predicate for condition in read.goal for each in condition.literals)
        # the command of an action by the entities that it names, which are the same for many rows
        self._commands: list[dict[Any, str]] = [{} for _ in rules.actions]
        self._named = [
            getter(tuple(place for name, place in action.parameters if name in texts.used[action.name]))
            for action in rules.actions
        ]
        self.blocks: dict[Node, dict[Row, Block]] = {node: {} for node in rules.nodes}

    def _check(self, facts: Mapping[str, set[Row]], kinds: Sequence[str]) -> None:
        """Check that facts have the declared types, on which queries rely, and those of the text grammar."""
        domain = self.rules.domain
        fits = _fits(domain)
        signatures: dict[str, set[tuple[str, ...]]] = {p: set(found) for p, found in self.rules.effect_types.items()}
        for predicate, rows in facts.items():
            found = {tuple([kinds[entity] for entity in row]) for row in rows}
            if not all(all(map(fits, signature, domain.kinds[predicate])) for signature in found):
                raise UnsupportedPDDL(f"facts of {predicate} on other types than declared")
            signatures.setdefault(predicate, set()).update(found)
        parameters = {
            schema.name: [(variable.removeprefix("?"), kind) for variable, kind in schema.parameters]
            for schema in domain.schemas
        }
        try:
            self.texts.check_types(signatures, domain.types, parameters)
            self.texts.check_commands(parameters, domain.fluents)
        except (InvalidGameError, KeyError) as error:
            raise UnsupportedPDDL(f"texts: {error}") from error

    def block(self, node: Node, row: Row) -> Block:
        """Write to `blocks` and return the commands that follow from a row at a node and facts that never change."""
        found: Block = {}
        self._fill(node, [row], found)
        block = self.blocks[node][row] = dict(sorted(found.items()))  # sorted parts are soon sorted together
        return block

    def _fill(self, node: Node, rows: Rows, into: Block) -> None:
        for number in node.results:
            action, commands, named = self.rules.actions[number], self._commands[number], self._named[number]
            works = action.working(rows)
            for entities, row in zip(map(named, works), works, strict=True):
                if entities not in commands:
                    commands[entities] = self.texts.commands[action.name](self, action.binding(row))
                into[commands[entities]] = (number, row)
        for child in node.constant:
            found = child.advance(rows, self.constant[child.key])
            if found:
                self._fill(child, found, into)


class _Goal:
    """One way to reach the goal: a chain of steps."""

    def __init__(self, condition: Condition, domain: Domain, number: Mapping[str, int]) -> None:
        terms = [term for literal in condition.literals for term in literal.terms]
        constants = sorted({term for term in terms if not term.startswith("?")})
        steps, _ = plan(condition, domain, constants)
        self.row = tuple(number.get(constant, -1) for constant in constants)
        self.nodes = [Node(step, step.key[0] in domain.fluents) for step in steps]


class LiftedPlay:
    """One play of a game.

    Args:
        game: The game; plays share it.
    """

    def __init__(self, game: LiftedGame) -> None:
        self._game = game
        self.ids, self.names, self.goal_sentence = game.ids, game.names, game.goal_sentence
        self.facts = own_facts(game.facts, game.initial)
        self._set({predicate: set(rows) for predicate, rows in game.initial.items()})

    def _set(self, true: dict[str, set[Row]]) -> None:
        """Set the facts that hold now and may change."""
        self._true = true
        self._indexes = _Indexes(true, self._game.constant)
        self._won: bool | None = None
        self._look_up()

    def changes(self) -> dict[str, Any]:
        """Return what has changed in play."""
        return {
            "true": {p: set(rows) for p, rows in self._true.items()},
            "facts": {p: set(rows) for p, rows in self.facts.items() if p.removeprefix("not_") in self._true},
        }

    def restore(self, changes: dict[str, Any]) -> None:
        """Go to the state of another play of this game, from its `changes`."""
        self.facts |= changes["facts"]
        self._set(changes["true"])

    def start(self) -> State:
        """Return the introduction."""
        return self._state(self._game.texts.intro(self, {}))

    def step(self, command: str) -> State:
        """Play a command (`Engine.step`)."""
        operator = self._commands.get(command.strip())
        if operator is None:
            return self._state(NOTHING_HAPPENS)
        number, row = operator
        action = self._game.rules.actions[number]
        changed = self._apply(action, row)
        if not changed.isdisjoint(self._game.goal_predicates):
            self._won = None
        if not changed.isdisjoint(self._game.rules.tree.fluents):
            self._look_up()
        return self._state(self._game.texts.feedback[action.name](self, action.binding(row)))

    def _state(self, text: str) -> State:
        if self._won is None:
            self._won = any(map(self._is_reached, self._game.goal))
        return State(text, list(self._admissible), self._won)

    # Facts

    def _apply(self, action: _Action, row: Row) -> set[str]:
        """Apply an action; return the predicates with changed facts."""
        changed = set()
        for effect, atom, fires in self._effects(action, row):
            # for the texts, an effect is applied whether or not it fires, as in textworld
            if effect.added in self.facts:
                self.facts[effect.added].add(atom)
            if effect.removed in self.facts:
                self.facts[effect.removed].discard(atom)
            if fires and self._make(effect.predicate, atom, effect.negated):
                changed.add(effect.predicate)
        return changed

    def _effects(self, action: _Action, row: Row) -> list[tuple[_Change, Row, bool]]:
        """Return the effects, their facts, and whether they fire."""
        if action.is_plain:
            return [(effect, effect.atom(row), True) for effect in action.effects]
        effects = [
            (each, each.atom(row), all(self._holds(asked, row) for asked in each.asked)) for each in action.effects
        ]
        # what is made true stays true
        stated = {(each.predicate, atom, each.conditions) for each, atom, _ in effects if not each.negated}
        made_true = {(each.predicate, atom) for each, atom, fires in effects if fires and not each.negated}
        return [
            (each, atom, fires and not (each.negated and (each.predicate, atom) in made_true))
            for each, atom, fires in effects
            if not (each.negated and (each.predicate, atom, each.conditions) in stated)
        ]

    def _holds(self, lookup: _Lookup, row: Row) -> bool:
        return (lookup.atom(row) in self._true[lookup.predicate]) != lookup.negated

    def _make(self, predicate: str, atom: Row, negated: bool) -> bool:
        """Make a fact true or false; return whether it was not."""
        true = self._true[predicate]
        if (atom in true) != negated:
            return False
        if negated:
            true.discard(atom)
        else:
            true.add(atom)
        self._indexes.update_facts(predicate, atom, negated)
        return True

    # Queries

    def _look_up(self) -> None:
        """Find what may be done."""
        game, indexes = self._game, self._indexes
        commands: Block = {}
        pending: list[tuple[Node, Rows]] = [(game.rules.tree, [game.row])]
        while pending:
            node, rows = pending.pop()
            if node.has_block:
                blocks = game.blocks[node]
                for row in rows:
                    block = blocks.get(row)
                    commands.update(game.block(node, row) if block is None else block)
            for child, key, advance in node.next:
                found = advance(rows, indexes[key])
                if found:
                    pending.append((child, found))
        self._commands = commands
        self._admissible = sorted(commands)

    def _is_reached(self, goal: _Goal) -> bool:
        rows = [goal.row]
        for node in goal.nodes:
            rows = node.advance(rows, self._indexes[node.key])
        return bool(rows)
