"""Play of a game whose operators fast-downward has grounded: the way for PDDL that `lifted` does not read.

A step changes some facts, and updates how many needs of each operator are missing.
"""

from __future__ import annotations

from typing import Any

from rwml_gym.envs.alfworld.engine.compiled import CompiledGame
from rwml_gym.envs.alfworld.engine.state import NOTHING_HAPPENS, State
from rwml_gym.envs.alfworld.engine.text import own_facts

__all__ = ["GroundedPlay"]


class GroundedPlay:
    """One play of a compiled game.

    Args:
        game: The game; plays share it.
    """

    def __init__(self, game: CompiledGame) -> None:
        self._game = game
        self.ids, self.names, self.goal_sentence = game.ids, game.names, game.goal_sentence
        self.facts = own_facts(game.facts, game.fluents)
        self._true = bytearray(game.true)
        self._missing = bytearray(game.missing)
        self._applicable = set(game.applicable)
        self._blocks = {literal for literal in game.alone if literal < 0 or self._holds(literal)}
        self._won: bool | None = None
        self._update_commands(game)

    def changes(self) -> dict[str, Any]:
        """Return what has changed in play."""
        fluents = self._game.fluents
        state = {name: getattr(self, name) for name in ("_true", "_missing", "_applicable", "_blocks", "_won")}
        facts = {p: rows for p, rows in self.facts.items() if p.removeprefix("not_") in fluents}
        return {**state, "facts": facts}

    def restore(self, changes: dict[str, Any]) -> None:
        """Go to the state of another play of this game, from its `changes`."""
        self.__dict__.update(changes, facts={**self.facts, **changes["facts"]})
        self._update_commands(self._game)

    def start(self) -> State:
        """Return the introduction."""
        return self._state(self._game, self._game.texts.intro(self, {}))

    def step(self, command: str) -> State:
        """Play a command (`Engine.step`)."""
        game = self._game
        operator = self._commands.get(command.strip())
        if operator is None:
            return self._state(game, NOTHING_HAPPENS)
        name, binding = game.action(operator)
        self._apply(game, operator)
        self._update_commands(game)
        return self._state(game, game.texts.feedback[name](self, binding))

    def _apply(self, game: CompiledGame, operator: int) -> None:
        literals = game.effects[operator]
        conditions = game.conditions.get(operator)
        fires = [all(map(self._holds, condition)) for condition in conditions] if conditions else None
        for index, literal in enumerate(literals):
            self._say_true(game, literal)
            if fires is None or fires[index]:
                self._make_true(game, literal)

    def _say_true(self, game: CompiledGame, literal: int) -> None:
        """Update the facts for the texts; like textworld, apply a conditional effect whether or not it fires."""
        predicate, row = game.atom(literal >> 1)
        untrue = f"not_{predicate}"
        added, removed = (untrue, predicate) if literal & 1 else (predicate, untrue)
        if added in self.facts:
            self.facts[added].add(row)
        if removed in self.facts:
            self.facts[removed].discard(row)

    def _make_true(self, game: CompiledGame, literal: int) -> None:
        if self._holds(literal):
            return
        variable, opposite = literal >> 1, literal ^ 1
        self._true[variable] ^= 1
        missing, applicable = self._missing, self._applicable
        for operator in game.needed_by[opposite]:
            if not missing[operator]:
                applicable.discard(operator)
            missing[operator] += 1
        for operator in game.needed_by[literal]:
            missing[operator] -= 1
            if not missing[operator]:
                applicable.add(operator)
        if opposite in game.alone:
            self._blocks.discard(opposite)
        if literal in game.alone:
            self._blocks.add(literal)
        if variable in game.goal_variables:
            self._won = None

    def _holds(self, literal: int) -> bool:
        return self._true[literal >> 1] != literal & 1

    def _goal_holds(self, game: CompiledGame) -> bool:
        derived: dict[int, int] = {}

        def holds(literal: int) -> bool:
            return derived.get(literal >> 1, self._true[literal >> 1]) != literal & 1

        for layer in game.axioms:
            pending = True
            while pending:
                pending = False
                for body, head in layer:
                    if not holds(head) and all(map(holds, body)):
                        derived[head >> 1] = 1 - (head & 1)
                        pending = True
        return all(map(holds, game.goal))

    def _update_commands(self, game: CompiledGame) -> None:
        commands: dict[str, int] = {}
        for literal in self._blocks:
            commands.update(game.block(literal))
        for operator in sorted(self._applicable, reverse=True):
            commands[game.command(operator)] = operator
        self._commands = commands

    def _state(self, game: CompiledGame, text: str) -> State:
        if self._won is None:
            self._won = self._goal_holds(game)
        return State(text, sorted(self._commands), self._won)
