"""An engine for ALFWorld games that gives exactly the texts of textworld's engine, without textworld.

A game is played from its PDDL (`lifted`), or, if that has more than ALFWorld's domains use, from its translation by
fast-downward (`grounded`). Engines share no mutable state: any number may play the same game, each in its own thread.
`stock` is the reference.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from rwml_gym.envs.alfworld.engine import grammar
from rwml_gym.envs.alfworld.engine.compiled import CompiledGame, compile_game
from rwml_gym.envs.alfworld.engine.grounded import GroundedPlay
from rwml_gym.envs.alfworld.engine.lifted import LiftedGame, LiftedPlay
from rwml_gym.envs.alfworld.engine.pddl import UnsupportedPDDL
from rwml_gym.envs.alfworld.engine.state import NOTHING_HAPPENS, State
from rwml_gym.envs.alfworld.engine.text import Row, Texts
from rwml_gym.storage.disk_cache import content_hash

__all__ = ["GAMES_KEPT", "NOTHING_HAPPENS", "Engine", "GameEngine", "State", "forget_games"]

GAMES_KEPT = 64
"""Number of games that a process keeps in memory, less than 0.1 MB each, or 0.2 MB if fast-downward translated them."""


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
    """The engine of `ALFWorldEnv`, with the same texts and the same admissible commands as stock alfworld.

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
        self._play: LiftedPlay | GroundedPlay | None = None
        self._source: tuple[str, str, str] = ("", "", "")

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: the source of the game and what has changed in play."""
        return {} if self._play is None else {"source": self._source, "changes": self._play.changes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        if state:
            self._open(*state["source"]).restore(state["changes"])

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the game's entities, sorted."""
        return self._playing().ids

    @property
    def names(self) -> Sequence[str]:
        """Names of the entities in texts, in the order of `ids`."""
        return self._playing().names

    @property
    def facts(self) -> Mapping[str, Collection[Row]]:
        """What the texts are made from: the entities, as places in `ids`, of which each predicate holds."""
        return self._playing().facts

    def start(self, game: Mapping[str, Any]) -> State:
        """Start a game (`GameEngine.start`).

        Raises:
            InvalidGameError: If the game needs a feature that only ``engine="textworld"`` has.
            Exception: Whatever textworld or fast-downward raises for a malformed game, including `SystemExit`.
        """
        return self._open(game["pddl_domain"], game["grammar"], game["pddl_problem"]).start()

    def step(self, command: str) -> State:
        """Send a command to the game.

        Args:
            command: Any string; surrounding spaces are ignored. An inadmissible command changes nothing.
        """
        return self._playing().step(command)

    def close(self) -> None:
        """Forget the game; `start` begins another."""
        self._play = None

    def _open(self, domain: str, text_grammar: str, problem: str) -> LiftedPlay | GroundedPlay:
        game = _game(domain, text_grammar, problem)
        self._play = LiftedPlay(game) if isinstance(game, LiftedGame) else GroundedPlay(game)
        self._source = (domain, text_grammar, problem)
        return self._play

    def _playing(self) -> LiftedPlay | GroundedPlay:
        if self._play is None:
            raise RuntimeError("Expected a started game, actual: none. Call Engine.start() first.")
        return self._play


_games: OrderedDict[str, LiftedGame | CompiledGame] = OrderedDict()
_lock = threading.Lock()


def _game(domain: str, text_grammar: str, problem: str) -> LiftedGame | CompiledGame:
    """Return the constant part of a game, which this process may have in memory."""
    key = content_hash(domain, text_grammar, problem)  # the texts themselves would take half of a game's memory
    with _lock:
        if key in _games:
            _games.move_to_end(key)
            return _games[key]
    shared, goal = grammar.without_goal(text_grammar)
    texts = _texts(shared)
    game: LiftedGame | CompiledGame
    try:
        game = LiftedGame(domain, problem, texts, goal)
    except UnsupportedPDDL:
        game = compile_game(domain, problem, texts, goal)
    with _lock:
        _games[key] = game
        while len(_games) > GAMES_KEPT:
            _games.popitem(last=False)
    return game


@lru_cache(maxsize=8)
def _texts(text_grammar: str) -> Texts:
    return Texts(grammar.load(text_grammar))


def forget_games() -> None:
    """Empty the memory of this process; the files on disk stay."""
    with _lock:
        _games.clear()
    _texts.cache_clear()
