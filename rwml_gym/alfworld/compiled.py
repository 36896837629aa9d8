"""A game compiled into what stays the same while it is played: shared by all who play it, its translation on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from itertools import accumulate, chain
from sys import intern
from typing import Any

from rwml_gym.alfworld import grammar
from rwml_gym.alfworld.game import entity_names
from rwml_gym.alfworld.text import Row, Texts
from rwml_gym.alfworld.translation import translate
from rwml_gym.disk_cache import DiskCache
from rwml_gym.errors import InvalidGameError

__all__ = ["GAMES_KEPT", "CompiledGame", "Literals", "compile_game"]

GAMES_KEPT = 64
"""How many games a process keeps in memory."""

FORMAT = "1"
"""Part of the key on disk: to be raised when the data of `translate` or of `grammar.parse` changes its meaning."""

_disk = DiskCache("alfworld", files=20_000)


class Literals:
    """Many short lists of numbers in two flat arrays, a tenth of the memory of tuples."""

    def __init__(self, lists: Iterable[Iterable[int]]) -> None:
        rows = [list(numbers) for numbers in lists]
        self._flat = array("I", chain.from_iterable(rows))
        self._ends = array("I", [0, *accumulate(len(row) for row in rows)])

    def __getitem__(self, index: int) -> array[int]:
        return self._flat[self._ends[index] : self._ends[index + 1]]

    def __len__(self) -> int:
        return len(self._ends) - 1


class CompiledGame:
    """The operators of a game, its first state and its texts.

    Whoever plays it copies what changes (`true`, `facts`, `missing`); nothing else here ever does, except for commands
    that are remembered once they were written.

    Attributes:
        ids: the entities, sorted by id; everywhere else they are numbers.
        names: what a text calls them.
        texts: the grammar of the game, with ``goal_sentence`` where it has `grammar.GOAL`.
        true: one byte a variable, 1 where it is true at the start.
        facts: what holds at the start, by each predicate that a text asks for.
        fluents: the predicates that some action changes.
        effects: of each operator, the literals it makes true; ``conditions`` of those that have some, in parallel.
        needed_by: by literal, the operators that need it together with others; such operators count in `missing`.
        alone: by literal, the operators that need nothing else; under -1 those that need nothing.
        missing: one byte an operator, how many of the literals it needs are false at the start.
        applicable: those of `needed_by` that can be taken at the start.
        goal: literals; ``axioms``: layers of (literals, literal) that say what follows from what.
        goal_variables: the variables on which the goal depends.
    """

    def __init__(self, data: Mapping[str, Any], texts: Texts, goal_sentence: str) -> None:
        """Lays out a translation.

        Args:
            data: as `translate` returns it.
            texts: the grammar of the game.
            goal_sentence: what `grammar.GOAL` stands for in it.

        Raises:
            InvalidGameError: something in it is beyond the compiled engine.
        """
        _check_types(data, texts)
        self.texts = texts
        self.goal_sentence = goal_sentence
        self.ids: list[str] = [entity for entity, _ in data["entities"]]
        named = entity_names({self.ids[entity] for _, *row in data["facts"] for entity in row})
        self.names = [intern(named.get(entity, entity)) for entity in self.ids]
        self._set_state(data)
        self._set_operators(data)
        self.goal: list[int] = data["goal"]
        self.axioms = data["axioms"]
        mentioned = chain(self.goal, *(body for layer in self.axioms for body, _ in layer))
        self.goal_variables = frozenset(literal >> 1 for literal in mentioned)

    def atom(self, variable: int) -> tuple[str, Row] | None:
        """The predicate and the entities of a variable; None if no text asks for it."""
        predicate = self._atom_predicates[variable]
        return (self._predicates[predicate], tuple(self._atom_rows[variable])) if predicate else None

    def action(self, operator: int) -> tuple[str, dict[str, int]]:
        """The action of an operator and the entities its parameters stand for."""
        name = self._actions[self._operator_actions[operator]]
        return name, dict(zip(self._parameters[name], self._arguments[operator], strict=False))

    def static_command(self, operator: int) -> str | None:
        """The command that takes an operator; None if it depends on the state."""
        command = self._commands.get(operator)
        if command is None:
            name, binding = self.action(operator)
            if name not in self._static:
                return None
            command = self._commands[operator] = intern(self.texts.commands[name](self, binding))
        return command

    def block(self, literal: int) -> dict[str, int]:
        """The commands, with their operators, that a literal admits on its own; not to be changed."""
        block = self._blocks.get(literal)
        if block is None:
            operators = self.alone.get(literal, ())
            block = self._blocks[literal] = {self.static_command(operator) or "": operator for operator in operators}
        return block

    def _set_state(self, data: Mapping[str, Any]) -> None:
        atoms, initial = data["atoms"], data["initial"]
        asked = self.texts.predicates
        self.fluents = frozenset(atom[0] for atom in atoms if atom)
        self._predicates = ["", *sorted(p for p in self.fluents if p in asked or f"not_{p}" in asked)]
        number = {predicate: index for index, predicate in enumerate(self._predicates)}
        self._atom_predicates = array("B", [number.get(atom[0], 0) if atom else 0 for atom in atoms])
        self._atom_rows = Literals(
            atom[1:] if atom and predicate else () for atom, predicate in zip(atoms, self._atom_predicates, strict=True)
        )
        self.true = bytearray(len(atoms))
        self.facts: dict[str, set[Row]] = {predicate: set() for predicate in asked}
        for predicate, *row in data["facts"]:
            if predicate in asked:
                self.facts[predicate].add(tuple(row))
        for variable in initial:
            self.true[variable] = 1
            atom = self.atom(variable)
            if atom is not None and atom[0] in asked:
                self.facts[atom[0]].add(atom[1])

    def _set_operators(self, data: Mapping[str, Any]) -> None:
        operators = data["operators"]
        self._actions = sorted(set(operators["action"]))
        number = {action: index for index, action in enumerate(self._actions)}
        self._operator_actions = array("H", [number[action] for action in operators["action"]])
        self._arguments = Literals(operators["arguments"])
        self._parameters = {
            action: [name for name, _ in parameters] for action, parameters in data["parameters"].items()
        }
        self._static = frozenset(action for action in self._actions if self.texts.is_static(action, self.fluents))
        self._commands: dict[int, str] = {}
        self._blocks: dict[int, dict[str, int]] = {}
        self.effects = Literals(operators["effects"])
        self.conditions: dict[int, list[list[int]]] = {int(o): c for o, c in operators["conditions"].items()}

        alone: dict[int, list[int]] = {}
        needed_by: list[list[int]] = [[] for _ in range(2 * len(self.true))]
        self.missing = bytearray(len(operators["needed"]))
        for operator, needed in enumerate(operators["needed"]):
            if len(needed) < 2 and operators["action"][operator] in self._static:
                alone.setdefault(needed[0] if needed else -1, []).append(operator)
                continue
            for literal in needed:
                needed_by[literal].append(operator)
                self.missing[operator] += self.true[literal >> 1] == literal & 1
        self.alone = alone
        self.needed_by = Literals(needed_by)
        self.applicable = frozenset(
            operator
            for operator, needed in enumerate(operators["needed"])
            if not self.missing[operator] and not (len(needed) < 2 and operators["action"][operator] in self._static)
        )


def _check_types(data: Mapping[str, Any], texts: Texts) -> None:
    """Makes sure that a query finds its facts by their predicate alone, without looking at types.

    textworld looks facts up by predicate and types. In a game where each predicate has the same types everywhere, and
    each placeholder of a query and each parameter of an action fits them, that comes to the same.
    """
    types = [kind for _, kind in data["entities"]]
    kinds: dict[str, tuple[str, ...]] = {}
    for predicate, *row in chain(data["facts"], filter(None, data["atoms"])):
        found = tuple(types[entity] for entity in row)
        if predicate in texts.predicates and kinds.setdefault(predicate, found) != found:
            raise InvalidGameError(
                f"Predicate {predicate!r} holds of {found} and of {kinds[predicate]}; "
                'play this game with engine="textworld".'
            )
    for predicate, placeholders in texts.queries:
        found = kinds.get(predicate.removeprefix("not_"), ())
        for placeholder, kind in zip(placeholders, found, strict=False):
            wanted = texts.placeholders[placeholder]
            if kind != wanted and wanted not in data["types"].get(kind, ()):
                raise InvalidGameError(
                    f"The text grammar asks for {predicate!r} of a {wanted}, the game has it of a {kind}; "
                    'play this game with engine="textworld".'
                )
    for action, parameters in data["parameters"].items():
        for name, kind in parameters:
            wanted = texts.placeholders.get(name, kind)
            if kind != wanted and kind in data["types"]:
                raise InvalidGameError(
                    f"Parameter {name!r} of action {action!r} is a {kind}, the text grammar takes it for a {wanted}; "
                    'play this game with engine="textworld".'
                )


@lru_cache(maxsize=GAMES_KEPT)
def compile_game(domain: str, text_grammar: str, problem: str) -> CompiledGame:
    """Compiles a game, or finds it among those of this process, or its translation on disk.

    Args:
        domain: PDDL domain.
        text_grammar: ``.twl2`` text grammar.
        problem: PDDL problem.
    """
    shared, goal = grammar.without_goal(text_grammar)
    texts = _texts(shared)
    made_by = ("fast_downward_textworld", metadata.version("fast_downward_textworld"))
    data = _disk.get((FORMAT, *made_by, domain, problem), lambda: translate(domain, problem))
    return CompiledGame(data, texts, goal)


@lru_cache(maxsize=8)
def _texts(text_grammar: str) -> Texts:
    made_by = ("textworld", metadata.version("textworld"))
    return Texts(_disk.get((FORMAT, *made_by, text_grammar), lambda: grammar.parse(text_grammar)))
