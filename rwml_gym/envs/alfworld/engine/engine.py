"""An engine for ALFWorld games that gives exactly the texts of textworld's engine, without textworld.

A game is compiled once (`compiled`). Then a step changes some facts, updates the admissible actions, and writes a text.
Engines share no mutable state: any number may play the same game, each in its own thread. `stock` is the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from rwml_gym.envs.alfworld.engine.compiled import CompiledGame, compile_game
from rwml_gym.envs.alfworld.engine.text import Row

__all__ = ["NOTHING_HAPPENS", "Engine", "GameEngine", "State"]

NOTHING_HAPPENS = "Nothing happens."
"""The answer to every command that is not admissible."""


class State(NamedTuple):
    """An observation and the admissible commands.

    Attributes:
        text: The answer to the last command, or the introduction.
        admissible: All admissible commands, sorted; the caller may keep and change the list.
        won: Whether the goal holds.
    """

    text: str
    admissible: list[str]
    won: bool


class GameEngine(Protocol):
    """An engine that plays one game at a time."""

    def start(self, game: Mapping[str, Any]) -> State:
        """Start a game from its beginning.

        Args:
            game: The content of a ``game.tw-pddl``: ``pddl_domain``, ``grammar``, ``pddl_problem``.
        """

    def step(self, command: str) -> State:
        """Send a command to the game; any string is allowed."""

    def close(self) -> None:
        """Release the engine's resources."""


class Engine:
    """The compiled engine, with the same texts and the same admissible commands as stock alfworld.

    If two actions have the same command, which happens in no ALFWorld game, it always takes the same one of them.

    Example:
        >>> from rwml_gym.envs.alfworld.games.generator import generate
        >>> engine = Engine()
        >>> engine.start(generate("any name", "pick_and_place_simple").data).won
        False
        >>> engine.step("dance").text
        'Nothing happens.'
    """

    def __init__(self) -> None:
        self._game: CompiledGame | None = None
        self._source: Mapping[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: the source of the game and what has changed in play."""
        if self._game is None:
            return {}
        fluents = self._game.fluents
        state = {name: getattr(self, name) for name in ("_true", "_missing", "_applicable", "_blocks", "_won")}
        facts = {p: rows for p, rows in self.facts.items() if p.removeprefix("not_") in fluents}
        return {**state, "source": self._source, "facts": facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        if state:
            state = dict(state)
            facts = state.pop("facts")
            compiled = self._open(state.pop("source"))
            self.__dict__.update(state, facts={**compiled.facts, **facts})
            self._update_commands(compiled)

    def start(self, game: Mapping[str, Any]) -> State:
        """Start a game (`GameEngine.start`).

        Raises:
            InvalidGameError: If the game needs a feature that only ``engine="textworld"`` has.
            Exception: Whatever textworld or fast-downward raises for a malformed game, including `SystemExit`.
        """
        compiled = self._open(game)
        self.facts: dict[str, set[Row]] = {
            predicate: rows if predicate.removeprefix("not_") not in compiled.fluents else set(rows)
            for predicate, rows in compiled.facts.items()
        }
        self._true = bytearray(compiled.true)
        self._missing = bytearray(compiled.missing)
        self._applicable = set(compiled.applicable)
        self._blocks = {literal for literal in compiled.alone if literal < 0 or self._holds(literal)}
        self._won: bool | None = None
        self._update_commands(compiled)
        return self._state(compiled, compiled.texts.intro(self, {}))

    def _open(self, game: Mapping[str, Any]) -> CompiledGame:
        """Set what stays as it is in play."""
        compiled = compile_game(game["pddl_domain"], game["grammar"], game["pddl_problem"])
        self._game = compiled
        self._source = {key: game[key] for key in ("pddl_domain", "grammar", "pddl_problem")}
        self.ids, self.names, self.goal_sentence = compiled.ids, compiled.names, compiled.goal_sentence
        return compiled

    def step(self, command: str) -> State:
        """Send a command to the game.

        Args:
            command: Any string; surrounding spaces are ignored. An inadmissible command changes nothing.
        """
        game = self._playing()
        operator = self._commands.get(command.strip())
        if operator is None:
            return self._state(game, NOTHING_HAPPENS)
        name, binding = game.action(operator)
        self._apply(game, operator)
        self._update_commands(game)
        return self._state(game, game.texts.feedback[name](self, binding))

    def close(self) -> None:
        """Forget the game; `start` begins another."""
        self._game = None

    def _playing(self) -> CompiledGame:
        if self._game is None:
            raise RuntimeError("Expected a started game, actual: none. Call Engine.start() first.")
        return self._game

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
