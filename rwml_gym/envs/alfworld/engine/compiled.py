"""Compiled games: the constant part of a game, shared by all engines that play it and kept on disk."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import metadata
from sys import intern
from typing import Any

from rwml_gym.envs.alfworld.engine import grammar
from rwml_gym.envs.alfworld.engine.layout import lay_out
from rwml_gym.envs.alfworld.engine.text import Row, Texts
from rwml_gym.envs.alfworld.engine.translation import translate
from rwml_gym.errors import InvalidGameError
from rwml_gym.storage.disk_cache import DiskCache, content_hash

__all__ = ["GAMES_KEPT", "CompiledGame", "Lists", "compile_game", "forget_games"]

GAMES_KEPT = 64
"""Number of games that a process keeps in memory, about 0.2 MB each."""

FORMAT = "2"
"""Part of the key on disk: raise it when the data of `lay_out` or of `grammar.parse` changes its meaning."""

_disk = DiskCache("alfworld", files=20_000)


class Lists:
    """Many short lists of numbers in two flat arrays, with a tenth of the memory of tuples."""

    def __init__(self, flat: Sequence[Sequence[int]]) -> None:
        self._numbers, self._ends = map(_packed, flat)

    def __getitem__(self, index: int) -> array[int]:
        return self._numbers[self._ends[index] : self._ends[index + 1]]


class CompiledGame:
    """The operators of a game, its initial state and its texts; `lay_out` describes the data.

    An engine copies what changes in play (`true`, `facts`, `missing`, `applicable`); here only the command cache does.

    Args:
        data: The data from `lay_out`, after a round trip through JSON.
        texts: The text grammar of the game.
        goal_sentence: The sentence for `grammar.GOAL` in the grammar.

    Raises:
        InvalidGameError: If the compiled engine does not support the game.
    """

    def __init__(self, data: Mapping[str, Any], texts: Texts, goal_sentence: str) -> None:
        self.texts = texts
        self.goal_sentence = goal_sentence
        self.ids: list[str] = data["ids"]
        self.names = [intern(name) for name in data["names"]]
        self.facts: dict[str, set[Row]] = {
            predicate: set(map(tuple, data["facts"].get(predicate, ()))) for predicate in texts.predicates
        }
        self.fluents = frozenset(data["predicates"])
        self.true = bytearray(len(data["atom_predicates"]))
        for variable in data["true"]:
            self.true[variable] = 1
        self._predicates: list[str] = data["predicates"]
        self._atom_predicates = bytes(data["atom_predicates"])
        self._atom_rows = Lists(data["atom_rows"])

        self._actions: list[str] = data["actions"]
        self._operator_actions = bytes(data["operator_actions"])
        self._arguments = Lists(data["arguments"])
        self._parameters = {
            action: tuple(name for name, _ in parameters) for action, parameters in data["parameters"].items()
        }
        self._commands: dict[int, str] = {}
        self._blocks: dict[int, dict[str, int]] = {}
        self.effects = Lists(data["effects"])
        self.conditions: dict[int, list[list[int]]] = {int(o): c for o, c in data["conditions"].items()}
        self.alone = {int(literal): _packed(operators) for literal, operators in data["alone"].items()}
        self.needed_by = Lists(data["needed_by"])
        self.missing = bytearray(data["missing"])
        self.applicable: list[int] = data["applicable"]

        self.goal: list[int] = data["goal"]
        self.axioms: list[Any] = data["axioms"]
        self.goal_variables = frozenset(data["goal_variables"])
        _check_types(data, texts)
        for action in self._actions:
            if not texts.is_static(action, self.fluents):
                raise InvalidGameError(
                    f'Expected a constant command, actual: action {action!r}. Play this game with engine="textworld".'
                )

    def atom(self, variable: int) -> tuple[str, Row]:
        """Return the predicate and the entities of a variable."""
        return self._predicates[self._atom_predicates[variable]], tuple(self._atom_rows[variable])

    def action(self, operator: int) -> tuple[str, dict[str, int]]:
        """Return the action of an operator and the entities for its parameters."""
        name = self._actions[self._operator_actions[operator]]
        return name, dict(zip(self._parameters[name], self._arguments[operator], strict=False))

    def command(self, operator: int) -> str:
        """Return the command of an operator, which is the same in every state."""
        command = self._commands.get(operator)
        if command is None:
            name, binding = self.action(operator)
            command = self._commands[operator] = intern(self.texts.commands[name](self, binding))
        return command

    def block(self, literal: int) -> dict[str, int]:
        """Return the commands that a literal alone makes admissible, with their operators; do not change them."""
        block = self._blocks.get(literal)
        if block is None:
            # backwards, so that the first of several operators with the same command is used
            block = self._blocks[literal] = {self.command(o): o for o in reversed(self.alone[literal])}
        return block


def _packed(numbers: Sequence[int]) -> array[int]:
    """Pack the numbers into an array of the smallest sufficient unsigned type, of two or four bytes."""
    return array("H" if max(numbers, default=0) < 2**16 else "I", numbers)


def _check_types(data: Mapping[str, Any], texts: Texts) -> None:
    """Check that a query finds its facts by their predicate alone, without types.

    textworld finds facts by predicate and types. If each predicate has the same types everywhere, and each placeholder
    of a query and each parameter of an action fits them, the result is the same.
    """
    for predicate, placeholders in texts.queries:
        signatures = data["signatures"].get(predicate.removeprefix("not_"), ())
        fits = all(
            kind == texts.placeholders[placeholder] or texts.placeholders[placeholder] in data["types"].get(kind, ())
            for signature in signatures
            for placeholder, kind in zip(placeholders, signature, strict=False)
        )
        if len(signatures) > 1 or not fits:
            raise InvalidGameError(
                f"Expected the text grammar's types of {placeholders} for {predicate!r}, actual: {signatures}. "
                'Play this game with engine="textworld".'
            )
    for action, parameters in data["parameters"].items():
        for name, kind in parameters:
            wanted = texts.placeholders.get(name, kind)
            if kind != wanted and kind in data["types"]:
                raise InvalidGameError(
                    f"Expected parameter {name!r} of action {action!r} to be a {wanted}, as in the text grammar, "
                    f'actual: {kind}. Play this game with engine="textworld".'
                )


_games: OrderedDict[str, CompiledGame] = OrderedDict()
_lock = threading.Lock()


def compile_game(domain: str, text_grammar: str, problem: str) -> CompiledGame:
    """Compile a game, or find it in this process's memory, or find its translation on disk.

    Args:
        domain: The PDDL domain.
        text_grammar: The ``.twl2`` text grammar.
        problem: The PDDL problem.
    """
    key = content_hash(domain, text_grammar, problem)  # the texts themselves would take half of a game's memory
    with _lock:
        if key in _games:
            _games.move_to_end(key)
            return _games[key]
    shared, goal = grammar.without_goal(text_grammar)
    made_by = (FORMAT, "fast_downward_textworld", _version("fast_downward_textworld"))
    texts = _texts(shared)
    game = _disk.get(
        (*made_by, domain, problem),
        lambda: lay_out(translate(domain, problem)),
        lambda data: CompiledGame(data, texts, goal),
    )
    with _lock:
        _games[key] = game
        while len(_games) > GAMES_KEPT:
            _games.popitem(last=False)
    return game


def forget_games() -> None:
    """Empty the memory of this process; the files on disk stay."""
    with _lock:
        _games.clear()
    _texts.cache_clear()


@lru_cache(maxsize=8)
def _texts(text_grammar: str) -> Texts:
    made_by = (FORMAT, "textworld", _version("textworld"))
    return _disk.get((*made_by, text_grammar), lambda: grammar.parse(text_grammar), Texts)


_version = cache(metadata.version)  # each call reads a file
