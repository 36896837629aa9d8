"""Games that fast-downward has translated: their constant part, shared by all plays and kept on disk."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from sys import intern
from typing import Any

from rwml_gym.envs.alfworld.engine.layout import lay_out
from rwml_gym.envs.alfworld.engine.text import Row, Texts
from rwml_gym.envs.alfworld.engine.translation import translate
from rwml_gym.storage.disk_cache import DiskCache

__all__ = ["CompiledGame", "Lists", "compile_game"]

FORMAT = "2"
"""Part of the key on disk: raise it when the data of `lay_out` changes its meaning."""

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
        InvalidGameError: If `engine.Engine` does not support the game.
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
        texts.check_types(data["signatures"], data["types"], data["parameters"])
        texts.check_commands(self._actions, self.fluents)

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


def compile_game(domain: str, problem: str, texts: Texts, goal_sentence: str) -> CompiledGame:
    """Translate a game with fast-downward, or find its translation on disk.

    Args:
        domain: The PDDL domain.
        problem: The PDDL problem.
        texts: The text grammar of the game.
        goal_sentence: The sentence for `grammar.GOAL` in the grammar.
    """
    return _disk.get(
        (FORMAT, "fast_downward_textworld", version("fast_downward_textworld"), domain, problem),
        lambda: lay_out(translate(domain, problem)),
        lambda data: CompiledGame(data, texts, goal_sentence),
    )


version = cache(metadata.version)  # each call reads a file
